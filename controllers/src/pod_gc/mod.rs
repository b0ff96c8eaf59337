//! The pod garbage collector: pods that nobody else will clean up.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, Pod};
use orlop_core::client::{DeleteOptions, Patch};
use orlop_core::controller::{Action, Context, Controller, Interests, ReconcileError};
use orlop_core::env::{CancelToken, Moment};
use orlop_core::object::{Object, ObjectKey};
use orlop_core::status::Status;
use parking_lot::Mutex;
use serde_json::json;

use crate::common::resources::{NODES, PODS};
use crate::common::{self, pods};
use crate::node_lifecycle::{Health, health};

/// The taint by which a person says that a node is off for good.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// How often the pods are looked at.
const PERIOD: Duration = Duration::from_secs(20);
/// How long a node has to be missing.
const QUARANTINE: Duration = Duration::from_secs(40);
/// How many ended pods may be kept.
const KEPT: usize = 12_500;

/// Removes pods of nodes that are gone, pods that were to go before they had a node, and the oldest of those that ended when they are too many.
#[derive(Debug)]
pub struct PodGarbageCollector {
    kept: usize,
    /// Nodes that are named by pods but are not there, since when.
    missing: Mutex<BTreeMap<String, Moment>>,
}

impl Default for PodGarbageCollector {
    fn default() -> Self {
        Self::keeping(KEPT)
    }
}

impl PodGarbageCollector {
    /// The controller; it keeps 12,500 pods that ended.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The controller, keeping so many pods that ended; zero for all.
    #[must_use]
    pub fn keeping(kept: usize) -> Self {
        Self {
            kept,
            missing: Mutex::default(),
        }
    }

    async fn collect(&self, ctx: &Context) -> Result<(), ReconcileError> {
        let mut all = Vec::new();
        for object in ctx.store(&PODS).list() {
            let pod = object.decode::<Pod>()?;
            all.push((object, pod));
        }
        self.ended(ctx, &all).await?;
        self.out_of_service(ctx, &all).await?;
        self.orphaned(ctx, &all).await?;
        self.never_scheduled(ctx, &all).await
    }

    /// Too many that ended: the oldest go, those that were evicted before all others.
    async fn ended(
        &self,
        ctx: &Context,
        all: &[(Object, std::sync::Arc<Pod>)],
    ) -> Result<(), ReconcileError> {
        let mut ended: Vec<_> = all
            .iter()
            .filter(|(_, pod)| pods::is_finished(pod) && !pods::is_terminating(pod))
            .collect();
        if self.kept == 0 || ended.len() <= self.kept {
            return Ok(());
        }
        let evicted = |pod: &Pod| {
            pod.status
                .as_ref()
                .and_then(|status| status.reason.as_deref())
                == Some("Evicted")
        };
        ended.sort_by_key(|(object, pod)| {
            (
                !evicted(pod),
                object.metadata().creation_timestamp,
                object.key(),
            )
        });
        for (object, pod) in ended.iter().take(ended.len() - self.kept) {
            force(ctx, object, pod, None).await?;
        }
        Ok(())
    }

    /// Pods that are going on nodes that somebody declared off.
    async fn out_of_service(
        &self,
        ctx: &Context,
        all: &[(Object, std::sync::Arc<Pod>)],
    ) -> Result<(), ReconcileError> {
        let store = ctx.store(&NODES);
        for (object, pod) in all.iter().filter(|(_, pod)| pods::is_terminating(pod)) {
            let Some(node) = store.get(&ObjectKey::new("", pods::node(pod))) else {
                continue;
            };
            let node = node.decode::<Node>()?;
            let mut taints = node
                .spec
                .iter()
                .flat_map(|spec| spec.taints.iter().flatten());
            if health(&node) != Health::Ready && taints.any(|taint| taint.key == OUT_OF_SERVICE) {
                force(ctx, object, pod, None).await?;
            }
        }
        Ok(())
    }

    /// Pods of nodes that are gone.
    async fn orphaned(
        &self,
        ctx: &Context,
        all: &[(Object, std::sync::Arc<Pod>)],
    ) -> Result<(), ReconcileError> {
        let store = ctx.store(&NODES);
        let now = ctx.env().now();
        let absent =
            |name: &str| !name.is_empty() && store.get(&ObjectKey::new("", name)).is_none();
        let due: Vec<String> = {
            let mut missing = self.missing.lock();
            missing.retain(|name, _| absent(name));
            for (_, pod) in all.iter().filter(|(_, pod)| absent(pods::node(pod))) {
                missing.entry(pods::node(pod).to_owned()).or_insert(now);
            }
            missing
                .iter()
                .filter(|(_, since)| now.since(**since) >= QUARANTINE)
                .map(|(name, _)| name.clone())
                .collect()
        };
        for name in due {
            // Live: our copy may be behind.
            if ctx.client().resource(&NODES).find(&name).await?.is_some() {
                self.missing.lock().remove(&name);
                continue;
            }
            for (object, pod) in all.iter().filter(|(_, pod)| pods::node(pod) == name) {
                force(ctx, object, pod, Some("PodGC: node no longer exists")).await?;
            }
        }
        Ok(())
    }

