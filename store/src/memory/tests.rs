use super::*;

mod broken;

use std::time::Duration;

use futures::StreamExt;
use orlop_core::conformance::store::{Subject, store};
use orlop_core::env::{SimEnv, SimOptions};
use orlop_core::store::{Change, KeyRange, Op, WatchItem};
use proptest::prelude::*;

use crate::model::{Model, same, same_results, transaction, txn};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_on_real_time() {
    let env = Env::tokio();
    store(|| async { Subject::new(Arc::new(MemoryStore::new(env.clone())), env.clone()) }).await;
}

#[test]
fn conforms_on_virtual_time() {
    for seed in 0..4 {
        let options = SimOptions {
            seed,
            shuffle: seed > 0,
            ..SimOptions::default()
        };
        let sim = SimEnv::with_options(options);
        let env = sim.env();
        sim.block_on(async move {
            store(|| async { Subject::new(Arc::new(MemoryStore::new(env.clone())), env.clone()) })
                .await;
        });
    }
}

/// A store with nothing but what has no default, and leases. Others come between its reads and its commits.
struct Plain(MemoryStore);

#[async_trait]
impl Store for Plain {
    async fn range(&self, request: RangeRequest) -> Result<RangeResult, StoreError> {
        let read = self.0.range(request).await;
        tokio::task::yield_now().await;
        read
    }
    async fn commit(&self, txn: Txn) -> Result<Commit, StoreError> {
        self.0.commit(txn).await
    }
    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StoreError> {
        self.0.watch(request).await
    }
    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.0.compact(revision).await
    }
    async fn grant_lease(&self, id: Option<LeaseId>, ttl: u64) -> Result<LeaseId, StoreError> {
        self.0.grant_lease(id, ttl).await
    }
    async fn renew_lease(&self, id: LeaseId) -> Result<u64, StoreError> {
        self.0.renew_lease(id).await
    }
    async fn revoke_lease(&self, id: LeaseId) -> Result<(), StoreError> {
        self.0.revoke_lease(id).await
    }
    async fn lease(&self, id: LeaseId, keys: bool) -> Result<LeaseInfo, StoreError> {
        self.0.lease(id, keys).await
    }
    async fn leases(&self) -> Result<Vec<LeaseId>, StoreError> {
        self.0.leases().await
    }
}

#[test]
fn the_defaults_of_the_contract_conform() {
    let sim = SimEnv::new(3);
    let env = sim.env();
    sim.block_on(async move {
        store(|| async {
            let plain = Plain(MemoryStore::new(env.clone()));
            Subject::new(Arc::new(plain), env.clone()).with_simple_transactions()
        })
        .await;
    });
}

/// Clients count with the default transactions, which others overtake again and again.
#[test]
fn default_transactions_are_tried_again() {
    let sim = SimEnv::with_options(SimOptions {
        seed: 2,
        shuffle: true,
        ..SimOptions::default()
    });
    let env = sim.env();
    sim.block_on(async move {
        let plain = Arc::new(Plain(MemoryStore::new(env.clone())));
        let tasks = TaskGroup::new(env.clone());
        for _ in 0..4 {
            let plain = plain.clone();
            tasks.spawn("client", async move {
                for _ in 0..20 {
                    let kept = orlop_core::store::Step::Put {
                        key: "/a".into(),
                        value: Some("x".into()),
                        lease: orlop_core::store::PutLease::Set(None),
                        previous: true,
                    };
                    let transaction = Transaction {
                        success: vec![kept],
                        ..Transaction::default()
                    };
                    let result = plain.transact(transaction).await.expect("a transaction");
                    // What it tells was there stood just before it.
                    let [orlop_core::store::StepResult::Put { previous }] = result.steps.as_slice()
                    else {
                        panic!("{result:?}");
                    };
                    let before = previous.as_ref().map_or(1, |kv| kv.mod_revision.0);
                    assert_eq!(before + 1, result.revision.0);
                }
            });
        }
        tasks.idle().await;
        assert_eq!(plain.revision().await.expect("the revision"), Revision(81));
    });
}

fn watch(keys: KeyRange, from: u64) -> WatchRequest {
    WatchRequest {
        keys,
        from: Revision(from),
        progress: false,
    }
}

