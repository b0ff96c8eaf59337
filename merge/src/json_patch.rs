//! JSON Patch (RFC 6902).
//!
//! ```
//! use orlop_merge::json_patch::JsonPatch;
//! use serde_json::json;
//!
//! let patch = JsonPatch::from_value(&json!([
//!     {"op": "test", "path": "/data/a", "value": "1"},
//!     {"op": "add", "path": "/data/b", "value": "2"},
//! ]))?;
//! let mut object = json!({"data": {"a": "1"}});
//! patch.apply(&mut object)?;
//! assert_eq!(object, json!({"data": {"a": "1", "b": "2"}}));
//! # Ok::<(), orlop_merge::json_patch::JsonPatchError>(())
//! ```

use serde_json::Value;

/// How many operations a patch may have, as the API server of Kubernetes has it.
pub const MAX_OPERATIONS: usize = 10_000;

/// How many bytes the `copy` operations of a patch may add together: the size of the largest request.
pub const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;

/// How deep a patched document may be nested: no deeper than `serde_json` reads it back.
pub const MAX_DEPTH: usize = 127;

/// Why a patch cannot be read or does not apply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonPatchError {
    /// The document is no array of operations. A bad request.
    #[error("error decoding patch: {0}")]
    Malformed(String),
    /// There are more than [`MAX_OPERATIONS`]. The request is too large.
    #[error("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {0}")]
    TooManyOperations(usize),
    /// The copies would make the document too large.
    #[error(
        "Unable to complete the copy, the accumulated size increase of copy is {0}, exceeding the limit {MAX_COPIED_BYTES}"
    )]
    TooMuchCopied(usize),
    /// The document would be nested deeper than [`MAX_DEPTH`].
    #[error("{op} operation does not apply: {path:?} would be nested too deep")]
    TooDeep {
        /// The operation.
        op: &'static str,
        /// The path.
        path: String,
    },
    /// A path that an operation needs is not there.
    #[error("{op} operation does not apply: doc is missing path: {path:?}")]
    MissingPath {
        /// The operation.
        op: &'static str,
        /// The path.
        path: String,
    },
    /// An array index is no number or is outside the array.
    #[error("{op} operation does not apply: invalid array index in path: {path:?}")]
    InvalidIndex {
        /// The operation.
        op: &'static str,
        /// The path.
        path: String,
    },
    /// A value is to be moved into itself.
    #[error("move operation does not apply: cannot move {0:?} into itself")]
    IntoItself(String),
    /// A `test` found another value.
    #[error("testing value {0} failed")]
    TestFailed(String),
}

/// A patch that was read and is ready to be applied to any number of documents.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonPatch {
    operations: Vec<Operation>,
}

#[derive(Debug, Clone, PartialEq)]
enum Operation {
    Add(Pointer, Value),
    Remove(Pointer),
    Replace(Pointer, Value),
    Move { from: Pointer, to: Pointer },
    Copy { from: Pointer, to: Pointer },
    Test(Pointer, Value),
}

/// A JSON pointer (RFC 6901), unescaped.
#[derive(Debug, Clone, PartialEq)]
struct Pointer(Vec<String>);