    /// Pods that were to go before they had a node: no kubelet will ever confirm it.
    async fn never_scheduled(
        &self,
        ctx: &Context,
        all: &[(Object, std::sync::Arc<Pod>)],
    ) -> Result<(), ReconcileError> {
        for (object, pod) in all
            .iter()
            .filter(|(_, pod)| pods::is_terminating(pod) && pods::node(pod).is_empty())
        {
            force(ctx, object, pod, None).await?;
        }
        Ok(())
    }
}

/// Removes a pod without asking its node. One that has not ended is said to have failed first, so that its owner can count it.
async fn force(
    ctx: &Context,
    object: &Object,
    pod: &Pod,
    why: Option<&str>,
) -> Result<(), ReconcileError> {
    let pods = ctx.client().resource(&PODS).namespace(object.namespace());
    if !pods::is_finished(pod) {
        let mut status = json!({"phase": "Failed"});
        if let Some(message) = why {
            status["conditions"] = json!([{
                "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC", "message": message,
                "lastTransitionTime": common::now(ctx.env()).to_string(),
            }]);
        }
        let patch = Patch::Strategic(json!({"metadata": {"uid": object.uid()}, "status": status}));
        match pods.patch_status(object.name(), patch).await {
            Err(status) if status.is_not_found() => return Ok(()),
            other => other?,
        };
    }
    let options = DeleteOptions {
        grace_period_seconds: Some(0),
        uid: Some(object.uid().to_owned()),
        ..DeleteOptions::default()
    };
    match pods.delete(object.name(), options).await {
        Err(status) if !Status::is_not_found(&status) => Err(status.into()),
        _ => Ok(()),
    }
}

#[async_trait]
impl Controller for PodGarbageCollector {
    fn name(&self) -> &str {
        "pod-garbage-collector-controller"
    }

    fn identity(&self) -> &str {
        "pod-garbage-collector"
    }

    fn interests(&self) -> Interests {
        Interests::new().reads(PODS).reads(NODES)
    }

    fn workers(&self) -> usize {
        1
    }

    async fn reconcile(&self, _ctx: &Context, _key: &ObjectKey) -> Result<Action, ReconcileError> {
        Ok(Action::Done)
    }

    async fn run(&self, ctx: &Context, cancel: &CancelToken) {
        while !cancel.is_cancelled() {
            if let Err(error) = self.collect(ctx).await {
                tracing::warn!(%error, "cannot collect pods");
            }
            cancel.run(ctx.env().sleep(PERIOD)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testing::run;

    #[test]
    fn pods_of_nodes_that_are_gone_go_after_a_while() {
        run(
            vec![Arc::new(PodGarbageCollector::keeping(2))],
            |world| async move {
                world
                    .client()
                    .resource(&NODES)
                    .create(&json!({"metadata": {"name": "here"}}))
                    .await
                    .unwrap();
                for (name, node) in [("lost", "gone"), ("fine", "here")] {
                    world.create(&PODS, json!({"metadata": {"name": name, "finalizers": ["example.com/look"]}, "spec": {"nodeName": node, "containers": []}})).await;
                }
                world.sleep(30).await;
                assert_eq!(
                    world.get(&PODS, "lost").unwrap()["status"]["phase"],
                    "Running"
                );
                world.sleep(60).await;
                let lost = world.get(&PODS, "lost").unwrap();
                assert_eq!(lost["status"]["phase"], "Failed");
                assert_eq!(
                    crate::testing::condition(&lost, "DisruptionTarget")["reason"],
                    "DeletionByPodGC"
                );
                assert!(!lost["metadata"]["deletionTimestamp"].is_null());
                assert!(
                    world.get(&PODS, "fine").unwrap()["metadata"]["deletionTimestamp"].is_null()
                );
                // Two of the four that ended may stay.
                for n in 0..4 {
                    let pod = json!({"metadata": {"name": format!("ended-{n}")}, "spec": {"nodeName": "here", "containers": []}, "status": {"phase": "Succeeded"}});
                    world.create(&PODS, pod).await;
                    world.sleep(1).await;
                }
                world
                    .until("two are left", |world| {
                        world.get(&PODS, "ended-1").is_none()
                    })
                    .await;
                assert!(
                    world.get(&PODS, "ended-2").is_some() && world.get(&PODS, "ended-3").is_some()
                );
                world.stop().await;
            },
        );
    }
}
