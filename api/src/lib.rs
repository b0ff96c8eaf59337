//! What Kubernetes knows of its kinds: types, schemas, defaults, validation, tables, discovery and the protobuf transcoder.

pub mod defaults;
pub mod discovery;
mod doc;
mod error;
pub mod fields;
pub mod openapi;
pub mod protobuf;
pub mod resources;
pub mod schema;
pub mod strategy;
pub mod table;
pub mod typed;
pub mod validation;

pub use error::Error;

/// The version of Kubernetes whose API this is.
pub const KUBERNETES_VERSION: &str = "v1.36.2";
