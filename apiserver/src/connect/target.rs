//! Whom to connect to: the kubelet of a pod's node, a pod's port, a service's, a node's.

use std::net::{IpAddr, SocketAddr};

use orlop_core::field::quote;
use orlop_core::node::KubeletEndpoint;
use orlop_core::object::Object;
use orlop_core::status::Status;
use serde_json::Value;

use crate::Server;
use crate::names::text_at;
use crate::registry::At;

/// The kinds of a node's addresses, best first: what kubeadm sets `--kubelet-preferred-address-types` to. (The flag's own default begins
/// with the names, which on most machines nobody resolves.)
const PREFERRED: [&str; 5] = [
    "InternalIP",
    "ExternalIP",
    "Hostname",
    "InternalDNS",
    "ExternalDNS",
];

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A kubelet's API.
    Kubelet(KubeletEndpoint),
    /// A port, with TLS or without.
    Port {
        /// Where.
        address: SocketAddr,
        /// Whether TLS is spoken there. Nobody knows by which name or authority, so none is checked.
        tls: bool,
    },
}

impl Target {
    /// Host and port, as in a URL.
    pub(super) fn authority(&self) -> String {
        match self {
            Self::Kubelet(kubelet) if kubelet.host.contains(':') => {
                format!("[{}]:{}", kubelet.host, kubelet.port)
            }
            Self::Kubelet(kubelet) if kubelet.host.is_empty() => kubelet.node.clone(),
            Self::Kubelet(kubelet) => format!("{}:{}", kubelet.host, kubelet.port),
            Self::Port { address, .. } => address.to_string(),
        }
    }
}

/// A name that says a port, too: `name`, `name:port` or `scheme:name:port`.
#[derive(Debug, PartialEq, Eq)]
struct Named<'a> {
    tls: bool,
    name: &'a str,
    port: &'a str,
}

fn named(id: &str) -> Option<Named<'_>> {
    let parts: Vec<&str> = id.split(':').collect();
    let (scheme, name, port) = match parts.as_slice() {
        [name] => ("", *name, ""),
        [name, port] => ("", *name, *port),
        [scheme, name, port] => (*scheme, *name, *port),
        _ => return None,
    };
    let known = matches!(scheme, "" | "http" | "https");
    (known && !name.is_empty()).then_some(Named {
        tls: scheme == "https",
        name,
        port,
    })
}

/// Where a URL goes that has no port.
fn port_number(port: &str, tls: bool) -> Option<u16> {
    match port {
        "" if tls => Some(443),
        "" => Some(80),
        port => port.parse().ok(),
    }
}

/// The node that a pod is on; empty for none yet.
pub(super) fn node_name(pod: &Value) -> &str {
    text_at(pod, "/spec/nodeName")
}

/// All containers of a pod by name, in the order that Kubernetes lists them.
fn containers(pod: &Value) -> impl Iterator<Item = &str> {
    [
        "/spec/initContainers",
        "/spec/containers",
        "/spec/ephemeralContainers",
    ]
    .into_iter()
    .filter_map(|pointer| pod.pointer(pointer)?.as_array())
    .flatten()
    .map(|container| text_at(container, "/name"))
}

/// The container that is meant: the one of that name, or the only one.
pub(super) fn container(pod: &Value, asked: &str) -> Result<String, Status> {
    let name = text_at(pod, "/metadata/name");
    if !asked.is_empty() {
        return if containers(pod).any(|known| known == asked) {
            Ok(asked.to_owned())
        } else {
            Err(Status::bad_request(format!(
                "container {asked} is not valid for pod {name}"
            )))
        };
    }
    let main = pod.pointer("/spec/containers").and_then(Value::as_array);
    match main.map_or(&[] as &[Value], Vec::as_slice) {
        [one] => Ok(text_at(one, "/name").to_owned()),
        [] => Err(Status::bad_request(format!(
            "a container name must be specified for pod {name}"
        ))),
        _ => {
            let all: Vec<&str> = containers(pod).collect();
            Err(Status::bad_request(format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                all.join(" ")
            )))
        }
    }
}

/// Where a node's kubelet listens, by what the node says.
fn kubelet(node: &Value) -> KubeletEndpoint {
    let addresses = node.pointer("/status/addresses").and_then(Value::as_array);
    let addresses = addresses.map_or(&[] as &[Value], Vec::as_slice);
    let host = PREFERRED.iter().find_map(|kind| {
        addresses
            .iter()
            .find(|address| text_at(address, "/type") == *kind)
            .map(|address| text_at(address, "/address"))
    });
    let port = node
        .pointer("/status/daemonEndpoints/kubeletEndpoint/Port")
        .and_then(Value::as_u64)
        .and_then(|port| u16::try_from(port).ok());
    KubeletEndpoint {
        node: text_at(node, "/metadata/name").to_owned(),
        host: host.unwrap_or_default().to_owned(),
        port: port.unwrap_or(0),
    }
}