#[test]
fn history_stays_within_its_budget() {
    let sim = SimEnv::new(1);
    let store = MemoryStore::with_history(sim.env(), 100_000);
    sim.block_on(async move {
        for n in 0..2000u32 {
            store
                .commit(Txn::put("/a", vec![n as u8; 1000]))
                .await
                .expect("a commit");
        }
        let newest = store.revision().await.expect("the revision");
        assert_eq!(newest, Revision(2001));
        let range = |at| store.range(RangeRequest::new(KeyRange::key("/a")).at(Revision(at)));
        assert!(range(2001).await.is_ok());
        assert!(range(1980).await.is_ok());
        assert!(matches!(
            range(1800).await,
            Err(StoreError::Compacted { .. })
        ));
        let old = store.watch(watch(KeyRange::prefix(""), 1800)).await;
        assert!(matches!(old, Err(StoreError::Compacted { .. })));
        // One commit over the budget is still there to be read.
        store
            .commit(Txn::put("/b", vec![1; 200_000]))
            .await
            .expect("a commit");
        store
            .commit(Txn::put("/b", vec![2; 200_000]))
            .await
            .expect("a commit");
        assert!(range(2003).await.is_ok());
    });
}

#[test]
fn a_watcher_that_is_too_slow_is_told_so() {
    let sim = SimEnv::new(1);
    let env = sim.env();
    let store = MemoryStore::with_history(sim.env(), 100_000);
    sim.block_on(async move {
        let mut slow = store
            .watch(watch(KeyRange::prefix("/a"), 0))
            .await
            .expect("a watch");
        let mut idle = store
            .watch(watch(KeyRange::prefix("/b"), 0))
            .await
            .expect("a watch");
        assert!(futures::poll!(idle.next()).is_pending());
        store
            .commit(Txn::put("/a", "first"))
            .await
            .expect("a commit");
        assert!(matches!(slow.next().await, Some(Ok(WatchItem::Changes(_)))));
        for n in 0..2000u32 {
            store
                .commit(Txn::put("/a", vec![n as u8; 1000]))
                .await
                .expect("a commit");
            if n % 50 == 0 {
                env.sleep(Duration::from_millis(1)).await;
            }
        }
        let error = slow.next().await;
        assert!(
            matches!(error, Some(Err(StoreError::Lagged { at })) if at == Revision(2)),
            "{error:?}"
        );
        assert!(slow.next().await.is_none());
        // Who had nothing to read has missed nothing.
        store.commit(Txn::put("/b", "x")).await.expect("a commit");
        let item = idle.next().await;
        assert!(matches!(item, Some(Ok(WatchItem::Changes(_)))), "{item:?}");
    });
}

#[test]
fn watches_end_with_the_store() {
    let sim = SimEnv::new(1);
    let store = MemoryStore::new(sim.env());
    sim.block_on(async move {
        let mut open = store
            .watch(watch(KeyRange::prefix(""), 0))
            .await
            .expect("a watch");
        drop(store);
        assert!(matches!(
            open.next().await,
            Some(Err(StoreError::Unavailable(_)))
        ));
        assert!(open.next().await.is_none());
    });
}

#[derive(Clone, Debug)]
enum Step {
    Commit(Txn),
    Transact(Transaction),
    Compact(u64),
    Watch(KeyRange, u64),
    Pause,
}

