//! An ingress that names no class gets the default one.

use std::sync::Arc;

use async_trait::async_trait;
use orlop_core::admission::{AdmissionOperation, AdmissionPlugin, AdmissionRequest, ObjectReader};
use orlop_core::status::Status;
use serde_json::{Value, json};

use super::default_storage_class::default_class;
use super::{Context, map_at};
use crate::names::{INGRESS_CLASSES, NETWORKING};

/// Writes the default ingress class into new ingresses.
pub struct DefaultIngressClass {
    reader: Arc<dyn ObjectReader>,
}

impl DefaultIngressClass {
    pub(super) fn new(context: &Context) -> Self {
        Self {
            reader: context.reader.clone(),
        }
    }
}

#[async_trait]
impl AdmissionPlugin for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn handles(&self, operation: AdmissionOperation) -> bool {
        operation == AdmissionOperation::Create
    }

    async fn admit(&self, request: &mut AdmissionRequest) -> Result<(), Status> {
        let ingress = &request.object;
        // The annotation is how a class was named before there was a field.
        let named = ingress
            .pointer("/spec/ingressClassName")
            .is_some_and(|name| !name.is_null())
            || ingress
                .pointer("/metadata/annotations/kubernetes.io~1ingress.class")
                .is_some_and(Value::is_string);
        if !request.is(NETWORKING, "ingresses") || named {
            return Ok(());
        }
        let default = default_class(
            &*self.reader,
            &INGRESS_CLASSES,
            &["ingressclass.kubernetes.io/is-default-class"],
        )
        .await;
        let default = default.map_err(|error| request.forbidden(&error.message))?;
        if let (Some(class), Some(spec)) = (default, map_at(&mut request.object, &["spec"])) {
            spec.insert("ingressClassName".to_owned(), json!(class.name()));
        }
        Ok(())
    }
}
