//! Fault injection: a store that fails as often as it is told to.

mod control;
mod plan;
mod watch;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use orlop_core::env::Env;
use orlop_core::revision::Revision;
use orlop_core::store::{
    Commit, LeaseId, LeaseInfo, Op, RangeRequest, RangeResult, Step, Store, StoreError,
    Transaction, TransactionResult, Txn, WatchRequest, WatchStream,
};

use self::control::Fate;
pub use self::control::{Cut, FaultControl, FaultCounts};
pub use self::plan::{CallFaults, FaultPlan, WatchFaults};
use self::watch::disturb;
use super::Operation;

fn unreachable_store() -> StoreError {
    StoreError::Unavailable("injected fault: the store cannot be reached".to_owned())
}

fn answer_lost(operation: Operation) -> StoreError {
    let text = "injected fault: the answer was lost".to_owned();
    if operation.is_write() {
        StoreError::OutcomeUnknown(text)
    } else {
        StoreError::Unavailable(text)
    }
}

/// A store whose calls fail, whose answers get lost and whose watches break, by the randomness of an environment: on virtual time the same
/// seed gives the same faults.
///
/// It keeps the contract: what is [`StoreError::Unavailable`] or [`StoreError::NoSpace`] did not happen; what is
/// [`StoreError::OutcomeUnknown`] happened in full or not at all; a watch has no gap before its end.
///
/// ```
/// use std::sync::Arc;
/// use orlop_core::env::SimEnv;
/// use orlop_core::store::{KeyRange, RangeRequest, Store, StoreError, Txn};
/// use orlop_store::MemoryStore;
/// use orlop_store::layers::{CallFaults, FaultPlan, Faulty, Operation};
///
/// let sim = SimEnv::new(7);
/// let env = sim.env();
/// sim.block_on(async move {
///     let (store, faults) = Faulty::new(Arc::new(MemoryStore::new(env.clone())), env);
///     faults.set(FaultPlan::none().on(Operation::Commit, CallFaults { lost_answer: 1.0, ..CallFaults::default() }));
///     let lost = store.commit(Txn::create("/a", "1")).await;
///     assert!(matches!(lost, Err(StoreError::OutcomeUnknown(_))));
///     // It happened all the same.
///     let read = store.range(RangeRequest::new(KeyRange::key("/a"))).await?;
///     assert_eq!(read.items.len(), 1);
///     Ok::<_, StoreError>(())
/// }).unwrap();
/// ```
pub struct Faulty {
    inner: Arc<dyn Store>,
    control: FaultControl,
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty")
            .field("control", &self.control)
            .finish_non_exhaustive()
    }
}

impl Faulty {
    /// A store over another one, and the control of what goes wrong: at first nothing does.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, env: Env) -> (Self, FaultControl) {
        let control = FaultControl::new(env);
        let store = Self {
            inner,
            control: control.clone(),
        };
        (store, control)
    }

    /// Waits while a silent partition lasts. Fails when one lasted, or when there is one that refuses.
    async fn reach(&self, operation: Operation) -> Result<(), StoreError> {
        let mut waited = false;
        loop {
            match self.control.link() {
                (None, _) if waited => {
                    // The request went nowhere; whoever asked to write cannot know that.
                    if operation.is_write() {
                        self.control.count(|counts| counts.lost_requests += 1);
                    } else {
                        self.control.count(|counts| counts.unavailable += 1);
                    }
                    return Err(answer_lost(operation));
                }
                (None, _) => return Ok(()),
                (Some(Cut::Refuse), _) => {
                    self.control.count(|counts| counts.unavailable += 1);
                    return Err(unreachable_store());
                }
                (Some(Cut::Silence), changed) => {
                    waited = true;
                    changed.wait().await;
                }
            }
        }
    }

    /// A call, unless something happens to it.
    async fn call<T: Send>(
        &self,
        operation: Operation,
        takes_room: bool,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        self.reach(operation).await?;
        if takes_room && self.control.plan(|plan| plan.no_space) {
            self.control.count(|counts| counts.no_space += 1);
            return Err(StoreError::NoSpace("injected fault".to_owned()));
        }
        match self.control.fate(operation) {
            Fate::Fine => {}
            Fate::Unavailable => {
                self.control.count(|counts| counts.unavailable += 1);
                return Err(unreachable_store());
            }
            Fate::LostRequest => {
                self.control.count(|counts| counts.lost_requests += 1);
                return Err(answer_lost(operation));
            }
            Fate::LostAnswer => {
                call.await?;
                self.control.count(|counts| counts.lost_answers += 1);
                return Err(answer_lost(operation));
            }
        }
        let answer = call.await;
        // What is done while the cable is pulled is done, but nobody hears of it.
        let mut silent = false;
        while let (Some(Cut::Silence), changed) = self.control.link() {
            silent = true;
            changed.wait().await;
        }
        if silent && answer.is_ok() {
            self.control.count(|counts| counts.lost_answers += 1);
            return Err(answer_lost(operation));
        }
        answer
    }
}

fn txn_takes_room(txn: &Txn) -> bool {
    txn.ops.iter().any(|op| matches!(op, Op::Put { .. }))
}

fn steps_take_room(steps: &[Step]) -> bool {
    steps.iter().any(|step| match step {
        Step::Put { .. } => true,
        Step::Nested(inner) => steps_take_room(&inner.success) || steps_take_room(&inner.failure),
        Step::Read(_) | Step::Delete { .. } => false,
    })
}

#[async_trait]
impl Store for Faulty {
    async fn range(&self, request: RangeRequest) -> Result<RangeResult, StoreError> {
        self.call(Operation::Range, false, self.inner.range(request))
            .await
    }

    async fn commit(&self, txn: Txn) -> Result<Commit, StoreError> {
        let room = txn_takes_room(&txn);
        self.call(Operation::Commit, room, self.inner.commit(txn))
            .await
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StoreError> {
        let from = request.from;
        let stream = self
            .call(Operation::Watch, false, self.inner.watch(request))
            .await?;
        Ok(disturb(&self.control, stream, from))
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.call(Operation::Compact, false, self.inner.compact(revision))
            .await
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.call(Operation::Revision, false, self.inner.revision())
            .await
    }

    async fn grant_lease(
        &self,
        id: Option<LeaseId>,
        ttl_seconds: u64,
    ) -> Result<LeaseId, StoreError> {
        let call = self.inner.grant_lease(id, ttl_seconds);
        self.call(Operation::GrantLease, true, call).await
    }

    async fn renew_lease(&self, id: LeaseId) -> Result<u64, StoreError> {
        self.call(Operation::RenewLease, false, self.inner.renew_lease(id))
            .await
    }

    async fn revoke_lease(&self, id: LeaseId) -> Result<(), StoreError> {
        self.call(Operation::RevokeLease, false, self.inner.revoke_lease(id))
            .await
    }

    async fn lease(&self, id: LeaseId, keys: bool) -> Result<LeaseInfo, StoreError> {
        self.call(Operation::Lease, false, self.inner.lease(id, keys))
            .await
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, StoreError> {
        self.call(Operation::Leases, false, self.inner.leases())
            .await
    }

    async fn transact(&self, transaction: Transaction) -> Result<TransactionResult, StoreError> {
        let room = steps_take_room(&transaction.success) || steps_take_room(&transaction.failure);
        self.call(Operation::Transact, room, self.inner.transact(transaction))
            .await
    }

    async fn healthy(&self) -> Result<(), StoreError> {
        self.call(Operation::Healthy, false, self.inner.healthy())
            .await
    }
}
