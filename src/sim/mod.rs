//! Simulated nodes: pods bound to them become ready, jobs complete, deletion takes its time. They run nothing, and say so in their
//! Node objects.
//!
//! One driver stands for any number of nodes: it registers them, renews their leases, and plays the kubelet for every pod that is
//! bound to one of them. It is a [`Controller`] like any other, on the clock of its environment.

mod addresses;
mod node;
mod pod;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orlop_controllers::manager::ControllerManager;
use orlop_core::auth::{ALL_AUTHENTICATED, UserInfo};
use orlop_core::client::{Client, DeleteOptions, Patch};
use orlop_core::controller::{Action, Context, Controller, Interests, ReconcileError};
use orlop_core::env::{CancelToken, Env};
use orlop_core::object::{Object, ObjectKey};
use orlop_core::resource::Resource;
use orlop_core::status::Status;
use parking_lot::Mutex;
use serde_json::{Value, json};

use self::addresses::Addresses;

pub(crate) const PODS: Resource = Resource::namespaced("", "v1", "pods", "Pod");
pub(crate) const NODES: Resource = Resource::cluster("", "v1", "nodes", "Node");
const LEASES: Resource = Resource::namespaced("coordination.k8s.io", "v1", "leases", "Lease");

/// The name of the driver.
const NAME: &str = "simulated-nodes";
/// How often what a node knows of its pods is compared with what is written: a kubelet does so every ten seconds.
const COMPARE_EVERY: Duration = Duration::from_secs(10);

/// What simulated nodes are like.
#[derive(Clone, Debug)]
pub struct SimulatedNodes {
    /// How many there are.
    pub count: usize,
    /// What each has: its capacity, and all of it is allocatable.
    pub capacity: Capacity,
    /// From the binding of a pod to its containers running.
    pub start_after: Duration,
    /// How long containers run that end by themselves (of pods whose restart policy is not `Always`).
    pub run_for: Duration,
    /// From the deletion of a pod to its end; never longer than its grace period.
    pub stop_after: Duration,
    /// Where the addresses of pods begin: each node has 256 of them.
    pub first_pod_address: Ipv4Addr,
}

/// What a simulated node has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// CPUs, as a quantity.
    pub cpu: String,
    /// Memory, as a quantity.
    pub memory: String,
    /// Pods.
    pub pods: u32,
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            cpu: "32".to_owned(),
            memory: "256Gi".to_owned(),
            pods: 110,
        }
    }
}

impl SimulatedNodes {
    /// So many nodes, that start a pod in a tenth of a second.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self {
            count,
            capacity: Capacity::default(),
            start_after: Duration::from_millis(100),
            run_for: Duration::from_secs(1),
            stop_after: Duration::from_millis(100),
            first_pod_address: Ipv4Addr::new(10, 244, 0, 0),
        }
    }

    /// Plays the nodes for an API server in another process, until cancelled. The client's user must be one who may do what kubelets do.
    ///
    /// # Errors
    /// See [`orlop_controllers::manager::Error`].
    pub async fn run(
        self,
        client: Arc<dyn Client>,
        env: Env,
        cancel: &CancelToken,
    ) -> Result<(), orlop_controllers::manager::Error> {
        let manager = ControllerManager::builder(move |_| client.clone(), env)
            .controller(Driver::new(self))
            .build()?;
        manager.run(cancel).await;
        Ok(())
    }
}

/// Who the driver is to the API server.
pub(crate) fn identity() -> UserInfo {
    UserInfo::new("system:orlop:simulated-nodes", [ALL_AUTHENTICATED])
}

