use std::time::Duration;

use prometheus_client::registry::Registry;
use proptest::prelude::*;

use super::*;
use crate::env::SimEnv;

fn queue(sim: &SimEnv) -> WorkQueue<u32> {
    WorkQueue::new(
        sim.env(),
        RateLimit::exponential(Duration::from_millis(5), Duration::from_secs(1000)),
    )
}

#[test]
fn what_is_added_while_it_is_worked_on_comes_again_afterwards() {
    let sim = SimEnv::new(1);
    let queue = queue(&sim);
    sim.block_on(async move {
        queue.add(1);
        queue.add(1);
        assert_eq!(queue.get().await, Some(1));
        queue.add(1);
        queue.add(2);
        assert_eq!(queue.len(), 1, "1 must not be handed out twice at once");
        assert_eq!(queue.get().await, Some(2));
        queue.done(&1);
        assert_eq!(queue.get().await, Some(1));
    });
}

#[test]
fn waits_double_until_forgotten() {
    let limit = RateLimit::exponential(Duration::from_millis(5), Duration::from_secs(1000));
    let waits: Vec<u128> = (0..4).map(|n| limit.wait_after(n).as_millis()).collect();
    assert_eq!(waits, [5, 10, 20, 40]);
    for n in [18, 31, 32, 100] {
        assert_eq!(limit.wait_after(n), Duration::from_secs(1000));
    }
    let sim = SimEnv::new(1);
    let queue = queue(&sim);
    let env = sim.env();
    sim.block_on(async move {
        for expected in [5, 10, 20] {
            let began = env.now();
            queue.add_rate_limited(7);
            assert_eq!(queue.get().await, Some(7));
            assert_eq!(env.now().since(began), Duration::from_millis(expected));
            queue.done(&7);
        }
        assert_eq!(queue.num_requeues(&7), 3);
        queue.forget(&7);
        assert_eq!(queue.num_requeues(&7), 0);
    });
}

#[test]
fn the_earlier_of_two_times_counts() {
    let sim = SimEnv::new(1);
    let queue = queue(&sim);
    let env = sim.env();
    sim.block_on(async move {
        queue.add_after(1, Duration::from_secs(10));
        let getter = {
            let queue = queue.clone();
            async move { queue.get().await }
        };
        let sooner = async {
            env.sleep(Duration::from_secs(1)).await;
            queue.add_after(1, Duration::from_secs(2));
            queue.add_after(1, Duration::from_secs(20));
        };
        let (got, ()) = futures::future::join(getter, sooner).await;
        assert_eq!(got, Some(1));
        assert_eq!(env.now().since_start(), Duration::from_secs(3));
        assert_eq!(queue.waiting(), 0);
    });
}

#[test]
fn the_common_bucket_slows_a_storm() {
    let sim = SimEnv::new(1);
    let queue = WorkQueue::new(
        sim.env(),
        RateLimit {
            bucket: Some((10.0, 2)),
            ..RateLimit::default()
        },
    );
    let env = sim.env();
    sim.block_on(async move {
        for item in 0..12 {
            queue.add_rate_limited(item);
        }
        for _ in 0..12 {
            queue.get().await;
        }
        assert_eq!(env.now().since_start(), Duration::from_secs(1));
    });
}

#[test]
fn shutting_down_drains() {
    let sim = SimEnv::new(1);
    let queue = queue(&sim);
    let env = sim.env();
    sim.block_on(async move {
        queue.add(1);
        queue.add(2);
        queue.add_after(3, Duration::from_secs(1));
        let worker = {
            let (queue, env) = (queue.clone(), env.clone());
            async move {
                let mut seen = Vec::new();
                while let Some(item) = queue.get().await {
                    env.sleep(Duration::from_secs(5)).await;
                    queue.done(&item);
                    seen.push(item);
                }
                seen
            }
        };
        let (seen, ()) = futures::future::join(worker, queue.shut_down_with_drain()).await;
        assert_eq!(seen, [1, 2]);
        queue.add(4);
        assert_eq!(queue.get().await, None);
    });
}

#[test]
fn the_metrics_have_kubernetes_names() {
    let sim = SimEnv::new(1);
    let mut registry = Registry::default();
    let metrics = WorkQueueMetrics::register(&mut registry);
    let queue =
        WorkQueue::with_metrics(sim.env(), RateLimit::default(), metrics.queue("deployment"));
    sim.block_on(async move {
        queue.add(1);
        queue.add(2);
        queue.get().await;
        queue.add_rate_limited(1);
        queue.observe();
    });
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        "workqueue_depth{name=\"deployment\"} 1",
        "workqueue_adds_total{name=\"deployment\"} 2",
        "workqueue_retries_total{name=\"deployment\"} 1",
        "workqueue_queue_duration_seconds_count{name=\"deployment\"} 1",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Add(u32),
    Get,
    Done(usize),
}

proptest! {
    /// Whatever is added is handed out after its last addition, never to two at once, and in order of first addition.
    #[test]
    fn nothing_is_lost_and_nothing_is_worked_on_twice_at_once(
        steps in proptest::collection::vec(prop_oneof![
            (0..5u32).prop_map(Step::Add), Just(Step::Get), (0..3usize).prop_map(Step::Done)], 0..80)
    ) {
        let sim = SimEnv::new(1);
        let queue = queue(&sim);
        sim.block_on(async move {
            let mut open: Vec<u32> = Vec::new();
            let mut owed: BTreeSet<u32> = BTreeSet::new();
            for step in steps {
                match step {
                    Step::Add(item) => {
                        queue.add(item);
                        owed.insert(item);
                    }
                    Step::Get if !queue.is_empty() => {
                        let item = queue.get().await.unwrap();
                        assert!(!open.contains(&item) && owed.remove(&item));
                        open.push(item);
                    }
                    Step::Done(n) if n < open.len() => queue.done(&open.remove(n)),
                    _ => {}
                }
            }
            for item in open {
                queue.done(&item);
            }
            queue.shut_down();
            while let Some(item) = queue.get().await {
                assert!(owed.remove(&item));
                queue.done(&item);
            }
            assert!(owed.is_empty());
        });
    }
}

#[test]
fn a_worker_that_gives_up_leaves_the_item_to_another() {
    let sim = SimEnv::new(1);
    let queue = queue(&sim);
    let env = sim.env();
    sim.block_on(async move {
        let impatient = env.timeout(Duration::from_secs(1), queue.get()).await;
        assert!(impatient.is_err());
        queue.add(1);
        assert_eq!(queue.get().await, Some(1));
    });
}
