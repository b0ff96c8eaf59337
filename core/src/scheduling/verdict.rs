//! What plug-ins say: verdicts, and their batch form.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use super::snapshot::{NodeIndex, NodeView, Snapshot};
use crate::status::Status;

/// A plug-in failed; the pod's attempt ends and is repeated later.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PluginError {
    /// Something went wrong inside the plug-in.
    #[error("{0}")]
    Failed(String),
    /// The API refused a request.
    #[error("{0}")]
    Api(#[source] Box<Status>),
}

impl From<Status> for PluginError {
    fn from(status: Status) -> Self {
        Self::Api(Box::new(status))
    }
}

/// Why a node or a pod was refused. The texts are counted over all nodes and shown to the user, so they say nothing that differs from
/// node to node: `Insufficient cpu`, `node(s) were unschedulable`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reasons(Vec<Cow<'static, str>>);

impl Reasons {
    /// The texts.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|reason| &**reason)
    }
}

impl<R: Into<Cow<'static, str>>> FromIterator<R> for Reasons {
    fn from_iter<I: IntoIterator<Item = R>>(reasons: I) -> Self {
        Self(reasons.into_iter().map(Into::into).collect())
    }
}

impl From<&'static str> for Reasons {
    fn from(reason: &'static str) -> Self {
        Self(vec![Cow::Borrowed(reason)])
    }
}

impl From<String> for Reasons {
    fn from(reason: String) -> Self {
        Self(vec![Cow::Owned(reason)])
    }
}

impl fmt::Display for Reasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

/// What a plug-in says of a pod, or of a pod on a node. Upstream's status codes.
///
/// | verdict | where |
/// |---|---|
/// | `Success` | everywhere |
/// | `Skip` | PreFilter, PreScore: this pod needs no Filter or Score of the plug-in; Bind: another plug-in shall bind it |
/// | `Wait` | Permit |
/// | `Unschedulable`, `UnschedulableAndUnresolvable` | PreEnqueue, PreFilter, Filter, Reserve, Permit, PreBind |
/// | `Error` | everywhere |
///
/// At a point that does not know it, a verdict counts as an error of the plug-in.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Verdict {
    /// Go on.
    #[default]
    Success,
    /// Nothing to do here for this plug-in.
    Skip,
    /// Wait with the binding until somebody allows it, but no longer than this.
    Wait(Duration),
    /// Not now; the removal of other pods may help.
    Unschedulable(Reasons),
    /// Not as things are, and removing pods will not help.
    UnschedulableAndUnresolvable(Reasons),
    /// The plug-in failed.
    Error(PluginError),
}

impl Verdict {
    /// [`Verdict::Unschedulable`] for one reason.
    pub fn unschedulable(reason: impl Into<Reasons>) -> Self {
        Self::Unschedulable(reason.into())
    }

    /// [`Verdict::UnschedulableAndUnresolvable`] for one reason.
    pub fn unresolvable(reason: impl Into<Reasons>) -> Self {
        Self::UnschedulableAndUnresolvable(reason.into())
    }

    /// [`Verdict::Error`] with a message.
    pub fn error(message: impl Into<String>) -> Self {
        Self::Error(PluginError::Failed(message.into()))
    }

    /// Whether it is [`Verdict::Success`].
    #[must_use]
    pub const fn is_success(&self) -> bool {
        matches!(self, Self::Success)
    }

    /// Whether it is one of the two refusals.
    #[must_use]
    pub const fn is_rejection(&self) -> bool {
        matches!(
            self,
            Self::Unschedulable(_) | Self::UnschedulableAndUnresolvable(_)
        )
    }

    /// The reasons of a refusal.
    #[must_use]
    pub const fn reasons(&self) -> Option<&Reasons> {
        match self {
            Self::Unschedulable(reasons) | Self::UnschedulableAndUnresolvable(reasons) => {
                Some(reasons)
            }
            _ => None,
        }
    }

    /// Upstream's name of it, as metrics and traces show it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Success => "Success",
            Self::Skip => "Skip",
            Self::Wait(_) => "Wait",
            Self::Unschedulable(_) => "Unschedulable",
            Self::UnschedulableAndUnresolvable(_) => "UnschedulableAndUnresolvable",
            Self::Error(_) => "Error",
        }
    }
}

impl From<PluginError> for Verdict {
    fn from(error: PluginError) -> Self {
        Self::Error(error)
    }
}

/// A refusal that one plug-in gave to any number of nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejection {
    /// Which plug-in, by its place in the profile.
    pub plugin: usize,
    /// What it said.
    pub verdict: Verdict,
}

/// Names a [`Rejection`] in [`Rejections`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RejectionId(u32);

/// The refusals of one attempt, each kept once.
#[derive(Clone, Debug, Default)]
pub struct Rejections(Vec<Rejection>);

