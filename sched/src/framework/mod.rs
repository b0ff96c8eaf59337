//! [`Framework`]: a profile made ready, and the decision about one pod.

mod failure;
mod search;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use orlop_core::scheduling::{
    ClusterEvent, CycleState, Handle, Hint, NodeIndex, NodeView, PodInfo, QueuedPod, Registration,
    Rejections, Snapshot, Verdict,
};

pub use self::failure::{Failure, FitError};
pub use self::search::{Cursor, Placement};
use crate::error::Error;
use crate::profile::{Entry, Profile};

/// A set of plug-ins of one profile: a bit for each place.
pub(crate) type PluginSet = u64;

/// A [`Profile`] made ready: which plug-in takes part where.
pub struct Framework {
    name: Arc<str>,
    plugins: Vec<Entry>,
    percentage: u32,
    points: Points,
    /// By plug-in: the events that it asked for. None of those that can refuse no pod; `None` for those that did not ask.
    registrations: Vec<Option<Vec<Registration>>>,
}

/// For each extension point the places of the plug-ins that take part.
#[derive(Default)]
struct Points {
    pre_enqueue: Vec<usize>,
    queue_sort: usize,
    pre_filter: Vec<usize>,
    filter: Vec<usize>,
    post_filter: Vec<usize>,
    pre_score: Vec<usize>,
    score: Vec<usize>,
    reserve: Vec<usize>,
    permit: Vec<usize>,
    pre_bind: Vec<usize>,
    bind: Vec<usize>,
    post_bind: Vec<usize>,
}

/// What one decision needs and the next one can use again.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(crate) state: CycleState,
    marks: Vec<u32>,
    rejections: Rejections,
    feasible: Vec<NodeIndex>,
    scores: Vec<i64>,
    totals: Vec<i64>,
}

impl std::fmt::Debug for Framework {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Framework")
            .field("name", &self.name)
            .field(
                "plugins",
                &self
                    .plugins
                    .iter()
                    .map(|entry| entry.plugin.name())
                    .collect::<Vec<_>>(),
            )
            .finish_non_exhaustive()
    }
}

impl Framework {
    /// Makes a profile ready.
    ///
    /// # Errors
    /// [`Error`] when it has no name, not exactly one QueueSort, or no Bind.
    pub fn new(profile: Profile) -> Result<Self, Error> {
        let Profile {
            name,
            plugins,
            percentage,
        } = profile;
        if name.is_empty() {
            return Err(Error::NamelessProfile);
        }
        if plugins.len() > PluginSet::BITS as usize {
            return Err(Error::TooManyPlugins(name));
        }
        let places = |there: fn(&Entry) -> bool| -> Vec<usize> {
            plugins
                .iter()
                .enumerate()
                .filter(|(_, entry)| there(entry))
                .map(|(place, _)| place)
                .collect()
        };
        let sorts = places(|entry| entry.plugin.as_queue_sort().is_some());
        let [queue_sort] = sorts[..] else {
            return Err(Error::QueueSort {
                profile: name,
                count: sorts.len(),
            });
        };
        let points = Points {
            pre_enqueue: places(|entry| entry.plugin.as_pre_enqueue().is_some()),
            queue_sort,
            pre_filter: places(|entry| entry.plugin.as_pre_filter().is_some()),
            filter: places(|entry| entry.plugin.as_filter().is_some()),
            post_filter: places(|entry| entry.plugin.as_post_filter().is_some()),
            pre_score: places(|entry| entry.plugin.as_pre_score().is_some()),
            score: places(|entry| entry.plugin.as_score().is_some()),
            reserve: places(|entry| entry.plugin.as_reserve().is_some()),
            permit: places(|entry| entry.plugin.as_permit().is_some()),
            pre_bind: places(|entry| entry.plugin.as_pre_bind().is_some()),
            bind: places(|entry| entry.plugin.as_bind().is_some()),
            post_bind: places(|entry| entry.plugin.as_post_bind().is_some()),
        };
        if points.bind.is_empty() {
            return Err(Error::NoBind(name));
        }
        let registrations = plugins
            .iter()
            .map(|Entry { plugin, .. }| {
                let refuses = plugin.as_pre_enqueue().is_some()
                    || plugin.as_pre_filter().is_some()
                    || plugin.as_filter().is_some()
                    || plugin.as_reserve().is_some()
                    || plugin.as_permit().is_some()
                    || plugin.as_pre_bind().is_some();
                if !refuses {
                    return Some(Vec::new());
                }
                plugin.as_enqueue_extensions().map(|point| point.events())
            })
            .collect();
        Ok(Self {
            name: name.as_str().into(),
            plugins,
            percentage,
            points,
            registrations,
        })
    }

