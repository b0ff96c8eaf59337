//! Fault injection: a store that fails as often as it is told to.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::future::{Either, select};
use orlop_core::env::{Env, Flag, Moment};
use orlop_core::revision::Revision;
use orlop_core::store::{
    Commit, LeaseId, LeaseInfo, Op, RangeRequest, RangeResult, Step, Store, StoreError,
    Transaction, TransactionResult, Txn, WatchItem, WatchRequest, WatchStream,
};
use parking_lot::Mutex;

use super::Operation;
use super::late::Late;

/// How likely a call fails, and how: each from `0.0`, never, to `1.0`, always. At most one happens to a call; when they add up to more than
/// one, those that stand first come first.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CallFaults {
    /// The call does not reach the store: [`StoreError::Unavailable`], and nothing happened.
    pub unavailable: f64,
    /// A write does not reach the store, and nobody knows that: [`StoreError::OutcomeUnknown`], and nothing happened. Reads are
    /// [`StoreError::Unavailable`].
    pub lost_request: f64,
    /// The store does what it was asked to do, and its answer gets lost: [`StoreError::OutcomeUnknown`], and it did happen, unless the store
    /// itself refused. Reads are [`StoreError::Unavailable`].
    pub lost_answer: f64,
}

/// How likely something happens to a watch with each of its items.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WatchFaults {
    /// It ends with [`StoreError::Unavailable`] instead of the item.
    pub broken: f64,
    /// It ends with [`StoreError::Lagged`] instead of the item.
    pub lagged: f64,
    /// It ends without a word.
    pub ended: f64,
    /// The item comes late, and all that follow it with it …
    pub delayed: f64,
    /// … by up to so much.
    pub delay: Duration,
}

/// What goes wrong, and how often.
///
/// ```
/// use orlop_store::layers::{CallFaults, FaultPlan, Operation};
/// let plan = FaultPlan::none()
///     .on(Operation::Commit, CallFaults { lost_answer: 0.1, ..CallFaults::default() });
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FaultPlan {
    calls: [CallFaults; Operation::COUNT],
    watches: WatchFaults,
    no_space: bool,
}

impl FaultPlan {
    /// Nothing goes wrong.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Everything may go wrong: each call with a likelihood of `rate`, in all its ways, and each item of a watch.
    #[must_use]
    pub fn everything(rate: f64) -> Self {
        let third = rate / 3.0;
        let mut plan = Self::none();
        for operation in Operation::ALL {
            let faults = if operation.is_write() {
                CallFaults {
                    unavailable: third,
                    lost_request: third,
                    lost_answer: third,
                }
            } else {
                CallFaults {
                    unavailable: rate,
                    ..CallFaults::default()
                }
            };
            plan = plan.on(operation, faults);
        }
        plan.watches(WatchFaults {
            broken: third,
            lagged: third,
            ended: third,
            ..WatchFaults::default()
        })
    }

    /// What happens to the calls of one operation.
    #[must_use]
    pub fn on(mut self, operation: Operation, faults: CallFaults) -> Self {
        self.calls[operation.index()] = faults;
        self
    }

    /// What happens to open watches.
    #[must_use]
    pub fn watches(mut self, faults: WatchFaults) -> Self {
        self.watches = faults;
        self
    }

    /// The disk is full: what would take room, which is puts and new leases, is [`StoreError::NoSpace`]; reads and deletes go on.
    #[must_use]
    pub fn no_space(mut self) -> Self {
        self.no_space = true;
        self
    }
}

/// How a store is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// As by a closed port: calls are [`StoreError::Unavailable`] at once, open watches end so.
    Refuse,
    /// As by a pulled cable: nothing comes back. Calls wait until the cable is back, and then turn out to be lost; open watches are silent,
    /// and go on then.
    Silence,
}

/// How often something went wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Calls that did not reach the store, and were told so.
    pub unavailable: u64,
    /// Writes that did not reach the store, and were not told so.
    pub lost_requests: u64,
    /// Answers that got lost.
    pub lost_answers: u64,
    /// Writes for which there was no space.
    pub no_space: u64,
    /// Watches that were ended.
    pub watches_ended: u64,
    /// Items of watches that came late.
    pub items_delayed: u64,
}

impl FaultCounts {
    /// All together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.unavailable
            + self.lost_requests
            + self.lost_answers
            + self.no_space
            + self.watches_ended
            + self.items_delayed
    }
}

/// A partition that is there, and the signal for its beginning and end.
struct Link {
    cut: Option<Cut>,
    /// Set when `cut` changes; then a new one takes its place.
    changed: Flag,
}

struct State {
    plan: FaultPlan,
    /// Plans that take over at their moments, the next one last.
    schedule: Vec<(Moment, FaultPlan)>,
    link: Link,
    counts: FaultCounts,
}

struct Shared {
    env: Env,
    state: Mutex<State>,
}

/// Decides what goes wrong in a [`Faulty`] store. Clones decide for the same one.
#[derive(Clone)]
pub struct FaultControl(Arc<Shared>);

impl fmt::Debug for FaultControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.state.lock();
        f.debug_struct("FaultControl")
            .field("plan", &state.plan)
            .field("cut", &state.link.cut)
            .field("counts", &state.counts)
            .finish_non_exhaustive()
    }
}

/// What is to happen to a call.
enum Fate {
    Fine,
    Unavailable,
    LostRequest,
    LostAnswer,
}

/// What is to happen to an item of a watch.
enum ItemFate {
    Fine,
    Broken,
    Lagged,
    Ended,
}

impl FaultControl {
    /// From now on things go wrong by this plan, and by no schedule.
    pub fn set(&self, plan: FaultPlan) {
        let mut state = self.0.state.lock();
        state.plan = plan;
        state.schedule.clear();
    }

