//! Kubernetes' patch algorithms over JSON and a schema.
//!
//! | module | what | who knows the types |
//! |---|---|---|
//! | [`json_patch`] | a list of operations (RFC 6902) | nobody |
//! | [`merge_patch`] | a partial document (RFC 7386) | nobody |
//! | [`strategic`] | a partial document with directives, lists merged by key | [`schema`] |
//! | [`apply`] | server-side apply: merging with ownership of every field | [`schema`] |
//! | [`validate`] | unknown fields, wrong types, strict decoding, pruning | [`schema`] |
//!
//! All of it works on [`serde_json::Value`] and one structural [`schema::Schema`], which is read from the OpenAPI document
//! of any Kubernetes API server or from JSON Schema. Nothing here does input or output, reads a clock or depends on
//! anything of Kubernetes: time is passed in as text.
//!
//! ```
//! use orlop_merge::{apply::FieldManager, json_patch::JsonPatch, merge_patch, schema::Schema, strategic};
//! use serde_json::json;
//!
//! let document = json!({"Widget": {"type": "object", "properties": {
//!     "apiVersion": {"type": "string"}, "kind": {"type": "string"},
//!     "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
//!     "parts": {
//!         "type": "array",
//!         "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
//!         "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "name",
//!         "items": {"type": "object", "properties": {"name": {"type": "string"}, "size": {"type": "integer"}}},
//!     },
//! }}});
//! let schema = Schema::from_openapi(document.as_object().unwrap(), "Widget")?;
//! let widget = json!({"apiVersion": "v1", "kind": "Widget", "metadata": {"name": "w"}, "parts": [{"name": "a", "size": 1}]});
//!
//! let mut patched = widget.clone();
//! JsonPatch::from_value(&json!([{"op": "replace", "path": "/parts/0/size", "value": 2}]))?.apply(&mut patched)?;
//! assert_eq!(patched["parts"][0]["size"], 2);
//!
//! // A merge patch replaces the list, a strategic one merges it.
//! let mut merged = widget.clone();
//! merge_patch::apply(&mut merged, &json!({"parts": [{"name": "b"}]}));
//! assert_eq!(merged["parts"], json!([{"name": "b"}]));
//! let strategic = strategic::apply(&schema, &widget, &json!({"parts": [{"name": "a", "size": 3}]}))?;
//! assert_eq!(strategic["parts"], json!([{"name": "a", "size": 3}]));
//!
//! // Server-side apply merges too, and remembers who said what.
//! let applied = FieldManager::new(&schema, "v1").apply(&json!({}), &widget, "me", false, "2026-01-01T00:00:00Z")?;
//! let parts = &applied["metadata"]["managedFields"][0]["fieldsV1"]["f:parts"];
//! assert_eq!(parts, &json!({r#"k:{"name":"a"}"#: {".": {}, "f:name": {}, "f:size": {}}}));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod apply;
mod gofmt;
pub mod json_patch;
pub mod merge_patch;
pub mod schema;
pub mod strategic;
#[cfg(test)]
mod testing;
pub mod validate;
mod value;

/// Anything that can go wrong in this crate, for callers who do not tell the algorithms apart.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A schema cannot be read.
    #[error(transparent)]
    Schema(#[from] schema::SchemaError),
    /// A JSON patch does not apply.
    #[error(transparent)]
    JsonPatch(#[from] json_patch::JsonPatchError),
    /// A strategic merge patch does not apply.
    #[error(transparent)]
    Strategic(#[from] strategic::StrategicError),
    /// A server-side apply was refused.
    #[error(transparent)]
    Apply(#[from] apply::ApplyError),
}
