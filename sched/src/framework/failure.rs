//! Why a pod found no node, in Kubernetes' words.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::PluginSet;

/// Why an attempt to schedule a pod ended without a node.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Failure {
    /// There are no nodes at all.
    NoNodes,
    /// No node fits.
    Unfit(Box<FitError>),
    /// A plug-in refused the pod after a node was found.
    Rejected {
        /// Why.
        message: String,
        /// Which plug-ins, by place.
        plugins: PluginSet,
    },
    /// Something went wrong; the pod is tried again soon.
    Error(String),
}

/// No node fits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FitError {
    /// How many nodes there are.
    pub nodes: usize,
    /// How many nodes were refused for each reason.
    pub reasons: BTreeMap<String, usize>,
    /// What a PreFilter said that refused the pod as a whole.
    pub pre_filter: String,
    /// What the PostFilters said.
    pub post_filter: String,
    /// The plug-ins that refused, by place.
    pub plugins: PluginSet,
    /// Where room is being made.
    pub nominated_node: Option<Arc<str>>,
}

impl Failure {
    /// The plug-ins that refused, by place: an event that means nothing to them does not help the pod.
    #[must_use]
    pub fn plugins(&self) -> u64 {
        match self {
            Self::Unfit(fit) => fit.plugins,
            Self::Rejected { plugins, .. } => *plugins,
            Self::NoNodes | Self::Error(_) => 0,
        }
    }

    /// Whether something went wrong, in place of a refusal.
    #[must_use]
    pub const fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }

    /// The reason of the pod's condition `PodScheduled`.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        if self.is_error() {
            "SchedulerError"
        } else {
            "Unschedulable"
        }
    }

    /// The `result` label of upstream's metrics.
    #[must_use]
    pub(crate) const fn result(&self) -> &'static str {
        if self.is_error() {
            "error"
        } else {
            "unschedulable"
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoNodes => f.write_str("no nodes available to schedule pods"),
            Self::Unfit(fit) => fit.fmt(f),
            Self::Rejected { message, .. } | Self::Error(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Failure {}

impl fmt::Display for FitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0/{} nodes are available:", self.nodes)?;
        if self.pre_filter.is_empty() {
            // Sorted as text, the number among it: upstream does so.
            let mut counted: Vec<String> = self
                .reasons
                .iter()
                .map(|(reason, count)| format!("{count} {reason}"))
                .collect();
            counted.sort();
            if !counted.is_empty() {
                write!(f, " {}.", counted.join(", "))?;
            }
        } else {
            write!(f, " {}.", self.pre_filter)?;
        }
        if !self.post_filter.is_empty() {
            write!(f, " {}", self.post_filter)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_those_of_kubernetes() {
        let fit = FitError {
            nodes: 5,
            reasons: [
                ("node(s) had untolerated taint(s)", 2),
                ("Insufficient cpu", 3),
            ]
            .map(|(reason, count)| (reason.to_owned(), count))
            .into(),
            ..FitError::default()
        };
        assert_eq!(
            fit.to_string(),
            "0/5 nodes are available: 2 node(s) had untolerated taint(s), 3 Insufficient cpu."
        );
        let with_preemption = FitError {
            post_filter: "preemption: no".to_owned(),
            ..fit.clone()
        };
        assert!(
            with_preemption
                .to_string()
                .ends_with("3 Insufficient cpu. preemption: no")
        );
        let early = FitError {
            pre_filter: "pod affinity terms conflict".to_owned(),
            ..fit
        };
        assert_eq!(
            early.to_string(),
            "0/5 nodes are available: pod affinity terms conflict."
        );
        assert_eq!(
            Failure::NoNodes.to_string(),
            "no nodes available to schedule pods"
        );
    }
}
