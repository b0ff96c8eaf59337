//! Nodes that are not heard of: their conditions, their taints, and what becomes of their pods.
//!
//! A kubelet shows that it lives by renewing a Lease and by writing its node's status. When it does neither for the grace period, nobody knows
//! about the node any more: its conditions become `Unknown`, it gets taints that keep pods away, and its pods are no longer ready. Pods that do
//! not tolerate the taints are evicted by [`TaintEvictionController`].

mod eviction;
mod taints;
mod zones;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint};
use orlop_core::client::Patch;
use orlop_core::controller::{Action, Context, Controller, Interests, ReconcileError};
use orlop_core::env::{CancelToken, Moment};
use orlop_core::informer::Scope;
use orlop_core::object::{Object, ObjectKey};
use parking_lot::Mutex;
use serde_json::json;

use self::zones::Zones;
use crate::common::resources::{LEASES, NODES, PODS};
use crate::common::{self, pods};

pub use self::eviction::TaintEvictionController;
pub(crate) use self::eviction::tolerates;
pub use self::taints::{NOT_READY, UNREACHABLE, condition_taints};

/// The namespace of the nodes' leases.
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// The index of pods by node.
pub(crate) const NODE_NAME: &str = "spec.nodeName";

/// The times of a [`NodeLifecycleController`].
#[derive(Clone, Debug)]
pub struct NodeLifecycleOptions {
    /// How often the nodes are looked at. 5 s.
    pub monitor_period: Duration,
    /// How long a node may be silent. 50 s, as since Kubernetes 1.32.
    pub grace_period: Duration,
    /// How long a new node may take to say anything. 60 s.
    pub startup_grace_period: Duration,
    /// How many nodes of a zone may be tainted `NoExecute` a second. 0.1.
    pub eviction_rate: f64,
    /// The same, when too many nodes of the zone are unhealthy. 0.01.
    pub secondary_eviction_rate: f64,
    /// Up to how many nodes a zone is small: nothing is evicted there while too many of its nodes are unhealthy. 50.
    pub large_zone: usize,
    /// Which part of a zone's nodes has to be unhealthy to be too many. 0.55.
    pub unhealthy_threshold: f64,
}

impl Default for NodeLifecycleOptions {
    fn default() -> Self {
        Self {
            monitor_period: Duration::from_secs(5),
            grace_period: Duration::from_secs(50),
            startup_grace_period: Duration::from_secs(60),
            eviction_rate: 0.1,
            secondary_eviction_rate: 0.01,
            large_zone: 50,
            unhealthy_threshold: 0.55,
        }
    }
}

/// Watches over the nodes' health.
#[derive(Debug, Default)]
pub struct NodeLifecycleController {
    options: NodeLifecycleOptions,
    seen: Mutex<BTreeMap<String, Seen>>,
    zones: Mutex<Zones>,
}

/// What was last heard of a node, and when, by our own clock.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    uid: String,
    renewed: Option<String>,
    heartbeat: Option<jiff::Timestamp>,
    at: Moment,
    ready: Health,
}

/// A node's Ready condition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Health {
    Ready,
    NotReady,
    #[default]
    Unknown,
}

pub(crate) fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status
        .as_ref()?
        .conditions
        .as_ref()?
        .iter()
        .find(|condition| condition.type_ == kind)
}

pub(crate) fn health(node: &Node) -> Health {
    match condition(node, "Ready").map(|ready| ready.status.as_str()) {
        Some("True") => Health::Ready,
        Some("False") => Health::NotReady,
        _ => Health::Unknown,
    }
}

/// The leases of nodes.
fn leases() -> Scope {
    Scope {
        namespace: LEASE_NAMESPACE.to_owned(),
        ..Scope::all(&LEASES)
    }
}

/// Adds the index by which the pods of a node are found.
pub(crate) fn index_by_node(ctx: &Context) {
    ctx.informer(&PODS).add_index(NODE_NAME, |pod| {
        let pod = pod.decode::<Pod>().ok();
        pod.map(|pod| pods::node(&pod).to_owned())
            .filter(|node| !node.is_empty())
            .into_iter()
            .collect()
    });
}

impl NodeLifecycleController {
    /// The controller, with Kubernetes' times.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The controller, with other times.
    #[must_use]
    pub fn with_options(options: NodeLifecycleOptions) -> Self {
        Self {
            options,
            ..Self::default()
        }
    }

