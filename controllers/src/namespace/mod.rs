//! Namespaces that go: everything in them goes first.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, Pod};
use orlop_core::client::{DeleteOptions, ListOptions, Propagation};
use orlop_core::controller::{Action, Context, Controller, Interests, ReconcileError};
use orlop_core::object::{Object, ObjectKey};
use orlop_core::resource::Resource;
use orlop_core::status::Status;

use crate::common;
use crate::common::resources::{NAMESPACES, PODS};
use crate::manager::Catalog;

/// The finalizer in a namespace's `spec` that this controller removes.
const FINALIZER: &str = "kubernetes";
/// How long finalizers of others are expected to take.
const FINALIZER_ESTIMATE: i64 = 15;

/// Empties namespaces that are being deleted, then lets them go. Pods go first: what they still need (secrets, volumes) goes when they have.
pub struct NamespaceController {
    catalog: Arc<dyn Catalog>,
}

impl std::fmt::Debug for NamespaceController {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NamespaceController")
    }
}

impl NamespaceController {
    /// The controller; the catalog says what a namespace may hold.
    #[must_use]
    pub fn new(catalog: Arc<dyn Catalog>) -> Self {
        Self { catalog }
    }
}

/// What is left in a namespace.
#[derive(Debug, Default)]
struct Remains {
    /// How many objects of each resource, by `plural.group`.
    objects: BTreeMap<String, usize>,
    /// In how many objects each finalizer stands.
    finalizers: BTreeMap<String, usize>,
    /// The seconds that what remains is expected to take.
    estimate: i64,
    discovery: Option<String>,
    failures: Vec<String>,
}

impl Remains {
    fn is_nothing(&self) -> bool {
        self.objects.is_empty() && self.discovery.is_none() && self.failures.is_empty()
    }
}

#[async_trait]
impl Controller for NamespaceController {
    fn name(&self) -> &str {
        "namespace-controller"
    }

    fn workers(&self) -> usize {
        10
    }

    fn interests(&self) -> Interests {
        Interests::new().watches(NAMESPACES, |_, notice| {
            let namespace = notice.object();
            if namespace.is_terminating() {
                vec![namespace.key()]
            } else {
                Vec::new()
            }
        })
    }

    async fn reconcile(&self, ctx: &Context, key: &ObjectKey) -> Result<Action, ReconcileError> {
        let namespaces = ctx.client().resource(&NAMESPACES);
        // Live: what is decided here cannot be undone.
        let Some(object) = namespaces.find(&key.name).await? else {
            return Ok(Action::Done);
        };
        let namespace = object.decode::<Namespace>()?;
        let finalizers = namespace
            .spec
            .as_ref()
            .and_then(|spec| spec.finalizers.clone())
            .unwrap_or_default();
        if !object.is_terminating() || !finalizers.iter().any(|name| name == FINALIZER) {
            return Ok(Action::Done);
        }
        let mut namespace = (*namespace).clone();
        let status = namespace.status.get_or_insert_default();
        if status.phase.as_deref() != Some("Terminating") {
            status.phase = Some("Terminating".to_owned());
            namespace = (*namespaces
                .update_status(&namespace)
                .await?
                .decode::<Namespace>()?)
            .clone();
        }
        let remains = self.empty(ctx, &key.name).await;
        self.tell(ctx, &mut namespace, &remains).await?;
        if !remains.failures.is_empty() || remains.discovery.is_some() {
            let all = remains.failures.iter().chain(&remains.discovery);
            return Err(ReconcileError::other(
                all.cloned().collect::<Vec<_>>().join("; "),
            ));
        }
        if !remains.is_nothing() {
            let wait = u64::try_from(remains.estimate / 2 + 1).unwrap_or(1);
            return Ok(Action::RequeueAfter(Duration::from_secs(wait)));
        }
        if let Some(spec) = &mut namespace.spec {
            spec.finalizers = Some(
                finalizers
                    .into_iter()
                    .filter(|name| name != FINALIZER)
                    .collect(),
            );
        }
        match namespaces.update_at(Some("finalize"), &namespace).await {
            Err(status) if !status.is_not_found() => Err(status.into()),
            _ => Ok(Action::Done),
        }
    }
}

impl NamespaceController {
    async fn empty(&self, ctx: &Context, namespace: &str) -> Remains {
        let mut remains = Remains::default();
        let mut resources = match self.catalog.resources().await {
            Ok(resources) => resources,
            Err(status) => {
                remains.discovery = Some(status.to_string());
                return remains;
            }
        };
        resources.retain(|resource| resource.namespaced);
        resources.sort();
        let is_pods =
            |resource: &Resource| resource.group == PODS.group && resource.plural == PODS.plural;
        let (first, rest): (Vec<_>, Vec<_>) = resources.into_iter().partition(is_pods);
        for resource in &first {
            self.empty_of(ctx, namespace, resource, &mut remains).await;
        }
        // Not before the pods have gone.
        let hold = !remains.is_nothing();
        for resource in rest.iter().filter(|_| !hold) {
            self.empty_of(ctx, namespace, resource, &mut remains).await;
        }
        remains
    }

