use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use orlop_core::conformance::store::{Subject, store};
use orlop_core::env::{Env, SimEnv, SimOptions};
use orlop_core::revision::Revision;
use orlop_core::store::{
    Commit, KeyRange, RangeRequest, Store, StoreError, Txn, WatchItem, WatchRequest,
};
use prometheus_client::registry::Registry;

use super::*;
use crate::MemoryStore;

/// Runs the conformance suite over a layer, with tasks in order and shuffled.
fn conforms(layer: impl Fn(Arc<dyn Store>, Env) -> Arc<dyn Store> + Copy + Send + Sync + 'static) {
    for seed in 0..3 {
        let sim = SimEnv::with_options(SimOptions {
            seed,
            shuffle: seed > 0,
            ..SimOptions::default()
        });
        let env = sim.env();
        sim.block_on(async move {
            store(|| async {
                let inner = Arc::new(MemoryStore::new(env.clone()));
                Subject::new(layer(inner, env.clone()), env.clone())
            })
            .await;
        });
    }
}

#[test]
fn a_metered_store_conforms() {
    conforms(|inner, env| Arc::new(Metered::new(inner, env, StoreMetrics::default())));
}

#[test]
fn a_faulty_store_without_faults_conforms() {
    conforms(|inner, env| Arc::new(Faulty::new(inner, env).0));
}

#[test]
fn a_store_whose_watches_are_late_conforms() {
    conforms(|inner, env| {
        let (store, control) = Faulty::new(inner, env);
        control.set(FaultPlan::none().watches(WatchFaults {
            delayed: 0.5,
            delay: Duration::from_millis(50),
            ..WatchFaults::default()
        }));
        Arc::new(store)
    });
}

#[test]
fn a_delayed_store_conforms() {
    conforms(|inner, env| {
        let mean = Latency::Exponential(Duration::from_millis(2));
        Arc::new(
            Delayed::new(inner, env, mean)
                .on(
                    Operation::Range,
                    Latency::Uniform(Duration::from_millis(1), Duration::from_millis(3)),
                )
                .changes(mean),
        )
    });
}

#[test]
fn layers_can_be_stacked() {
    conforms(|inner, env| {
        let (faulty, _) = Faulty::new(inner, env.clone());
        let delayed = Delayed::new(
            Arc::new(faulty),
            env.clone(),
            Latency::Fixed(Duration::from_millis(1)),
        );
        Arc::new(Metered::new(
            Arc::new(delayed),
            env,
            StoreMetrics::default(),
        ))
    });
}

#[test]
fn latencies_are_what_they_say() {
    let env = SimEnv::new(5).env();
    let (low, high) = (Duration::from_millis(10), Duration::from_millis(30));
    let mut total = Duration::ZERO;
    for _ in 0..2_000 {
        let uniform = Latency::Uniform(low, high).draw(&env);
        assert!(uniform >= low && uniform <= high);
        let exponential = Latency::Exponential(low).draw(&env);
        assert!(exponential <= low * 20);
        total += exponential;
    }
    let mean = total / 2_000;
    assert!(
        mean > Duration::from_millis(9) && mean < Duration::from_millis(11),
        "{mean:?}"
    );
    assert_eq!(Latency::Fixed(low).draw(&env), low);
    assert_eq!(Latency::None.draw(&env), Duration::ZERO);
}

fn encoded(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    text
}

#[track_caller]
fn has(text: &str, line: &str) {
    assert!(text.lines().any(|own| own == line), "no {line} in\n{text}");
}

