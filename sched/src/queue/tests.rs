use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::profile::Profile;

fn queue() -> SchedulingQueue {
    let framework = Framework::new(Profile::default_scheduler()).unwrap();
    let frameworks = BTreeMap::from([("default-scheduler".to_owned(), Arc::new(framework))]);
    SchedulingQueue::new(Arc::new(frameworks), QueueOptions::default())
}

fn pod_with(name: &str, spec: serde_json::Value) -> Arc<PodInfo> {
    let value = json!({"metadata": {"name": name, "namespace": "d", "uid": name}, "spec": spec});
    Arc::new(PodInfo::from_value(value).unwrap())
}

fn pod(name: &str, priority: i32) -> Arc<PodInfo> {
    pod_with(name, json!({"priority": priority, "containers": []}))
}

fn at(milliseconds: u64) -> Moment {
    Moment::START + Duration::from_millis(milliseconds)
}

fn place_of(name: &str) -> PluginSet {
    let framework = Framework::new(Profile::default_scheduler()).unwrap();
    let place = (0..10)
        .find(|place| framework.plugin_name(*place) == name)
        .unwrap();
    1 << place
}

fn fail(queue: &mut SchedulingQueue, attempt: Attempt, refused_by: PluginSet, now: Moment) {
    let pod = attempt.pod().clone();
    queue.add_unschedulable(attempt, pod, refused_by, now);
}

#[test]
fn a_failure_waits_for_an_event_that_means_something() {
    let mut queue = queue();
    queue.add(pod("a", 0), at(0));
    let attempt = queue.pop(at(0)).unwrap();
    assert_eq!(attempt.number(), 1);
    fail(&mut queue, attempt, place_of("NodeResourcesFit"), at(0));
    assert_eq!(
        queue.depths(),
        Depths {
            unschedulable: 1,
            ..Depths::default()
        }
    );
    assert!(queue.pop(at(60_000)).is_none());

    queue.happened(
        ClusterEvent::new(EventResource::Node, Actions::UPDATE_NODE_TAINT),
        at(60_000),
    );
    assert!(
        queue.pop(at(60_000)).is_none(),
        "taints mean nothing to NodeResourcesFit"
    );
    queue.happened(
        ClusterEvent::new(EventResource::AssignedPod, Actions::DELETE),
        at(60_000),
    );
    assert_eq!(queue.depths().active, 1);
    assert_eq!(queue.pop(at(60_000)).unwrap().number(), 2);
}

#[test]
fn an_event_during_the_attempt_is_not_missed() {
    let mut queue = queue();
    queue.add(pod("a", 0), at(0));
    let attempt = queue.pop(at(0)).unwrap();
    queue.happened(
        ClusterEvent::new(EventResource::AssignedPod, Actions::DELETE),
        at(1),
    );
    fail(&mut queue, attempt, place_of("NodeResourcesFit"), at(2));
    assert_eq!(
        queue.depths(),
        Depths {
            backoff: 1,
            ..Depths::default()
        }
    );
    assert!(queue.events.is_empty(), "nobody needs the event any more");
    // Nothing else is to be done, so its wait is cut short.
    assert!(queue.pop(at(3)).is_some());
}

#[test]
fn after_errors_the_wait_doubles_up_to_ten_seconds() {
    let mut queue = queue();
    queue.add(pod("a", 0), at(0));
    let mut now = at(0);
    for seconds in [1, 2, 4, 8, 10, 10] {
        let attempt = queue.pop(now).unwrap();
        fail(&mut queue, attempt, 0, now);
        assert!(
            queue
                .pop(now + Duration::from_millis(seconds * 1000 - 1))
                .is_none(),
            "{seconds}"
        );
        assert_eq!(queue.next_flush(), Some(now + Duration::from_secs(seconds)));
        now = now + Duration::from_secs(seconds);
    }
    assert!(queue.pop(now).is_some());
}

#[test]
fn the_forgotten_are_tried_again_after_five_minutes() {
    let mut queue = queue();
    queue.add(pod("a", 0), at(0));
    let attempt = queue.pop(at(0)).unwrap();
    fail(&mut queue, attempt, place_of("NodeAffinity"), at(0));
    assert!(queue.pop(at(299_000)).is_none());
    assert!(queue.pop(at(331_000)).is_some());
}

