//! A suite that passes everything proves nothing: each of these stores breaks one promise and must be caught.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use futures::FutureExt;
use futures::StreamExt;
use futures::future::BoxFuture;
use orlop_core::conformance::store::{
    CrashSubject, Crashes, WatchLoad, crashes, store_part, watch_order,
};
use orlop_core::store::{Step as Do, StepResult};
use parking_lot::Mutex;

use super::*;
use crate::layers::{CallFaults, FaultPlan, Faulty, Operation};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    /// Some reads are answered from the past.
    StaleReads,
    /// Some conditions are not looked at.
    LostUpdates,
    /// A transaction is done one write after the other.
    HalfTransactions,
    /// Some answers come before the write.
    EarlyAnswers,
    /// Two items of a watch change places.
    SwappedItems,
    /// An item of a watch comes twice.
    RepeatedItems,
    /// An item of a watch does not come.
    LostItems,
    /// A watch splits a commit, and tells only the first part.
    SplitItems,
    /// Transactions with branches do one step after the other.
    StepByStep,
    /// The conditions of nested transactions see what the outer one wrote.
    LateConditions,
    /// A range without keys fits every condition.
    EmptyRangesFit,
}

struct Broken {
    store: Arc<MemoryStore>,
    env: Env,
    fault: Fault,
    count: AtomicU64,
}

impl Broken {
    fn every(&self, nth: u64) -> bool {
        self.count.fetch_add(1, Ordering::Relaxed) % nth == nth - 1
    }

    /// Lets others run.
    async fn pause(&self) {
        let mut yielded = false;
        std::future::poll_fn(|cx| {
            if std::mem::replace(&mut yielded, true) {
                return std::task::Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            std::task::Poll::Pending
        })
        .await;
    }

    /// Does the steps of a transaction as transactions of their own.
    fn step_by_step(
        &self,
        transaction: Transaction,
    ) -> BoxFuture<'_, Result<TransactionResult, StoreError>> {
        async move {
            let conditions = Transaction {
                conditions: transaction.conditions,
                ..Transaction::default()
            };
            let mut result = self.store.transact(conditions).await?;
            let steps = if result.succeeded {
                transaction.success
            } else {
                transaction.failure
            };
            for step in steps {
                self.pause().await;
                let own = match step {
                    Do::Nested(nested) => StepResult::Nested(self.step_by_step(nested).await?),
                    step => {
                        let one = Transaction {
                            success: vec![step],
                            ..Transaction::default()
                        };
                        let mut one = self.store.transact(one).await?;
                        result.revision = one.revision;
                        one.steps.remove(0)
                    }
                };
                result.steps.push(own);
            }
            Ok(result)
        }
        .boxed()
    }
}

#[async_trait]
impl Store for Broken {
    async fn range(&self, mut request: RangeRequest) -> Result<RangeResult, StoreError> {
        if self.fault == Fault::StaleReads && request.revision.is_none() && self.every(7) {
            let newest = self.store.revision().await?;
            request.revision = Some(Revision(newest.0.saturating_sub(2).max(1)));
        }
        self.store.range(request).await
    }

