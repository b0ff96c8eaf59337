//! What Kubernetes knows of its kinds: types, schemas, defaults, validation, tables, discovery and the protobuf transcoder.

pub mod resources;
