//! [`PodInfo`]: the few things about a pod that scheduling looks at.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::node::HostPort;
use super::requests::{Amounts, Asked, RawContainer, RawContainerStatus, RawResources};
use super::resources::Resources;
use super::taint::Toleration;
use crate::object::{Object, ObjectError, ObjectKey};
use crate::selector::node::{NodeMatcher, NodeSelector, NodeSelectorTerm, TermMatcher};

/// A pod as the scheduler sees it.
#[derive(Clone, Debug)]
pub struct PodInfo {
    key: ObjectKey,
    uid: Arc<str>,
    labels: Arc<BTreeMap<String, String>>,
    requests: Resources,
    scored_milli_cpu: i64,
    scored_memory: i64,
    priority: i32,
    finished: bool,
    terminating: bool,
    node_name: Option<Arc<str>>,
    scheduler_name: Arc<str>,
    created: Option<Timestamp>,
    constraints: Option<Box<PodConstraints>>,
}

/// What a pod asks of its node, beside resources. Most pods ask nothing.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct PodConstraints {
    /// `nodeSelector`: labels that the node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Required node affinity.
    pub required_affinity: Option<NodeMatcher>,
    /// Preferred node affinity.
    pub preferred_affinity: Vec<PreferredTerm>,
    /// Tolerations.
    pub tolerations: Vec<Toleration>,
    /// Ports of the node that it takes.
    pub host_ports: Vec<HostPort>,
    /// Scheduling gates that still stand.
    pub scheduling_gates: Vec<String>,
    /// The images of its containers, init containers among them.
    pub images: Vec<Arc<str>>,
    /// The node on which others were removed to make room for it.
    pub nominated_node: Option<Arc<str>>,
    /// `preemptionPolicy: Never`: nobody is removed for it.
    pub never_preempts: bool,
    /// Which further kinds of constraints it has.
    pub needs: Needs,
}

/// A term of preferred node affinity.
#[derive(Clone, Debug)]
pub struct PreferredTerm {
    /// 1 to 100.
    pub weight: i64,
    /// The term.
    pub term: TermMatcher,
}

/// Kinds of constraints that a pod has and that plug-ins of their own look after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Needs {
    /// `topologySpreadConstraints`.
    pub topology_spread: bool,
    /// Affinity or anti-affinity to other pods.
    pub pod_affinity: bool,
    /// Volumes that are claimed.
    pub volumes: bool,
    /// Devices that are claimed (dynamic resource allocation).
    pub devices: bool,
    /// Membership in a group that is scheduled as a whole.
    pub group: bool,
}

impl Needs {
    /// The names of upstream's plug-ins that look after the kinds that are there.
    pub fn plugins(self) -> impl Iterator<Item = &'static str> {
        [
            (self.topology_spread, "PodTopologySpread"),
            (self.pod_affinity, "InterPodAffinity"),
            (self.volumes, "VolumeBinding"),
            (self.devices, "DynamicResources"),
            (self.group, "GangScheduling"),
        ]
        .into_iter()
        .filter_map(|(there, plugin)| there.then_some(plugin))
    }
}

static NO_CONSTRAINTS: LazyLock<PodConstraints> = LazyLock::new(PodConstraints::default);
static DEFAULT_SCHEDULER: LazyLock<Arc<str>> = LazyLock::new(|| "default-scheduler".into());

impl PodInfo {
    /// A pod from its object.
    ///
    /// # Errors
    /// When the JSON is not a pod's.
    pub fn from_object(object: &Object) -> Result<Self, ObjectError> {
        // Not memoised: what is kept of it is this view.
        let raw: RawPod = serde_json::from_slice(object.stored_json())?;
        Ok(raw.info(object))
    }

    /// A pod from a JSON document; for tests and simulations.
    ///
    /// ```
    /// # use orlop_core::scheduling::PodInfo;
    /// # use serde_json::json;
    /// let pod = PodInfo::from_value(json!({
    ///     "metadata": {"namespace": "default", "name": "web-0"},
    ///     "spec": {"containers": [{"name": "web", "resources": {"requests": {"cpu": "250m"}}}]},
    /// })).unwrap();
    /// assert_eq!(pod.requests().milli_cpu, 250);
    /// ```
    ///
    /// # Errors
    /// When the JSON is not a pod's.
    pub fn from_value(value: Value) -> Result<Self, ObjectError> {
        Self::from_object(&Object::from_value(value)?)
    }

    /// Namespace and name.
    #[must_use]
    pub const fn key(&self) -> &ObjectKey {
        &self.key
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.key.name
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.key.namespace
    }

