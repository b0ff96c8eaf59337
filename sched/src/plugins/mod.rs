//! The in-tree plug-ins, under their upstream names.

mod default_binder;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_resources;
mod node_unschedulable;
mod priority_sort;
mod scheduling_gates;
mod taint_toleration;
#[cfg(test)]
mod tests;

pub use self::default_binder::DefaultBinder;
pub use self::node_affinity::NodeAffinity;
pub use self::node_name::NodeName;
pub use self::node_ports::NodePorts;
pub use self::node_resources::{
    NodeResourcesBalancedAllocation, NodeResourcesFit, ResourceWeight, ScoringStrategy, ShapePoint,
};
pub use self::node_unschedulable::NodeUnschedulable;
pub use self::priority_sort::PrioritySort;
pub use self::scheduling_gates::SchedulingGates;
pub use self::taint_toleration::TaintToleration;