#[test]
fn what_is_asked_is_counted_by_operation_and_resource() {
    let mut registry = Registry::default();
    let metrics = StoreMetrics::register(&mut registry);
    let sim = SimEnv::new(1);
    let env = sim.env();
    let watch = sim.block_on(async move {
        let slow = Delayed::new(
            Arc::new(MemoryStore::new(env.clone())),
            env.clone(),
            Latency::None,
        )
        .on(Operation::Commit, Latency::Fixed(Duration::from_millis(30)));
        let store = Metered::new(Arc::new(slow), env, metrics);
        let pod = "/registry/core/pods/default/a";
        let mut watch = store
            .watch(WatchRequest {
                keys: KeyRange::prefix("/registry/"),
                from: Revision(2),
                progress: false,
            })
            .await
            .unwrap();
        store.commit(Txn::create(pod, "12345678")).await.unwrap();
        let refused = store.commit(Txn::create(pod, "again")).await.unwrap();
        assert!(matches!(refused, Commit::Refused { .. }));
        store
            .commit(Txn::update(pod, "new", Revision(2)))
            .await
            .unwrap();
        store
            .commit(Txn::create("/registry/apps/deployments/default/web", "{}"))
            .await
            .unwrap();
        store
            .range(RangeRequest::new(KeyRange::prefix("/registry/core/pods/")))
            .await
            .unwrap();
        store
            .range(RangeRequest::new(KeyRange::key(pod)))
            .await
            .unwrap();
        let error = store
            .range(RangeRequest::new(KeyRange::key(pod)).at(Revision(99)))
            .await;
        assert!(matches!(error, Err(StoreError::FutureRevision { .. })));
        store.commit(Txn::delete(pod, Revision(3))).await.unwrap();
        let mut changes = 0;
        while changes < 4 {
            if let WatchItem::Changes(items) = watch.next().await.unwrap().unwrap() {
                changes += items.len();
            }
        }
        watch
    });
    let text = encoded(&registry);
    let pods =
        |operation: &str| format!("{{operation=\"{operation}\",group=\"\",resource=\"pods\"}}");
    has(&text, &format!("etcd_requests_total{} 2", pods("create")));
    has(&text, &format!("etcd_requests_total{} 1", pods("update")));
    has(&text, &format!("etcd_requests_total{} 1", pods("delete")));
    has(&text, &format!("etcd_requests_total{} 1", pods("list")));
    has(&text, &format!("etcd_requests_total{} 2", pods("get")));
    has(
        &text,
        &format!("etcd_request_errors_total{} 1", pods("get")),
    );
    has(
        &text,
        &format!("etcd_request_duration_seconds_sum{} 0.06", pods("create")),
    );
    has(
        &text,
        "etcd_request_duration_seconds_bucket{le=\"0.025\",operation=\"update\",group=\"\",resource=\"pods\"} 0",
    );
    has(
        &text,
        "etcd_request_duration_seconds_bucket{le=\"0.05\",operation=\"update\",group=\"\",resource=\"pods\"} 1",
    );
    let of_pods = "{group=\"\",resource=\"pods\"}";
    has(
        &text,
        &format!("apiserver_storage_events_received_total{of_pods} 3"),
    );
    has(
        &text,
        "apiserver_storage_events_received_total{group=\"apps\",resource=\"deployments\"} 1",
    );
    has(&text, &format!("apiserver_storage_list_total{of_pods} 1"));
    has(
        &text,
        &format!("apiserver_storage_list_fetched_objects_total{of_pods} 1"),
    );
    has(&text, &format!("orlop_store_refusals_total{of_pods} 1"));
    has(&text, &format!("orlop_store_read_bytes_total{of_pods} 6"));
    has(
        &text,
        &format!("orlop_store_written_value_bytes_sum{of_pods} 11.0"),
    );
    has(
        &text,
        "orlop_store_failures_total{operation=\"get\",kind=\"future_revision\"} 1",
    );
    has(&text, "orlop_store_watches{group=\"\",resource=\"\"} 1");
    drop(watch);
    has(
        &encoded(&registry),
        "orlop_store_watches{group=\"\",resource=\"\"} 0",
    );
}

