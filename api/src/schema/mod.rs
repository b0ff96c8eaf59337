//! The schemas of the built-in kinds.
//!
//! Types, descriptions and required fields come from `k8s-openapi`; the merge keys and defaults that Kubernetes'
//! OpenAPI has and `k8s-openapi` leaves out are data of this crate. Everything is built once a process, on first use.

mod build;
mod kinds;
mod notes;

use std::sync::LazyLock;

use orlop_core::resource::GroupVersionKind;
use orlop_merge::schema::{Definitions, Schema};
use serde_json::{Map, Value};

/// The definitions of all built-in kinds and what they are made of, in the form of OpenAPI v3's `components.schemas`:
/// names as upstream's (`io.k8s.api.apps.v1.Deployment`), with Kubernetes' extensions.
#[must_use]
pub fn document() -> &'static Map<String, Value> {
    static DOCUMENT: LazyLock<Map<String, Value>> = LazyLock::new(build::document);
    &DOCUMENT
}

/// The same definitions, compiled for merging and validation.
#[must_use]
pub fn definitions() -> &'static Definitions {
    static COMPILED: LazyLock<Definitions> = LazyLock::new(|| {
        #[expect(
            clippy::expect_used,
            reason = "the document is fixed at build time and compiled by a unit test"
        )]
        Definitions::from_openapi(document())
            .expect("the built-in definitions refer to each other only")
    });
    &COMPILED
}

/// The schema of a built-in kind: of a resource's objects, their lists, or a subresource's body.
#[must_use]
pub fn of(kind: &GroupVersionKind) -> Option<Schema> {
    definitions().schema(&definition_name(kind))
}

/// The name of the definition of a built-in kind, such as `io.k8s.api.rbac.v1.Role`. A name says nothing about
/// whether there is such a kind.
#[must_use]
pub fn definition_name(kind: &GroupVersionKind) -> String {
    let GroupVersionKind {
        group,
        version,
        kind,
    } = kind;
    if group.is_empty() && kinds::META.contains(&&**kind) {
        return format!("io.k8s.apimachinery.pkg.apis.meta.{version}.{kind}");
    }
    let package = match &**group {
        "" => "core",
        group => group.split('.').next().unwrap_or(group),
    };
    format!("io.k8s.api.{package}.{version}.{kind}")
}

/// The description of a field, as `k8s-openapi` carries it from upstream. `path` is a definition's name without the
/// leading `io.k8s.` and the field's name.
#[must_use]
pub fn description(definition: &str, field: &str) -> Option<&'static str> {
    let definition = document().get(&format!("io.k8s.{definition}"))?;
    definition
        .get("properties")?
        .get(field)?
        .get("description")?
        .as_str()
}

#[cfg(test)]
mod tests;