    async fn commit(&self, mut txn: Txn) -> Result<Commit, StoreError> {
        match self.fault {
            Fault::LostUpdates if !txn.compare.is_empty() && self.every(5) => txn.compare.clear(),
            Fault::HalfTransactions if txn.ops.len() > 1 => {
                let second = Txn {
                    compare: Vec::new(),
                    ops: txn.ops.split_off(1),
                };
                let first = self.store.commit(txn).await?;
                if matches!(first, Commit::Refused { .. }) {
                    return Ok(first);
                }
                self.pause().await;
                return self.store.commit(second).await;
            }
            Fault::EarlyAnswers if txn.compare.is_empty() && self.every(5) => {
                let revision = Revision(self.store.revision().await?.0 + 1);
                let (store, env) = (self.store.clone(), self.env.clone());
                self.env.spawn("late", async move {
                    env.sleep(Duration::from_micros(50)).await;
                    let _ = store.commit(txn).await;
                });
                return Ok(Commit::Applied {
                    revision,
                    deleted: 1,
                });
            }
            _ => {}
        }
        let done = self.store.commit(txn).await;
        self.pause().await;
        done
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StoreError> {
        let stream = self.store.watch(request).await?;
        let fault = self.fault;
        let items = futures::stream::unfold(
            (stream, 0u64, Vec::new()),
            move |(mut stream, n, mut later)| async move {
                if let Some(item) = later.pop() {
                    return Some((item, (stream, n, later)));
                }
                let mut item = stream.next().await?;
                if n % 5 == 4 {
                    match fault {
                        Fault::SwappedItems => {
                            later.push(item);
                            item = stream.next().await?;
                        }
                        Fault::RepeatedItems => later.push(item.clone()),
                        Fault::LostItems => item = stream.next().await?,
                        Fault::SplitItems => {
                            if let Ok(WatchItem::Changes(changes)) = &item {
                                item = Ok(WatchItem::Changes(changes[..1].into()));
                            }
                        }
                        _ => {}
                    }
                }
                Some((item, (stream, n + 1, later)))
            },
        );
        Ok(items.boxed())
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.store.compact(revision).await
    }

    async fn transact(
        &self,
        mut transaction: Transaction,
    ) -> Result<TransactionResult, StoreError> {
        match self.fault {
            Fault::StepByStep | Fault::HalfTransactions => {
                transaction.validate()?;
                return self.step_by_step(transaction).await;
            }
            Fault::LateConditions => {
                let nested = |step: &Do| matches!(step, Do::Nested(_));
                if let [Do::Put { .. }, last] = transaction.success.as_slice()
                    && nested(last)
                {
                    return self.step_by_step(transaction).await;
                }
            }
            Fault::EmptyRangesFit => {
                let read = |keys: &KeyRange| RangeRequest::new(keys.clone());
                let mut kept = Vec::new();
                for condition in transaction.conditions {
                    let found = self.store.range(read(&condition.keys)).await?;
                    let range = !matches!(condition.keys, KeyRange::Key(_));
                    if !(range && found.items.is_empty()) {
                        kept.push(condition);
                    }
                }
                transaction.conditions = kept;
            }
            _ => {}
        }
        self.store.transact(transaction).await
    }
}

fn run(fault: Fault, word: &'static str) {
    for seed in 0..3 {
        let sim = SimEnv::with_options(SimOptions {
            seed,
            shuffle: true,
            ..SimOptions::default()
        });
        let env = sim.env();
        sim.block_on(async move {
            store_part(word, || async {
                let broken = Broken {
                    store: Arc::new(MemoryStore::new(env.clone())),
                    env: env.clone(),
                    fault,
                    count: AtomicU64::new(0),
                };
                Subject::new(Arc::new(broken), env.clone()).without_leases()
            })
            .await;
        });
    }
}

#[test]
fn without_a_fault_it_conforms() {
    run(Fault::None, "");
}

#[test]
#[should_panic(expected = "linearizability::few_keys` failed: the revisions are wrong")]
fn stale_reads_are_caught() {
    run(Fault::StaleReads, "linearizability");
}

#[test]
#[should_panic(expected = "linearizability::few_keys` failed: no order explains the answers")]
fn lost_updates_are_caught() {
    run(Fault::LostUpdates, "linearizability");
}

#[test]
#[should_panic(expected = "linearizability::few_keys` failed")]
fn half_transactions_are_caught() {
    run(Fault::HalfTransactions, "linearizability");
}

#[test]
#[should_panic(expected = "linearizability::")]
fn early_answers_are_caught() {
    run(Fault::EarlyAnswers, "linearizability");
}

#[test]
#[should_panic(expected = "watch_order::")]
fn swapped_items_are_caught() {
    run(Fault::SwappedItems, "watch_order");
}

#[test]
#[should_panic(expected = "watch_order::")]
fn repeated_items_are_caught() {
    run(Fault::RepeatedItems, "watch_order");
}

#[test]
#[should_panic(expected = "watch_order::")]
fn lost_items_are_caught() {
    run(Fault::LostItems, "watch_order");
}

#[test]
#[should_panic(expected = "watch_order::")]
fn split_items_are_caught() {
    run(Fault::SplitItems, "watch_order");
}

/// Beside outages, of which the watches themselves see nothing.
fn beside_outages(fault: Fault) {
    let sim = SimEnv::new(3);
    let env = sim.env();
    sim.block_on(async move {
        let broken = Broken {
            store: Arc::new(MemoryStore::new(env.clone())),
            env: env.clone(),
            fault,
            count: AtomicU64::new(0),
        };
        let (store, control) = Faulty::new(Arc::new(broken), env.clone());
        let often = CallFaults {
            unavailable: 0.1,
            lost_request: 0.1,
            lost_answer: 0.1,
        };
        let plan = FaultPlan::none().on(Operation::Commit, often);
        control.schedule([(Duration::from_millis(1), plan)]);
        let mut load = WatchLoad::default();
        load.pause = Duration::from_millis(2);
        load.outages = true;
        watch_order(Arc::new(store), env, "/order/", &load).await;
        assert!(control.counts().lost_answers > 5, "{:?}", control.counts());
    });
}

#[test]
fn outages_are_no_faults_of_watches() {
    beside_outages(Fault::None);
}

#[test]
#[should_panic(expected = "`store::watch_order` failed")]
fn lost_items_are_caught_beside_outages() {
    beside_outages(Fault::LostItems);
}

#[test]
#[should_panic(expected = "transactions::")]
fn steps_that_are_no_transaction_are_caught() {
    run(Fault::StepByStep, "transactions");
}

#[test]
#[should_panic(expected = "transactions::nesting::conditions_look_at_the_state_before")]
fn conditions_that_see_too_much_are_caught() {
    run(Fault::LateConditions, "transactions");
}

#[test]
#[should_panic(expected = "transactions::conditions::on_ranges")]
fn conditions_on_nothing_are_caught() {
    run(Fault::EmptyRangesFit, "transactions");
}

#[test]
#[should_panic(expected = "no conformance check has \"nonesuch\" in its name")]
fn a_check_that_is_not_there_is_not_passed() {
    run(Fault::None, "nonesuch");
}

/// How a store comes back from a crash.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Memory {
    Good,
    /// The last commit is gone.
    LosesTheLast,
    /// Of the last commit, one write is there.
    HalvesTheLast,
    /// A commit from the middle is gone, and the later ones moved down.
    LosesOne,
    /// A value is not what it was.
    ChangesAValue,
    /// There is a commit that nobody asked for.
    AddsOne,
    /// The state is right, and stands at a later revision.
    SkipsRevisions,
    /// The state comes back as it was at the last but one crash, at the right revision.
    ForgetsTheState,
}

