//! [`Object`]: one version of one Kubernetes object, shared by everyone who looks at it.

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::resource::GroupVersionKind;
use crate::revision::Revision;

/// Where an object lives: its namespace (empty for what belongs to the cluster) and its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// The namespace; empty for what belongs to the cluster.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

impl ObjectKey {
    /// The key of an object in a namespace, or with an empty one in the cluster.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The namespace, if there is one.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        Some(&*self.namespace).filter(|namespace| !namespace.is_empty())
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// A reference from an object to one that owns it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnerReference {
    /// The owner's `apiVersion`.
    pub api_version: String,
    /// The owner's kind.
    pub kind: String,
    /// The owner's name.
    pub name: String,
    /// The owner's uid.
    pub uid: String,
    /// Whether the owner is the controller that manages the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller: Option<bool>,
    /// Whether the owner may not go (in the foreground) before the object has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_owner_deletion: Option<bool>,
}

/// The metadata that every component may need. `managedFields` and the `resourceVersion` are not among it: the first is read from the
/// JSON by who needs it, the second is [`Object::revision`].
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // Kubernetes' own names
pub struct Metadata {
    pub name: String,
    #[serde(deserialize_with = "null_as_default")]
    pub generate_name: String,
    #[serde(deserialize_with = "null_as_default")]
    pub namespace: String,
    #[serde(deserialize_with = "null_as_default")]
    pub uid: String,
    pub generation: Option<i64>,
    pub creation_timestamp: Option<Timestamp>,
    pub deletion_timestamp: Option<Timestamp>,
    pub deletion_grace_period_seconds: Option<i64>,
    #[serde(deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_as_default")]
    pub annotations: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_as_default")]
    pub owner_references: Vec<OwnerReference>,
    #[serde(deserialize_with = "null_as_default")]
    pub finalizers: Vec<String>,
}

fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Metadata {
    /// The owner that manages the object, if one does.
    #[must_use]
    pub fn controller(&self) -> Option<&OwnerReference> {
        self.owner_references
            .iter()
            .find(|owner| owner.controller == Some(true))
    }
}

/// Bytes that are not a Kubernetes object.
#[derive(Debug, thiserror::Error)]
#[error("not a Kubernetes object: {0}")]
pub struct ObjectError(#[from] serde_json::Error);

/// One version of one object: immutable, and cheap to clone.
///
/// It keeps the JSON that the store keeps, without the `resourceVersion`, which is the revision of the commit and is spliced in on the
/// way out; and everything that was decoded from it, so that all readers share one decoded value.
#[derive(Clone)]
pub struct Object(Arc<Inner>);

struct Inner {
    head: Arc<Head>,
    json: Bytes,
    /// Where `"resourceVersion":"…",` goes in.
    splice: usize,
    revision: Revision,
    memo: Mutex<Vec<(TypeId, Arc<dyn Any + Send + Sync>)>>,
    whole: OnceLock<Bytes>,
}

struct Head {
    api_version: String,
    kind: String,
    metadata: Metadata,
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No content: it may be a Secret.
        write!(
            f,
            "{} {} @{}",
            self.0.head.kind,
            self.key(),
            self.0.revision
        )
    }
}

impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || (self.0.revision == other.0.revision && self.0.json == other.0.json)
    }
}

#[derive(Deserialize)]
struct RawHead<'a> {
    #[serde(rename = "apiVersion", default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(borrow)]
    metadata: &'a RawValue,
}

#[derive(Deserialize)]
struct RawVersion<'a> {
    #[serde(rename = "resourceVersion", borrow)]
    resource_version: Option<&'a RawValue>,
}

impl Object {
    /// An object from the JSON that a store keeps: its metadata is not empty and has no `resourceVersion`.
    ///
    /// # Errors
    /// When the bytes are not an object with metadata.
    pub fn from_stored(json: Bytes, revision: Revision) -> Result<Self, ObjectError> {
        let raw: RawHead<'_> = serde_json::from_slice(&json)?;
        let metadata: Metadata = serde_json::from_str(raw.metadata.get())?;
        // Both point into the same bytes, and the metadata begins with a brace.
        let splice = raw.metadata.get().as_ptr() as usize - json.as_ptr() as usize + 1;
        let head = Arc::new(Head {
            api_version: raw.api_version,
            kind: raw.kind,
            metadata,
        });
        Ok(Self::assemble(head, json, splice, revision))
    }

    /// An object from JSON as it comes over the wire, with its `resourceVersion` if it has one.
    ///
    /// # Errors
    /// When the bytes are not an object with metadata.
    pub fn from_json(json: &[u8]) -> Result<Self, ObjectError> {
        // Servers end their answers with a line feed.
        let json = json.trim_ascii();
        match Self::from_compact(json) {
            Some(object) => Ok(object),
            None => Self::from_value(serde_json::from_slice(json)?),
        }
    }