/// The first of a pod's addresses, if it is one that packets of the cluster may go to.
fn pod_address(pod: &Value) -> Result<IpAddr, Status> {
    let address = pod
        .pointer("/status/podIPs/0/ip")
        .or_else(|| pod.pointer("/status/podIP"))
        .and_then(Value::as_str)
        .and_then(|text| text.parse().ok());
    address
        .filter(is_proxied)
        .ok_or_else(|| Status::bad_request("address not allowed"))
}

/// Whether an address is one that belongs to somebody: not this host's own, nobody's or everybody's.
fn is_proxied(address: &IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(link_local || address.is_unspecified() || address.is_loopback() || address.is_multicast())
}

fn value_of(object: &Object) -> Result<Value, Status> {
    object
        .value()
        .map(|value| (*value).clone())
        .map_err(Status::internal)
}

impl Server {
    async fn document(
        &self,
        plural: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Value>, Status> {
        let info = orlop_api::resources::find("", "v1", plural)
            .ok_or_else(|| Status::internal(format!("{plural} are not served")))?;
        let found = self.registry.current(info, namespace, name).await?;
        found.as_ref().map(value_of).transpose()
    }

    /// A pod of the namespace that is asked about.
    pub(super) async fn pod(&self, at: &At, name: &str) -> Result<Value, Status> {
        self.document("pods", &at.namespace, name)
            .await?
            .ok_or_else(|| Status::not_found(&at.info.resource, name))
    }

    /// The kubelet of a node.
    pub(super) async fn kubelet_of(&self, at: &At, node: &str) -> Result<KubeletEndpoint, Status> {
        let found = self.document("nodes", "", node).await?;
        // The resource of the request, the name of the node: what Kubernetes answers.
        found
            .as_ref()
            .map(kubelet)
            .ok_or_else(|| Status::not_found(&at.info.resource, node))
    }

    pub(super) async fn pod_target(&self, at: &At) -> Result<Target, Status> {
        let invalid = || Status::bad_request(format!("invalid pod request {}", quote(&at.name)));
        let id = named(&at.name).ok_or_else(invalid)?;
        let pod = self.pod(at, id.name).await?;
        let declared = pod
            .pointer("/spec/containers")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .find_map(|container| container.pointer("/ports/0/containerPort")?.as_u64());
        let port = match id.port {
            "" => declared.and_then(|port| u16::try_from(port).ok()),
            _ => None,
        };
        let port = port
            .or_else(|| port_number(id.port, id.tls))
            .ok_or_else(invalid)?;
        let address = SocketAddr::new(pod_address(&pod)?, port);
        Ok(Target::Port {
            address,
            tls: id.tls,
        })
    }

    pub(super) async fn node_target(&self, at: &At) -> Result<Target, Status> {
        let invalid = || Status::bad_request(format!("invalid node request {}", quote(&at.name)));
        let id = named(&at.name).ok_or_else(invalid)?;
        let kubelet = self.kubelet_of(at, id.name).await?;
        if id.port.is_empty() || id.port == kubelet.port.to_string() {
            return Ok(Target::Kubelet(kubelet));
        }
        let port = port_number(id.port, id.tls).ok_or_else(invalid)?;
        let address: Option<IpAddr> = kubelet.host.parse().ok();
        let address = address
            .filter(is_proxied)
            .ok_or_else(|| Status::bad_request("address not allowed"))?;
        Ok(Target::Port {
            address: SocketAddr::new(address, port),
            tls: id.tls,
        })
    }

    /// A ready endpoint of a service that is a pod, chosen at random.
    pub(super) async fn service_target(&self, at: &At) -> Result<Target, Status> {
        let id = named(&at.name).ok_or_else(|| {
            Status::bad_request(format!("invalid service request {}", quote(&at.name)))
        })?;
        let mut port_name = id.port.to_owned();
        if let Ok(number) = id.port.parse::<i64>() {
            let service = self
                .document("services", &at.namespace, id.name)
                .await?
                .ok_or_else(|| Status::not_found(&at.info.resource, id.name))?;
            let port = service
                .pointer("/spec/ports")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .find(|port| port.get("port").and_then(Value::as_i64) == Some(number))
                .ok_or_else(|| {
                    Status::unavailable(format!(
                        "no service port {number} found for service {}",
                        quote(id.name)
                    ))
                })?;
            text_at(port, "/name").clone_into(&mut port_name);
        }
        let endpoints = self
            .document("endpoints", &at.namespace, id.name)
            .await?
            .ok_or_else(|| Status::not_found(&at.info.resource, id.name))?;
        let subsets = endpoints.pointer("/subsets").and_then(Value::as_array);
        let subsets = subsets.map_or(&[] as &[Value], Vec::as_slice);
        if subsets.is_empty() {
            return Err(no_endpoints(id.name));
        }
        for subset in rotated(subsets, self.env.random_u64()) {
            let list = |name: &str| {
                let list = subset.get(name).and_then(Value::as_array);
                list.map_or(&[] as &[Value], Vec::as_slice)
            };
            let port = list("ports")
                .iter()
                .find(|port| text_at(port, "/name") == port_name)
                .and_then(|port| port.get("port")?.as_u64())
                .and_then(|port| u16::try_from(port).ok());
            let Some(port) = port else { continue };
            for endpoint in rotated(list("addresses"), self.env.random_u64()) {
                if let Some(address) = self.endpoint_address(&at.namespace, endpoint).await? {
                    return Ok(Target::Port {
                        address: SocketAddr::new(address, port),
                        tls: id.tls,
                    });
                }
            }
        }
        Err(no_endpoints(&at.name))
    }

    /// The address of an endpoint, if a pod of the namespace has it: whoever may write Endpoints is led nowhere else.
    async fn endpoint_address(
        &self,
        namespace: &str,
        endpoint: &Value,
    ) -> Result<Option<IpAddr>, Status> {
        let Some(address) = text_at(endpoint, "/ip").parse().ok().filter(is_proxied) else {
            return Ok(None);
        };
        let of = text_at(endpoint, "/targetRef/namespace");
        if text_at(endpoint, "/targetRef/kind") != "Pod" || (!of.is_empty() && of != namespace) {
            return Ok(None);
        }
        let name = text_at(endpoint, "/targetRef/name");
        let Some(pod) = self.document("pods", namespace, name).await? else {
            return Ok(None);
        };
        let addresses = pod.pointer("/status/podIPs").and_then(Value::as_array);
        let has = addresses
            .into_iter()
            .flatten()
            .any(|known| text_at(known, "/ip").parse::<IpAddr>() == Ok(address));
        Ok(has.then_some(address))
    }
}

fn no_endpoints(name: &str) -> Status {
    Status::unavailable(format!(
        "no endpoints available for service {}",
        quote(name)
    ))
}

/// All items once, from a random one on.
fn rotated(items: &[Value], random: u64) -> impl Iterator<Item = &Value> {
    let length = items.len().max(1) as u64;
    // Less than the length.
    let start = (random % length) as usize;
    items[start..].iter().chain(&items[..start])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_may_say_scheme_and_port() {
        let plain = |tls, name, port| Some(Named { tls, name, port });
        assert_eq!(named("web"), plain(false, "web", ""));
        assert_eq!(named("web:http"), plain(false, "web", "http"));
        assert_eq!(named("https:web:8443"), plain(true, "web", "8443"));
        assert_eq!(named("https:web:"), plain(true, "web", ""));
        for bad in ["", ":80", "ftp:web:21", "a:b:c:d"] {
            assert_eq!(named(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_container_is_named_or_the_only_one() {
        let mut pod = json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "a"}]}});
        assert_eq!(container(&pod, "").unwrap(), "a");
        pod["spec"]["initContainers"] = json!([{"name": "i"}]);
        pod["spec"]["ephemeralContainers"] = json!([{"name": "debug"}]);
        assert_eq!(container(&pod, "").unwrap(), "a");
        assert_eq!(container(&pod, "i").unwrap(), "i");
        assert_eq!(container(&pod, "debug").unwrap(), "debug");
        assert_eq!(
            container(&pod, "x").unwrap_err().message,
            "container x is not valid for pod web"
        );
        pod["spec"]["containers"] = json!([{"name": "a"}, {"name": "b"}]);
        assert_eq!(
            container(&pod, "").unwrap_err().message,
            "a container name must be specified for pod web, choose one of: [i a b debug]"
        );
    }