impl Pointer {
    fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self(Vec::new()));
        }
        let tokens = text.strip_prefix('/')?.split('/');
        Some(Self(
            tokens
                .map(|token| token.replace("~1", "/").replace("~0", "~"))
                .collect(),
        ))
    }

    fn print(&self) -> String {
        self.0
            .iter()
            .map(|token| format!("/{}", token.replace('~', "~0").replace('/', "~1")))
            .collect()
    }

    fn missing(&self, op: &'static str) -> JsonPatchError {
        JsonPatchError::MissingPath {
            op,
            path: self.print(),
        }
    }

    fn bad_index(&self, op: &'static str) -> JsonPatchError {
        JsonPatchError::InvalidIndex {
            op,
            path: self.print(),
        }
    }

    fn get<'v>(&self, document: &'v Value) -> Option<&'v Value> {
        self.0.iter().try_fold(document, |at, token| match at {
            Value::Object(map) => map.get(token),
            Value::Array(items) => items.get(index(token)?),
            _ => None,
        })
    }

    /// The value that holds the last token, and the token.
    fn parent<'v>(&self, document: &'v mut Value) -> Option<(&'v mut Value, &str)> {
        let (last, way) = self.0.split_last()?;
        let parent = way.iter().try_fold(document, |at, token| match at {
            Value::Object(map) => map.get_mut(token),
            Value::Array(items) => items.get_mut(index(token)?),
            _ => None,
        })?;
        Some((parent, last))
    }

    fn add(
        &self,
        op: &'static str,
        document: &mut Value,
        value: Value,
    ) -> Result<(), JsonPatchError> {
        if self.0.len() + depth(&value) > MAX_DEPTH {
            return Err(JsonPatchError::TooDeep {
                op,
                path: self.print(),
            });
        }
        if self.0.is_empty() {
            *document = value;
            return Ok(());
        }
        match self.parent(document) {
            Some((Value::Object(map), key)) => {
                map.insert(key.to_owned(), value);
                Ok(())
            }
            Some((Value::Array(items), token)) => {
                let at = if token == "-" {
                    items.len()
                } else {
                    index(token)
                        .filter(|at| *at <= items.len())
                        .ok_or_else(|| self.bad_index(op))?
                };
                items.insert(at, value);
                Ok(())
            }
            _ => Err(self.missing(op)),
        }
    }

    fn remove(&self, op: &'static str, document: &mut Value) -> Result<Value, JsonPatchError> {
        if self.0.is_empty() {
            return Ok(std::mem::take(document));
        }
        match self.parent(document) {
            Some((Value::Object(map), key)) => map.remove(key).ok_or_else(|| self.missing(op)),
            Some((Value::Array(items), token)) => {
                let at = index(token)
                    .filter(|at| *at < items.len())
                    .ok_or_else(|| self.bad_index(op))?;
                Ok(items.remove(at))
            }
            _ => Err(self.missing(op)),
        }
    }
}

/// An index as RFC 6901 writes it: digits without leading zeros.
fn index(token: &str) -> Option<usize> {
    let digits = token.bytes().all(|b| b.is_ascii_digit());
    if !digits || (token.len() > 1 && token.starts_with('0')) {
        return None;
    }
    token.parse().ok()
}

impl JsonPatch {
    /// Reads a patch.
    ///
    /// # Errors
    /// When the bytes are no JSON or no patch, or there are too many operations.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, JsonPatchError> {
        let value: Value =
            serde_json::from_slice(bytes).map_err(|e| JsonPatchError::Malformed(e.to_string()))?;
        Self::from_value(&value)
    }

    /// Reads a patch from decoded JSON.
    ///
    /// # Errors
    /// As [`JsonPatch::from_slice`].
    pub fn from_value(patch: &Value) -> Result<Self, JsonPatchError> {
        let Value::Array(operations) = patch else {
            return Err(JsonPatchError::Malformed(
                "a JSON patch is an array of operations".to_owned(),
            ));
        };
        if operations.len() > MAX_OPERATIONS {
            return Err(JsonPatchError::TooManyOperations(operations.len()));
        }
        let operations = operations.iter().enumerate().map(|(i, operation)| {
            operation_of(operation)
                .map_err(|why| JsonPatchError::Malformed(format!("operation {i}: {why}")))
        });
        Ok(Self {
            operations: operations.collect::<Result<_, _>>()?,
        })
    }

    /// How many operations it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether it does nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Applies the operations in order.
    ///
    /// # Errors
    /// At the first operation that does not apply. The document is then half patched and must be thrown away.
    pub fn apply(&self, document: &mut Value) -> Result<(), JsonPatchError> {
        let mut copied = 0;
        for operation in &self.operations {
            match operation {
                Operation::Add(path, value) => path.add("add", document, value.clone())?,
                Operation::Remove(path) => {
                    path.remove("remove", document)?;
                }
                Operation::Replace(path, value) => {
                    path.get(document).ok_or_else(|| path.missing("replace"))?;
                    if path.0.len() + depth(value) <= MAX_DEPTH
                        && let Some((Value::Array(items), token)) = path.parent(document)
                        && let Some(slot) = index(token).and_then(|at| items.get_mut(at))
                    {
                        *slot = value.clone();
                    } else {
                        path.add("replace", document, value.clone())?;
                    }
                }
                Operation::Move { from, to } => {
                    if to.0.len() > from.0.len() && to.0.starts_with(&from.0) {
                        return Err(JsonPatchError::IntoItself(from.print()));
                    }
                    let value = from.remove("move", document)?;
                    to.add("move", document, value)?;
                }
                Operation::Copy { from, to } => {
                    let value = from
                        .get(document)
                        .ok_or_else(|| from.missing("copy"))?
                        .clone();
                    copied += size(&value);
                    if copied > MAX_COPIED_BYTES {
                        return Err(JsonPatchError::TooMuchCopied(copied));
                    }
                    to.add("copy", document, value)?;
                }
                Operation::Test(path, value) => {
                    // A missing value equals null: what Kubernetes' library does, and kubectl builds on.
                    let found = path.get(document).unwrap_or(&Value::Null);
                    if found != value {
                        return Err(JsonPatchError::TestFailed(path.print()));
                    }
                }
            }
        }
        Ok(())
    }
}