    /// An object out of the bytes as they are, but for the version, which is cut out: servers write plain text without spaces.
    /// `None` for everything else.
    fn from_compact(json: &[u8]) -> Option<Self> {
        const FIELD: &[u8] = b"\"resourceVersion\":";
        let raw: RawHead<'_> = serde_json::from_slice(json).ok()?;
        let text = raw.metadata.get();
        let metadata: Metadata = serde_json::from_str(text).ok()?;
        let version: RawVersion<'_> = serde_json::from_str(text).ok()?;
        // All of them point into the same bytes.
        let offset = |part: &str| part.as_ptr() as usize - json.as_ptr() as usize;
        let splice = offset(text) + 1;
        let head = Arc::new(Head {
            api_version: raw.api_version,
            kind: raw.kind,
            metadata,
        });
        let Some(version) = version.resource_version else {
            // Neither empty nor with a version that is null.
            let plain = text.len() > 2 && !text.contains("\"resourceVersion\":");
            let bytes = Bytes::copy_from_slice(json);
            return plain.then(|| Self::assemble(head, bytes, splice, Revision::ZERO));
        };
        let version = version.get();
        let revision = version.strip_prefix('"')?.strip_suffix('"')?.parse().ok()?;
        let (mut from, mut to) = (offset(version), offset(version) + version.len());
        from = json[..from].strip_suffix(FIELD)?.len();
        match (json.get(from.checked_sub(1)?)?, json.get(to)?) {
            (_, b',') => to += 1,
            (b',', _) => from -= 1,
            _ => return None,
        }
        let bytes = [&json[..from], &json[to..]].concat();
        Some(Self::assemble(head, bytes.into(), splice, revision))
    }

