//! What tests stand on: an API in memory.
//!
//! [`FakeApi`] is a [`Client`](crate::client::Client) that behaves as the API server does where controllers, schedulers and operators
//! can tell: revisions and conflicts, uids, generations, `status` apart from `spec`, finalizers and graceful deletion, the three
//! propagation policies' marks, selectors, watches that can be resumed, cut and compacted. It neither validates nor defaults nor
//! authorizes, and takes every resource that it is asked for. For the real thing, compose an API server.

// A refusal is a `Status` by value, as everywhere on the client side.
#![allow(clippy::result_large_err)]

mod api;
mod patch;

pub use self::api::FakeApi;
