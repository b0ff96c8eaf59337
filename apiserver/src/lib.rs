//! The Kubernetes API as a tower service: authentication, authorization, admission, registry, watch cache, discovery.
//!
//! [`ApiServer`] puts the parts together over any [`Store`](orlop_core::store::Store).
//!
//! A request's way: [`http`] finds out who asks (by [`authentication`]) and what; [`authorization`] says whether they may; the
//! registry decodes, defaults and validates, with [`admission`] in between, and writes to the store; the watch cache follows the
//! store and serves lists and watches. In-process clients ([`LocalClient`]) leave out the HTTP and nothing else.

pub mod admission;
pub mod authentication;
pub mod authorization;
pub mod bootstrap;
mod cache;
mod client;
mod connect;
pub mod http;
mod metrics;
mod names;
mod operations;
mod pod_references;
mod registry;
pub mod reviews;
mod server;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use self::client::LocalClient;
pub use self::registry::ServiceRange;
pub(crate) use self::server::Server;
pub use self::server::{ApiServer, Builder, Error};