    /// From now on nothing goes wrong; a partition that is there stays.
    pub fn clear(&self) {
        self.set(FaultPlan::none());
    }

    /// A plan for each span of time to come: each takes over so long after now. Until the first does, the plan that there is stays.
    pub fn schedule(&self, plans: impl IntoIterator<Item = (Duration, FaultPlan)>) {
        let now = self.0.env.now();
        let mut schedule: Vec<_> = plans
            .into_iter()
            .map(|(after, plan)| (now + after, plan))
            .collect();
        schedule.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        self.0.state.lock().schedule = schedule;
    }

    /// Cuts the store off.
    pub fn cut(&self, cut: Cut) {
        self.relink(Some(cut));
    }

    /// Ends a partition.
    pub fn heal(&self) {
        self.relink(None);
    }

    fn relink(&self, cut: Option<Cut>) {
        let changed = {
            let mut state = self.0.state.lock();
            state.link.cut = cut;
            std::mem::take(&mut state.link.changed)
        };
        changed.set();
    }

    /// How often something went wrong so far.
    #[must_use]
    pub fn counts(&self) -> FaultCounts {
        self.0.state.lock().counts
    }

    fn link(&self) -> (Option<Cut>, Flag) {
        let state = self.0.state.lock();
        (state.link.cut, state.link.changed.clone())
    }

    fn count(&self, count: impl FnOnce(&mut FaultCounts)) {
        count(&mut self.0.state.lock().counts);
    }

    /// The part of the plan that is in force, after the schedule.
    fn plan<T>(&self, part: impl FnOnce(&FaultPlan) -> T) -> T {
        let now = self.0.env.now();
        let mut state = self.0.state.lock();
        while state.schedule.last().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, plan)) = state.schedule.pop() {
                state.plan = plan;
            }
        }
        part(&state.plan)
    }

    fn fate(&self, operation: Operation) -> Fate {
        let faults = self.plan(|plan| plan.calls[operation.index()]);
        let kinds = [
            (faults.unavailable, Fate::Unavailable),
            (faults.lost_request, Fate::LostRequest),
            (faults.lost_answer, Fate::LostAnswer),
        ];
        pick(&self.0.env, kinds).unwrap_or(Fate::Fine)
    }

    fn item_fate(&self) -> ItemFate {
        let faults = self.plan(|plan| plan.watches);
        let kinds = [
            (faults.broken, ItemFate::Broken),
            (faults.lagged, ItemFate::Lagged),
            (faults.ended, ItemFate::Ended),
        ];
        let fate = pick(&self.0.env, kinds).unwrap_or(ItemFate::Fine);
        if !matches!(fate, ItemFate::Fine) {
            self.count(|counts| counts.watches_ended += 1);
        }
        fate
    }

    fn item_delay(&self) -> Duration {
        let faults = self.plan(|plan| plan.watches);
        if pick(&self.0.env, [(faults.delayed, ())]).is_none() {
            return Duration::ZERO;
        }
        self.count(|counts| counts.items_delayed += 1);
        faults.delay.mul_f64(self.0.env.random_unit())
    }
}

/// Draws one of several outcomes by their likelihoods. Draws nothing when none can happen, so that a plan without faults leaves the
/// environment's randomness alone.
fn pick<T, const N: usize>(env: &Env, kinds: [(f64, T); N]) -> Option<T> {
    if kinds.iter().all(|(rate, _)| *rate <= 0.0) {
        return None;
    }
    let mut left = env.random_unit();
    for (rate, kind) in kinds {
        if left < rate {
            return Some(kind);
        }
        left -= rate.max(0.0);
    }
    None
}

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
        let control = FaultControl(Arc::new(Shared {
            env,
            state: Mutex::new(State {
                plan: FaultPlan::none(),
                schedule: Vec::new(),
                link: Link {
                    cut: None,
                    changed: Flag::new(),
                },
                counts: FaultCounts::default(),
            }),
        }));
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

    /// Lets a watch break, be late and fall silent.
    fn disturb(&self, stream: WatchStream, from: Revision) -> WatchStream {
        let control = self.control.clone();
        let delays = control.clone();
        let stream = Late::new(stream, self.control.0.env.clone(), move |_: &Env| {
            delays.item_delay()
        });
        let broken = || StoreError::Unavailable("injected fault: the watch broke".to_owned());
        let stream = futures::stream::unfold(
            Some((stream, Revision(from.0.saturating_sub(1)))),
            move |watching| {
                let control = control.clone();
                async move {
                    let (mut stream, at) = watching?;
                    let item = loop {
                        match control.link() {
                            (Some(Cut::Refuse), _) => {
                                control.count(|counts| counts.watches_ended += 1);
                                return Some((Err(broken()), None));
                            }
                            (Some(Cut::Silence), changed) => changed.wait().await,
                            (None, changed) => {
                                let changed = std::pin::pin!(changed.wait());
                                match select(changed, stream.next()).await {
                                    Either::Left(_) => {}
                                    Either::Right((item, _)) => break item?,
                                }
                            }
                        }
                    };
                    let Ok(item) = item else {
                        return Some((item, None));
                    };
                    match control.item_fate() {
                        ItemFate::Fine => {
                            let reached = match &item {
                                WatchItem::Progress(at) => *at,
                                WatchItem::Changes(changes) => {
                                    changes.last().map_or(at, |change| change.revision())
                                }
                            };
                            Some((Ok(item), Some((stream, reached))))
                        }
                        ItemFate::Broken => Some((Err(broken()), None)),
                        ItemFate::Lagged => Some((Err(StoreError::Lagged { at }), None)),
                        ItemFate::Ended => None,
                    }
                }
            },
        );
        Box::pin(stream)
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
        Ok(self.disturb(stream, from))
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