#[test]
fn gates_hold_a_pod_back() {
    let mut queue = queue();
    let gated = pod_with(
        "a",
        json!({"schedulingGates": [{"name": "g"}], "containers": []}),
    );
    queue.add(gated, at(0));
    assert_eq!(
        queue.depths(),
        Depths {
            gated: 1,
            ..Depths::default()
        }
    );
    queue.activate(&[ObjectKey::new("d", "a")]);
    queue.happened(ClusterEvent::new(EventResource::Node, Actions::ADD), at(0));
    assert!(queue.pop(at(1_000_000)).is_none());
    queue.update(pod("a", 0), at(1));
    assert_eq!(queue.pop(at(1)).unwrap().number(), 1);
}

#[test]
fn a_change_of_the_pod_brings_it_back() {
    let mut queue = queue();
    queue.add(pod("a", 0), at(0));
    let attempt = queue.pop(at(0)).unwrap();
    fail(&mut queue, attempt, place_of("TaintToleration"), at(0));
    let labelled = json!({"metadata": {"name": "a", "namespace": "d", "uid": "a", "labels": {"x": "y"}}, "spec": {"containers": []}});
    queue.update(Arc::new(PodInfo::from_value(labelled).unwrap()), at(5_000));
    assert_eq!(queue.depths().unschedulable, 1, "a label does not help");
    queue.update(
        pod_with(
            "a",
            json!({"tolerations": [{"operator": "Exists"}], "containers": []}),
        ),
        at(5_000),
    );
    assert_eq!(queue.depths().active, 1);
}

#[test]
fn pods_that_went_do_not_come_back() {
    let mut queue = queue();
    queue.add(pod("a", 0), at(0));
    queue.delete(&ObjectKey::new("d", "a"));
    assert!(queue.pop(at(0)).is_none());
    queue.add(pod("b", 0), at(0));
    let attempt = queue.pop(at(0)).unwrap();
    queue.done(attempt.pod());
    fail(&mut queue, attempt, 1, at(0));
    assert_eq!(queue.depths(), Depths::default());
}

proptest! {
    #[test]
    fn the_higher_priority_first_then_the_older(pods in prop::collection::vec((0..4i32, 0..3u64), 1..40)) {
        let mut queue = queue();
        let mut expected = Vec::new();
        // Time does not run backwards.
        let mut now = 0;
        for (index, (priority, step)) in pods.into_iter().enumerate() {
            now += step;
            let name = format!("p{index}");
            queue.add(pod(&name, priority), at(now));
            expected.push((-priority, now, index, name));
        }
        expected.sort();
        let order: Vec<_> = std::iter::from_fn(|| queue.pop(at(now))).map(|attempt| attempt.pod().name().to_owned()).collect();
        prop_assert_eq!(order, expected.into_iter().map(|(_, _, _, name)| name).collect::<Vec<_>>());
    }

    #[test]
    fn no_pod_is_lost(steps in prop::collection::vec((0..7u8, 0..6usize), 0..80)) {
        let mut queue = queue();
        let mut flying: Vec<Attempt> = Vec::new();
        let mut expected: BTreeSet<String> = BTreeSet::new();
        let mut now = at(0);
        for (step, which) in steps {
            now = now + Duration::from_millis(700);
            let name = format!("p{which}");
            let key = ObjectKey::new("d", &name);
            let is_flying = flying.iter().any(|attempt| attempt.pod().name() == name);
            match step {
                0 if !is_flying => {
                    queue.add(pod(&name, which as i32 % 3), now);
                    expected.insert(name);
                }
                1 if !is_flying => {
                    queue.delete(&key);
                    expected.remove(&name);
                }
                2 | 3 => flying.extend(queue.pop(now)),
                4 if !flying.is_empty() => {
                    let attempt = flying.remove(which % flying.len());
                    fail(&mut queue, attempt, [0, 1 << 7][which % 2], now);
                }
                5 => {
                    queue.happened(ClusterEvent::new(EventResource::Node, Actions::ADD), now);
                }
                6 if !flying.is_empty() => {
                    let attempt = flying.remove(which % flying.len());
                    queue.done(attempt.pod());
                    expected.remove(attempt.pod().name());
                }
                _ => {}
            }
            let depths = queue.depths();
            let all = depths.active + depths.backoff + depths.unschedulable + depths.gated + flying.len();
            prop_assert_eq!(all, expected.len());
            prop_assert_eq!(queue.items.len() + flying.len(), expected.len());
        }
        for attempt in flying {
            fail(&mut queue, attempt, 1, now);
        }
        now = now + Duration::from_secs(400);
        let drained: BTreeSet<String> =
            std::iter::from_fn(|| queue.pop(now)).map(|attempt| attempt.pod().name().to_owned()).collect();
        prop_assert_eq!(drained, expected);
    }
}
