//! [`DecisionLoop`]: placing pods on a snapshot, without queue, binding or API.

use std::sync::Arc;

use orlop_core::scheduling::{NodeIndex, PodInfo, Snapshot, Verdict};

use crate::error::Error;
use crate::framework::{Cursor, Failure, Framework, Placement, Scratch};
use crate::profile::Profile;

/// Places pods on the nodes of a snapshot, one after the other: the scheduler's decision alone. For benchmarks, for the replay of
/// traces, and for questions. The same seed and the same calls give the same placements.
#[derive(Debug)]
pub struct DecisionLoop {
    framework: Arc<Framework>,
    snapshot: Snapshot,
    cursor: Cursor,
    scratch: Scratch,
    random: u64,
}

/// What all nodes would say to a pod; see [`DecisionLoop::explain`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Explanation {
    /// The pod's failure before any node was looked at, if there was one.
    pub before: Option<String>,
    /// Every node, in the order of the snapshot.
    pub nodes: Vec<NodeExplanation>,
}

/// What one node would say to a pod.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NodeExplanation {
    /// The node's name.
    pub node: Arc<str>,
    /// The plug-in that refuses it, and its verdict.
    pub refused: Option<(String, Verdict)>,
    /// The scores, where it fits.
    pub scores: Vec<PluginScore>,
    /// The sum of the weighted scores.
    pub total: i64,
}

/// A plug-in's score of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginScore {
    /// The plug-in.
    pub plugin: String,
    /// The normalised score, 0 to 100.
    pub score: i64,
    /// Its weight.
    pub weight: i64,
}

impl DecisionLoop {
    /// Decisions of a profile on a snapshot.
    ///
    /// # Errors
    /// [`Error`] when the profile is not complete.
    pub fn new(profile: Profile, snapshot: Snapshot, seed: u64) -> Result<Self, Error> {
        Ok(Self::with_framework(
            Arc::new(Framework::new(profile)?),
            snapshot,
            seed,
        ))
    }

    /// Decisions of a profile that is ready already.
    #[must_use]
    pub fn with_framework(framework: Arc<Framework>, snapshot: Snapshot, seed: u64) -> Self {
        Self {
            framework,
            snapshot,
            cursor: Cursor::default(),
            scratch: Scratch::default(),
            random: seed,
        }
    }

    /// The snapshot as it is now.
    #[must_use]
    pub const fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The snapshot, to change it: pods that end, nodes that come. Give a whole new one when the set of nodes changes.
    pub fn snapshot_mut(&mut self) -> &mut Snapshot {
        &mut self.snapshot
    }

    /// Another loop that begins as this one stands; what happens in it is not seen here.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self {
            framework: self.framework.clone(),
            snapshot: self.snapshot.clone(),
            cursor: self.cursor,
            scratch: Scratch::default(),
            random: self.random,
        }
    }

    /// Finds the node for a pod and leaves everything as it is, but for the place where the next search begins.
    ///
    /// # Errors
    /// [`Failure`] when there is none.
    pub fn decide(&mut self, pod: &Arc<PodInfo>) -> Result<Placement, Failure> {
        let random = &mut self.random;
        let mut tie =
            |bound: u64| ((u128::from(next_random(random)) * u128::from(bound)) >> 64) as u64;
        self.framework.schedule(
            pod,
            &self.snapshot,
            &mut self.cursor,
            &mut tie,
            &mut self.scratch,
        )
    }

    /// Finds the node for a pod and puts the pod there.
    ///
    /// # Errors
    /// [`Failure`] when there is none.
    pub fn place(&mut self, pod: Arc<PodInfo>) -> Result<Placement, Failure> {
        let placement = self.decide(&pod)?;
        self.snapshot.add_pod(placement.node, pod);
        Ok(placement)
    }

    /// Takes a pod off its node.
    pub fn remove(&mut self, node: NodeIndex, uid: &str) -> Option<Arc<PodInfo>> {
        self.snapshot.remove_pod(node, uid)
    }

    /// What every node would say to a pod: why not, or how well.
    pub fn explain(&mut self, pod: &Arc<PodInfo>) -> Explanation {
        let Self {
            framework,
            snapshot,
            scratch,
            ..
        } = self;
        scratch.state.clear();
        let pre = match framework.pre_filter(pod, snapshot, scratch) {
            Ok(pre) => pre,
            Err(failure) => {
                return Explanation {
                    before: Some(failure.to_string()),
                    nodes: Vec::new(),
                };
            }
        };
        let mut nodes: Vec<NodeExplanation> = Framework::everything(snapshot)
            .into_iter()
            .map(|index| {
                let node = snapshot.node(index);
                let left_out = pre
                    .narrowed
                    .as_ref()
                    .filter(|(rows, _)| rows.binary_search(&index.row()).is_err());
                let refused = match left_out {
                    Some((_, by)) => Framework::places(*by).next().map(|place| {
                        (
                            place,
                            Verdict::unresolvable("node(s) didn't satisfy plugin(s)"),
                        )
                    }),
                    None => framework.ask_node(&scratch.state, pre.skipped, pod, node),
                };
                NodeExplanation {
                    node: node.name().clone(),
                    refused: refused
                        .map(|(place, verdict)| (framework.plugin_name(place).to_owned(), verdict)),
                    scores: Vec::new(),
                    total: 0,
                }
            })
            .collect();
        let fitting: Vec<NodeIndex> = (0..nodes.len())
            .filter(|row| nodes[*row].refused.is_none())
            .map(NodeIndex::new)
            .collect();
        for (place, weight, scores) in framework.score_all(pod, snapshot, &fitting, scratch) {
            let plugin = framework.plugin_name(place);
            for (index, score) in fitting.iter().zip(scores) {
                let node = &mut nodes[index.row()];
                node.scores.push(PluginScore {
                    plugin: plugin.to_owned(),
                    score,
                    weight,
                });
                node.total += score * weight;
            }
        }
        Explanation {
            before: None,
            nodes,
        }
    }
}

/// SplitMix64, as in the environment seam: small, fast, and repeatable.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