    #[test]
    fn a_kubelet_is_where_its_node_says() {
        let node = json!({"metadata": {"name": "n"}, "status": {
            "addresses": [{"type": "Hostname", "address": "n"}, {"type": "ExternalIP", "address": "1.2.3.4"}, {"type": "InternalIP", "address": "10.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        }});
        let found = kubelet(&node);
        assert_eq!((found.host.as_str(), found.port), ("10.0.0.1", 10250));
        assert_eq!(Target::Kubelet(found).authority(), "10.0.0.1:10250");
        let silent = kubelet(&json!({"metadata": {"name": "n"}}));
        assert_eq!((silent.host.as_str(), silent.port), ("", 0));
    }

    #[test]
    fn some_addresses_are_nobodys_business() {
        for bad in [
            "127.0.0.1",
            "0.0.0.0",
            "169.254.169.254",
            "224.0.0.1",
            "::1",
            "fe80::1",
        ] {
            assert!(!is_proxied(&bad.parse().unwrap()), "{bad}");
            let pod = json!({"status": {"podIPs": [{"ip": bad}]}});
            assert_eq!(
                pod_address(&pod).unwrap_err().message,
                "address not allowed"
            );
        }
        assert!(is_proxied(&"10.244.0.7".parse().unwrap()));
    }
}
