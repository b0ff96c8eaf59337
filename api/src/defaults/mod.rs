//! What Kubernetes fills in when a document comes in: defaults, canonical quantities and times, and the shape that its encoder
//! gives to absent and empty fields.
//!
//! ```text
//! apply(gvk: &GroupVersionKind, document: &mut Value)        // after type checking and pruning
//! zero_status(gvk: &GroupVersionKind) -> Option<Value>       // the status of an object that has none yet
//! ```

mod amounts;
mod core;
mod others;
mod pod;
mod shape;
mod workloads;

#[cfg(test)]
mod tests;

use orlop_core::resource::GroupVersionKind;
use serde_json::Value;

use crate::doc;

/// Brings a document of a built-in kind to the form in which Kubernetes works with it: empty optional fields dropped, quantities
/// and times in canonical form, defaults filled in, and the fields that are always written present. Applying it again changes
/// nothing. A document of an unknown kind is left alone.
pub fn apply(gvk: &GroupVersionKind, document: &mut Value) {
    if !document.is_object() || !shape::is_built_in(&gvk.group) {
        return;
    }
    shape::drop_empty(gvk, document);
    amounts::canonicalise(document);
    doc::ensure_object(document, "metadata");
    match &*gvk.group {
        "" => core::apply(&gvk.kind, document),
        "apps" | "batch" | "autoscaling" => workloads::apply(gvk, document),
        _ => others::apply(gvk, document),
    }
    shape::always_written(gvk, document);
}

/// The status of an object of the kind that has none yet, as it is always written; `None` for kinds without a status.
#[must_use]
pub fn zero_status(gvk: &GroupVersionKind) -> Option<Value> {
    shape::zero_status(gvk)
}