    /// An object from a JSON document, with its `resourceVersion` if it has one.
    ///
    /// # Errors
    /// When the document is not an object with metadata.
    pub fn from_value(mut value: Value) -> Result<Self, ObjectError> {
        let mut revision = Revision::ZERO;
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            if let Some(version) = metadata.remove("resourceVersion") {
                revision = version
                    .as_str()
                    .and_then(|text| text.parse().ok())
                    .unwrap_or_default();
            }
            if metadata.is_empty() {
                // Something has to stand behind the place where the version goes in.
                metadata.insert("name".to_owned(), Value::String(String::new()));
            }
        }
        Self::from_stored(serde_json::to_vec(&value)?.into(), revision)
    }

    fn assemble(head: Arc<Head>, json: Bytes, splice: usize, revision: Revision) -> Self {
        Self(Arc::new(Inner {
            head,
            json,
            splice,
            revision,
            memo: Mutex::new(Vec::new()),
            whole: OnceLock::new(),
        }))
    }

    /// The same content at another revision: what a watcher sees of a deletion.
    #[must_use]
    pub fn with_revision(&self, revision: Revision) -> Self {
        Self::assemble(
            self.0.head.clone(),
            self.0.json.clone(),
            self.0.splice,
            revision,
        )
    }

    /// The `apiVersion`.
    #[must_use]
    pub fn api_version(&self) -> &str {
        &self.0.head.api_version
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.0.head.kind
    }

    /// `apiVersion` and kind.
    #[must_use]
    pub fn gvk(&self) -> GroupVersionKind {
        GroupVersionKind::from_api_version(self.api_version(), self.kind())
    }

    /// The metadata.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.0.head.metadata
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.head.metadata.name
    }

    /// The namespace; empty for what belongs to the cluster.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.0.head.metadata.namespace
    }

    /// The uid.
    #[must_use]
    pub fn uid(&self) -> &str {
        &self.0.head.metadata.uid
    }

    /// Namespace and name.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        ObjectKey::new(self.namespace(), self.name())
    }

    /// The revision of the commit that wrote this version: its `resourceVersion`.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.0.revision
    }

    /// Whether its deletion has begun.
    #[must_use]
    pub fn is_terminating(&self) -> bool {
        self.metadata().deletion_timestamp.is_some()
    }

    /// The JSON as the store keeps it: without `resourceVersion`.
    #[must_use]
    pub fn stored_json(&self) -> &Bytes {
        &self.0.json
    }

    /// The whole JSON, made once.
    #[must_use]
    pub fn json(&self) -> Bytes {
        self.0
            .whole
            .get_or_init(|| {
                if self.0.revision.is_zero() {
                    return self.0.json.clone();
                }
                let mut out = Vec::with_capacity(self.0.json.len() + 40);
                self.write_json(&mut out);
                out.into()
            })
            .clone()
    }

    /// Appends the whole JSON to a buffer.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        if self.0.revision.is_zero() {
            out.extend_from_slice(&self.0.json);
            return;
        }
        out.extend_from_slice(&self.0.json[..self.0.splice]);
        out.extend_from_slice(b"\"resourceVersion\":\"");
        out.extend_from_slice(self.0.revision.to_string().as_bytes());
        out.extend_from_slice(b"\",");
        out.extend_from_slice(&self.0.json[self.0.splice..]);
    }

    /// The object as a value of some type, decoded once for all who ask for that type.
    ///
    /// # Errors
    /// When the JSON does not fit the type.
    pub fn decode<T>(&self) -> Result<Arc<T>, ObjectError>
    where
        T: DeserializeOwned + Send + Sync + 'static,
    {
        let id = TypeId::of::<T>();
        let known = |memo: &[(TypeId, Arc<dyn Any + Send + Sync>)]| {
            memo.iter()
                .find(|(other, _)| *other == id)
                .and_then(|(_, value)| value.clone().downcast::<T>().ok())
        };
        if let Some(value) = known(&self.0.memo.lock()) {
            return Ok(value);
        }
        // Decoded outside of the lock; of two who do it at once, the first one's value stays.
        let mut json = Vec::with_capacity(self.0.json.len() + 40);
        self.write_json(&mut json);
        let value: Arc<T> = Arc::new(serde_json::from_slice(&json)?);
        let mut memo = self.0.memo.lock();
        if let Some(first) = known(&memo) {
            return Ok(first);
        }
        memo.push((id, value.clone()));
        Ok(value)
    }

    /// The object as a JSON document, decoded once for all who ask.
    ///
    /// # Errors
    /// Never for an object that was made by this module.
    pub fn value(&self) -> Result<Arc<Value>, ObjectError> {
        self.decode()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_version_is_spliced_in_on_the_way_out() {
        let json = br#"{"apiVersion":"v1","data":{"metadata":"{"},"kind":"ConfigMap","metadata":{"labels":{"a":"b"},"name":"c","namespace":"d"}}"#;
        let object = Object::from_stored(Bytes::from_static(json), Revision(7)).unwrap();
        let value: Value = serde_json::from_slice(&object.json()).unwrap();
        assert_eq!(
            value["metadata"],
            json!({"labels": {"a": "b"}, "name": "c", "namespace": "d", "resourceVersion": "7"})
        );
        assert_eq!(object.key().to_string(), "d/c");
        assert_eq!(
            object.with_revision(Revision(9)).value().unwrap()["metadata"]["resourceVersion"],
            "9"
        );
        let again = Object::from_json(&object.json()).unwrap();
        assert_eq!(again, object);
    }

    #[test]
    fn the_version_is_found_wherever_it_stands() {
        for metadata in [
            r#"{"name":"a","resourceVersion":"7","uid":"u"}"#,
            r#"{"resourceVersion":"7","name":"a","uid":"u"}"#,
            r#"{"name":"a","uid":"u","resourceVersion":"7"}"#,
            r#"{"name":"a", "uid":"u", "resourceVersion": "7"}"#,
            r#"{"name":"a","uid":"u","\u0072esourceVersion":"7"}"#,
        ] {
            let json = format!(r#"{{"apiVersion":"v1","kind":"Pod","metadata":{metadata},"x":1}}"#);
            let object = Object::from_json(json.as_bytes()).unwrap();
            assert_eq!(object.revision(), Revision(7), "{metadata}");
            let (got, stored): (Value, Value) = (
                serde_json::from_slice(&object.json()).unwrap(),
                serde_json::from_slice(object.stored_json()).unwrap(),
            );
            assert_eq!(got, serde_json::from_str::<Value>(&json).unwrap());
            assert_eq!(stored["metadata"], json!({"name": "a", "uid": "u"}));
        }
        for (metadata, revision) in [
            (r#"{"resourceVersion":"7"}"#, 7),
            (r#"{"resourceVersion":"","name":"a"}"#, 0),
            (r#"{"resourceVersion":null,"name":"a"}"#, 0),
            (r#"{"resourceVersion":7,"name":"a"}"#, 0),
            (r#"{"name":"a"}"#, 0),
            (r"{}", 0),
        ] {
            let json = format!(r#"{{"metadata":{metadata}}}"#);
            let object = Object::from_json(json.as_bytes()).unwrap();
            assert_eq!(object.revision(), Revision(revision), "{metadata}");
            let _: Value = serde_json::from_slice(&object.json()).unwrap();
        }
    }

    #[test]
    fn a_value_is_decoded_once() {
        let object =
            Object::from_value(json!({"metadata": {"name": "a", "resourceVersion": "3"}})).unwrap();
        assert_eq!(object.revision(), Revision(3));
        assert!(Arc::ptr_eq(
            &object.value().unwrap(),
            &object.value().unwrap()
        ));
        assert!(Object::from_value(json!({"metadata": {}})).is_ok());
        assert!(Object::from_value(json!({"kind": "x"})).is_err());
        assert!(Object::from_json(b"{").is_err());
    }
}
