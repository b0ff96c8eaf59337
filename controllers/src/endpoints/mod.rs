//! Endpoints: the addresses behind a Service, in one object; for who does not read EndpointSlices yet.

mod subsets;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use orlop_core::client::DeleteOptions;
use orlop_core::controller::{Action, Context, Controller, Interests, ReconcileError};
use orlop_core::informer::Notice;
use orlop_core::object::ObjectKey;

use crate::common;
use crate::common::resources::{ENDPOINTS, PODS, SERVICES};
use crate::common::services;

pub use self::subsets::{MAX_ADDRESSES, build_subsets};

/// Says that addresses are missing because there are too many.
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Says who writes the object.
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";

/// Keeps the Endpoints of every Service that chooses its pods. The API server keeps those of the `kubernetes` Service.
#[derive(Debug, Default)]
pub struct EndpointsController(());

impl EndpointsController {
    /// The controller.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

/// The Service of the API server itself.
pub(crate) fn is_api_server(key: &ObjectKey) -> bool {
    &*key.namespace == "default" && &*key.name == "kubernetes"
}

#[async_trait]
impl Controller for EndpointsController {
    fn name(&self) -> &str {
        "endpoints-controller"
    }

    fn identity(&self) -> &str {
        "endpoint-controller"
    }

    fn event_source(&self) -> &str {
        "endpoint-controller"
    }

    fn interests(&self) -> Interests {
        Interests::new()
            .for_each(SERVICES)
            .watches(PODS, services::choosing)
            .watches(ENDPOINTS, |_, notice| match notice {
                // What was left over when we were not there, and what somebody takes away.
                Notice::Added {
                    object,
                    initial: true,
                }
                | Notice::Deleted { object, .. } => vec![object.key()],
                _ => Vec::new(),
            })
    }

    async fn reconcile(&self, ctx: &Context, key: &ObjectKey) -> Result<Action, ReconcileError> {
        if is_api_server(key) {
            return Ok(Action::Done);
        }
        let endpoints = ctx.client().resource(&ENDPOINTS).namespace(&key.namespace);
        let current = ctx.store(&ENDPOINTS).get(key);
        let Some(object) = ctx.store(&SERVICES).get(key) else {
            if current.is_some() {
                match endpoints.delete(&key.name, DeleteOptions::default()).await {
                    Err(status) if !status.is_not_found() => return Err(status.into()),
                    _ => {}
                }
            }
            return Ok(Action::Done);
        };
        let service = object.decode::<Service>()?;
        let Some(selector) = services::selector(&service) else {
            return Ok(Action::Done);
        };
        let pods = services::chosen(ctx, &key.namespace, &selector)?;
        let behind: Vec<&Pod> = pods.iter().map(|pod| &**pod).collect();
        let (subsets, truncated) = build_subsets(&service, &behind);
        let known = match &current {
            Some(object) => Some(object.decode::<Endpoints>()?),
            None => None,
        };
        let mut labels = service.metadata.labels.clone().unwrap_or_default();
        services::mark_headless(&mut labels, &service);
        labels.insert(MANAGED_BY.to_owned(), "endpoint-controller".to_owned());
        let mut annotations = known
            .as_ref()
            .and_then(|known| known.metadata.annotations.clone())
            .unwrap_or_default();
        let was_truncated = annotations.contains_key(OVER_CAPACITY);
        let same = known.as_ref().is_some_and(|known| {
            known.subsets.clone().unwrap_or_default() == subsets
                && known.metadata.labels.as_ref() == Some(&labels)
                && was_truncated == truncated
        });
        if same {
            return Ok(Action::Done);
        }
        if truncated {
            annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
        } else {
            annotations.remove(OVER_CAPACITY);
        }
        if let Some(time) = services::trigger_time(&service, &pods) {
            annotations.insert(services::TRIGGER_TIME.to_owned(), time);
        }
        let next = Endpoints {
            metadata: ObjectMeta {
                labels: Some(labels),
                annotations: Some(annotations).filter(|annotations| !annotations.is_empty()),
                ..known.as_ref().map_or_else(
                    || ObjectMeta {
                        name: Some(key.name.to_string()),
                        ..ObjectMeta::default()
                    },
                    |known| known.metadata.clone(),
                )
            },
            subsets: Some(subsets).filter(|subsets| !subsets.is_empty()),
        };
        let (written, reason, what) = match known {
            None => (
                endpoints.create(&next).await,
                "FailedToCreateEndpoint",
                "create endpoint for service",
            ),
            Some(_) => (
                endpoints.update(&next).await,
                "FailedToUpdateEndpoint",
                "update endpoint",
            ),
        };
        match written {
            Ok(_) => Ok(Action::Done),
            Err(status) if common::namespace_is_going(&status) => Ok(Action::Done),
            Err(status) => {
                if !status.is_conflict() && !status.is_already_exists() {
                    let about = current.as_ref().unwrap_or(&object);
                    ctx.events().warning(
                        about,
                        reason,
                        format!("Failed to {what} {key}: {status}"),
                    );
                }
                Err(status.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use orlop_core::client::Patch;
    use serde_json::json;

    use super::*;
    use crate::testing::run_after;

    #[test]
    fn endpoints_follow_the_pods() {
        let left_over = (ENDPOINTS, json!({"metadata": {"name": "left-over"}}));
        run_after(
            vec![left_over],
            vec![Arc::new(EndpointsController::new())],
            |world| async move {
                world
                .create(
                    &SERVICES,
                    json!({"metadata": {"name": "web", "labels": {"team": "a"}}, "spec": {"selector": {"app": "web"}, "clusterIP": "10.1.1.1",
                        "ports": [{"port": 80, "targetPort": "http", "protocol": "TCP"}]}}),
                )
                .await;
                let pod = json!({"metadata": {"name": "p", "labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]}]}});
                world.create(&PODS, pod).await;
                world
                    .until("it is there", |world| {
                        world.get(&ENDPOINTS, "web").is_some_and(|e| {
                            e["subsets"][0]["addresses"][0]["targetRef"]["name"] == "p"
                        })
                    })
                    .await;
                let endpoints = world.get(&ENDPOINTS, "web").unwrap();
                assert_eq!(
                    endpoints["subsets"][0]["ports"],
                    json!([{"port": 8080, "protocol": "TCP"}])
                );
                assert_eq!(
                    endpoints["metadata"]["labels"],
                    json!({"team": "a", MANAGED_BY: "endpoint-controller"})
                );
                assert!(endpoints["metadata"]["annotations"][services::TRIGGER_TIME].is_string());
                let unready =
                    json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
                let client = world.client();
                client
                    .resource(&PODS)
                    .namespace("default")
                    .patch_status("p", Patch::Merge(unready))
                    .await
                    .unwrap();
                world
                    .until("it is not ready", |world| {
                        world.get(&ENDPOINTS, "web").unwrap()["subsets"][0]["notReadyAddresses"]
                            .is_array()
                    })
                    .await;
                client
                    .resource(&SERVICES)
                    .namespace("default")
                    .delete("web", DeleteOptions::default())
                    .await
                    .unwrap();
                world
                    .until("all are gone", |world| world.list(&ENDPOINTS).is_empty())
                    .await;
                world.stop().await;
            },
        );
    }
}
