//! EndpointSlices: what stands behind a Service, in objects of at most a hundred endpoints.

mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use orlop_core::client::DeleteOptions;
use orlop_core::controller::{Action, Context, Controller, Interests, ReconcileError};
use orlop_core::env::Moment;
use orlop_core::informer::Notice;
use orlop_core::object::{Object, ObjectKey};
use orlop_core::revision::Revision;
use parking_lot::Mutex;

use self::plan::{Known, Ports, plan};
use crate::common::ownership::managed_by;
use crate::common::resources::{ENDPOINT_SLICES, NODES, PODS, SERVICES};
use crate::common::{self, pods, services};
use crate::endpoints::is_api_server;

/// The label with the name of the Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label that says who writes a slice.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const SELF: &str = "endpointslice-controller.k8s.io";
const ZONE: &str = "topology.kubernetes.io/zone";
/// The most endpoints of a slice.
pub const MAX_ENDPOINTS: usize = 100;
/// How long a write is waited for in the local copy before it is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Keeps the EndpointSlices of every Service that chooses its pods. The API server keeps those of the `kubernetes` Service.
#[derive(Debug, Default)]
pub struct EndpointSliceController {
    /// What was written and has not been seen yet: the local copy is too old to plan with.
    unseen: Arc<Mutex<BTreeMap<ObjectKey, Unseen>>>,
}

#[derive(Debug)]
struct Unseen {
    service: ObjectKey,
    /// The revision that was written; `None` for a deletion.
    revision: Option<Revision>,
    since: Moment,
}

impl EndpointSliceController {
    /// The controller.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn wrote(
        &self,
        ctx: &Context,
        service: &ObjectKey,
        slice: ObjectKey,
        revision: Option<Revision>,
    ) {
        let unseen = Unseen {
            service: service.clone(),
            revision,
            since: ctx.env().now(),
        };
        self.unseen.lock().insert(slice, unseen);
    }

    /// Whether the local copy has all that was written for a Service.
    fn is_fresh(&self, ctx: &Context, service: &ObjectKey) -> bool {
        let store = ctx.store(&ENDPOINT_SLICES);
        let now = ctx.env().now();
        let mut unseen = self.unseen.lock();
        unseen.retain(|slice, write| {
            if write.service != *service || now.since(write.since) > PATIENCE {
                return write.service != *service;
            }
            match (store.get(slice), write.revision) {
                (Some(there), Some(revision)) => there.revision() < revision,
                (None, None) => false,
                _ => true,
            }
        });
        !unseen.values().any(|write| write.service == *service)
    }
}

fn service_of(slice: &Object) -> Option<ObjectKey> {
    let labels = &slice.metadata().labels;
    if labels.get(MANAGED_BY).is_none_or(|by| by != SELF) {
        return None;
    }
    labels
        .get(SERVICE_NAME)
        .map(|name| ObjectKey::new(slice.namespace(), name))
}

#[async_trait]
impl Controller for EndpointSliceController {
    fn name(&self) -> &str {
        "endpointslice-controller"
    }

    fn event_source(&self) -> &str {
        "endpoint-slice-controller"
    }

    fn interests(&self) -> Interests {
        let unseen = self.unseen.clone();
        Interests::new()
            .for_each(SERVICES)
            .watches(PODS, services::choosing)
            .watches(ENDPOINT_SLICES, move |_, notice| {
                if matches!(notice, Notice::Deleted { .. }) {
                    unseen.lock().remove(&notice.object().key());
                }
                [notice.old(), Some(notice.object())]
                    .into_iter()
                    .flatten()
                    .filter_map(service_of)
                    .collect()
            })
            .watches(NODES, |ctx, notice| {
                // A node's zone stands in the endpoints.
                let zone = |node: &Object| node.metadata().labels.get(ZONE).cloned();
                let moved = match notice {
                    Notice::Updated { old, new } => zone(old) != zone(new),
                    Notice::Added { initial, .. } => !initial,
                    Notice::Deleted { .. } => true,
                };
                if moved {
                    ctx.store(&SERVICES).keys()
                } else {
                    Vec::new()
                }
            })
    }

    fn prepare(&self, ctx: &Context) {
        ctx.informer(&ENDPOINT_SLICES)
            .add_index(SERVICE_NAME, |slice| {
                service_of(slice)
                    .map(|service| service.to_string())
                    .into_iter()
                    .collect()
            });
    }

