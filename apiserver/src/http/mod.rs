//! The API over HTTP: a [`tower_service::Service`] of requests, which a listener may or may not be put in front of.

mod health;
mod negotiate;
mod other;
mod path;
mod query;
mod respond;
mod service;

pub use self::service::HttpService;
pub(crate) use self::service::{Described, InFlight};
