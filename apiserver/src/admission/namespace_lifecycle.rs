//! Nothing new in a namespace that is not there or is going, and some namespaces never go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orlop_core::admission::{AdmissionOperation, AdmissionPlugin, AdmissionRequest, ObjectReader};
use orlop_core::env::{Env, Moment};
use orlop_core::status::{Status, StatusCause};
use parking_lot::Mutex;

use super::Context;
use crate::names::{NAMESPACES, text_at};

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];
/// How long after a namespace's deletion the cache is not believed that says it is active.
const DISTRUST: Duration = Duration::from_secs(30);
/// How many deletions are remembered at most.
const REMEMBERED: usize = 1024;

/// Refuses what is created in a namespace that is not there or is being deleted, and the deletion of the system's namespaces.
pub struct NamespaceLifecycle {
    reader: Arc<dyn ObjectReader>,
    env: Env,
    deleted: Mutex<BTreeMap<String, Moment>>,
}

impl NamespaceLifecycle {
    pub(super) fn new(context: &Context) -> Self {
        Self {
            reader: context.reader.clone(),
            env: context.env.clone(),
            deleted: Mutex::default(),
        }
    }

    fn remember_deletion(&self, name: &str) {
        let now = self.env.now();
        let mut deleted = self.deleted.lock();
        if deleted.len() >= REMEMBERED {
            deleted.retain(|_, at| now.since(*at) < DISTRUST);
        }
        if deleted.len() >= REMEMBERED {
            deleted.pop_first();
        }
        deleted.insert(name.to_owned(), now);
    }

    fn was_deleted(&self, name: &str) -> bool {
        let deleted = self.deleted.lock().get(name).copied();
        deleted.is_some_and(|at| self.env.now().since(at) < DISTRUST)
    }
}

#[async_trait]
impl AdmissionPlugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn handles(&self, operation: AdmissionOperation) -> bool {
        operation != AdmissionOperation::Connect
    }

    async fn admit(&self, request: &mut AdmissionRequest) -> Result<(), Status> {
        let resource = &request.resource;
        let is_namespace = resource.group.is_empty() && resource.plural == "namespaces";
        if is_namespace {
            if request.operation == AdmissionOperation::Delete {
                if IMMORTAL.contains(&request.name.as_str()) {
                    return Err(Status::forbidden(
                        resource,
                        &request.name,
                        "this namespace may not be deleted",
                    ));
                }
                self.remember_deletion(&request.name);
            }
            return Ok(());
        }
        // Who may do what is asked about namespaces that are yet to come.
        let is_review = resource.group == "authorization.k8s.io"
            && resource.plural == "localsubjectaccessreviews";
        if request.namespace.is_empty()
            || request.operation == AdmissionOperation::Delete
            || is_review
        {
            return Ok(());
        }
        let name = &request.namespace;
        let mut namespace = match self.was_deleted(name) {
            true => None,
            false => self.reader.get(&NAMESPACES, "", name).await?,
        };
        if namespace.is_none() {
            namespace = self.reader.get_live(&NAMESPACES, "", name).await?;
        }
        let Some(namespace) = namespace else {
            return Err(Status::not_found(&NAMESPACES, name));
        };
        if request.operation != AdmissionOperation::Create {
            return Ok(());
        }
        let value = namespace.value().map_err(Status::internal)?;
        if text_at(&value, "/status/phase") != "Terminating" {
            return Ok(());
        }
        let why = format!(
            "unable to create new content in namespace {name} because it is being terminated"
        );
        let mut refusal = request.forbidden(&why);
        if let Some(details) = &mut refusal.details {
            details.causes.push(StatusCause {
                reason: "NamespaceTerminating".to_owned(),
                message: format!("namespace {name} is being terminated"),
                field: "metadata.namespace".to_owned(),
            });
        }
        Err(refusal)
    }
}
