//! The Node objects of simulated nodes, and their leases.

use std::time::Duration;

use jiff::Timestamp;
use orlop_core::client::Patch;
use orlop_core::controller::Context;
use orlop_core::env::CancelToken;
use orlop_core::object::Object;
use orlop_core::status::Status;
use serde_json::{Value, json};

use super::addresses::{node_ip, pod_cidr};
use super::{LEASES, NODES, SimulatedNodes};

/// What the names begin with.
const PREFIX: &str = "sim-";
/// The namespace of the nodes' leases.
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// How long a lease is good for, in seconds.
const LEASE_SECONDS: u32 = 40;
/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(10);
/// How often the status is written although nothing changed.
const REPORT: Duration = Duration::from_secs(300);
/// How long a refused registration waits.
const RETRY: Duration = Duration::from_millis(500);

/// The name of a node.
fn name(number: usize) -> String {
    format!("{PREFIX}{number}")
}

/// The number of a node, by its name.
pub(super) fn number(node: &str) -> Option<usize> {
    let digits = node.strip_prefix(PREFIX)?;
    let number: usize = digits.parse().ok()?;
    (name(number) == node).then_some(number)
}

/// Registers the nodes and keeps them alive until told otherwise.
pub(super) async fn keep_alive(ctx: &Context, options: &SimulatedNodes, cancel: &CancelToken) {
    let work = async {
        for number in 0..options.count {
            while let Err(status) = register(ctx, options, number).await {
                tracing::debug!(node = name(number), %status, "a simulated node cannot be registered yet");
                ctx.env().sleep(RETRY).await;
            }
        }
        let mut reported = ctx.env().now();
        loop {
            ctx.env().sleep(RENEW).await;
            let report = ctx.env().now().since(reported) >= REPORT;
            if report {
                reported = ctx.env().now();
            }
            for number in 0..options.count {
                if let Err(status) = renew(ctx, options, number, report).await {
                    tracing::debug!(node = name(number), %status, "a simulated node cannot be heard");
                }
            }
        }
    };
    cancel.run(work).await;
}

async fn register(ctx: &Context, options: &SimulatedNodes, number: usize) -> Result<(), Status> {
    let nodes = ctx.client().resource(&NODES).field_manager("kubelet");
    let now = ctx.env().wall();
    match nodes.create(&object(options, number, now)).await {
        Ok(_) => {}
        Err(status) if status.is_already_exists() => {}
        Err(status) => return Err(status),
    }
    renew(ctx, options, number, true).await
}

async fn renew(
    ctx: &Context,
    options: &SimulatedNodes,
    number: usize,
    report: bool,
) -> Result<(), Status> {
    let now = ctx.env().wall();
    let name = name(number);
    let leases = ctx
        .client()
        .resource(&LEASES)
        .namespace(LEASE_NAMESPACE)
        .field_manager("kubelet");
    let nodes = ctx.client().resource(&NODES).field_manager("kubelet");
    match leases.find(&name).await? {
        Some(lease) => {
            let mut lease = (*lease.value().map_err(Status::internal)?).clone();
            lease["spec"]["renewTime"] = json!(micros(now));
            leases.update(&lease).await?;
        }
        None => {
            let Some(node) = nodes.find(&name).await? else {
                // Somebody deleted the node: it comes back.
                nodes.create(&object(options, number, now)).await?;
                return Ok(());
            };
            leases.create(&lease(&node, now)).await?;
        }
    }
    if report {
        let status = json!({"conditions": conditions(now), "capacity": capacity(options), "allocatable": capacity(options)});
        match nodes
            .patch_status(&name, Patch::Strategic(json!({ "status": status })))
            .await
        {
            Err(status) if status.is_not_found() => {
                nodes.create(&object(options, number, now)).await?;
            }
            other => drop(other?),
        }
    }
    Ok(())
}

fn lease(node: &Object, now: Timestamp) -> Value {
    json!({
        "metadata": {
            "name": node.name(),
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node.name(), "uid": node.uid()}],
        },
        "spec": {"holderIdentity": node.name(), "leaseDurationSeconds": LEASE_SECONDS, "renewTime": micros(now)},
    })
}

/// A time as leases have it.
fn micros(now: Timestamp) -> String {
    format!("{now:.6}")
}

fn seconds(now: Timestamp) -> String {
    Timestamp::from_second(now.as_second())
        .unwrap_or(now)
        .to_string()
}

fn capacity(options: &SimulatedNodes) -> Value {
    let capacity = &options.capacity;
    json!({
        "cpu": capacity.cpu, "memory": capacity.memory, "pods": capacity.pods.to_string(),
        "ephemeral-storage": "100Gi", "hugepages-1Gi": "0", "hugepages-2Mi": "0",
    })
}

fn conditions(now: Timestamp) -> Value {
    let now = seconds(now);
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        })
    };
    json!([
        condition(
            "MemoryPressure",
            "False",
            "KubeletHasSufficientMemory",
            "simulated: there is nothing to use memory"
        ),
        condition(
            "DiskPressure",
            "False",
            "KubeletHasNoDiskPressure",
            "simulated: there is nothing to use disks"
        ),
        condition(
            "PIDPressure",
            "False",
            "KubeletHasSufficientPID",
            "simulated: there are no processes"
        ),
        condition(
            "Ready",
            "True",
            "KubeletReady",
            "simulated: pods are said to run, nothing runs"
        ),
    ])
}

/// The Node object.
fn object(options: &SimulatedNodes, number: usize, now: Timestamp) -> Value {
    let name = name(number);
    let version = concat!("v1.36.2+orlop.", env!("CARGO_PKG_VERSION"), ".simulated");
    let runtime = concat!("simulated://", env!("CARGO_PKG_VERSION"));
    json!({
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
                "beta.kubernetes.io/os": "linux",
                "beta.kubernetes.io/arch": "amd64",
                "orlop.dev/simulated": "true",
            },
            "annotations": {"orlop.dev/simulated": "this node runs nothing: its pods are only said to run"},
        },
        "spec": {
            "podCIDR": pod_cidr(options.first_pod_address, number),
            "podCIDRs": [pod_cidr(options.first_pod_address, number)],
            "providerID": format!("orlop-simulated:///{name}"),
        },
        "status": {
            "capacity": capacity(options),
            "allocatable": capacity(options),
            "conditions": conditions(now),
            "addresses": [
                {"type": "InternalIP", "address": node_ip(number).to_string()},
                {"type": "Hostname", "address": name},
            ],
            "nodeInfo": {
                "machineID": "", "systemUUID": "", "bootID": "",
                "kernelVersion": "simulated",
                "osImage": "Simulated (runs nothing)",
                "containerRuntimeVersion": runtime,
                "kubeletVersion": version,
                "kubeProxyVersion": version,
                "operatingSystem": "linux",
                "architecture": "amd64",
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_known_by_their_names() {
        assert_eq!(number("sim-12"), Some(12));
        assert_eq!(number("sim-012"), None);
        assert_eq!(number("node-1"), None);
        let node = object(&SimulatedNodes::new(1), 0, Timestamp::UNIX_EPOCH);
        assert_eq!(
            node["status"]["nodeInfo"]["containerRuntimeVersion"]
                .as_str()
                .map(|v| &v[..12]),
            Some("simulated://")
        );
    }
}