fn step() -> impl Strategy<Value = Step> {
    let keys = prop_oneof![
        Just(KeyRange::prefix("")),
        (0..3u8).prop_map(|a| KeyRange::prefix(format!("/{a}/"))),
        (0..3u8, 0..4u8).prop_map(|(a, b)| KeyRange::key(format!("/{a}/{b}"))),
        (0..3u8).prop_map(|a| KeyRange::Span(format!("/{a}/1").into(), "/2/2".into())),
    ];
    prop_oneof![
        8 => txn().prop_map(Step::Commit),
        6 => transaction().prop_map(Step::Transact),
        1 => (0..60u64).prop_map(Step::Compact),
        2 => (keys, 0..60u64).prop_map(|(keys, from)| Step::Watch(keys, from)),
        3 => Just(Step::Pause),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn is_the_model(seed: u64, steps in proptest::collection::vec(step(), 1..120)) {
        let sim = SimEnv::with_options(SimOptions { seed, shuffle: true, ..SimOptions::default() });
        let env = sim.env();
        sim.block_on(async move {
            let store = MemoryStore::new(env.clone());
            let mut model = Model::new();
            let mut oldest = Revision(1);
            let mut watches = Vec::new();
            for step in steps {
                match step {
                    Step::Commit(txn) => {
                        let commit = store.commit(txn.clone()).await.expect("a commit");
                        let wanted = model.commit(&txn);
                        assert!(same(&commit, &wanted), "{commit:?} instead of {wanted:?}");
                    }
                    Step::Transact(transaction) => {
                        let result = store.transact(transaction.clone()).await;
                        let wanted = model.transact(&transaction, oldest);
                        assert!(same_results(&result, &wanted), "{result:?} instead of {wanted:?} of {transaction:?}");
                    }
                    Step::Compact(at) => {
                        let at = Revision(at);
                        match store.compact(at).await {
                            Ok(()) => {
                                assert!(oldest < at && at <= model.revision());
                                oldest = at;
                            }
                            Err(StoreError::Compacted { .. }) => assert!(at <= oldest),
                            Err(error) => {
                                assert!(matches!(error, StoreError::FutureRevision { .. }));
                                assert!(at > model.revision());
                            }
                        }
                    }
                    Step::Watch(keys, from) => {
                        let opened = store.watch(watch(keys.clone(), from)).await;
                        let stale = from != 0 && from < oldest.0 && oldest.0 > 2;
                        assert_eq!(opened.is_err(), stale, "from {from}, the oldest is {oldest}");
                        if let Ok(stream) = opened {
                            let from = if from == 0 { model.revision().0 + 1 } else { from };
                            watches.push((keys, from, stream, Vec::new()));
                        }
                    }
                    Step::Pause => env.sleep(Duration::from_millis(1)).await,
                }
                // Whoever is read all the time never lags.
                env.sleep(Duration::from_millis(1)).await;
                for (_, _, stream, seen) in &mut watches {
                    while let std::task::Poll::Ready(item) = futures::poll!(stream.next()) {
                        let Some(Ok(WatchItem::Changes(changes))) = item else { panic!("{item:?}") };
                        seen.extend(changes.iter().cloned());
                    }
                }
            }
            assert_eq!(model.check(&store).await, oldest);
            for (keys, from, _, seen) in watches {
                let wanted: Vec<Change> = model
                    .changes
                    .iter()
                    .flatten()
                    .filter(|change| change.revision().0 >= from && keys.contains(change.key()))
                    .cloned()
                    .collect();
                assert_eq!(seen, wanted, "{keys:?} from {from}");
            }
        });
    }
}

#[test]
fn a_lease_that_runs_out_takes_its_keys_at_one_revision() {
    let sim = SimEnv::new(1);
    let env = sim.env();
    let store = MemoryStore::new(sim.env());
    sim.block_on(async move {
        let lease = store.grant_lease(None, 30).await.expect("a lease");
        let put = |key: &'static str| Op::Put {
            key: key.into(),
            value: "x".into(),
            lease: Some(lease),
        };
        let txn = Txn {
            compare: Vec::new(),
            ops: vec![put("/a"), put("/b")],
        };
        store.commit(txn).await.expect("a commit");
        env.sleep(Duration::from_secs(29)).await;
        assert_eq!(store.revision().await.expect("the revision"), Revision(2));
        env.sleep(Duration::from_secs(2)).await;
        assert_eq!(store.revision().await.expect("the revision"), Revision(3));
        let left = store
            .range(RangeRequest::new(KeyRange::prefix("")))
            .await
            .expect("a read");
        assert!(left.items.is_empty());
        let renewed = store.renew_lease(lease).await;
        assert!(matches!(renewed, Err(StoreError::LeaseNotFound(_))));
        // An hour later nothing is left to do.
        env.sleep(Duration::from_secs(3600)).await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// What the default of the contract does at all, it does as the model does.
    #[test]
    fn the_default_transactions_are_the_model(
        steps in proptest::collection::vec(transaction(), 1..60),
    ) {
        let sim = SimEnv::new(0);
        let env = sim.env();
        sim.block_on(async move {
            let store = Plain(MemoryStore::new(env));
            let mut model = Model::new();
            for transaction in steps {
                match store.transact(transaction.clone()).await {
                    Err(StoreError::InvalidRequest(why)) => {
                        assert!(why.starts_with("this store cannot do"), "{why}");
                        assert_eq!(store.revision().await.expect("the revision"), model.revision());
                    }
                    result => {
                        let wanted = model.transact(&transaction, Revision(1));
                        // Which of several reasons is named is open.
                        if result.is_err() && wanted.is_err() {
                            continue;
                        }
                        assert!(same_results(&result, &wanted), "{result:?} instead of {wanted:?} of {transaction:?}");
                    }
                }
            }
            model.check(&store).await;
        });
    }
}
