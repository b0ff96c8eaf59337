//! What stands behind a Service: for Endpoints and EndpointSlices alike.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use orlop_core::controller::{Context, ReconcileError};
use orlop_core::informer::Notice;
use orlop_core::object::{Object, ObjectKey};
use orlop_core::selector::label::Selector;

use super::pods;
use super::resources::{PODS, SERVICES};

/// The label of what stands behind a headless Service.
pub(crate) const HEADLESS: &str = "service.kubernetes.io/headless";
/// When the last change happened that led to what an object says.
pub(crate) const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// The labels by which a Service chooses its pods. `None` for one whose endpoints somebody else writes.
pub(crate) fn selector(service: &Service) -> Option<Selector> {
    let spec = service.spec.as_ref()?;
    let labels = spec.selector.as_ref().filter(|labels| !labels.is_empty())?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    Some(Selector::from_labels(labels))
}

pub(crate) fn is_headless(service: &Service) -> bool {
    service
        .spec
        .as_ref()
        .and_then(|spec| spec.cluster_ip.as_deref())
        == Some("None")
}

pub(crate) fn publishes_not_ready(service: &Service) -> bool {
    service
        .spec
        .as_ref()
        .and_then(|spec| spec.publish_not_ready_addresses)
        == Some(true)
}

/// The families of the addresses that are wanted, IPv6 or not. A Service that does not say (an old one, or headless without pods) has that of
/// its own address, or IPv4.
pub(crate) fn wants_ipv6(service: &Service) -> Vec<bool> {
    let spec = service.spec.as_ref();
    let families = spec
        .and_then(|spec| spec.ip_families.clone())
        .unwrap_or_default();
    if families.is_empty() {
        let address = spec
            .and_then(|spec| spec.cluster_ip.as_deref())
            .unwrap_or_default();
        return vec![address.contains(':')];
    }
    families.iter().map(|family| family == "IPv6").collect()
}

/// A pod's address of a family.
pub(crate) fn address(pod: &Pod, ipv6: bool) -> Option<String> {
    let status = pod.status.as_ref()?;
    let all = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let mut addresses = all
        .chain(status.pod_ip.as_deref())
        .filter(|ip| !ip.is_empty());
    addresses
        .find(|ip| ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6() == ipv6))
        .map(str::to_owned)
}

/// Whether a pod has an address and has not ended.
pub(crate) fn is_reachable(pod: &Pod, even_terminating: bool) -> bool {
    !pods::is_finished(pod) && (even_terminating || !pods::is_terminating(pod))
}

/// The number of the port of a pod that a port of a Service leads to; `None` where the pod has no port of that name.
pub(crate) fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    match port.target_port.as_ref() {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let sidecars = spec
                .init_containers
                .iter()
                .flatten()
                .filter(|container| container.restart_policy.as_deref() == Some("Always"));
            let protocol = protocol(port.protocol.as_deref());
            spec.containers
                .iter()
                .chain(sidecars)
                .flat_map(|container| container.ports.iter().flatten())
                .find(|own| {
                    own.name.as_deref() == Some(name)
                        && self::protocol(own.protocol.as_deref()) == protocol
                })
                .map(|own| own.container_port)
        }
    }
}

fn protocol(protocol: Option<&str>) -> &str {
    protocol.unwrap_or("TCP")
}

/// The name that the pod has under a Service, if it has asked for one.
pub(crate) fn hostname(pod: &Pod, service: &str) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    if spec.subdomain.as_deref() != Some(service) {
        return None;
    }
    spec.hostname
        .clone()
        .filter(|hostname| !hostname.is_empty())
}

pub(crate) fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The pods that a Service chooses.
pub(crate) fn chosen(
    ctx: &Context,
    namespace: &str,
    selector: &Selector,
) -> Result<Vec<Arc<Pod>>, ReconcileError> {
    let all = ctx.store(&PODS).in_namespace(namespace);
    let chosen = all
        .iter()
        .filter(|pod| selector.matches(&pod.metadata().labels));
    chosen
        .map(|pod| pod.decode::<Pod>().map_err(ReconcileError::from))
        .collect()
}

/// The Services that choose a pod, or chose it before it changed. Changes that no Service can see give none.
pub(crate) fn choosing(ctx: &Context, notice: &Notice) -> Vec<ObjectKey> {
    let new = notice.object();
    if let Some(old) = notice.old()
        && old.revision() == new.revision()
    {
        return Vec::new();
    }
    let matters =
        |object: &Object, selector: &Selector| selector.matches(&object.metadata().labels);
    ctx.store(&SERVICES)
        .in_namespace(new.namespace())
        .iter()
        .filter(|service| {
            let selector = service
                .decode::<Service>()
                .ok()
                .and_then(|service| selector(&service));
            selector.is_some_and(|selector| {
                matters(new, &selector) || notice.old().is_some_and(|old| matters(old, &selector))
            })
        })
        .map(Object::key)
        .collect()
}

/// The latest change that what stands behind a Service comes from: the Service's making, or a pod's becoming ready or not.
pub(crate) fn trigger_time(service: &Service, pods: &[Arc<Pod>]) -> Option<String> {
    let made = service
        .metadata
        .creation_timestamp
        .as_ref()
        .map(|time| time.0);
    let turned = pods.iter().filter_map(|pod| {
        pods::condition(pod, "Ready")?
            .last_transition_time
            .as_ref()
            .map(|time| time.0)
    });
    let latest: Timestamp = made.into_iter().chain(turned).max()?;
    Some(latest.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// Sets or removes the label of headless Services.
pub(crate) fn mark_headless(labels: &mut BTreeMap<String, String>, service: &Service) {
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
}