    async fn reconcile(&self, ctx: &Context, key: &ObjectKey) -> Result<Action, ReconcileError> {
        if is_api_server(key) {
            return Ok(Action::Done);
        }
        if !self.is_fresh(ctx, key) {
            // The watch will tell; this is for when it does not.
            return Ok(Action::RequeueAfter(Duration::from_secs(1)));
        }
        // The slices of a Service that is gone are the garbage collector's.
        let Some(object) = ctx.store(&SERVICES).get(key) else {
            return Ok(Action::Done);
        };
        let service = object.decode::<Service>()?;
        let Some(selector) = services::selector(&service) else {
            return Ok(Action::Done);
        };
        if object.is_terminating() {
            return Ok(Action::Done);
        }
        let pods = services::chosen(ctx, &key.namespace, &selector)?;
        let mut existing = Vec::new();
        for slice in ctx
            .store(&ENDPOINT_SLICES)
            .by_index(SERVICE_NAME, &key.to_string())
        {
            existing.push((slice.key(), slice.decode::<EndpointSlice>()?));
        }
        let trigger = services::trigger_time(&service, &pods);
        let families = services::wants_ipv6(&service);
        for ipv6 in &families {
            let address_type = if *ipv6 { "IPv6" } else { "IPv4" };
            let mut wanted: BTreeMap<Ports, Vec<Endpoint>> = BTreeMap::new();
            for pod in &pods {
                if let Some((ports, endpoint)) = endpoint(ctx, &service, pod, *ipv6) {
                    wanted.entry(ports).or_default().push(endpoint);
                }
            }
            let known: Vec<Known> = existing
                .iter()
                .filter(|(_, slice)| slice.address_type == address_type)
                .map(|(key, slice)| Known {
                    key: key.clone(),
                    slice: slice.clone(),
                })
                .collect();
            let labels = labels(&service, key);
            let plan = plan(&known, wanted, &labels, MAX_ENDPOINTS);
            self.carry_out(
                ctx,
                key,
                &object,
                address_type,
                &labels,
                trigger.as_deref(),
                plan,
            )
            .await?;
        }
        // A family that the Service no longer has.
        for (slice, known) in existing {
            if !families.contains(&(known.address_type == "IPv6")) {
                self.delete(ctx, key, slice).await?;
            }
        }
        Ok(Action::Done)
    }
}

impl EndpointSliceController {
    #[allow(clippy::too_many_arguments)] // one call; a struct for it would only rename them
    async fn carry_out(
        &self,
        ctx: &Context,
        key: &ObjectKey,
        service: &Object,
        address_type: &str,
        labels: &BTreeMap<String, String>,
        trigger: Option<&str>,
        plan: plan::Plan,
    ) -> Result<(), ReconcileError> {
        let slices = ctx
            .client()
            .resource(&ENDPOINT_SLICES)
            .namespace(&key.namespace);
        let annotations = |old: Option<&BTreeMap<String, String>>| {
            let mut annotations = old.cloned().unwrap_or_default();
            if let Some(trigger) = trigger {
                annotations.insert(services::TRIGGER_TIME.to_owned(), trigger.to_owned());
            }
            Some(annotations).filter(|annotations| !annotations.is_empty())
        };
        for (ports, endpoints) in plan.create {
            let slice = EndpointSlice {
                metadata: ObjectMeta {
                    generate_name: Some(format!("{}-", key.name)),
                    labels: Some(labels.clone()),
                    annotations: annotations(None),
                    owner_references: Some(vec![managed_by(service)]),
                    ..ObjectMeta::default()
                },
                address_type: address_type.to_owned(),
                endpoints: Some(endpoints),
                ports: ports.into_ports(),
            };
            match slices.create(&slice).await {
                Ok(made) => self.wrote(ctx, key, made.key(), Some(made.revision())),
                Err(status) if common::namespace_is_going(&status) => return Ok(()),
                Err(status) => {
                    let message = format!(
                        "Error updating Endpoint Slices for Service {key}: failed to create EndpointSlice for Service {key}: {status}"
                    );
                    ctx.events()
                        .warning(service, "FailedToUpdateEndpointSlices", message);
                    return Err(status.into());
                }
            }
        }
        for (slice, endpoints) in plan.update {
            let mut next = (*slice.slice).clone();
            next.endpoints = Some(endpoints);
            next.metadata.labels = Some(labels.clone());
            next.metadata.annotations = annotations(next.metadata.annotations.as_ref());
            let written = slices.update(&next).await?;
            self.wrote(ctx, key, slice.key, Some(written.revision()));
        }
        for slice in plan.delete {
            self.delete(ctx, key, slice).await?;
        }
        Ok(())
    }

    async fn delete(
        &self,
        ctx: &Context,
        service: &ObjectKey,
        slice: ObjectKey,
    ) -> Result<(), ReconcileError> {
        let slices = ctx
            .client()
            .resource(&ENDPOINT_SLICES)
            .namespace(&slice.namespace);
        match slices.delete(&slice.name, DeleteOptions::default()).await {
            Err(status) if !status.is_not_found() => Err(status.into()),
            _ => {
                if ctx.store(&ENDPOINT_SLICES).get(&slice).is_some() {
                    self.wrote(ctx, service, slice, None);
                }
                Ok(())
            }
        }
    }
}

