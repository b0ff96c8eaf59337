//! The configuration of a sandbox.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, Pod};
use orlop_core::network::{PortMapping, Protocol};

/// The ports of the host that a pod's containers want, each once.
pub(super) fn ports(pod: &Pod) -> Vec<PortMapping> {
    let Some(spec) = &pod.spec else {
        return Vec::new();
    };
    // In the host's network every port is the host's already.
    if spec.host_network == Some(true) {
        return Vec::new();
    }
    let sidecar = |own: &&Container| own.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(sidecar);
    let mut out: Vec<PortMapping> = Vec::new();
    for port in sidecars
        .chain(&spec.containers)
        .flat_map(|own| own.ports.iter().flatten())
    {
        let host_port = port
            .host_port
            .and_then(|port| u16::try_from(port).ok())
            .unwrap_or(0);
        let Some(container_port) = u16::try_from(port.container_port)
            .ok()
            .filter(|_| host_port > 0)
        else {
            continue;
        };
        let protocol = match port.protocol.as_deref() {
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            _ => Protocol::Tcp,
        };
        let host_ip = port
            .host_ip
            .as_deref()
            .and_then(|ip| ip.parse::<IpAddr>().ok());
        let mapping = PortMapping {
            protocol,
            container_port,
            host_port,
            host_ip,
        };
        if !out.contains(&mapping) {
            out.push(mapping);
        }
    }
    out
}

/// The kernel's parameters of a pod, by their names with dots.
pub(super) fn sysctls(pod: &Pod) -> std::collections::BTreeMap<String, String> {
    let context = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.security_context.as_ref());
    let all = context
        .and_then(|context| context.sysctls.as_ref())
        .into_iter()
        .flatten();
    all.map(|sysctl| (dotted(&sysctl.name), sysctl.value.clone()))
        .collect()
}

/// A name may be written with slashes, between which a dot means itself. What the first separator is says which it is.
fn dotted(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'/' => name
            .chars()
            .map(|c| match c {
                '/' => '.',
                '.' => '/',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_named_with_dots() {
        for (name, plain) in [
            ("net.ipv4.ip_forward", "net.ipv4.ip_forward"),
            (
                "net/ipv4/conf/eth0.1/forwarding",
                "net.ipv4.conf.eth0/1.forwarding",
            ),
            ("kernel", "kernel"),
        ] {
            assert_eq!(dotted(name), plain);
        }
    }
}