#[test]
fn nobody_can_make_up_series_without_end() {
    let mut registry = Registry::default();
    let metrics = StoreMetrics::register(&mut registry);
    let sim = SimEnv::new(1);
    let env = sim.env();
    sim.block_on(async move {
        let store = Metered::new(Arc::new(MemoryStore::new(env.clone())), env, metrics);
        for n in 0..2_000 {
            store
                .range(RangeRequest::new(KeyRange::key(format!(
                    "/registry/made/up{n}/x"
                ))))
                .await
                .unwrap();
        }
    });
    let series = encoded(&registry)
        .lines()
        .filter(|line| line.starts_with("etcd_requests_total"))
        .count();
    assert_eq!(series, 513);
}

/// One run of a client over a faulty store: what it was told, and what is stored in the end.
fn faulty_run(seed: u64) -> (Vec<String>, Vec<String>, FaultCounts) {
    let sim = SimEnv::new(seed);
    let env = sim.env();
    sim.block_on(async move {
        let inner: Arc<dyn Store> = Arc::new(MemoryStore::new(env.clone()));
        let (store, control) = Faulty::new(inner.clone(), env.clone());
        control.set(FaultPlan::everything(0.3));
        let mut told = Vec::new();
        for n in 0..200u32 {
            let key = format!("/{n:03}");
            let answer = store.commit(Txn::create(key.clone(), n.to_string())).await;
            let stands = inner
                .range(RangeRequest::new(KeyRange::key(key)))
                .await
                .unwrap()
                .items
                .len();
            // The contract: what an answer says is so.
            match &answer {
                Ok(Commit::Applied { .. }) => assert_eq!(stands, 1),
                Ok(Commit::Refused { .. }) => panic!("nobody else writes"),
                Err(StoreError::Unavailable(_)) => assert_eq!(stands, 0),
                Err(StoreError::OutcomeUnknown(_)) => {}
                Err(other) => panic!("{other}"),
            }
            told.push(format!("{answer:?} {stands}"));
        }
        let state = inner
            .range(RangeRequest::new(KeyRange::prefix("/")))
            .await
            .unwrap();
        let state = state.items.iter().map(|kv| format!("{kv:?}")).collect();
        (told, state, control.counts())
    })
}

#[test]
fn the_same_seed_gives_the_same_faults() {
    let (told, state, counts) = faulty_run(11);
    assert_eq!((told.clone(), state, counts), faulty_run(11));
    assert_ne!(told, faulty_run(12).0);
    // Each kind of fault happened, and doubt went both ways.
    assert!(counts.unavailable > 5 && counts.lost_requests > 5 && counts.lost_answers > 5);
    for stands in ["0", "1"] {
        assert!(
            told.iter()
                .any(|line| line.contains("OutcomeUnknown") && line.ends_with(stands))
        );
    }
}

fn everything_from(from: u64) -> WatchRequest {
    WatchRequest {
        keys: KeyRange::prefix("/"),
        from: Revision(from),
        progress: false,
    }
}

#[test]
fn a_watch_that_breaks_has_no_gap_before() {
    for seed in 0..20 {
        let sim = SimEnv::new(seed);
        let env = sim.env();
        let (ends, resumed) = sim.block_on(async move {
            let inner: Arc<dyn Store> = Arc::new(MemoryStore::new(env.clone()));
            let (store, control) = Faulty::new(inner.clone(), env.clone());
            control.set(FaultPlan::none().watches(WatchFaults {
                broken: 0.1,
                lagged: 0.1,
                ended: 0.1,
                delayed: 0.3,
                delay: Duration::from_millis(20),
            }));
            let writer = env.clone();
            env.spawn("writer", async move {
                for n in 0..100u32 {
                    inner.commit(Txn::put("/a", n.to_string())).await.unwrap();
                    writer.sleep(Duration::from_millis(1)).await;
                }
            });
            let (mut next, mut ends, mut resumed) = (2u64, Vec::new(), 0);
            while next < 102 {
                let mut stream = store.watch(everything_from(next)).await.unwrap();
                resumed += 1;
                while next < 102 {
                    match stream.next().await {
                        Some(Ok(WatchItem::Changes(changes))) => {
                            for change in changes.iter() {
                                assert_eq!(change.revision(), Revision(next), "seed {seed}");
                                next += 1;
                            }
                        }
                        Some(Ok(WatchItem::Progress(_))) => {}
                        Some(Err(StoreError::Lagged { at })) => {
                            assert_eq!(at, Revision(next - 1));
                            ends.push("lagged");
                            break;
                        }
                        Some(Err(error)) => {
                            assert!(matches!(error, StoreError::Unavailable(_)));
                            ends.push("broken");
                            break;
                        }
                        None => {
                            ends.push("ended");
                            break;
                        }
                    }
                }
            }
            (ends, resumed)
        });
        assert!(ends.len() > 3 && resumed > 3, "seed {seed}: {ends:?}");
    }
}