/// The labels of a Service's slices: the Service's, and those that say whose they are.
fn labels(service: &Service, key: &ObjectKey) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    services::mark_headless(&mut labels, service);
    labels.insert(SERVICE_NAME.to_owned(), key.name.to_string());
    labels.insert(MANAGED_BY.to_owned(), SELF.to_owned());
    labels
}

/// The endpoint that a pod is, with the ports that it has there; `None` while it has no address, and when it has ended.
fn endpoint(ctx: &Context, service: &Service, pod: &Pod, ipv6: bool) -> Option<(Ports, Endpoint)> {
    if !services::is_reachable(pod, true) {
        return None;
    }
    let address = services::address(pod, ipv6)?;
    let ports = service
        .spec
        .iter()
        .flat_map(|spec| spec.ports.iter().flatten())
        .filter_map(|port| {
            Some(EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(services::target_port(pod, port)?),
                protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
                app_protocol: port.app_protocol.clone(),
            })
        });
    let (ready, terminating) = (pods::is_ready(pod), pods::is_terminating(pod));
    let node_name = Some(pods::node(pod).to_owned()).filter(|node| !node.is_empty());
    let node = node_name
        .as_ref()
        .and_then(|name| ctx.store(&NODES).get(&ObjectKey::new("", name)));
    let zone = node.and_then(|node| {
        node.decode::<Node>()
            .ok()?
            .metadata
            .labels
            .as_ref()?
            .get(ZONE)
            .cloned()
    });
    let endpoint = Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(services::publishes_not_ready(service) || (ready && !terminating)),
            serving: Some(ready),
            terminating: Some(terminating),
        }),
        hostname: services::hostname(pod, service.metadata.name.as_deref().unwrap_or_default()),
        node_name,
        target_ref: Some(services::reference(pod)),
        zone,
        ..Endpoint::default()
    };
    Some((Ports::new(ports.collect()), endpoint))
}

#[cfg(test)]
mod tests {
    use orlop_core::client::Patch;
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{World, run};

    fn slices(world: &World) -> Vec<Value> {
        world.list(&ENDPOINT_SLICES)
    }

    fn ready(world: &World) -> usize {
        let all = slices(world);
        all.iter()
            .flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default())
            .filter(|endpoint| endpoint["conditions"]["ready"] == true)
            .count()
    }

    fn pod(n: usize) -> Value {
        json!({"metadata": {"name": format!("p{n:03}"), "labels": {"app": "web"}}, "spec": {"containers": []}})
    }

    #[test]
    fn slices_hold_a_hundred_each_and_follow_the_pods() {
        run(
            vec![Arc::new(EndpointSliceController::new())],
            |world| async move {
                world
                    .client()
                    .resource(&NODES)
                    .create(&json!({"metadata": {"name": "node-1", "labels": {ZONE: "z1"}}}))
                    .await
                    .unwrap();
                let service = json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "clusterIP": "10.1.1.1",
                "ports": [{"port": 80, "protocol": "TCP"}]}});
                world.create(&SERVICES, service).await;
                world
                    .until("an empty slice", |world| slices(world).len() == 1)
                    .await;
                assert_eq!(slices(&world)[0]["endpoints"], json!([]));
                for n in 0..250 {
                    world.create(&PODS, pod(n)).await;
                }
                world
                    .until("all are ready", |world| ready(world) == 250)
                    .await;
                let mut sizes: Vec<usize> = slices(&world)
                    .iter()
                    .map(|slice| slice["endpoints"].as_array().unwrap().len())
                    .collect();
                sizes.sort_unstable();
                assert!(
                    sizes.len() <= 4 && sizes.iter().all(|size| *size <= 100),
                    "{sizes:?}"
                );
                let slice = &slices(&world)[0];
                assert_eq!(slice["addressType"], "IPv4");
                assert_eq!(
                    slice["ports"],
                    json!([{"name": "", "port": 80, "protocol": "TCP"}])
                );
                assert_eq!(
                    slice["metadata"]["labels"],
                    json!({SERVICE_NAME: "web", MANAGED_BY: SELF})
                );
                assert_eq!(slice["metadata"]["ownerReferences"][0]["kind"], "Service");
                let endpoint = &slice["endpoints"][0];
                assert_eq!(
                    (&endpoint["nodeName"], &endpoint["zone"]),
                    (&json!("node-1"), &json!("z1"))
                );
                // One that is not ready any more is still shown.
                let unready =
                    json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
                let client = world.client();
                client
                    .resource(&PODS)
                    .namespace("default")
                    .patch_status("p007", Patch::Merge(unready))
                    .await
                    .unwrap();
                world.until("one is not", |world| ready(world) == 249).await;
                world.stop().await;
            },
        );
    }
}