fn operation_of(operation: &Value) -> Result<Operation, String> {
    let Value::Object(operation) = operation else {
        return Err("is no object".to_owned());
    };
    let pointer = |key: &str| {
        let text = operation
            .get(key)
            .and_then(Value::as_str)
            .ok_or_else(|| format!("{key:?} is missing"))?;
        Pointer::parse(text).ok_or_else(|| format!("{key:?} is no JSON pointer: {text:?}"))
    };
    let value = || {
        operation
            .get("value")
            .cloned()
            .ok_or_else(|| "\"value\" is missing".to_owned())
    };
    match operation.get("op").and_then(Value::as_str) {
        Some("add") => Ok(Operation::Add(pointer("path")?, value()?)),
        Some("remove") => Ok(Operation::Remove(pointer("path")?)),
        Some("replace") => Ok(Operation::Replace(pointer("path")?, value()?)),
        Some("move") => Ok(Operation::Move {
            from: pointer("from")?,
            to: pointer("path")?,
        }),
        Some("copy") => Ok(Operation::Copy {
            from: pointer("from")?,
            to: pointer("path")?,
        }),
        // A test without a value is one for null.
        Some("test") => Ok(Operation::Test(
            pointer("path")?,
            value().unwrap_or(Value::Null),
        )),
        Some(other) => Err(format!("unknown operation {other:?}")),
        None => Err("\"op\" is missing".to_owned()),
    }
}