    /// The uid.
    #[must_use]
    pub const fn uid(&self) -> &Arc<str> {
        &self.uid
    }

    /// The labels.
    #[must_use]
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    /// What it asks for: its containers, init containers, sidecars and overhead, or the amounts of the pod as a whole where it has
    /// them; and one `pods`.
    #[must_use]
    pub const fn requests(&self) -> &Resources {
        &self.requests
    }

    /// Its CPU as scores count it, in thousandths: a container that asks for none counts as 100.
    #[must_use]
    pub const fn scored_milli_cpu(&self) -> i64 {
        self.scored_milli_cpu
    }

    /// Its memory as scores count it, in bytes: a container that asks for none counts as 200 MiB.
    #[must_use]
    pub const fn scored_memory(&self) -> i64 {
        self.scored_memory
    }

    /// Its priority. Zero without a class.
    #[must_use]
    pub const fn priority(&self) -> i32 {
        self.priority
    }

    /// Whether it has run to its end.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        self.finished
    }

    /// Whether its deletion has begun.
    #[must_use]
    pub const fn is_terminating(&self) -> bool {
        self.terminating
    }

    /// `spec.nodeName`: where it runs, or where its author wants it.
    #[must_use]
    pub const fn node_name(&self) -> Option<&Arc<str>> {
        self.node_name.as_ref()
    }

    /// Which scheduler it waits for.
    #[must_use]
    pub fn scheduler_name(&self) -> &str {
        &self.scheduler_name
    }

    /// When it was made.
    #[must_use]
    pub const fn created(&self) -> Option<Timestamp> {
        self.created
    }

    /// What it asks of its node, beside resources.
    #[must_use]
    pub fn constraints(&self) -> &PodConstraints {
        self.constraints.as_deref().unwrap_or(&NO_CONSTRAINTS)
    }

    /// The same pod on a node.
    #[must_use]
    pub fn on_node(&self, node: &Arc<str>) -> Self {
        Self {
            node_name: Some(node.clone()),
            ..self.clone()
        }
    }
}

impl fmt::Display for PodInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key.fmt(f)
    }
}

