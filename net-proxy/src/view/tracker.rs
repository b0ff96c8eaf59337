//! [`Tracker`]: Services, EndpointSlices and the Node in; views out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use orlop_core::object::ObjectKey;

use super::service::SharedPorts;
use super::{PortView, endpoint, service, topology};
use crate::config::Family;

/// Which Service a slice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Which zone a Node is in.
const ZONE: &str = "topology.kubernetes.io/zone";
/// When what led to a slice's last change happened.
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// What the cluster autoscaler marks a node with that is about to go.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// What is known of Services and of what stands behind them, and what of it has changed.
#[derive(Debug)]
pub struct Tracker {
    node_name: String,
    zone: String,
    node_addresses: Vec<IpAddr>,
    node_eligible: bool,
    services: BTreeMap<ObjectKey, Arc<Service>>,
    slices: BTreeMap<ObjectKey, BTreeMap<String, Arc<EndpointSlice>>>,
    changed: BTreeSet<ObjectKey>,
    everything: bool,
    triggers: Vec<Timestamp>,
}

impl Tracker {
    /// A tracker that knows nothing yet, for the node of this name.
    pub fn new(node_name: impl Into<String>) -> Self {
        Self {
            node_name: node_name.into(),
            zone: String::new(),
            node_addresses: Vec::new(),
            node_eligible: true,
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            changed: BTreeSet::new(),
            everything: true,
            triggers: Vec::new(),
        }
    }

    /// A Service is there, or has changed. Returns whether it matters.
    pub fn set_service(&mut self, service: &Arc<Service>) -> bool {
        let Some(key) = key(&service.metadata) else {
            return false;
        };
        let known = self.services.insert(key.clone(), service.clone());
        let same =
            known.is_some_and(|known| known.spec == service.spec && known.status == service.status);
        if !same {
            self.changed.insert(key);
        }
        !same
    }

    /// A Service has gone. Returns whether it was known.
    pub fn remove_service(&mut self, service: &Service) -> bool {
        let Some(key) = key(&service.metadata) else {
            return false;
        };
        let known = self.services.remove(&key).is_some();
        if known {
            self.changed.insert(key);
        }
        known
    }

    /// A slice is there, or has changed. Returns whether it matters.
    pub fn set_slice(&mut self, slice: &Arc<EndpointSlice>) -> bool {
        let Some((service, name)) = owner(slice) else {
            return false;
        };
        let slices = self.slices.entry(service.clone()).or_default();
        let known = slices.insert(name, slice.clone());
        let same = known.is_some_and(|known| {
            known.endpoints == slice.endpoints
                && known.ports == slice.ports
                && known.address_type == slice.address_type
        });
        if !same {
            let annotations = slice.metadata.annotations.as_ref();
            let trigger = annotations.and_then(|all| all.get(TRIGGER_TIME)?.parse().ok());
            // A bound against slices that change while nothing can be written.
            if self.triggers.len() < 4096 {
                self.triggers.extend::<Option<Timestamp>>(trigger);
            }
            self.changed.insert(service);
        }
        !same
    }

    /// A slice has gone. Returns whether it was known.
    pub fn remove_slice(&mut self, slice: &EndpointSlice) -> bool {
        let Some((service, name)) = owner(slice) else {
            return false;
        };
        let Some(slices) = self.slices.get_mut(&service) else {
            return false;
        };
        let known = slices.remove(&name).is_some();
        if slices.is_empty() {
            self.slices.remove(&service);
        }
        if known {
            self.changed.insert(service);
        }
        known
    }

