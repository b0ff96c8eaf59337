//! A claim that names no storage class gets the default one.

use std::sync::Arc;

use async_trait::async_trait;
use orlop_core::admission::{AdmissionOperation, AdmissionPlugin, AdmissionRequest, ObjectReader};
use orlop_core::object::Object;
use orlop_core::resource::Resource;
use orlop_core::status::Status;
use serde_json::{Value, json};

use super::{Context, map_at};
use crate::names::STORAGE_CLASSES;

/// Writes the default storage class into new claims.
pub struct DefaultStorageClass {
    reader: Arc<dyn ObjectReader>,
}

impl DefaultStorageClass {
    pub(super) fn new(context: &Context) -> Self {
        Self {
            reader: context.reader.clone(),
        }
    }
}

/// The class that one of the annotations marks as default: of several the youngest, of those the first by name.
pub(super) async fn default_class(
    reader: &dyn ObjectReader,
    resource: &Resource,
    annotations: &[&str],
) -> Result<Option<Object>, Status> {
    let marked = |object: &Object| {
        let known = &object.metadata().annotations;
        annotations
            .iter()
            .any(|annotation| known.get(*annotation).is_some_and(|value| value == "true"))
    };
    let classes = reader.list(resource, "").await?;
    Ok(classes.into_iter().filter(marked).min_by(|a, b| {
        let born = |object: &Object| object.metadata().creation_timestamp;
        born(b).cmp(&born(a)).then_with(|| a.name().cmp(b.name()))
    }))
}

#[async_trait]
impl AdmissionPlugin for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn handles(&self, operation: AdmissionOperation) -> bool {
        operation == AdmissionOperation::Create
    }

    async fn admit(&self, request: &mut AdmissionRequest) -> Result<(), Status> {
        const MARKS: [&str; 2] = [
            "storageclass.kubernetes.io/is-default-class",
            "storageclass.beta.kubernetes.io/is-default-class",
        ];
        let claim = &request.object;
        let named = claim
            .pointer("/spec/storageClassName")
            .is_some_and(|name| !name.is_null())
            || claim
                .pointer("/metadata/annotations/volume.beta.kubernetes.io~1storage-class")
                .is_some_and(Value::is_string);
        if !request.is("", "persistentvolumeclaims") || named {
            return Ok(());
        }
        let default = default_class(&*self.reader, &STORAGE_CLASSES, &MARKS).await;
        let default = default.map_err(|error| request.forbidden(&error.message))?;
        if let (Some(class), Some(spec)) = (default, map_at(&mut request.object, &["spec"])) {
            spec.insert("storageClassName".to_owned(), json!(class.name()));
        }
        Ok(())
    }
}
