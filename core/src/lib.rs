//! The contracts of Orlop.
//!
//! Orlop is Kubernetes as a deck to build on. This crate holds what all its parts share and what a plug-in author compiles
//! against: the five joints ([`store::Store`], [`scheduling`]'s plug-in traits, [`controller::Controller`],
//! [`runtime::Runtime`] and [`network::NetworkPlugin`]), the words that they speak ([`object::Object`], [`status::Status`],
//! [`quantity::Quantity`], [`selector`]s, [`revision::Revision`]s), the environment seam ([`mod@env`]), and the client side of
//! the Kubernetes API, untyped: [`client::Client`], [`informer`]s, the [`queue`], [`leader_election`] and the
//! [`events`] recorder.
//!
//! Nothing in it listens, schedules or runs a container, and it depends on no Kubernetes types, no HTTP and no gRPC.

pub mod admission;
pub mod auth;
pub mod client;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod controller;
pub mod env;
pub mod events;
pub mod field;
pub mod informer;
pub mod leader_election;
pub mod network;
pub mod node;
pub mod object;
pub mod quantity;
pub mod queue;
pub mod resource;
pub mod revision;
pub mod runtime;
pub mod scheduling;
pub mod selector;
pub mod status;
pub mod store;
pub mod testing;
