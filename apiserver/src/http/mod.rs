//! The API over HTTP: a [`tower_service::Service`] of requests, which a listener may or may not be put in front of.

mod body;
mod duration;
mod go_json;
mod health;
mod in_flight;
mod negotiate;
mod other;
mod path;
mod query;
mod respond;
mod service;

pub(crate) use self::in_flight::InFlight;
pub(crate) use self::path::{percent_decode, percent_encode, percent_encode_path};
pub(crate) use self::query::Query;
pub(crate) use self::service::Described;
pub use self::service::HttpService;
