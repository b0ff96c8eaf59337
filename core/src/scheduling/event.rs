//! What happens in the cluster, and which pods it may help.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};
use std::sync::Arc;

use super::node::NodeInfo;
use super::pod::PodInfo;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum EventResource {
    /// Any resource.
    Any,
    /// A pod, wherever it is in its life.
    Pod,
    /// A pod that has a node.
    AssignedPod,
    /// The waiting pod itself.
    TargetPod,
    /// A node.
    Node,
    /// A claim to a volume.
    PersistentVolumeClaim,
    /// A volume.
    PersistentVolume,
    /// A class of volumes.
    StorageClass,
    /// Another resource, by its plural name.
    Other(&'static str),
}

/// What happened to it: a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Actions(u32);

impl Actions {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// It appeared.
    pub const ADD: Self = Self(1);
    /// It went.
    pub const DELETE: Self = Self(1 << 1);
    /// A node has other amounts of resources.
    pub const UPDATE_NODE_ALLOCATABLE: Self = Self(1 << 2);
    /// A node has other labels.
    pub const UPDATE_NODE_LABEL: Self = Self(1 << 3);
    /// A node has other taints (`unschedulable` among them).
    pub const UPDATE_NODE_TAINT: Self = Self(1 << 4);
    /// A node has other conditions.
    pub const UPDATE_NODE_CONDITION: Self = Self(1 << 5);
    /// A node has other annotations.
    pub const UPDATE_NODE_ANNOTATION: Self = Self(1 << 6);
    /// A pod has other labels.
    pub const UPDATE_POD_LABEL: Self = Self(1 << 7);
    /// A pod asks for less.
    pub const UPDATE_POD_SCALE_DOWN: Self = Self(1 << 8);
    /// A pod has other tolerations.
    pub const UPDATE_POD_TOLERATION: Self = Self(1 << 9);
    /// A pod's last scheduling gate went.
    pub const UPDATE_POD_GATES_ELIMINATED: Self = Self(1 << 10);
    /// Any other change.
    pub const UPDATE_OTHER: Self = Self(1 << 11);
    /// Any change of a node.
    pub const UPDATE_NODE: Self = Self(0b1_1111 << 2);
    /// Any change.
    pub const UPDATE: Self = Self(((1 << 12) - 1) & !0b11);
    /// Anything.
    pub const ALL: Self = Self((1 << 12) - 1);

    /// Whether it has an action in common with another set.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether it is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The label that upstream's metrics have for it.
    const fn label(self) -> &'static str {
        match self {
            Self::ADD => "Add",
            Self::DELETE => "Delete",
            Self::UPDATE_NODE_ALLOCATABLE => "UpdateNodeAllocatable",
            Self::UPDATE_NODE_LABEL => "UpdateNodeLabel",
            Self::UPDATE_NODE_TAINT => "UpdateNodeTaint",
            Self::UPDATE_NODE_CONDITION => "UpdateNodeCondition",
            Self::UPDATE_NODE_ANNOTATION => "UpdateNodeAnnotation",
            Self::UPDATE_POD_LABEL => "UpdatePodLabel",
            Self::UPDATE_POD_SCALE_DOWN => "UpdatePodScaleDown",
            Self::UPDATE_POD_TOLERATION => "UpdatePodToleration",
            Self::UPDATE_POD_GATES_ELIMINATED => "UpdatePodSchedulingGatesEliminated",
            _ => "Update",
        }
    }
}

impl BitOr for Actions {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Actions {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// The object that an event is about, before and after. Both are there for a change.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Subject {
    /// A node.
    Node {
        /// How it was.
        old: Option<Arc<NodeInfo>>,
        /// How it is.
        new: Option<Arc<NodeInfo>>,
    },
    /// A pod.
    Pod {
        /// How it was.
        old: Option<Arc<PodInfo>>,
        /// How it is.
        new: Option<Arc<PodInfo>>,
    },
    /// Something else.
    Other,
}

/// Something happened.
#[derive(Clone, Debug)]
pub struct ClusterEvent {
    /// To what.
    pub resource: EventResource,
    /// What.
    pub actions: Actions,
    /// The object.
    pub subject: Subject,
}

impl ClusterEvent {
    /// Something happened to a resource of which nothing more is known.
    #[must_use]
    pub const fn new(resource: EventResource, actions: Actions) -> Self {
        Self {
            resource,
            actions,
            subject: Subject::Other,
        }
    }
}

impl fmt::Display for ClusterEvent {
    /// The name in upstream's metrics, such as `NodeAdd`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = self.actions.label();
        match self.resource {
            EventResource::Any => f.write_str("*")?,
            // The actions that only one resource knows carry its name.
            EventResource::Node if action.starts_with("UpdateNode") => {}
            EventResource::Pod | EventResource::AssignedPod | EventResource::TargetPod
                if action.starts_with("UpdatePod") => {}
            EventResource::Other(name) => f.write_str(name)?,
            other => write!(f, "{other:?}")?,
        }
        f.write_str(action)
    }
}

/// What an event means for a pod that a plug-in refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Try again.
    Queue,
    /// It does not help.
    Skip,
}

/// Events that a plug-in wants to hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registration {
    /// About what.
    pub resource: EventResource,
    /// What happens to it.
    pub actions: Actions,
}

impl Registration {
    /// Whether an event is among them.
    #[must_use]
    pub fn covers(&self, event: &ClusterEvent) -> bool {
        let resource = match (self.resource, event.resource) {
            (EventResource::Any, _) => true,
            (EventResource::Pod, EventResource::AssignedPod | EventResource::TargetPod) => true,
            (wanted, happened) => wanted == happened,
        };
        resource && self.actions.intersects(event.actions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registrations_cover_what_is_more_special() {
        let node = |actions| Registration {
            resource: EventResource::Node,
            actions,
        };
        let label = ClusterEvent::new(EventResource::Node, Actions::UPDATE_NODE_LABEL);
        assert!(node(Actions::ADD | Actions::UPDATE_NODE).covers(&label));
        assert!(!node(Actions::ADD).covers(&label));
        let pods = Registration {
            resource: EventResource::Pod,
            actions: Actions::DELETE,
        };
        assert!(pods.covers(&ClusterEvent::new(
            EventResource::AssignedPod,
            Actions::DELETE
        )));
        assert!(!pods.covers(&label));
        assert_eq!(label.to_string(), "UpdateNodeLabel");
        assert_eq!(
            ClusterEvent::new(EventResource::AssignedPod, Actions::DELETE).to_string(),
            "AssignedPodDelete"
        );
        assert_eq!(
            ClusterEvent::new(EventResource::Node, Actions::ADD).to_string(),
            "NodeAdd"
        );
    }
}
