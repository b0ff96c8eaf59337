//! The status of the node: what stands in it, whether it is worth telling, and how it is told.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, NodeDaemonEndpoints, NodeFeatures, NodeRuntimeHandler,
    NodeRuntimeHandlerFeatures, NodeStatus, NodeSwapStatus, NodeSystemInfo,
};
use orlop_core::client::Patch;
use orlop_core::runtime::{Image, RuntimeStatus};
use serde_json::{Map, Value, json};

use super::conditions::{self, Change, Pressure};
use super::resources::{Amounts, to_api};
use super::{MachineInfo, addresses};

/// The most images in a status (`nodeStatusMaxImages`).
const IMAGES: usize = 50;
/// The most names of one image.
const NAMES: usize = 5;

/// All that a status is made of.
pub(super) struct Facts<'a> {
    pub(super) node_name: &'a str,
    pub(super) ips: &'a [IpAddr],
    pub(super) port: u16,
    pub(super) machine: &'a MachineInfo,
    pub(super) capacity: &'a Amounts,
    pub(super) allocatable: &'a Amounts,
    /// `None` when the runtime never answered.
    pub(super) runtime: Option<&'a RuntimeStatus>,
    /// `None` when the runtime did not answer: what stands there stays.
    pub(super) images: Option<Vec<Image>>,
    pub(super) pressure: Pressure,
    pub(super) not_ready: Option<&'a str>,
    pub(super) now: Timestamp,
}

/// Brings a status up to date, and says which conditions changed.
pub(super) fn update(status: &mut NodeStatus, facts: Facts<'_>) -> Vec<Change> {
    status.addresses = Some(addresses::of_node(facts.ips, facts.node_name));
    // Resources of others, such as those of device plugins, stay.
    let capacity = status.capacity.get_or_insert_default();
    capacity.extend(to_api(facts.capacity));
    let allocatable = status.allocatable.get_or_insert_default();
    allocatable.extend(to_api(facts.allocatable));
    let known = facts.runtime;
    status.node_info = Some(system_info(facts.machine, known, status.node_info.take()));
    status.daemon_endpoints = Some(NodeDaemonEndpoints {
        kubelet_endpoint: Some(DaemonEndpoint {
            port: i32::from(facts.port),
        }),
    });
    if let Some(runtime) = known {
        status.runtime_handlers = handlers(runtime);
        status.features = Some(NodeFeatures {
            supplemental_groups_policy: Some(runtime.features.supplemental_groups_policy),
        });
    }
    if let Some(images) = facts.images {
        status.images = Some(largest(images));
    }
    let conditions = status.conditions.get_or_insert_default();
    conditions::update(conditions, facts.pressure, facts.not_ready, facts.now)
}

fn system_info(
    machine: &MachineInfo,
    runtime: Option<&RuntimeStatus>,
    old: Option<NodeSystemInfo>,
) -> NodeSystemInfo {
    let version = runtime.map(|runtime| {
        let version = &runtime.version;
        format!(
            "{}://{}",
            version.name,
            version.version.trim_start_matches('v')
        )
    });
    let old = old.map(|old| old.container_runtime_version);
    NodeSystemInfo {
        architecture: machine.architecture.clone(),
        boot_id: machine.boot_id.clone(),
        container_runtime_version: version.or(old).unwrap_or_default(),
        kernel_version: machine.kernel_version.clone(),
        kube_proxy_version: String::new(),
        kubelet_version: orlop_api::KUBERNETES_VERSION.to_owned(),
        machine_id: machine.machine_id.clone(),
        operating_system: "linux".to_owned(),
        os_image: machine.os_image.clone(),
        swap: i64::try_from(machine.swap)
            .ok()
            .filter(|swap| *swap > 0)
            .map(|swap| NodeSwapStatus {
                capacity: Some(swap),
            }),
        system_uuid: machine.system_uuid.clone(),
    }
}

fn handlers(runtime: &RuntimeStatus) -> Option<Vec<NodeRuntimeHandler>> {
    let handler = |one: &orlop_core::runtime::RuntimeHandler| NodeRuntimeHandler {
        name: Some(one.name.clone()),
        features: Some(NodeRuntimeHandlerFeatures {
            recursive_read_only_mounts: Some(one.recursive_read_only_mounts),
            user_namespaces: Some(one.user_namespaces),
        }),
    };
    let mut all: Vec<_> = runtime.handlers.iter().map(handler).collect();
    // In an order that does not change the status.
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Some(all).filter(|all| !all.is_empty())
}

fn largest(mut images: Vec<Image>) -> Vec<ContainerImage> {
    images.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    images.truncate(IMAGES);
    let image = |one: Image| ContainerImage {
        names: Some(
            one.digests
                .into_iter()
                .chain(one.tags)
                .take(NAMES)
                .collect(),
        ),
        size_bytes: Some(i64::try_from(one.size).unwrap_or(i64::MAX)),
    };
    images.into_iter().map(image).collect()
}

/// Whether anything but the times of heartbeats is different.
pub(super) fn differs(old: &NodeStatus, new: &NodeStatus) -> bool {
    let still = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
        }
        status
    };
    still(old) != still(new)
}

/// The patches that make one status of another: one for all but addresses, and one for these, if they changed. Addresses are merged by
/// their type, of which a node has two in two families.
pub(super) fn patches(old: &NodeStatus, new: &NodeStatus) -> Vec<Patch> {
    let fields = |status: &NodeStatus| match serde_json::to_value(status) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let (old, mut new) = (fields(old), fields(new));
    let addresses = new
        .remove("addresses")
        .filter(|new| old.get("addresses") != Some(new));
    let mut changed = Map::new();
    for (name, value) in new {
        let before = old.get(&name).unwrap_or(&Value::Null);
        if name == "conditions" {
            let known = before.as_array().map(Vec::as_slice).unwrap_or_default();
            let ours = value.as_array().into_iter().flatten();
            let ours: Vec<_> = ours.filter(|one| !known.contains(one)).cloned().collect();
            changed.insert(name, Value::Array(ours));
        } else if value != *before {
            let mut value = value;
            if let (Value::Object(value), Value::Object(before)) = (&mut value, before) {
                for gone in before.keys() {
                    value.entry(gone.clone()).or_insert(Value::Null);
                }
            }
            changed.insert(name, value);
        }
    }
    let mut patches = Vec::new();
    if let Some(addresses) = addresses {
        patches.push(Patch::Merge(json!({"status": {"addresses": addresses}})));
    }
    patches.push(Patch::Strategic(json!({"status": changed})));
    patches
}
