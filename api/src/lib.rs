//! What Kubernetes knows of its kinds: types, schemas, defaults, validation, tables, discovery and the protobuf transcoder.

mod error;
pub mod protobuf;
pub mod resources;
pub mod schema;

pub use error::Error;