/// A pod's JSON, as far as it is read.
#[derive(Default, Deserialize)]
#[serde(default)]
struct RawPod {
    spec: RawSpec,
    status: RawStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawSpec {
    node_name: Option<String>,
    scheduler_name: Option<String>,
    priority: Option<i32>,
    preemption_policy: Option<String>,
    node_selector: Option<BTreeMap<String, String>>,
    affinity: Option<RawAffinity>,
    tolerations: Option<Vec<Toleration>>,
    containers: Option<Vec<RawContainer>>,
    init_containers: Option<Vec<RawContainer>>,
    overhead: Option<Amounts>,
    resources: Option<RawResources>,
    scheduling_gates: Option<Vec<RawGate>>,
    topology_spread_constraints: Option<Vec<Present>>,
    resource_claims: Option<Vec<Present>>,
    volumes: Option<Vec<RawVolume>>,
    scheduling_group: Option<Present>,
}

/// Something that is there.
#[derive(Deserialize)]
struct Present {}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawAffinity {
    node_affinity: Option<RawNodeAffinity>,
    pod_affinity: Option<RawPodAffinity>,
    pod_anti_affinity: Option<RawPodAffinity>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawNodeAffinity {
    required_during_scheduling_ignored_during_execution: Option<NodeSelector>,
    preferred_during_scheduling_ignored_during_execution: Option<Vec<RawPreferred>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawPreferred {
    weight: i64,
    preference: NodeSelectorTerm,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawPodAffinity {
    required_during_scheduling_ignored_during_execution: Option<Vec<Present>>,
    preferred_during_scheduling_ignored_during_execution: Option<Vec<Present>>,
}

impl RawPodAffinity {
    fn is_there(&self) -> bool {
        [
            &self.required_during_scheduling_ignored_during_execution,
            &self.preferred_during_scheduling_ignored_during_execution,
        ]
        .into_iter()
        .flatten()
        .any(|terms| !terms.is_empty())
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawGate {
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawVolume {
    persistent_volume_claim: Option<Present>,
    ephemeral: Option<Present>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawStatus {
    phase: Option<String>,
    nominated_node_name: Option<String>,
    conditions: Option<Vec<RawCondition>>,
    container_statuses: Option<Vec<RawContainerStatus>>,
    init_container_statuses: Option<Vec<RawContainerStatus>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawCondition {
    r#type: String,
    reason: Option<String>,
}

fn named(name: Option<String>) -> Option<Arc<str>> {
    name.filter(|name| !name.is_empty()).map(Into::into)
}

impl RawPod {
    fn info(self, object: &Object) -> PodInfo {
        let (spec, status) = (self.spec, self.status);
        let containers = spec.containers.unwrap_or_default();
        let init_containers = spec.init_containers.unwrap_or_default();
        let requests = Asked {
            containers: &containers,
            init_containers: &init_containers,
            statuses: [&status.container_statuses, &status.init_container_statuses]
                .into_iter()
                .flatten()
                .flatten()
                .collect(),
            resize_infeasible: status.conditions.iter().flatten().any(|condition| {
                condition.r#type == "PodResizePending"
                    && condition.reason.as_deref() == Some("Infeasible")
            }),
            overhead: spec.overhead.as_ref(),
            pod_level: spec
                .resources
                .as_ref()
                .and_then(|resources| resources.requests.as_ref()),
        }
        .sum();

        let all = || init_containers.iter().chain(&containers);
        let ports = init_containers
            .iter()
            .filter(|container| container.is_sidecar())
            .chain(&containers);
        let host_ports = ports
            .flat_map(|container| container.ports.iter().flatten())
            .filter(|port| port.host_port > 0)
            .map(|port| {
                HostPort::new(
                    port.host_ip.as_deref(),
                    port.protocol.as_deref(),
                    port.host_port,
                )
            })
            .collect();
        let affinity = spec.affinity.unwrap_or_default();
        let node_affinity = affinity.node_affinity.unwrap_or_default();
        let is_there =
            |terms: &Option<Vec<Present>>| terms.as_ref().is_some_and(|terms| !terms.is_empty());
        let constraints = PodConstraints {
            node_selector: spec.node_selector.unwrap_or_default(),
            required_affinity: node_affinity
                .required_during_scheduling_ignored_during_execution
                .map(|selector| selector.matcher()),
            preferred_affinity: node_affinity
                .preferred_during_scheduling_ignored_during_execution
                .into_iter()
                .flatten()
                // A weight of zero says nothing.
                .filter(|preferred| preferred.weight != 0)
                .map(|preferred| PreferredTerm {
                    weight: preferred.weight,
                    term: preferred.preference.matcher(),
                })
                .collect(),
            tolerations: spec.tolerations.unwrap_or_default(),
            host_ports,
            scheduling_gates: spec
                .scheduling_gates
                .into_iter()
                .flatten()
                .map(|gate| gate.name)
                .collect(),
            images: all()
                .filter_map(|container| container.image.as_deref().map(Into::into))
                .collect(),
            nominated_node: named(status.nominated_node_name),
            never_preempts: spec.preemption_policy.as_deref() == Some("Never"),
            needs: Needs {
                topology_spread: is_there(&spec.topology_spread_constraints),
                pod_affinity: [&affinity.pod_affinity, &affinity.pod_anti_affinity]
                    .into_iter()
                    .flatten()
                    .any(RawPodAffinity::is_there),
                volumes: spec.volumes.iter().flatten().any(|volume| {
                    volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some()
                }),
                devices: is_there(&spec.resource_claims),
                group: spec.scheduling_group.is_some(),
            },
        };
        let metadata = object.metadata();
        let scheduler_name = match spec.scheduler_name.as_deref() {
            None | Some("" | "default-scheduler") => DEFAULT_SCHEDULER.clone(),
            Some(name) => name.into(),
        };
        let node_name = named(spec.node_name);
        // A pod that runs needs none of this any more but its ports, which it holds.
        let idle = constraints.host_ports.is_empty()
            && constraints.tolerations.is_empty()
            && constraints.node_selector.is_empty()
            && constraints.required_affinity.is_none()
            && constraints.preferred_affinity.is_empty()
            && constraints.scheduling_gates.is_empty()
            && constraints.nominated_node.is_none()
            && !constraints.never_preempts
            && constraints.needs == Needs::default();
        let keep = !idle || node_name.is_none();
        PodInfo {
            key: object.key(),
            uid: metadata.uid.as_str().into(),
            labels: Arc::new(metadata.labels.clone()),
            requests: requests.requests,
            scored_milli_cpu: requests.scored_milli_cpu,
            scored_memory: requests.scored_memory,
            priority: spec.priority.unwrap_or_default(),
            finished: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
            terminating: metadata.deletion_timestamp.is_some(),
            node_name,
            scheduler_name,
            created: metadata.creation_timestamp,
            constraints: keep.then(|| Box::new(constraints)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: Value) -> PodInfo {
        PodInfo::from_value(json!({"metadata": {"name": "p", "namespace": "d"}, "spec": spec}))
            .unwrap()
    }

    fn container(requests: Value) -> Value {
        json!({"name": "c", "resources": {"requests": requests}})
    }

    #[test]
    fn requests_are_summed_as_kubernetes_sums_them() {
        let c = |cpu: &str| container(json!({"cpu": cpu}));
        let sidecar = |cpu: &str| {
            let mut sidecar = c(cpu);
            sidecar["restartPolicy"] = "Always".into();
            sidecar
        };
        for (spec, milli_cpu) in [
            (json!({"containers": [c("100m"), c("0.2")]}), 300),
            // The largest init container counts if it is larger than all containers.
            (
                json!({"containers": [c("100m")], "initContainers": [c("50m"), c("250m")]}),
                250,
            ),
            // Sidecars count with the containers and with the init containers that come later.
            (
                json!({"containers": [c("100m")], "initContainers": [c("300m"), sidecar("10m"), c("295m")]}),
                305,
            ),
            (
                json!({"containers": [c("100m")], "initContainers": [sidecar("10m"), sidecar("20m")]}),
                130,
            ),
            (
                json!({"containers": [c("100m")], "overhead": {"cpu": "5m"}}),
                105,
            ),
            // The pod's own amounts stand in for the sum.
            (
                json!({"containers": [c("100m")], "resources": {"requests": {"cpu": "1"}}, "overhead": {"cpu": "5m"}}),
                1005,
            ),
            (json!({"containers": [{"name": "x"}]}), 0),
            // Rounded up once, after the sum.
            (json!({"containers": [c("400u"), c("400u")]}), 1),
        ] {
            assert_eq!(pod(spec.clone()).requests().milli_cpu, milli_cpu, "{spec}");
        }
    }

    #[test]
    fn other_resources_and_the_scored_minimum() {
        let info = pod(json!({"containers": [
            container(json!({"nvidia.com/gpu": 2, "hugepages-2Mi": "4Mi", "ephemeral-storage": "1Gi", "memory": "1Mi"})),
            container(json!({"cpu": 0, "nvidia.com/gpu": "1"})),
        ]}));
        assert_eq!(info.requests().scalar("nvidia.com/gpu"), 3);
        assert_eq!(info.requests().get("hugepages-2Mi"), 4 << 20);
        assert_eq!(info.requests().ephemeral_storage, 1 << 30);
        assert_eq!(info.requests().pods, 1);
        // What is asked for counts, even zero; what is not asked for counts as the default.
        assert_eq!(info.scored_milli_cpu(), 100);
        assert_eq!(info.scored_memory(), (1 << 20) + (200 << 20));
    }

    #[test]
    fn a_resize_counts_the_larger_side() {
        let resized = |reason: &str| {
            PodInfo::from_value(json!({
                "metadata": {"name": "p"},
                "spec": {"nodeName": "n", "containers": [container(json!({"cpu": "3"}))]},
                "status": {
                    "conditions": [{"type": "PodResizePending", "reason": reason}],
                    "containerStatuses": [{"name": "c", "allocatedResources": {"cpu": "2"}, "resources": {"requests": {"cpu": "1"}}}],
                },
            }))
            .unwrap()
        };
        assert_eq!(resized("Deferred").requests().milli_cpu, 3000);
        assert_eq!(resized("Infeasible").requests().milli_cpu, 2000);
    }

    #[test]
    fn constraints_and_needs() {
        let info = pod(json!({
            "schedulerName": "mine",
            "priority": 7,
            "preemptionPolicy": "Never",
            "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"operator": "Exists"}],
            "schedulingGates": [{"name": "g"}],
            "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 1}, {"containerPort": 2, "hostPort": 80}]}],
            "initContainers": [{"name": "i", "ports": [{"hostPort": 81}]}],
            "topologySpreadConstraints": [{"maxSkew": 1}],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}],
            "affinity": {
                "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "k"}]},
                "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 3, "preference": {}}]},
            },
        }));
        assert_eq!((info.scheduler_name(), info.priority()), ("mine", 7));
        let constraints = info.constraints();
        assert!(constraints.never_preempts);
        assert_eq!(constraints.scheduling_gates, ["g"]);
        assert_eq!(constraints.host_ports, [HostPort::new(None, None, 80)]);
        assert_eq!(constraints.preferred_affinity[0].weight, 3);
        let plugins: Vec<_> = constraints.needs.plugins().collect();
        assert_eq!(
            plugins,
            ["PodTopologySpread", "InterPodAffinity", "VolumeBinding"]
        );
        let plain = pod(json!({"containers": []}));
        assert_eq!(plain.scheduler_name(), "default-scheduler");
        assert_eq!(plain.constraints().needs, Needs::default());
        assert!(
            PodInfo::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": 3}}))
                .is_err()
        );
    }
}
