//! YAML as Kubernetes reads and writes it, to and from JSON documents.
//!
//! Kubernetes treats YAML as another way to write JSON: a text is parsed, its plain words are resolved by the rules of YAML 1.1 as
//! Go's library has them (`yes` and `off` are booleans, `0777` is octal, `~` is null), keys become strings, and the rest is JSON. The
//! other way, a document is written so that it reads back as the same: what looks like something else is quoted, keys are sorted with
//! their numbers by value, sequences are not indented under their key, and long lines are folded at 80 columns.
//!
//! ```
//! let pod = orlop_wire::yaml::from_slice(b"kind: Pod\nmetadata: {name: web}\nspec:\n  hostNetwork: yes\n")?;
//! assert_eq!(pod, serde_json::json!({"kind": "Pod", "metadata": {"name": "web"}, "spec": {"hostNetwork": true}}));
//! assert_eq!(orlop_wire::yaml::to_string(&pod), "kind: Pod\nmetadata:\n  name: web\nspec:\n  hostNetwork: true\n");
//! # Ok::<(), orlop_wire::yaml::YamlError>(())
//! ```

mod emit;
mod parse;
mod resolve;
#[cfg(test)]
mod tests;

use serde_json::Value;

pub use self::emit::to_string;

/// A text that is not YAML, or YAML that cannot be JSON.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("error converting YAML to JSON: {message}")]
pub struct YamlError {
    message: String,
}

impl YamlError {
    fn yaml(message: impl std::fmt::Display) -> Self {
        Self {
            message: format!("yaml: {message}"),
        }
    }

    fn json(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
        }
    }

    /// What is wrong, without saying that it is about YAML and JSON.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// A key that a mapping has twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DuplicateKey {
    /// The line of the second one, counted from one.
    pub line: usize,
    /// The key as Go writes it: quoted if it is a string.
    pub key: String,
}

/// A document and what a strict reader has against it.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The document as JSON. Of a key that comes twice, the last one counts.
    pub value: Value,
    /// The keys that come twice.
    pub duplicates: Vec<DuplicateKey>,
}

impl Document {
    /// The error that a strict reader has, if any.
    ///
    /// # Errors
    /// A [`YamlError`] that names all keys that come twice.
    pub fn strict(self) -> Result<Value, YamlError> {
        if self.duplicates.is_empty() {
            return Ok(self.value);
        }
        let lines = self.duplicates.iter().map(|duplicate| {
            format!(
                "\n  line {}: key {} already set in map",
                duplicate.line, duplicate.key
            )
        });
        Err(YamlError::yaml(format!(
            "unmarshal errors:{}",
            lines.collect::<String>()
        )))
    }
}

/// Reads the first document of a text; null if there is none. Depth, and what aliases multiply, are bounded.
///
/// # Errors
/// [`YamlError`], with the line where the text goes wrong.
pub fn from_slice(text: &[u8]) -> Result<Value, YamlError> {
    Ok(document_from_slice(text)?.value)
}

/// Reads the first document of a text and notes the keys that come twice.
///
/// # Errors
/// [`YamlError`], with the line where the text goes wrong.
pub fn document_from_slice(text: &[u8]) -> Result<Document, YamlError> {
    parse::document(text)
}