    async fn empty_of(
        &self,
        ctx: &Context,
        namespace: &str,
        resource: &Resource,
        remains: &mut Remains,
    ) {
        let objects = ctx.client().resource(resource).namespace(namespace);
        let emptied = async {
            let there = objects.list(ListOptions::default()).await?.items;
            if there.is_empty() {
                return Ok(there);
            }
            let options = DeleteOptions {
                propagation: Some(Propagation::Background),
                ..DeleteOptions::default()
            };
            match objects
                .delete_collection(options.clone(), ListOptions::default())
                .await
            {
                Ok(()) => {}
                // A few resources have no such verb.
                Err(status) if status.code == 405 => {
                    for object in &there {
                        match objects.delete(object.name(), options.clone()).await {
                            Err(status) if !status.is_not_found() => return Err(status),
                            _ => {}
                        }
                    }
                }
                Err(status) => return Err(status),
            }
            Ok::<_, Status>(objects.list(ListOptions::default()).await?.items)
        };
        match emptied.await {
            Ok(left) if left.is_empty() => {}
            Ok(left) => remains.count(resource, &left),
            // The resource itself went meanwhile.
            Err(status) if status.is_not_found() || status.code == 405 => {}
            Err(status) => remains
                .failures
                .push(format!("{}: {status}", resource.qualified())),
        }
    }

    /// Writes the conditions that say what is in the way.
    async fn tell(
        &self,
        ctx: &Context,
        namespace: &mut Namespace,
        remains: &Remains,
    ) -> Result<(), ReconcileError> {
        let list = |what: &BTreeMap<String, usize>, words: &dyn Fn(&str, usize) -> String| {
            what.iter()
                .map(|(name, count)| words(name, *count))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let told = [
            match &remains.discovery {
                None => (
                    "NamespaceDeletionDiscoveryFailure",
                    false,
                    "ResourcesDiscovered",
                    "All resources successfully discovered".to_owned(),
                ),
                Some(error) => (
                    "NamespaceDeletionDiscoveryFailure",
                    true,
                    "DiscoveryFailed",
                    format!("Discovery failed for some groups, 1 failing: {error}"),
                ),
            },
            (
                "NamespaceDeletionGroupVersionParsingFailure",
                false,
                "ParsedGroupVersions",
                "All legacy kube types successfully parsed".to_owned(),
            ),
            match remains.failures.as_slice() {
                [] => (
                    "NamespaceDeletionContentFailure",
                    false,
                    "ContentDeleted",
                    "All content successfully deleted, may be waiting on finalization".to_owned(),
                ),
                some => (
                    "NamespaceDeletionContentFailure",
                    true,
                    "ContentDeletionFailed",
                    format!(
                        "Failed to delete all resource types, {} remaining: {}",
                        some.len(),
                        some.join(", ")
                    ),
                ),
            },
            if remains.objects.is_empty() {
                (
                    "NamespaceContentRemaining",
                    false,
                    "ContentRemoved",
                    "All content successfully removed".to_owned(),
                )
            } else {
                let all = list(&remains.objects, &|name, count| {
                    format!("{name} has {count} resource instances")
                });
                (
                    "NamespaceContentRemaining",
                    true,
                    "SomeResourcesRemain",
                    format!("Some resources are remaining: {all}"),
                )
            },
            if remains.finalizers.is_empty() {
                (
                    "NamespaceFinalizersRemaining",
                    false,
                    "ContentHasNoFinalizers",
                    "All content-preserving finalizers finished".to_owned(),
                )
            } else {
                let all = list(&remains.finalizers, &|name, count| {
                    format!("{name} in {count} resource instances")
                });
                let message =
                    format!("Some content in the namespace has finalizers remaining: {all}");
                (
                    "NamespaceFinalizersRemaining",
                    true,
                    "SomeFinalizersRemain",
                    message,
                )
            },
        ];
        let now = common::now_time(ctx.env());
        let conditions = namespace
            .status
            .get_or_insert_default()
            .conditions
            .get_or_insert_default();
        let mut changed = false;
        for (kind, holds, reason, message) in told {
            let status = if holds { "True" } else { "False" };
            let next = NamespaceCondition {
                type_: kind.to_owned(),
                status: status.to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message),
                last_transition_time: now.clone(),
            };
            match conditions
                .iter_mut()
                .find(|condition| condition.type_ == kind)
            {
                None => {
                    conditions.push(next);
                    changed = true;
                }
                Some(known)
                    if known.status != next.status
                        || known.message != next.message
                        || known.reason != next.reason =>
                {
                    *known = next;
                    changed = true;
                }
                Some(_) => {}
            }
        }
        if changed {
            let written = ctx
                .client()
                .resource(&NAMESPACES)
                .update_status(namespace)
                .await?;
            *namespace = (*written.decode::<Namespace>()?).clone();
        }
        Ok(())
    }
}