/// How deep a value is nested. No document is deeper than [`MAX_DEPTH`], so the recursion is bounded.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// Roughly how many bytes a value takes in JSON.
fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 4,
        Value::Number(_) => 8,
        Value::String(text) => text.len() + 2,
        Value::Array(items) => 2 + items.iter().map(|item| size(item) + 1).sum::<usize>(),
        Value::Object(map) => {
            2 + map
                .iter()
                .map(|(key, value)| key.len() + 4 + size(value))
                .sum::<usize>()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(document: Value, patch: Value) -> Result<Value, JsonPatchError> {
        let mut document = document;
        JsonPatch::from_value(&patch)?.apply(&mut document)?;
        Ok(document)
    }

    #[test]
    fn the_examples_of_the_rfc() {
        let table = [
            (
                json!({"foo": "bar"}),
                json!([{"op": "add", "path": "/baz", "value": "qux"}]),
                json!({"baz": "qux", "foo": "bar"}),
            ),
            (
                json!({"foo": ["bar", "baz"]}),
                json!([{"op": "add", "path": "/foo/1", "value": "qux"}]),
                json!({"foo": ["bar", "qux", "baz"]}),
            ),
            (
                json!({"baz": "qux", "foo": "bar"}),
                json!([{"op": "remove", "path": "/baz"}]),
                json!({"foo": "bar"}),
            ),
            (
                json!({"foo": ["bar", "qux", "baz"]}),
                json!([{"op": "remove", "path": "/foo/1"}]),
                json!({"foo": ["bar", "baz"]}),
            ),
            (
                json!({"baz": "qux", "foo": "bar"}),
                json!([{"op": "replace", "path": "/baz", "value": "boo"}]),
                json!({"baz": "boo", "foo": "bar"}),
            ),
            (
                json!({"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}}),
                json!([{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}]),
                json!({"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}}),
            ),
            (
                json!({"foo": ["all", "grass", "cows", "eat"]}),
                json!([{"op": "move", "from": "/foo/1", "path": "/foo/3"}]),
                json!({"foo": ["all", "cows", "eat", "grass"]}),
            ),
            (
                json!({"baz": "qux", "foo": ["a", 2, "c"]}),
                json!([{"op": "test", "path": "/baz", "value": "qux"}, {"op": "test", "path": "/foo/1", "value": 2}]),
                json!({"baz": "qux", "foo": ["a", 2, "c"]}),
            ),
            (
                json!({"foo": "bar"}),
                json!([{"op": "add", "path": "/child", "value": {"grandchild": {}}}]),
                json!({"foo": "bar", "child": {"grandchild": {}}}),
            ),
            (
                json!({"foo": "bar"}),
                json!([{"op": "add", "path": "/baz", "value": "qux", "xyz": 123}]),
                json!({"foo": "bar", "baz": "qux"}),
            ),
            (
                json!({"/": 9, "~1": 10}),
                json!([{"op": "test", "path": "/~01", "value": 10}]),
                json!({"/": 9, "~1": 10}),
            ),
            (
                json!({"foo": ["bar"]}),
                json!([{"op": "add", "path": "/foo/-", "value": ["abc", "def"]}]),
                json!({"foo": ["bar", ["abc", "def"]]}),
            ),
            (
                json!({"a": [1, 2]}),
                json!([{"op": "replace", "path": "/a/0", "value": 9}]),
                json!({"a": [9, 2]}),
            ),
            (
                json!({"a": {"b": 1}}),
                json!([{"op": "copy", "from": "/a", "path": "/c"}]),
                json!({"a": {"b": 1}, "c": {"b": 1}}),
            ),
            (
                json!({"a": 1}),
                json!([{"op": "replace", "path": "", "value": {"b": 2}}]),
                json!({"b": 2}),
            ),
            (
                json!({}),
                json!([{"op": "test", "path": "/a", "value": null}]),
                json!({}),
            ),
        ];
        for (document, patch, expected) in table {
            assert_eq!(run(document, patch.clone()), Ok(expected), "{patch}");
        }
    }

    #[test]
    fn what_does_not_apply() {
        let table = [
            (
                json!({"baz": "qux"}),
                json!([{"op": "test", "path": "/baz", "value": "bar"}]),
                "testing value /baz failed",
            ),
            (
                json!({"foo": "bar"}),
                json!([{"op": "add", "path": "/baz/bat", "value": "qux"}]),
                "add operation does not apply: doc is missing path: \"/baz/bat\"",
            ),
            (
                json!({"a": 1}),
                json!([{"op": "remove", "path": "/b"}]),
                "remove operation does not apply: doc is missing path: \"/b\"",
            ),
            (
                json!({"a": 1}),
                json!([{"op": "replace", "path": "/b", "value": 1}]),
                "replace operation does not apply: doc is missing path: \"/b\"",
            ),
            (
                json!({"a": [1]}),
                json!([{"op": "add", "path": "/a/3", "value": 1}]),
                "add operation does not apply: invalid array index in path: \"/a/3\"",
            ),
            (
                json!({"a": [1]}),
                json!([{"op": "remove", "path": "/a/01"}]),
                "remove operation does not apply: invalid array index in path: \"/a/01\"",
            ),
            (
                json!({"a": {}}),
                json!([{"op": "move", "from": "/a", "path": "/a/b"}]),
                "move operation does not apply: cannot move \"/a\" into itself",
            ),
            (
                json!({}),
                json!({}),
                "error decoding patch: a JSON patch is an array of operations",
            ),
            (
                json!({}),
                json!([{"op": "spam", "path": "/a"}]),
                "error decoding patch: operation 0: unknown operation \"spam\"",
            ),
            (
                json!({}),
                json!([{"op": "add", "path": "a", "value": 1}]),
                "error decoding patch: operation 0: \"path\" is no JSON pointer: \"a\"",
            ),
            (
                json!({}),
                json!([{"op": "add", "path": "/a"}]),
                "error decoding patch: operation 0: \"value\" is missing",
            ),
        ];
        for (document, patch, expected) in table {
            let error = run(document, patch).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn patches_are_bounded() {
        let many = vec![json!({"op": "test", "path": "/a", "value": 1}); MAX_OPERATIONS + 1];
        assert_eq!(
            run(json!({"a": 1}), Value::Array(many))
                .unwrap_err()
                .to_string(),
            "The allowed maximum operations in a JSON patch is 10000, got 10001"
        );
        // Each pair of moves nests the document one deeper.
        let nest = [
            json!({"op": "add", "path": "/b", "value": {}}),
            json!({"op": "move", "from": "/a", "path": "/b/c"}),
            json!({"op": "move", "from": "/b", "path": "/a"}),
        ];
        let deep: Vec<Value> = nest.iter().cycle().take(3 * 3000).cloned().collect();
        assert!(matches!(
            run(json!({"a": 1}), Value::Array(deep)),
            Err(JsonPatchError::TooDeep { .. })
        ));
        // Doubling sixty times would need more memory than there is.
        let bomb = vec![json!({"op": "copy", "from": "/a", "path": "/a/-"}); 60];
        assert!(matches!(
            run(json!({"a": ["xxxxxxxxxxxxxxxx"]}), Value::Array(bomb)),
            Err(JsonPatchError::TooMuchCopied(_))
        ));
    }
}
