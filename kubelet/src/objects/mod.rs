//! The ConfigMaps and Secrets that this node's pods name.
//!
//! A node may read only what its pods name, one object at a time. So [`ObjectCache`] holds a watch for each such object (not for a
//! collection), for as long as a registered pod names it, and wakes those pods when it changes.

mod cache;
mod references;
#[cfg(test)]
mod tests;

pub use self::cache::{ObjectCache, Wake};
pub use self::references::{ObjectKind, ObjectRef, references};
