//! Decides what happens to a call and to an item of a watch, while the plan may be changed at any time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use orlop_core::env::{Env, Flag, Moment};
use parking_lot::Mutex;

use super::plan::FaultPlan;
use crate::layers::Operation;

/// How a store is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// As by a closed port: calls are [`StoreError::Unavailable`](orlop_core::store::StoreError::Unavailable) at once, open watches end so.
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

/// Decides what goes wrong in a [`Faulty`](super::Faulty) store. Clones decide for the same one.
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
pub(super) enum Fate {
    Fine,
    Unavailable,
    LostRequest,
    LostAnswer,
}

/// What is to happen to an item of a watch.
pub(super) enum ItemFate {
    Fine,
    Broken,
    Lagged,
    Ended,
}

impl FaultControl {
    /// The control of a store in whose environment nothing goes wrong yet.
    pub(super) fn new(env: Env) -> Self {
        Self(Arc::new(Shared {
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
        }))
    }

    pub(super) fn env(&self) -> &Env {
        &self.0.env
    }

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

    pub(super) fn link(&self) -> (Option<Cut>, Flag) {
        let state = self.0.state.lock();
        (state.link.cut, state.link.changed.clone())
    }

    pub(super) fn count(&self, count: impl FnOnce(&mut FaultCounts)) {
        count(&mut self.0.state.lock().counts);
    }

    /// The part of the plan that is in force, after the schedule.
    pub(super) fn plan<T>(&self, part: impl FnOnce(&FaultPlan) -> T) -> T {
        let now = self.0.env.now();
        let mut state = self.0.state.lock();
        while state.schedule.last().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, plan)) = state.schedule.pop() {
                state.plan = plan;
            }
        }
        part(&state.plan)
    }

    pub(super) fn fate(&self, operation: Operation) -> Fate {
        let faults = self.plan(|plan| plan.calls[operation.index()]);
        let kinds = [
            (faults.unavailable, Fate::Unavailable),
            (faults.lost_request, Fate::LostRequest),
            (faults.lost_answer, Fate::LostAnswer),
        ];
        pick(&self.0.env, kinds).unwrap_or(Fate::Fine)
    }

    pub(super) fn item_fate(&self) -> ItemFate {
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

    pub(super) fn item_delay(&self) -> Duration {
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