    /// The scheduler name of the profile.
    #[must_use]
    pub const fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The name of the plug-in at a place.
    #[must_use]
    pub fn plugin_name(&self, place: usize) -> &str {
        self.plugins[place].plugin.name()
    }

    /// Whether there is a plug-in of this name.
    #[must_use]
    pub fn has_plugin(&self, name: &str) -> bool {
        self.plugins.iter().any(|entry| entry.plugin.name() == name)
    }

    /// The name of the plug-in that orders the queue.
    #[must_use]
    pub fn queue_sort_name(&self) -> &str {
        self.plugin_name(self.points.queue_sort)
    }

    /// Gives all plug-ins what the scheduler offers.
    pub fn attach(&self, handle: &Arc<dyn Handle>) {
        for entry in &self.plugins {
            entry.plugin.attach(handle.clone());
        }
    }

    /// The places of a set, in order.
    pub(crate) fn places(set: PluginSet) -> impl Iterator<Item = usize> {
        (0..PluginSet::BITS as usize).filter(move |place| set >> place & 1 == 1)
    }

    pub(crate) fn compare(&self, a: &QueuedPod, b: &QueuedPod) -> std::cmp::Ordering {
        let sort = self.plugins[self.points.queue_sort].plugin.as_queue_sort();
        sort.map_or(std::cmp::Ordering::Equal, |sort| sort.compare(a, b))
    }

