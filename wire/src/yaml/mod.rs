//! YAML.
/// An error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct YamlError(String);
