//! Addresses and ports of Services: each is given to one Service at a time, by however many API servers.
//!
//! What is given stands in the store under a key of its own, which the transaction that writes the Service makes, under the condition that
//! it is not there yet, and the one that deletes the Service deletes. So the store judges who is first; what the cache knows of these keys
//! only says what is worth a try. The key of an address is that of its IPAddress.

mod claim;
mod repair;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use orlop_api::resources::ResourceInfo;
use orlop_core::env::Env;
use orlop_core::field::{FieldError, Path};
use orlop_core::status::Status;
use orlop_core::store::{KeyRange, RangeRequest};
use serde_json::{Value, json};

pub(super) use self::claim::{Claim, Lot};
use super::{Registry, meta};
use crate::cache::store_status;
use crate::names::IP_ADDRESSES;

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

/// Chooses addresses and ports.
pub(crate) struct ServiceAllocator {
    env: Env,
    range: ServiceRange,
}

/// Why a Service gets no address or port.
enum Trouble {
    /// None is free, as far as is known.
    Full(Status),
    /// It cannot have what it asks for.
    Refused(Status),
}

impl From<Trouble> for Status {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Full(status) | Trouble::Refused(status) => status,
        }
    }
}

pub(super) fn is_service(info: &ResourceInfo) -> bool {
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

/// All that a Service has.
fn lots_of(service: &Value) -> BTreeSet<Lot> {
    let addresses = addresses_of(service).into_iter().map(Lot::Address);
    addresses
        .chain(ports_of(service).into_iter().map(Lot::Port))
        .collect()
}

impl Registry {
    /// Gives a Service what it needs and does not name, beyond what its current version has: `Null` for a new one. What was tried in vain
    /// is not tried again.
    pub(super) async fn claim(
        &self,
        info: &ResourceInfo,
        service: &mut Value,
        old: &Value,
        tried: &BTreeSet<Lot>,
    ) -> Result<Claim, Status> {
        if !is_service(info) || service.get("spec") == old.get("spec") {
            return Ok(Claim::default());
        }
        let taken = |lot: Lot| {
            tried.contains(&lot)
                || match lot {
                    Lot::Address(ip) => self
                        .caches
                        .kind(&IP_ADDRESSES)
                        .is_some_and(|known| known.get("", &ip.to_string()).is_some()),
                    Lot::Port(port) => self.caches.node_ports.contains(port),
                }
        };
        let before = service.clone();
        let mut claim = Claim::of(service);
        match self.services.assign(service, old, &taken, &mut claim) {
            Ok(()) => {}
            Err(Trouble::Refused(status)) => return Err(status),
            Err(Trouble::Full(_)) => {
                // The cache may not have seen yet what has just come free.
                self.caches.wait_until_current().await?;
                *service = before;
                claim = Claim::of(service);
                self.services.assign(service, old, &taken, &mut claim)?;
            }
        }
        let now = lots_of(service);
        let gone = lots_of(old).into_iter().filter(|lot| !now.contains(lot));
        self.release(&mut claim, gone).await?;
        Ok(claim)
    }

    /// What goes back when a Service is deleted.
    pub(super) async fn claim_for_delete(
        &self,
        info: &ResourceInfo,
        service: &Value,
    ) -> Result<Claim, Status> {
        if !is_service(info) {
            return Ok(Claim::default());
        }
        let mut claim = Claim::of(service);
        self.release(&mut claim, lots_of(service)).await?;
        Ok(claim)
    }

    /// Lets a claim give back those of the lots that are its Service's: somebody may have taken one away by hand, and another Service it since.
    async fn release(
        &self,
        claim: &mut Claim,
        lots: impl IntoIterator<Item = Lot>,
    ) -> Result<(), Status> {
        for lot in lots {
            let request = RangeRequest::new(KeyRange::key(lot.key()));
            let found = self.store.range(request).await.map_err(store_status)?;
            if let Some(kv) = found.items.first()
                && lot.holder(&kv.value).as_ref() == Some(&claim.service)
            {
                claim.released.push((lot, kv.mod_revision));
            }
        }
        Ok(())
    }

    /// Refuses a claim that asks for what another Service has: what a dry run is told.
    pub(super) async fn check_claim(&self, claim: &Claim) -> Result<(), Status> {
        for given in &claim.given {
            if let Some(refusal) = &given.refusal {
                let request = RangeRequest::new(KeyRange::key(given.lot.key()));
                let found = self.store.range(request).await.map_err(store_status)?;
                if !found.items.is_empty() {
                    return Err((**refusal).clone());
                }
            }
        }
        Ok(())
    }
}

/// Whether somebody has an address or port, as far as is known.
type IsTaken<'a> = &'a (dyn Fn(Lot) -> bool + Sync);

impl ServiceAllocator {
    pub(crate) fn new(env: Env, range: ServiceRange) -> Self {
        Self { env, range }
    }

    fn assign(
        &self,
        service: &mut Value,
        old: &Value,
        taken: IsTaken<'_>,
        claim: &mut Claim,
    ) -> Result<(), Trouble> {
        self.assign_address(service, old, taken, claim)?;
        self.assign_ports(service, old, taken, claim)
    }

    fn assign_address(
        &self,
        service: &mut Value,
        old: &Value,
        taken: IsTaken<'_>,
        claim: &mut Claim,
    ) -> Result<(), Trouble> {
        if kind_of(service) == "ExternalName" {
            return Ok(());
        }
        let wanted = spec(service, "clusterIP").to_owned();
        let name = meta::text(service, "name").to_owned();
        if wanted != "None" {
            let had = addresses_of(old);
            let address = if wanted.is_empty() {
                let free = self.free_address(taken).ok_or_else(|| {
                    let why = format!(
                        "failed to allocate a serviceIP: range {} is full",
                        self.range.cidr()
                    );
                    Trouble::Full(Status::internal(why))
                })?;
                claim.give(Lot::Address(free));
                free
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
                let outside = "the provided network does not match the current range";
                let address: Ipv4Addr = wanted
                    .parse()
                    .map_err(|_| Trouble::Refused(refuse(outside)))?;
                if !had.contains(&address) {
                    if !self.range.contains(address) {
                        return Err(Trouble::Refused(refuse(outside)));
                    }
                    let refusal = refuse("provided IP is already allocated");
                    claim.give_as_asked(Lot::Address(address), refusal);
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

    fn free_address(&self, taken: IsTaken<'_>) -> Option<Ipv4Addr> {
        let size = self.range.size();
        let start = self.env.random_below(u64::from(size)) as u32;
        (0..size)
            .map(|step| Ipv4Addr::from(self.range.base() + (start + step) % size))
            .find(|address| {
                self.range.contains(*address)
                    && *address != self.range.first()
                    && !taken(Lot::Address(*address))
            })
    }

    /// A free port that the Service does not have, nor name, either.
    fn free_port(
        &self,
        taken: IsTaken<'_>,
        named: &[u16],
        claim: &mut Claim,
    ) -> Result<u16, Trouble> {
        let (first, count) = (
            *self.range.node_ports.start(),
            self.range.node_ports.len() as u64,
        );
        let start = self.env.random_below(count);
        let port = (0..count)
            .map(|step| first + ((start + step) % count) as u16)
            .find(|port| {
                let lot = Lot::Port(*port);
                !named.contains(port) && !claim.has(lot) && !taken(lot)
            });
        let port = port.ok_or_else(|| {
            Trouble::Full(Status::internal(
                "failed to allocate a nodePort: range is full",
            ))
        })?;
        claim.give(Lot::Port(port));
        Ok(port)
    }

    fn take_port(
        &self,
        name: &str,
        path: &Path,
        port: u64,
        had: &[u16],
        claim: &mut Claim,
    ) -> Result<(), Trouble> {
        let refuse = |why: String| {
            Status::invalid("", "Service", name, &[FieldError::invalid(path, port, why)])
        };
        let (first, last) = (self.range.node_ports.start(), self.range.node_ports.end());
        let number = u16::try_from(port)
            .ok()
            .filter(|port| self.range.node_ports.contains(port));
        let Some(number) = number else {
            return Err(Trouble::Refused(refuse(format!(
                "provided port is not in the valid range. The range of valid ports is {first}-{last}"
            ))));
        };
        let lot = Lot::Port(number);
        if !had.contains(&number) && !claim.has(lot) {
            let refusal = refuse("provided port is already allocated".to_owned());
            claim.give_as_asked(lot, refusal);
        }
        Ok(())
    }

    fn assign_ports(
        &self,
        service: &mut Value,
        old: &Value,
        taken: IsTaken<'_>,
        claim: &mut Claim,
    ) -> Result<(), Trouble> {
        let kind = kind_of(service).to_owned();
        let name = meta::text(service, "name").to_owned();
        let balancer = kind == "LoadBalancer";
        let wanted = kind == "NodePort"
            || balancer
                && service
                    .pointer("/spec/allocateLoadBalancerNodePorts")
                    .and_then(Value::as_bool)
                    != Some(false);
        let (had, named) = (ports_of(old), ports_of(service));
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
                None => self.free_port(taken, &named, claim)?,
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
                        json!(self.free_port(taken, &named, claim)?);
                }
                asked => self.take_port(&name, &path, asked, &had, claim)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