    /// Whether a pod may enter the queue; otherwise which plug-in holds it back and why.
    pub(crate) fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), (usize, Verdict)> {
        for &place in &self.points.pre_enqueue {
            if let Some(point) = self.plugins[place].plugin.as_pre_enqueue() {
                let verdict = point.pre_enqueue(pod);
                if !verdict.is_success() {
                    return Err((place, verdict));
                }
            }
        }
        Ok(())
    }

    /// The plug-ins that an event may mean something to. Those that did not register for any are among them.
    pub(crate) fn interested(&self, event: &ClusterEvent) -> PluginSet {
        let mut set = 0;
        for (place, registrations) in self.registrations.iter().enumerate() {
            let covers = |list: &Vec<Registration>| {
                list.iter().any(|registration| registration.covers(event))
            };
            if registrations.as_ref().is_none_or(covers) {
                set |= 1 << place;
            }
        }
        set
    }

    /// Whether an event may help a pod that the given plug-ins refused; `interested` is the answer of
    /// [`interested`](Self::interested) to the event.
    pub(crate) fn helps(
        &self,
        pod: &PodInfo,
        refused_by: PluginSet,
        interested: PluginSet,
        event: &ClusterEvent,
    ) -> bool {
        Self::places(refused_by & interested).any(|place| {
            match self.plugins[place].plugin.as_enqueue_extensions() {
                Some(point) => point.hint(pod, event) == Hint::Queue,
                None => true,
            }
        })
    }

    /// Upstream's plug-ins for constraints of the pod that nobody here looks after.
    pub(crate) fn unserved(&self, pod: &PodInfo) -> Vec<&'static str> {
        pod.constraints()
            .needs
            .plugins()
            .filter(|name| !self.has_plugin(name))
            .collect()
    }

    /// Sets aside what plug-ins want to on the chosen node. On a refusal, gives all back.
    pub(crate) fn reserve(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        node: &Arc<str>,
    ) -> Result<(), Failure> {
        for &place in &self.points.reserve {
            let Some(point) = self.plugins[place].plugin.as_reserve() else {
                continue;
            };
            let verdict = point.reserve(state, pod, node);
            if !verdict.is_success() {
                self.unreserve(state, pod, node);
                return Err(self.refused(place, verdict, "Reserve"));
            }
        }
        Ok(())
    }

    /// Gives back what was set aside.
    pub(crate) fn unreserve(&self, state: &mut CycleState, pod: &PodInfo, node: &Arc<str>) {
        for &place in self.points.reserve.iter().rev() {
            if let Some(point) = self.plugins[place].plugin.as_reserve() {
                point.unreserve(state, pod, node);
            }
        }
    }

    /// Asks for permission to bind. The answer is the plug-ins that want the binding to wait, and for how long each.
    pub(crate) fn permit(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        node: &Arc<str>,
    ) -> Result<Vec<(usize, std::time::Duration)>, Failure> {
        let mut waits = Vec::new();
        for &place in &self.points.permit {
            let Some(point) = self.plugins[place].plugin.as_permit() else {
                continue;
            };
            match point.permit(state, pod, node) {
                Verdict::Success => {}
                Verdict::Wait(time) => waits.push((place, time.min(point.max_wait()))),
                verdict => return Err(self.refused(place, verdict, "Permit")),
            }
        }
        Ok(waits)
    }

    /// Runs what must be done before the binding, then binds, then tells of it.
    pub(crate) async fn bind(
        &self,
        state: &mut CycleState,
        context: &orlop_core::scheduling::BindContext,
    ) -> Result<(), Failure> {
        for &place in &self.points.pre_bind {
            let Some(point) = self.plugins[place].plugin.as_pre_bind() else {
                continue;
            };
            let verdict = point.pre_bind(state, context).await;
            if !matches!(verdict, Verdict::Success | Verdict::Skip) {
                return Err(self.refused(place, verdict, "PreBind"));
            }
        }
        let mut bound = false;
        for &place in &self.points.bind {
            let Some(point) = self.plugins[place].plugin.as_bind() else {
                continue;
            };
            match point.bind(state, context).await {
                Verdict::Skip => {}
                Verdict::Success => {
                    bound = true;
                    break;
                }
                verdict => return Err(self.refused(place, verdict, "Bind")),
            }
        }
        if !bound {
            return Err(Failure::Error("no plug-in would bind the pod".to_owned()));
        }
        for &place in &self.points.post_bind {
            if let Some(point) = self.plugins[place].plugin.as_post_bind() {
                point.post_bind(state, context);
            }
        }
        Ok(())
    }

    /// A refusal outside the search, as a failure.
    pub(crate) fn refused(&self, place: usize, verdict: Verdict, point: &str) -> Failure {
        let plugin = self.plugin_name(place);
        match verdict {
            Verdict::Unschedulable(reasons) | Verdict::UnschedulableAndUnresolvable(reasons) => {
                Failure::Rejected {
                    message: reasons.to_string(),
                    plugins: 1 << place,
                }
            }
            Verdict::Error(error) => {
                Failure::Error(format!("running {point} plugin {plugin:?}: {error}"))
            }
            other => Failure::Error(format!(
                "running {point} plugin {plugin:?}: unexpected verdict {}",
                other.name()
            )),
        }
    }

    /// Every plug-in's word on one node: the first refusal, or the score of each. For questions, not for speed.
    pub(crate) fn ask_node(
        &self,
        state: &CycleState,
        skipped: PluginSet,
        pod: &PodInfo,
        node: NodeView<'_>,
    ) -> Option<(usize, Verdict)> {
        self.points
            .filter
            .iter()
            .filter(|place| skipped >> **place & 1 == 0)
            .find_map(|&place| {
                let verdict = self.plugins[place]
                    .plugin
                    .as_filter()?
                    .filter(state, pod, node);
                (!verdict.is_success()).then_some((place, verdict))
            })
    }

    /// The names of upstream's reasons would be sorted, and so are these.
    pub(crate) fn names(&self, set: PluginSet) -> BTreeSet<String> {
        Self::places(set)
            .map(|place| self.plugin_name(place).to_owned())
            .collect()
    }

    /// A snapshot's nodes in the order of a search from its first node; for callers that hold no cursor.
    pub(crate) fn everything(snapshot: &Snapshot) -> Vec<NodeIndex> {
        (0..snapshot.len()).map(NodeIndex::new).collect()
    }
}