    /// Notes what a node has shown since the last time; returns how long it has been silent.
    fn note(&self, ctx: &Context, node: &Object, decoded: &Node) -> Duration {
        let now = ctx.env().now();
        let lease = ctx
            .informer(leases())
            .indexer()
            .get(&ObjectKey::new(LEASE_NAMESPACE, node.name()));
        let renewed = lease
            .and_then(|lease| lease.value().ok())
            .and_then(|lease| lease["spec"]["renewTime"].as_str().map(str::to_owned));
        let heartbeat = condition(decoded, "Ready")
            .and_then(|ready| ready.last_heartbeat_time.as_ref())
            .map(|time| time.0);
        let mut seen = self.seen.lock();
        let known = seen.entry(node.name().to_owned()).or_insert_with(|| Seen {
            uid: node.uid().to_owned(),
            renewed: renewed.clone(),
            heartbeat,
            at: now,
            ready: health(decoded),
        });
        if known.uid != node.uid() {
            *known = Seen {
                uid: node.uid().to_owned(),
                at: now,
                ..known.clone()
            };
        }
        // Only what changes counts: the node's clock is not compared with ours.
        if known.renewed != renewed || known.heartbeat != heartbeat {
            // What we ourselves wrote leaves both as they were.
            known.renewed = renewed;
            known.heartbeat = heartbeat;
            known.at = now;
        }
        now.since(known.at)
    }

    async fn monitor(&self, ctx: &Context) {
        let nodes = ctx.store(&NODES).list();
        self.greet(ctx, &nodes);
        let mut states = Vec::new();
        for object in &nodes {
            match self.monitor_node(ctx, object).await {
                Ok(Some(state)) => states.push((object.clone(), state)),
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(node = object.name(), %error, "cannot update the node")
                }
            }
        }
        self.evict(ctx, &states).await;
    }

    /// Tells of nodes that came and went.
    fn greet(&self, ctx: &Context, nodes: &[Object]) {
        let mut seen = self.seen.lock();
        for node in nodes {
            if !seen.contains_key(node.name()) {
                let message = format!(
                    "Node {0} event: Registered Node {0} in Controller",
                    node.name()
                );
                ctx.events().normal(node, "RegisteredNode", message);
            }
        }
        seen.retain(|name, known| {
            let there = nodes.iter().any(|node| node.name() == name);
            if !there {
                let about = orlop_core::events::ObjectReference {
                    kind: NODES.kind.to_string(),
                    name: name.clone(),
                    uid: known.uid.clone(),
                    ..Default::default()
                };
                let message = format!("Node {name} event: Removing Node {name} from Controller");
                ctx.events().normal(about, "RemovingNode", message);
            }
            there
        });
    }

    /// Brings one node's conditions, its `NoSchedule` taints and its pods' readiness up to date.
    async fn monitor_node(
        &self,
        ctx: &Context,
        object: &Object,
    ) -> Result<Option<Node>, ReconcileError> {
        let mut node = (*object.decode::<Node>()?).clone();
        let silent = self.note(ctx, object, &node);
        let never = condition(&node, "Ready").is_none();
        let grace = if never {
            self.options.startup_grace_period
        } else {
            self.options.grace_period
        };
        let lost = silent > grace;
        if lost && let Some(changed) = self.mark_unknown(ctx, object, &node).await? {
            node = changed;
        }
        if condition(&node, "Ready").is_none() {
            // It has yet to say anything: nothing is known against it.
            taints::sync_no_schedule(ctx, object, &node).await?;
            return Ok(None);
        }
        let now = health(&node);
        let before = {
            let mut seen = self.seen.lock();
            seen.get_mut(object.name())
                .map(|known| std::mem::replace(&mut known.ready, now))
        };
        if now != Health::Ready {
            if before == Some(Health::Ready) {
                let message = format!("Node {} status is now: NodeNotReady", object.name());
                ctx.events().normal(object, "NodeNotReady", message);
            }
            // Every time: pods may have been missed, and new ones may have come.
            self.mark_pods(ctx, object.name()).await;
        }
        taints::sync_no_schedule(ctx, object, &node).await?;
        Ok(Some(node))
    }

    /// Says of a node that nobody knows about it any more.
    async fn mark_unknown(
        &self,
        ctx: &Context,
        object: &Object,
        node: &Node,
    ) -> Result<Option<Node>, ReconcileError> {
        let now = common::now(ctx.env()).to_string();
        let mut conditions = Vec::new();
        for kind in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
            match condition(node, kind) {
                None => conditions.push(json!({
                    "type": kind, "status": "Unknown", "reason": "NodeStatusNeverUpdated",
                    "message": "Kubelet never posted node status.",
                    "lastHeartbeatTime": object.metadata().creation_timestamp, "lastTransitionTime": now,
                })),
                Some(known) if known.status != "Unknown" => conditions.push(json!({
                    "type": kind, "status": "Unknown", "reason": "NodeStatusUnknown",
                    "message": "Kubelet stopped posting node status.",
                    "lastHeartbeatTime": known.last_heartbeat_time, "lastTransitionTime": now,
                })),
                Some(_) => {}
            }
        }
        if conditions.is_empty() {
            return Ok(None);
        }
        let patch = Patch::Strategic(json!({"status": {"conditions": conditions}}));
        let written = ctx
            .client()
            .resource(&NODES)
            .patch_status(object.name(), patch)
            .await?;
        let written = (*written.decode::<Node>()?).clone();
        // The heartbeat that we wrote for a condition that was not there is none of the node's.
        if let Some(known) = self.seen.lock().get_mut(object.name()) {
            known.heartbeat = condition(&written, "Ready")
                .and_then(|ready| ready.last_heartbeat_time.as_ref())
                .map(|time| time.0);
        }
        Ok(Some(written))
    }

    /// Says of the pods of a node that they are not ready.
    async fn mark_pods(&self, ctx: &Context, node: &str) {
        for object in ctx.store(&PODS).by_index(NODE_NAME, node) {
            let Ok(pod) = object.decode::<Pod>() else {
                continue;
            };
            if !pods::is_ready(&pod) || pods::is_finished(&pod) {
                continue;
            }
            let condition = json!({"type": "Ready", "status": "False", "lastTransitionTime": common::now(ctx.env()).to_string()});
            let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
            match ctx
                .client()
                .resource(&PODS)
                .namespace(object.namespace())
                .patch_status(object.name(), patch)
                .await
            {
                Ok(_) => ctx
                    .events()
                    .warning(&object, "NodeNotReady", "Node is not ready"),
                Err(status) if status.is_not_found() => {}
                Err(error) => tracing::debug!(pod = %object.key(), %error, "cannot mark the pod"),
            }
        }
    }

    /// Sets and removes the `NoExecute` taints, as fast as the state of each zone allows.
    async fn evict(&self, ctx: &Context, states: &[(Object, Node)]) {
        let now = ctx.env().now();
        let all: Vec<(String, Health)> = states
            .iter()
            .map(|(_, node)| (zones::of(node), health(node)))
            .collect();
        self.zones.lock().observe(&self.options, &all, now);
        for ((object, node), (zone, health)) in states.iter().zip(&all) {
            let wanted = match health {
                Health::Ready => None,
                Health::NotReady => Some(NOT_READY),
                Health::Unknown => Some(UNREACHABLE),
            };
            let tainted = taints::no_execute(node);
            let wanted = match wanted {
                // When nothing at all is heard of any node, it is rather us who are cut off.
                Some(_) if self.zones.lock().all_are_lost() => None,
                Some(key) if !tainted.iter().any(|taint| taint.key == key) => {
                    // One that has another of the two taints already takes the place of it at once.
                    let replaces = !tainted.is_empty();
                    if !replaces && !self.zones.lock().may_taint(zone, now) {
                        continue;
                    }
                    Some(key)
                }
                other => other,
            };
            if let Err(error) = taints::sync_no_execute(ctx, object, wanted).await {
                tracing::debug!(node = object.name(), %error, "cannot taint the node");
            }
        }
    }
}

