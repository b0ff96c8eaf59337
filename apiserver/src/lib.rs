//! The Kubernetes API as a tower service: authentication, authorization, admission, registry, watch cache, discovery.

pub mod admission;
pub mod authentication;
pub mod authorization;
pub mod bootstrap;
mod names;
mod pod_references;
pub mod reviews;
#[cfg(test)]
mod testing;