impl Remains {
    fn count(&mut self, resource: &Resource, left: &[Object]) {
        // Always with a dot, as upstream writes it.
        self.objects.insert(
            format!("{}.{}", resource.plural, resource.group),
            left.len(),
        );
        for object in left {
            let metadata = object.metadata();
            for finalizer in &metadata.finalizers {
                *self.finalizers.entry(finalizer.clone()).or_default() += 1;
            }
            let grace = if metadata.finalizers.is_empty() {
                let pod = object
                    .decode::<Pod>()
                    .ok()
                    .filter(|_| object.kind() == PODS.kind);
                let own = pod.and_then(|pod| pod.spec.as_ref()?.termination_grace_period_seconds);
                metadata.deletion_grace_period_seconds.or(own).unwrap_or(0)
            } else {
                FINALIZER_ESTIMATE
            };
            self.estimate = self.estimate.max(grace);
        }
    }
}

#[cfg(test)]
mod tests {
    use orlop_core::client::Patch;
    use serde_json::json;

    use super::*;
    use crate::common::resources::CONFIG_MAPS;
    use crate::manager::FixedCatalog;
    use crate::testing::{condition, run};

    #[test]
    fn a_namespace_goes_when_it_is_empty() {
        let catalog = Arc::new(FixedCatalog::new([PODS, CONFIG_MAPS, NAMESPACES]));
        run(
            vec![Arc::new(NamespaceController::new(catalog))],
            |world| async move {
                let client = world.client();
                client
                    .resource(&NAMESPACES)
                    .create(&json!({"metadata": {"name": "default"}}))
                    .await
                    .unwrap();
                world.create(&PODS, json!({"metadata": {"name": "p"}, "spec": {"containers": [], "nodeName": "n", "terminationGracePeriodSeconds": 3}})).await;
                world
                    .create(&CONFIG_MAPS, json!({"metadata": {"name": "free"}}))
                    .await;
                world
                    .create(
                        &CONFIG_MAPS,
                        json!({"metadata": {"name": "held", "finalizers": ["example.com/hold"]}}),
                    )
                    .await;
                client
                    .resource(&NAMESPACES)
                    .delete("default", DeleteOptions::default())
                    .await
                    .unwrap();
                world
                    .until("one is held", |world| {
                        let namespace = world.get(&NAMESPACES, "default").unwrap();
                        condition(&namespace, "NamespaceFinalizersRemaining")["status"] == "True"
                            && world.list(&CONFIG_MAPS).len() == 1
                    })
                    .await;
                assert!(world.list(&PODS).is_empty(), "the pods went first");
                let namespace = world.get(&NAMESPACES, "default").unwrap();
                assert_eq!(
                    condition(&namespace, "NamespaceContentRemaining")["message"],
                    "Some resources are remaining: configmaps. has 1 resource instances"
                );
                assert_eq!(
                    condition(&namespace, "NamespaceFinalizersRemaining")["message"],
                    "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
                );
                let refused = client
                    .resource(&CONFIG_MAPS)
                    .namespace("default")
                    .create(&json!({"metadata": {"name": "new"}}))
                    .await;
                assert!(common::namespace_is_going(&refused.unwrap_err()));
                let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
                client
                    .resource(&CONFIG_MAPS)
                    .namespace("default")
                    .patch("held", patch)
                    .await
                    .unwrap();
                world
                    .until("it has gone", |world| {
                        world.get(&NAMESPACES, "default").is_none()
                    })
                    .await;
                world.stop().await;
            },
        );
    }

    #[test]
    fn a_catalog_that_does_not_answer_holds_everything() {
        struct Silent;
        #[async_trait]
        impl Catalog for Silent {
            async fn resources(&self) -> Result<Vec<Resource>, Status> {
                Err(Status::unavailable(
                    "the server is currently unable to handle the request",
                ))
            }
        }
        run(
            vec![Arc::new(NamespaceController::new(Arc::new(Silent)))],
            |world| async move {
                let client = world.client();
                client
                    .resource(&NAMESPACES)
                    .create(&json!({"metadata": {"name": "a"}}))
                    .await
                    .unwrap();
                client
                    .resource(&NAMESPACES)
                    .delete("a", DeleteOptions::default())
                    .await
                    .unwrap();
                world.sleep(30).await;
                let namespace = world.get(&NAMESPACES, "a").unwrap();
                assert_eq!(
                    condition(&namespace, "NamespaceDeletionDiscoveryFailure")["reason"],
                    "DiscoveryFailed"
                );
                world.stop().await;
            },
        );
    }
}