#[async_trait]
impl Controller for NodeLifecycleController {
    fn name(&self) -> &str {
        "node-lifecycle-controller"
    }

    fn identity(&self) -> &str {
        "node-controller"
    }

    fn event_source(&self) -> &str {
        "node-controller"
    }

    fn interests(&self) -> Interests {
        // A change of conditions or of `unschedulable` is answered by taints at once; silence is found out by the clock.
        Interests::new().for_each(NODES).reads(PODS).reads(leases())
    }

    fn workers(&self) -> usize {
        8
    }

    fn prepare(&self, ctx: &Context) {
        index_by_node(ctx);
    }

    async fn reconcile(&self, ctx: &Context, key: &ObjectKey) -> Result<Action, ReconcileError> {
        if let Some(object) = ctx.store(&NODES).get(key) {
            let node = object.decode::<Node>()?;
            taints::sync_no_schedule(ctx, &object, &node).await?;
            if health(&node) == Health::Ready && !taints::no_execute(&node).is_empty() {
                taints::sync_no_execute(ctx, &object, None).await?;
            }
        }
        Ok(Action::Done)
    }

    async fn run(&self, ctx: &Context, cancel: &CancelToken) {
        while !cancel.is_cancelled() {
            self.monitor(ctx).await;
            cancel
                .run(ctx.env().sleep(self.options.monitor_period))
                .await;
        }
    }
}

/// Two taints that mean the same, whenever they were set.
fn same_taint(a: &Taint, b: &Taint) -> bool {
    a.key == b.key && a.effect == b.effect
}

#[cfg(test)]
mod tests;
