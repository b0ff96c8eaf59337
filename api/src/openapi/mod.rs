//! The OpenAPI documents: `/openapi/v3` with one document for each group and version, and `/openapi/v2` with all in one.
//!
//! They are what kubectl's `explain`, `apply`, `diff` and validation read, and Helm and client libraries: every path
//! with its operations, parameters and bodies, and every definition under upstream's name with Kubernetes' extensions.
//! Documents of the built-in kinds are built once, on the first request for any of them.

mod gnostic;
mod operations;
mod v2;
mod v3;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use bytes::Bytes;
use orlop_core::resource::GroupVersionKind;
use serde_json::{Map, Value, json};

use crate::resources::{self, ResourceInfo, discovery_order};
use crate::schema;

/// The media type by which clients ask for OpenAPI v2 as protobuf. The `@` is not allowed in a media type, so answers
/// carry [`V2_PROTOBUF_ANSWER`].
pub const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// The `Content-Type` of an answer in protobuf.
pub const V2_PROTOBUF_ANSWER: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// A finished document.
#[derive(Clone, Debug)]
pub struct Document {
    /// The body.
    pub bytes: Bytes,
    /// A digest of the body in upper-case hexadecimal digits, for `ETag` (in quotes) and for the index's URLs.
    pub hash: String,
}

impl Document {
    fn new(bytes: Vec<u8>) -> Self {
        use std::fmt::Write;
        let digest = ring::digest::digest(&ring::digest::SHA512, &bytes);
        let mut hash = String::with_capacity(128);
        for byte in digest.as_ref() {
            // Writing to a string can't fail.
            let _ = write!(hash, "{byte:02X}");
        }
        Self {
            bytes: bytes.into(),
            hash,
        }
    }

    fn json(value: &Value) -> Self {
        Self::new(value.to_string().into_bytes())
    }
}

/// All OpenAPI v3 documents of a server, by their path without the leading slash: `api/v1`, `apis/apps/v1`.
#[derive(Clone, Debug)]
pub struct Documents {
    documents: BTreeMap<String, Document>,
    index: Document,
}

impl Documents {
    /// Builds the documents of resources, in any order. `definitions` holds what their kinds are made of, as
    /// [`schema::document`] does for the built-in ones. `version` is the server's, such as `v1.36.2`.
    pub fn new<'a>(
        resources: impl IntoIterator<Item = &'a ResourceInfo>,
        definitions: &Map<String, Value>,
        version: &str,
    ) -> Self {
        let mut documents = BTreeMap::new();
        for (path, resources) in by_path(resources) {
            if let Some((group, _)) = path
                .strip_prefix("apis/")
                .and_then(|rest| rest.split_once('/'))
            {
                let group = format!("apis/{group}");
                documents.entry(group).or_insert_with_key(|group| {
                    Document::json(&v3::discovery(group, "APIGroup", version))
                });
            }
            let document = v3::group_version(&resources, definitions, version);
            documents.insert(path, Document::json(&document));
        }
        for (path, kind) in [
            ("api", "APIVersions"),
            ("apis", "APIGroupList"),
            ("version", "Info"),
        ] {
            documents.insert(
                path.to_owned(),
                Document::json(&v3::discovery(path, kind, version)),
            );
        }
        let index = index(&documents);
        Self { documents, index }
    }

    /// The documents of the built-in resources, built on first use.
    #[must_use]
    pub fn builtin() -> &'static Self {
        static BUILTIN: OnceLock<Documents> = OnceLock::new();
        BUILTIN.get_or_init(|| {
            Self::new(
                resources::builtin(),
                schema::document(),
                crate::KUBERNETES_VERSION,
            )
        })
    }

    /// The document at `/openapi/v3/<path>`.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Document> {
        self.documents.get(path.trim_matches('/'))
    }

    /// The document at `/openapi/v3`, which lists the others.
    #[must_use]
    pub fn index(&self) -> &Document {
        &self.index
    }

    /// Takes over the documents of another set: a path in both is the other's from now on.
    pub fn extend(&mut self, other: Self) {
        self.documents.extend(other.documents);
        self.index = index(&self.documents);
    }
}