impl<'a> IntoIterator for &'a Rejections {
    type Item = &'a Rejection;
    type IntoIter = std::slice::Iter<'a, Rejection>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Rejections {
    /// Keeps a refusal, or finds it.
    pub fn intern(&mut self, plugin: usize, verdict: Verdict) -> RejectionId {
        // Plug-ins give few different refusals. One that gives every node its own is merged when they are counted.
        let recent = self.0.len().saturating_sub(16);
        let known = self.0[recent..]
            .iter()
            .rposition(|known| known.plugin == plugin && known.verdict == verdict);
        let at = known.map_or(self.0.len(), |at| recent + at);
        if at == self.0.len() {
            self.0.push(Rejection { plugin, verdict });
        }
        RejectionId(at as u32 + 1)
    }

    /// The refusal that an id names.
    #[must_use]
    pub fn get(&self, id: RejectionId) -> &Rejection {
        &self.0[id.0 as usize - 1]
    }

    /// The refusal behind a mark of [`Candidates`]; `None` for zero.
    #[must_use]
    pub fn by_mark(&self, mark: u32) -> Option<&Rejection> {
        self.0.get((mark as usize).checked_sub(1)?)
    }

    /// All, in the order in which they were given.
    pub fn iter(&self) -> std::slice::Iter<'_, Rejection> {
        self.0.iter()
    }

    /// Forgets all and keeps the memory.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A stretch of a snapshot's nodes that is being filtered: which of them are still in, and why the others are not.
#[derive(Debug)]
pub struct Candidates<'a> {
    snapshot: &'a Snapshot,
    first: usize,
    /// Zero for a node that is still in, otherwise the id of its refusal.
    marks: &'a mut [u32],
    rejections: &'a mut Rejections,
    plugin: usize,
}

impl<'a> Candidates<'a> {
    /// The nodes from row `first`, as many as there are marks; all marks must be zero at first.
    pub fn new(
        snapshot: &'a Snapshot,
        first: usize,
        marks: &'a mut [u32],
        rejections: &'a mut Rejections,
    ) -> Self {
        assert!(
            first + marks.len() <= snapshot.len(),
            "candidates beyond the snapshot"
        );
        Self {
            snapshot,
            first,
            marks,
            rejections,
            plugin: 0,
        }
    }

    /// Says which plug-in speaks next, by its place in the profile.
    pub fn set_plugin(&mut self, plugin: usize) {
        self.plugin = plugin;
    }

    /// The snapshot.
    #[must_use]
    pub const fn snapshot(&self) -> &'a Snapshot {
        self.snapshot
    }

    /// The rows of the snapshot's columns that these nodes have.
    #[must_use]
    pub const fn rows(&self) -> Range<usize> {
        self.first..self.first + self.marks.len()
    }

    /// Keeps a refusal, to be given to any number of nodes by [`judge`](Self::judge).
    pub fn rejection(&mut self, verdict: Verdict) -> RejectionId {
        self.rejections.intern(self.plugin, verdict)
    }

    /// Asks for each row that is still in whether it shall go, and by which refusal.
    pub fn judge(&mut self, mut verdict: impl FnMut(usize) -> Option<RejectionId>) {
        for (offset, mark) in self.marks.iter_mut().enumerate() {
            if *mark == 0
                && let Some(RejectionId(id)) = verdict(self.first + offset)
            {
                *mark = id;
            }
        }
    }

    /// Asks for each row that is still in whether it shall go, and as what kind of refusal; each kind is made a verdict of once.
    pub fn judge_kinds<K: Copy + PartialEq>(
        &mut self,
        mut kind: impl FnMut(usize) -> Option<K>,
        mut verdict: impl FnMut(K) -> Verdict,
    ) {
        let mut known: Vec<(K, u32)> = Vec::new();
        for (offset, mark) in self.marks.iter_mut().enumerate() {
            if *mark != 0 {
                continue;
            }
            let Some(kind) = kind(self.first + offset) else {
                continue;
            };
            *mark = match known.iter().find(|(known, _)| *known == kind) {
                Some((_, id)) => *id,
                None => {
                    let id = self.rejections.intern(self.plugin, verdict(kind)).0;
                    known.push((kind, id));
                    id
                }
            };
        }
    }

    /// Asks for each node that is still in for a verdict. Everything but [`Verdict::Success`] puts it out.
    pub fn judge_nodes(&mut self, mut verdict: impl FnMut(NodeView<'_>) -> Verdict) {
        for offset in 0..self.marks.len() {
            if self.marks[offset] == 0 {
                let verdict = verdict(self.snapshot.node(NodeIndex::new(self.first + offset)));
                if !verdict.is_success() {
                    self.marks[offset] = self.rejections.intern(self.plugin, verdict).0;
                }
            }
        }
    }

    /// Puts all out by one refusal.
    pub fn reject_all(&mut self, verdict: Verdict) {
        let id = self.rejection(verdict);
        self.judge(|_| Some(id));
    }

    /// The refusal of a row; `None` while it is in.
    #[must_use]
    pub fn rejection_of(&self, row: usize) -> Option<&Rejection> {
        match self.marks[row - self.first] {
            0 => None,
            id => Some(self.rejections.get(RejectionId(id))),
        }
    }

    /// The rows that are still in.
    pub fn open(&self) -> impl Iterator<Item = usize> {
        self.marks
            .iter()
            .enumerate()
            .filter(|(_, mark)| **mark == 0)
            .map(|(offset, _)| self.first + offset)
    }
}
