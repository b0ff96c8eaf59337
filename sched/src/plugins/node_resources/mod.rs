//! The plug-ins that weigh what pods ask for against what nodes have.

mod balanced;
mod fit;
mod strategy;

pub use self::balanced::NodeResourcesBalancedAllocation;
pub use self::fit::NodeResourcesFit;
pub use self::strategy::{ResourceWeight, ScoringStrategy, ShapePoint};