fn index(documents: &BTreeMap<String, Document>) -> Document {
    let paths: Map<String, Value> = documents
        .iter()
        .map(|(path, document)| {
            let url = format!("/openapi/v3/{path}?hash={}", document.hash);
            (path.clone(), json!({ "serverRelativeURL": url }))
        })
        .collect();
    Document::json(&json!({ "paths": paths }))
}

/// Resources by the path of their group and version, in discovery's order inside each.
fn by_path<'a>(
    resources: impl IntoIterator<Item = &'a ResourceInfo>,
) -> BTreeMap<String, Vec<&'a ResourceInfo>> {
    let mut paths = BTreeMap::<String, Vec<&ResourceInfo>>::new();
    for info in resources {
        let r = &info.resource;
        let path = if r.group.is_empty() {
            format!("api/{}", r.version)
        } else {
            format!("apis/{}/{}", r.group, r.version)
        };
        paths.entry(path).or_default().push(info);
    }
    for resources in paths.values_mut() {
        resources.sort_by(|a, b| discovery_order(a).cmp(&discovery_order(b)));
    }
    paths
}

/// OpenAPI v2 for resources, as JSON.
pub fn v2<'a>(
    resources: impl IntoIterator<Item = &'a ResourceInfo>,
    definitions: &Map<String, Value>,
    version: &str,
) -> Value {
    v2::document(resources, definitions, version)
}

/// OpenAPI v2 of the built-in resources, as JSON.
#[must_use]
pub fn builtin_v2() -> &'static Document {
    static DOCUMENT: OnceLock<Document> = OnceLock::new();
    DOCUMENT.get_or_init(|| Document::json(&builtin_v2_value()))
}

/// OpenAPI v2 of the built-in resources, as protobuf of the media type [`V2_PROTOBUF`].
#[must_use]
pub fn builtin_v2_protobuf() -> &'static Document {
    static DOCUMENT: OnceLock<Document> = OnceLock::new();
    DOCUMENT.get_or_init(|| to_protobuf(&builtin_v2_value()))
}

/// The protobuf form of an OpenAPI v2 document.
#[must_use]
pub fn to_protobuf(document: &Value) -> Document {
    Document::new(gnostic::encode(document))
}

fn builtin_v2_value() -> Value {
    v2(
        resources::builtin(),
        schema::document(),
        crate::KUBERNETES_VERSION,
    )
}

/// The definitions that some of them need, by following references from `roots`.
fn closure(
    definitions: &Map<String, Value>,
    roots: impl IntoIterator<Item = String>,
) -> BTreeMap<&str, &Value> {
    fn references(value: &Value, into: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                if let Some(to) = map.get("$ref").and_then(Value::as_str) {
                    into.push(to.rsplit('/').next().unwrap_or(to).to_owned());
                }
                map.values().for_each(|value| references(value, into));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, into)),
            _ => {}
        }
    }
    let mut pending: Vec<String> = roots.into_iter().collect();
    let mut found = BTreeMap::new();
    while let Some(name) = pending.pop() {
        let Some((name, definition)) = definitions.get_key_value(&name) else {
            continue;
        };
        if found.insert(name.as_str(), definition).is_none() {
            references(definition, &mut pending);
        }
    }
    found
}

/// The definition of a kind, where there is one: the streams' options have none.
fn definition(definitions: &Map<String, Value>, kind: &GroupVersionKind) -> Option<String> {
    let name = schema::definition_name(kind);
    definitions
        .contains_key(&name)
        .then_some(name)
        .or_else(|| custom_definition(definitions, kind))
}

/// Custom kinds have names of their own making, so they are found by the extension that names the kind.
fn custom_definition(definitions: &Map<String, Value>, kind: &GroupVersionKind) -> Option<String> {
    let named = json!({ "group": kind.group, "version": kind.version, "kind": kind.kind });
    definitions
        .iter()
        .find(|(_, definition)| {
            definition["x-kubernetes-group-version-kind"]
                .as_array()
                .is_some_and(|kinds| kinds.contains(&named))
        })
        .map(|(name, _)| name.clone())
}

#[cfg(test)]
mod tests;