    /// The Node is there, has changed, or has gone. Returns whether it matters to what traffic does.
    pub fn set_node(&mut self, node: Option<&Node>) -> bool {
        let zone = node
            .and_then(|node| node.metadata.labels.as_ref()?.get(ZONE).cloned())
            .unwrap_or_default();
        self.node_eligible = node.is_none_or(|node| {
            let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref());
            let tainted = taints
                .unwrap_or_default()
                .iter()
                .any(|taint| taint.key == TO_BE_DELETED);
            node.metadata.deletion_timestamp.is_none() && !tainted
        });
        // A Node that is gone for a moment keeps its addresses: they are the machine's.
        let addresses = node.map_or_else(|| self.node_addresses.clone(), internal_addresses);
        let matters = zone != self.zone || addresses != self.node_addresses;
        if matters {
            self.zone = zone;
            self.node_addresses = addresses;
            self.everything = true;
        }
        matters
    }

    /// The Node's addresses, the main one of a family first.
    #[must_use]
    pub fn node_addresses(&self) -> &[IpAddr] {
        &self.node_addresses
    }

    /// Whether the Node is to stay: neither being deleted nor marked by the cluster autoscaler.
    #[must_use]
    pub const fn node_eligible(&self) -> bool {
        self.node_eligible
    }

    /// Whether something waits to be told.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        self.everything || !self.changed.is_empty()
    }

    /// How many Services have changed.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.changed.len()
    }

    /// Takes the names of the Services that have changed; `None` if all are to be looked at.
    pub fn take_changes(&mut self) -> Option<BTreeSet<ObjectKey>> {
        let changed = std::mem::take(&mut self.changed);
        (!std::mem::take(&mut self.everything)).then_some(changed)
    }

    /// Takes the moments at which that began which led to the changes since the last call.
    pub fn take_triggers(&mut self) -> Vec<Timestamp> {
        std::mem::take(&mut self.triggers)
    }

    /// All Services that are known.
    pub fn services(&self) -> impl Iterator<Item = &ObjectKey> {
        self.services.keys()
    }

    /// The ports of a Service in a family, with what stands behind them.
    #[must_use]
    pub fn view(&self, key: &ObjectKey, family: Family) -> Vec<PortView> {
        let Some(service) = self.services.get(key) else {
            return Vec::new();
        };
        let ports: SharedPorts = service::ports(key, service, family)
            .into_iter()
            .map(|(name, port)| (Arc::new(name), Arc::new(port)))
            .collect();
        let views = ports.into_iter().map(|(name, port)| {
            let slices = self.slices.get(key).into_iter().flat_map(BTreeMap::values);
            let all = endpoint::endpoints(slices, &name, &self.node_name, family);
            let chosen = topology::choose(&all, &port, &self.node_name, &self.zone);
            let serving = all.iter().filter(|endpoint| endpoint.serving);
            let mut serving: Vec<IpAddr> = serving.map(|endpoint| endpoint.address).collect();
            serving.dedup();
            PortView {
                name,
                port,
                cluster: chosen.cluster,
                local: chosen.local,
                has_endpoints: chosen.has_endpoints,
                serving,
            }
        });
        views.collect()
    }

    /// Where load balancers ask for a Service, and how many of its endpoints on this node are ready; `None` for one that nobody asks for.
    #[must_use]
    pub fn health_check(&self, key: &ObjectKey, families: &[Family]) -> Option<(u16, usize)> {
        let service = self.services.get(key)?;
        let mut port = None;
        let mut ready = BTreeSet::new();
        for &family in families {
            for (name, said) in service::ports(key, service, family) {
                port = port.or(said.health_check_node_port);
                if port.is_none() {
                    continue;
                }
                let slices = self.slices.get(key).into_iter().flat_map(BTreeMap::values);
                let all = endpoint::endpoints(slices, &name, &self.node_name, family);
                let here = all
                    .into_iter()
                    .filter(|endpoint| endpoint.local && endpoint.ready);
                ready.extend(here.map(|endpoint| endpoint.address));
            }
        }
        port.map(|port| (port, ready.len()))
    }
}

fn key(metadata: &ObjectMeta) -> Option<ObjectKey> {
    let namespace = metadata.namespace.as_deref()?;
    Some(ObjectKey::new(namespace, metadata.name.as_deref()?))
}

/// The Service that a slice belongs to, and the slice's name.
fn owner(slice: &EndpointSlice) -> Option<(ObjectKey, String)> {
    let metadata = &slice.metadata;
    let service = metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    let namespace = metadata.namespace.as_deref()?;
    Some((ObjectKey::new(namespace, service), metadata.name.clone()?))
}

/// The first address of each family, internal ones before external ones.
fn internal_addresses(node: &Node) -> Vec<IpAddr> {
    let all = node
        .status
        .as_ref()
        .and_then(|status| status.addresses.as_deref())
        .unwrap_or_default();
    let mut found: Vec<IpAddr> = Vec::new();
    for kind in ["InternalIP", "ExternalIP"] {
        let of_kind = all.iter().filter(|address| address.type_ == kind);
        for ip in of_kind.filter_map(|address| address.address.parse().ok()) {
            if !found
                .iter()
                .any(|&known| Family::of(known) == Family::of(ip))
            {
                found.push(ip);
            }
        }
    }
    found
}