/// Lets the driver do a kubelet's work for all of its nodes.
pub(crate) async fn grant(client: &dyn Client) -> Result<(), Status> {
    let rules = vec![
        json!({"apiGroups": [""], "resources": ["nodes", "nodes/status"], "verbs": ["get", "list", "watch", "create", "update", "patch"]}),
        json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch", "delete"]}),
        json!({"apiGroups": [""], "resources": ["pods/status"], "verbs": ["patch"]}),
        json!({"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]}),
        json!({"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch", "update"]}),
    ];
    crate::identities::bind(client, "orlop:simulated-nodes", &identity(), rules).await
}

/// The driver of simulated nodes.
pub(crate) struct Driver {
    options: SimulatedNodes,
    addresses: Mutex<Addresses>,
}

impl Driver {
    pub(crate) fn new(options: SimulatedNodes) -> Self {
        Self {
            addresses: Mutex::new(Addresses::new(options.first_pod_address)),
            options,
        }
    }

    /// The number of a node of ours, by its name.
    fn number(&self, node: &str) -> Option<usize> {
        node::number(node).filter(|number| *number < self.options.count)
    }

    async fn start(
        &self,
        ctx: &Context,
        pod: &Object,
        value: &Value,
        number: usize,
    ) -> Result<Action, ReconcileError> {
        let host_network =
            value.pointer("/spec/hostNetwork").and_then(Value::as_bool) == Some(true);
        let node_ip = addresses::node_ip(number);
        let ip = if host_network {
            node_ip
        } else {
            self.addresses.lock().give(number, &pod.key())
        };
        let status = pod::running(
            value,
            &ip.to_string(),
            &node_ip.to_string(),
            ctx.env().wall(),
        );
        self.patch_status(ctx, pod, status).await?;
        // What ends by itself is looked at again then.
        Ok(if pod::runs_forever(value) {
            Action::Done
        } else {
            Action::RequeueAfter(self.options.run_for)
        })
    }

    async fn patch_status(
        &self,
        ctx: &Context,
        pod: &Object,
        status: Value,
    ) -> Result<(), ReconcileError> {
        // The uid keeps a namesake that came later from getting this one's status.
        let patch = Patch::Strategic(json!({"metadata": {"uid": pod.uid()}, "status": status}));
        let pods = ctx
            .client()
            .resource(&PODS)
            .namespace(pod.namespace())
            .field_manager("kubelet");
        match pods.patch_status(pod.name(), patch).await {
            Ok(_) => Ok(()),
            Err(status) if status.is_not_found() => Ok(()),
            Err(status) => Err(status.into()),
        }
    }

    async fn stop(&self, ctx: &Context, pod: &Object) -> Result<Action, ReconcileError> {
        let now = ctx.env().wall();
        let metadata = pod.metadata();
        let grace = metadata
            .deletion_grace_period_seconds
            .unwrap_or(0)
            .max(0)
            .unsigned_abs();
        if let Some(deadline) = metadata.deletion_timestamp {
            // The deletion began its grace period before the deadline.
            let stop_after = self.options.stop_after.min(Duration::from_secs(grace));
            let began = deadline
                .checked_sub(Duration::from_secs(grace))
                .unwrap_or(deadline);
            let ends = began.checked_add(stop_after).unwrap_or(deadline);
            if let Ok(left) = Duration::try_from(ends.duration_since(now))
                && !left.is_zero()
            {
                return Ok(Action::RequeueAfter(left));
            }
        }
        let options = DeleteOptions {
            grace_period_seconds: Some(0),
            uid: Some(pod.uid().to_owned()),
            ..DeleteOptions::default()
        };
        match ctx
            .client()
            .resource(&PODS)
            .namespace(pod.namespace())
            .delete(pod.name(), options)
            .await
        {
            Ok(()) => {}
            // It is gone, or another of its name is there.
            Err(status) if status.is_not_found() || status.is_conflict() => {}
            Err(status) => return Err(status.into()),
        }
        Ok(Action::Done)
    }
}

#[async_trait]
impl Controller for Driver {
    fn name(&self) -> &str {
        NAME
    }

    fn interests(&self) -> Interests {
        Interests::new().for_each(PODS)
    }

    fn event_source(&self) -> &str {
        "kubelet"
    }

    fn workers(&self) -> usize {
        16
    }

    async fn reconcile(&self, ctx: &Context, key: &ObjectKey) -> Result<Action, ReconcileError> {
        let Some(pod) = ctx.store(&PODS).get(key) else {
            // It went without us: deleted by force, or with its node.
            self.addresses.lock().take_back_of(key);
            return Ok(Action::Done);
        };
        let value = pod.value()?;
        let node = value
            .pointer("/spec/nodeName")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let Some(number) = self.number(node) else {
            return Ok(Action::Done);
        };
        if pod.is_terminating() {
            self.addresses.lock().take_back_of(key);
            return self.stop(ctx, &pod).await;
        }
        match pod::phase(&value) {
            "Pending" | "" => {
                // The binding is the last thing that happened to it.
                let bound = pod::bound_at(&value).or(pod.metadata().creation_timestamp);
                let starts = bound.and_then(|at| at.checked_add(self.options.start_after).ok());
                if let Some(Ok(left)) =
                    starts.map(|at| Duration::try_from(at.duration_since(ctx.env().wall())))
                    && !left.is_zero()
                {
                    return Ok(Action::RequeueAfter(left));
                }
                self.start(ctx, &pod, &value, number).await
            }
            "Running" if !pod::runs_forever(&value) => {
                let now = ctx.env().wall();
                let ends = pod::started_at(&value)
                    .and_then(|at| at.checked_add(self.options.run_for).ok());
                if let Some(Ok(left)) = ends.map(|at| Duration::try_from(at.duration_since(now)))
                    && !left.is_zero()
                {
                    return Ok(Action::RequeueAfter(left));
                }
                self.addresses.lock().take_back_of(key);
                self.patch_status(ctx, &pod, pod::succeeded(&value, now))
                    .await?;
                Ok(Action::Done)
            }
            "Running" => {
                if let Some(ip) = value.pointer("/status/podIP").and_then(Value::as_str) {
                    self.addresses.lock().note(key, ip);
                }
                let Some(since) = pod::doubted_since(&value) else {
                    return Ok(Action::Done);
                };
                // As a kubelet does, which compares what it knows with what is written now and then.
                let now = ctx.env().wall();
                let says = since.checked_add(COMPARE_EVERY).unwrap_or(now);
                if let Ok(left) = Duration::try_from(says.duration_since(now))
                    && !left.is_zero()
                {
                    return Ok(Action::RequeueAfter(left));
                }
                self.patch_status(ctx, &pod, pod::ready_after_all(now))
                    .await?;
                Ok(Action::Done)
            }
            _ => Ok(Action::Done),
        }
    }

    async fn run(&self, ctx: &Context, cancel: &CancelToken) {
        node::keep_alive(ctx, &self.options, cancel).await;
    }
}
