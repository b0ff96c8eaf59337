//! What tests stand on: an API in memory, and a runtime and a network that run nothing.
//!
//! [`FakeApi`] is a [`Client`](crate::client::Client) that behaves as the API server does where controllers, schedulers and operators
//! can tell: revisions and conflicts, uids, generations, `status` apart from `spec`, finalizers and graceful deletion, the three
//! propagation policies' marks, selectors, watches that can be resumed, cut and compacted. It neither validates nor defaults nor
//! authorizes, and takes every resource that it is asked for. For the real thing, compose an API server.
//!
//! [`SimulatedRuntime`] and [`SimulatedNetwork`] keep account of sandboxes, containers, images and addresses, and start no process and
//! move no packet.

mod api;
#[cfg(test)]
mod conformance;
mod network;
mod patch;
mod runtime;

pub use self::api::FakeApi;
pub use self::network::SimulatedNetwork;
pub use self::runtime::SimulatedRuntime;