#[test]
fn a_refusing_cut_ends_watches_and_a_silent_one_holds_everything() {
    let sim = SimEnv::new(3);
    let env = sim.env();
    sim.block_on(async move {
        let inner: Arc<dyn Store> = Arc::new(MemoryStore::new(env.clone()));
        let (store, control) = Faulty::new(inner.clone(), env.clone());
        let store = Arc::new(store);

        let mut stream = store.watch(everything_from(2)).await.unwrap();
        control.cut(Cut::Refuse);
        assert!(matches!(
            stream.next().await,
            Some(Err(StoreError::Unavailable(_)))
        ));
        assert!(stream.next().await.is_none());
        assert!(matches!(
            store.revision().await,
            Err(StoreError::Unavailable(_))
        ));
        control.heal();
        assert_eq!(store.revision().await.unwrap(), Revision(1));

        let mut stream = store.watch(everything_from(2)).await.unwrap();
        control.cut(Cut::Silence);
        inner.commit(Txn::put("/a", "1")).await.unwrap();
        let second = Duration::from_secs(1);
        assert!(env.timeout(second, stream.next()).await.is_err());
        assert!(env.timeout(second, store.revision()).await.is_err());
        let (healer, when) = (control.clone(), env.clone());
        env.spawn("healer", async move {
            when.sleep(second).await;
            healer.heal();
        });
        // The request went nowhere, and nobody can say so.
        let lost = store.commit(Txn::put("/b", "1")).await;
        assert!(matches!(lost, Err(StoreError::OutcomeUnknown(_))));
        assert_eq!(inner.revision().await.unwrap(), Revision(2));
        // The watch goes on where it was.
        let Some(Ok(WatchItem::Changes(changes))) = stream.next().await else {
            panic!("the watch ended");
        };
        assert_eq!(changes[0].revision(), Revision(2));
        assert_eq!(control.counts().lost_requests, 1);
    });
}

#[test]
fn a_full_disk_refuses_puts_alone_and_for_as_long_as_the_schedule_says() {
    let sim = SimEnv::new(3);
    let env = sim.env();
    sim.block_on(async move {
        let (store, control) = Faulty::new(Arc::new(MemoryStore::new(env.clone())), env.clone());
        store.commit(Txn::put("/a", "1")).await.unwrap();
        control.schedule([
            (Duration::from_secs(20), FaultPlan::none()),
            (Duration::from_secs(10), FaultPlan::none().no_space()),
        ]);
        store.commit(Txn::put("/a", "2")).await.unwrap();
        env.sleep(Duration::from_secs(10)).await;
        assert!(matches!(
            store.commit(Txn::put("/a", "3")).await,
            Err(StoreError::NoSpace(_))
        ));
        assert!(matches!(
            store.grant_lease(None, 5).await,
            Err(StoreError::NoSpace(_))
        ));
        let read = store
            .range(RangeRequest::new(KeyRange::key("/a")))
            .await
            .unwrap();
        assert_eq!(read.items[0].value.as_ref(), b"2");
        store.commit(Txn::delete("/a", Revision(3))).await.unwrap();
        env.sleep(Duration::from_secs(10)).await;
        store.commit(Txn::put("/a", "4")).await.unwrap();
        assert_eq!(control.counts().no_space, 2);
    });
}
