//! Addresses and ports of Services: each is given to one Service at a time.

mod claim;

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use orlop_api::resources::ResourceInfo;
use orlop_core::env::Env;
use orlop_core::field::{FieldError, Path};
use orlop_core::object::Object;
use orlop_core::status::Status;
use parking_lot::Mutex;
use serde_json::{Value, json};

use self::claim::{Claim, Lots, Taken};
use super::meta;

/// The addresses and ports that Services are given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRange {
    /// The network of the cluster addresses.
    pub network: Ipv4Addr,
    /// The length of its prefix, at most 30.
    pub prefix: u8,
    /// The node ports.
    pub node_ports: RangeInclusive<u16>,
}

impl Default for ServiceRange {
    fn default() -> Self {
        Self {
            network: Ipv4Addr::new(10, 96, 0, 0),
            prefix: 16,
            node_ports: 30_000..=32_767,
        }
    }
}

impl ServiceRange {
    fn size(&self) -> u32 {
        1 << (32 - u32::from(self.prefix.clamp(8, 30)))
    }

    fn base(&self) -> u32 {
        u32::from(self.network) & !(self.size() - 1)
    }

    fn contains(&self, address: Ipv4Addr) -> bool {
        let offset = u32::from(address).wrapping_sub(self.base());
        // Neither the network's own address nor the last one is given out.
        offset > 0 && offset < self.size() - 1
    }

    /// The first address: that of the Service `default/kubernetes`.
    #[must_use]
    pub fn first(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.base() + 1)
    }

    /// The network in its usual form, such as `10.96.0.0/16`.
    #[must_use]
    pub fn cidr(&self) -> String {
        format!("{}/{}", Ipv4Addr::from(self.base()), self.prefix)
    }
}

/// Who has which address and port.
pub(crate) struct ServiceAllocator {
    env: Env,
    range: ServiceRange,
    taken: Arc<Mutex<Taken>>,
}

fn is_service(info: &ResourceInfo) -> bool {
    info.resource.group.is_empty() && info.resource.plural == "services"
}

fn spec<'a>(service: &'a Value, field: &str) -> &'a str {
    service
        .pointer("/spec")
        .and_then(|spec| spec.get(field))
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn kind_of(service: &Value) -> &str {
    match spec(service, "type") {
        "" => "ClusterIP",
        other => other,
    }
}