/// A store that writes down its commits, and is made again from them.
struct Crashing {
    env: Env,
    memory: Memory,
    commits: Arc<Mutex<Vec<Vec<Op>>>>,
    openings: AtomicUsize,
}

struct Writing(MemoryStore, Arc<Mutex<Vec<Vec<Op>>>>);

#[async_trait]
impl Store for Writing {
    async fn range(&self, request: RangeRequest) -> Result<RangeResult, StoreError> {
        self.0.range(request).await
    }

    async fn commit(&self, txn: Txn) -> Result<Commit, StoreError> {
        let ops = txn.ops.clone();
        let before = self.0.revision().await?;
        let done = self.0.commit(txn).await?;
        if let Commit::Applied { revision, .. } = &done
            && *revision > before
        {
            self.1.lock().push(ops);
        }
        Ok(done)
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StoreError> {
        self.0.watch(request).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.0.compact(revision).await
    }
}

#[async_trait]
impl CrashSubject for Crashing {
    async fn open(&self) -> Result<Arc<dyn Store>, StoreError> {
        let mut commits = self.commits.lock().clone();
        let put = |value: &'static str| Op::Put {
            key: "/conformance/store/crash/k1".into(),
            value: value.into(),
            lease: None,
        };
        if self.openings.fetch_add(1, Ordering::Relaxed) > 1 && commits.len() > 20 {
            match self.memory {
                Memory::Good => {}
                Memory::LosesTheLast => {
                    commits.pop();
                }
                Memory::HalvesTheLast => {
                    let last = commits.iter_mut().rev().find(|ops| ops.len() > 1);
                    last.expect("some write more than one key").truncate(1);
                }
                Memory::LosesOne => {
                    let at = commits.len() - 3;
                    commits.remove(at);
                    commits.push(vec![put("instead")]);
                }
                Memory::ChangesAValue => {
                    let op = commits.iter_mut().flatten().rev();
                    let mut op = op.filter_map(|op| match op {
                        Op::Put { value, .. } => Some(value),
                        Op::Delete(_) => None,
                    });
                    *op.next().expect("some write something") = "changed".into();
                }
                Memory::AddsOne => commits.push(vec![put("added")]),
                Memory::SkipsRevisions => {
                    let last = commits.last().cloned().expect("there are some");
                    commits.push(last);
                }
                Memory::ForgetsTheState => {
                    let keep = commits.len() / 2;
                    for ops in &mut commits[keep..] {
                        *ops = vec![put("x")];
                    }
                }
            }
            self.commits.lock().clone_from(&commits);
        }
        let store = MemoryStore::new(self.env.clone());
        for ops in commits {
            let compare = Vec::new();
            store.commit(Txn { compare, ops }).await?;
        }
        Ok(Arc::new(Writing(store, self.commits.clone())))
    }

    async fn crash(&self) {}
}

fn crash(memory: Memory) {
    let sim = SimEnv::new(5);
    let env = sim.env();
    sim.block_on(async move {
        let subject = Crashing {
            env: env.clone(),
            memory,
            commits: Arc::default(),
            openings: AtomicUsize::new(0),
        };
        crashes(&subject, &env, &Crashes::default()).await;
    });
}

#[test]
fn a_store_that_comes_back_conforms() {
    crash(Memory::Good);
}

#[test]
#[should_panic(expected = "`store::crash` failed: after crash 2: the store is at")]
fn a_lost_commit_is_caught() {
    crash(Memory::LosesTheLast);
}

#[test]
#[should_panic(expected = "`store::crash` failed: after crash 2: ")]
fn half_a_commit_is_caught() {
    crash(Memory::HalvesTheLast);
}

#[test]
#[should_panic(expected = "`store::crash` failed: after crash 2: ")]
fn a_commit_lost_on_the_way_is_caught() {
    crash(Memory::LosesOne);
}

#[test]
#[should_panic(expected = "`store::crash` failed: after crash 2: ")]
fn a_changed_value_is_caught() {
    crash(Memory::ChangesAValue);
}

#[test]
#[should_panic(expected = "nobody asked for")]
fn a_commit_of_nobody_is_caught() {
    crash(Memory::AddsOne);
}

#[test]
#[should_panic(expected = "`store::crash` failed: after crash 2: ")]
fn skipped_revisions_are_caught() {
    crash(Memory::SkipsRevisions);
}

#[test]
#[should_panic(expected = "`store::crash` failed: after crash 2: ")]
fn a_forgotten_state_is_caught() {
    crash(Memory::ForgetsTheState);
}