fn addresses_of(service: &Value) -> Vec<Ipv4Addr> {
    let mut addresses: Vec<Ipv4Addr> = spec(service, "clusterIP").parse().into_iter().collect();
    let more = service
        .pointer("/spec/clusterIPs")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    for address in more.filter_map(|ip| ip.as_str()?.parse().ok()) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

fn ports_of(service: &Value) -> Vec<u16> {
    let list = service
        .pointer("/spec/ports")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let health = service.pointer("/spec/healthCheckNodePort");
    let all = list.filter_map(|port| port.get("nodePort")).chain(health);
    let mut ports: Vec<u16> = all
        .filter_map(|port| u16::try_from(port.as_u64()?).ok())
        .filter(|port| *port > 0)
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

impl ServiceAllocator {
    pub(crate) fn new(env: Env, range: ServiceRange) -> Self {
        Self {
            env,
            range,
            taken: Arc::default(),
        }
    }

    /// Takes note of the Services that are there.
    pub(crate) fn load(&self, services: &[Object]) {
        let mut taken = self.taken.lock();
        for service in services.iter().filter_map(|object| object.value().ok()) {
            taken.addresses.extend(addresses_of(&service));
            taken.ports.extend(ports_of(&service));
        }
    }

    fn empty_claim(&self) -> Claim {
        Claim {
            taken: self.taken.clone(),
            given: Lots::default(),
            released: Lots::default(),
            writing: false,
        }
    }

    /// Gives a new Service what it needs and does not name.
    pub(super) fn claim_for_create(
        &self,
        info: &ResourceInfo,
        service: &mut Value,
    ) -> Result<Claim, Status> {
        let mut claim = self.empty_claim();
        if is_service(info) {
            self.assign(service, &Value::Null, &mut claim)?;
        }
        Ok(claim)
    }

    /// The same for a changed one. What it no longer has goes back when the write has succeeded.
    pub(super) fn claim_for_update(
        &self,
        info: &ResourceInfo,
        service: &mut Value,
        old: &Value,
    ) -> Result<Claim, Status> {
        let mut claim = self.empty_claim();
        if !is_service(info) || service.get("spec") == old.get("spec") {
            return Ok(claim);
        }
        self.assign(service, old, &mut claim)?;
        let (now_addresses, now_ports) = (addresses_of(service), ports_of(service));
        claim.released.addresses = addresses_of(old)
            .into_iter()
            .filter(|address| !now_addresses.contains(address))
            .collect();
        claim.released.ports = ports_of(old)
            .into_iter()
            .filter(|port| !now_ports.contains(port))
            .collect();
        Ok(claim)
    }

    /// What goes back when a Service is deleted.
    pub(super) fn claim_for_delete(&self, info: &ResourceInfo, service: &Value) -> Claim {
        let mut claim = self.empty_claim();
        if is_service(info) {
            claim.released = Lots {
                addresses: addresses_of(service),
                ports: ports_of(service),
            };
        }
        claim.begin_write();
        claim
    }

    /// Takes back what is in doubt since before the last look and belongs to none of the Services that there are.
    pub(crate) fn settle(&self, services: &[Object]) {
        let mut taken = self.taken.lock();
        let newer = std::mem::take(&mut taken.doubtful);
        let mut lots = std::mem::replace(&mut taken.doubtful_before, newer);
        if lots.addresses.is_empty() && lots.ports.is_empty() {
            return;
        }
        let documents = services.iter().filter_map(|object| object.value().ok());
        for service in documents {
            let (addresses, ports) = (addresses_of(&service), ports_of(&service));
            lots.addresses
                .retain(|address| !addresses.contains(address));
            lots.ports.retain(|port| !ports.contains(port));
        }
        taken.release(&lots);
    }

    fn assign(&self, service: &mut Value, old: &Value, claim: &mut Claim) -> Result<(), Status> {
        self.assign_address(service, old, claim)?;
        self.assign_ports(service, old, claim)?;
        Ok(())
    }

    fn assign_address(
        &self,
        service: &mut Value,
        old: &Value,
        claim: &mut Claim,
    ) -> Result<(), Status> {
        if kind_of(service) == "ExternalName" {
            return Ok(());
        }
        let wanted = spec(service, "clusterIP").to_owned();
        let name = meta::text(service, "name").to_owned();
        if wanted != "None" {
            let had = addresses_of(old);
            let address = if wanted.is_empty() {
                self.free_address(claim).ok_or_else(|| {
                    let why = format!(
                        "failed to allocate a serviceIP: range {} is full",
                        self.range.cidr()
                    );
                    Status::internal(why)
                })?
            } else {
                let path = Path::new("spec").child("clusterIPs");
                let refuse = |why: &str| {
                    let why = format!("failed to allocate IP {wanted}: {why}");
                    Status::invalid(
                        "",
                        "Service",
                        &name,
                        &[FieldError::invalid(&path, json!([wanted]), why)],
                    )
                };
                let address: Ipv4Addr = wanted
                    .parse()
                    .map_err(|_| refuse("the provided network does not match the current range"))?;
                if !had.contains(&address) {
                    if !self.range.contains(address) {
                        return Err(refuse(
                            "the provided network does not match the current range",
                        ));
                    }
                    if !self.taken.lock().addresses.insert(address) {
                        return Err(refuse("provided IP is already allocated"));
                    }
                    claim.given.addresses.push(address);
                }
                address
            };
            service["spec"]["clusterIP"] = json!(address);
            service["spec"]["clusterIPs"] = json!([address]);
        } else if service.pointer("/spec/clusterIPs").is_none() {
            service["spec"]["clusterIPs"] = json!(["None"]);
        }
        if service
            .pointer("/spec/ipFamilies")
            .and_then(Value::as_array)
            .is_none_or(Vec::is_empty)
        {
            service["spec"]["ipFamilies"] = json!(["IPv4"]);
        }
        if spec(service, "ipFamilyPolicy").is_empty() {
            service["spec"]["ipFamilyPolicy"] = json!("SingleStack");
        }
        Ok(())
    }

    fn free_address(&self, claim: &mut Claim) -> Option<Ipv4Addr> {
        let mut taken = self.taken.lock();
        let size = self.range.size();
        let start = self.env.random_below(u64::from(size)) as u32;
        let address = (0..size)
            .map(|step| Ipv4Addr::from(self.range.base() + (start + step) % size))
            .find(|address| {
                self.range.contains(*address)
                    && *address != self.range.first()
                    && !taken.addresses.contains(address)
            })?;
        taken.addresses.insert(address);
        claim.given.addresses.push(address);
        Some(address)
    }

    fn free_port(&self, claim: &mut Claim) -> Option<u16> {
        let mut taken = self.taken.lock();
        let (first, count) = (
            *self.range.node_ports.start(),
            self.range.node_ports.len() as u64,
        );
        let start = self.env.random_below(count);
        let port = (0..count)
            .map(|step| first + ((start + step) % count) as u16)
            .find(|port| !taken.ports.contains(port))?;
        taken.ports.insert(port);
        claim.given.ports.push(port);
        Some(port)
    }

    fn take_port(
        &self,
        name: &str,
        path: &Path,
        port: u64,
        had: &[u16],
        claim: &mut Claim,
    ) -> Result<(), Status> {
        let refuse = |why: String| {
            Status::invalid("", "Service", name, &[FieldError::invalid(path, port, why)])
        };
        let (first, last) = (self.range.node_ports.start(), self.range.node_ports.end());
        let number = u16::try_from(port)
            .ok()
            .filter(|port| self.range.node_ports.contains(port));
        let Some(number) = number else {
            return Err(refuse(format!(
                "provided port is not in the valid range. The range of valid ports is {first}-{last}"
            )));
        };
        if had.contains(&number) || claim.given.ports.contains(&number) {
            return Ok(());
        }
        if !self.taken.lock().ports.insert(number) {
            return Err(refuse("provided port is already allocated".to_owned()));
        }
        claim.given.ports.push(number);
        Ok(())
    }

    fn assign_ports(
        &self,
        service: &mut Value,
        old: &Value,
        claim: &mut Claim,
    ) -> Result<(), Status> {
        let kind = kind_of(service).to_owned();
        let name = meta::text(service, "name").to_owned();
        let balancer = kind == "LoadBalancer";
        let wanted = kind == "NodePort"
            || balancer
                && service
                    .pointer("/spec/allocateLoadBalancerNodePorts")
                    .and_then(Value::as_bool)
                    != Some(false);
        let had = ports_of(old);
        let full = || Status::internal("failed to allocate a nodePort: range is full");
        let local = spec(service, "externalTrafficPolicy") == "Local";
        let path = Path::new("spec").child("ports");
        let mut given: Vec<(u64, String, u16)> = Vec::new();
        let ports = service
            .pointer_mut("/spec/ports")
            .and_then(Value::as_array_mut);
        for (index, port) in ports.into_iter().flatten().enumerate() {
            let asked = port.get("nodePort").and_then(Value::as_u64).unwrap_or(0);
            if asked > 0 {
                self.take_port(
                    &name,
                    &path.index(index).child("nodePort"),
                    asked,
                    &had,
                    claim,
                )?;
                continue;
            }
            if !wanted {
                continue;
            }
            // The same port over another protocol is served by the same node port.
            let number = port.get("port").and_then(Value::as_u64).unwrap_or(0);
            let protocol = port
                .get("protocol")
                .and_then(Value::as_str)
                .unwrap_or("TCP")
                .to_owned();
            let shared = given
                .iter()
                .find(|(other, over, _)| *other == number && *over != protocol)
                .map(|(_, _, port)| *port);
            let free = match shared {
                Some(port) => port,
                None => self.free_port(claim).ok_or_else(full)?,
            };
            given.push((number, protocol, free));
            port["nodePort"] = json!(free);
        }
        if balancer && local {
            let path = Path::new("spec").child("healthCheckNodePort");
            match service
                .pointer("/spec/healthCheckNodePort")
                .and_then(Value::as_u64)
                .unwrap_or(0)
            {
                0 => {
                    service["spec"]["healthCheckNodePort"] =
                        json!(self.free_port(claim).ok_or_else(full)?)
                }
                asked => self.take_port(&name, &path, asked, &had, claim)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
