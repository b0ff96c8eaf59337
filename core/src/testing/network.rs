//! [`SimulatedNetwork`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::network::{
    Address, Attachment, AttachmentKey, Cidr, EndpointPolicy, Interface, NetworkError,
    NetworkPlugin, PolicyEnforcer, Protocol, Route, SandboxNetwork,
};
use crate::runtime::{DnsConfig, SandboxId};

/// A network that moves no packet: it gives addresses out of its ranges, keeps account of them, and can say whether the policies that
/// it was told would let a connection through. Clones share it.
///
/// ```
/// use orlop_core::network::{EndpointPolicy, NetworkPlugin, PolicyEnforcer, Protocol, SandboxNetwork, Traffic};
/// use orlop_core::runtime::SandboxId;
/// use orlop_core::testing::SimulatedNetwork;
/// # orlop_core::env::SimEnv::new(0).block_on(async {
/// let network = SimulatedNetwork::new("10.1.0.0/24".parse()?);
/// let (web, db) = (SandboxId::new("web"), SandboxId::new("db"));
/// network.attach(&SandboxNetwork::new(web.clone(), "/run/netns/web")).await?;
/// let at = network.attach(&SandboxNetwork::new(db.clone(), "/run/netns/db")).await?;
/// let ip = at.ips().next().unwrap();
/// assert!(network.connects(&web, ip, Protocol::Tcp, 5432));
/// let mut policy = EndpointPolicy::open(db, vec![ip]);
/// policy.ingress = Traffic::Only(Vec::new());
/// network.apply(&[policy]).await?;
/// assert!(!network.connects(&web, ip, Protocol::Tcp, 5432));
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct SimulatedNetwork {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    ranges: Vec<Range>,
    attached: BTreeMap<AttachmentKey, Attachment>,
    policies: BTreeMap<SandboxId, EndpointPolicy>,
}

/// A range that addresses are given out of. The first address is the network's own, the second the gateway's.
#[derive(Debug)]
struct Range {
    cidr: Cidr,
    /// The distance of the address that is tried next, so that one that was taken back rests for a while.
    next: u128,
}

/// The first distance from the beginning of a range that is given out.
const FIRST: u128 = 2;

impl Range {
    fn new(cidr: Cidr) -> Result<Self, NetworkError> {
        let cidr = cidr.network();
        if cidr.nth(FIRST + 1).is_none() {
            return Err(NetworkError::InvalidRequest(format!(
                "{cidr} has no room for a sandbox"
            )));
        }
        Ok(Self { cidr, next: FIRST })
    }

    /// How many distances there are.
    fn size(&self) -> u128 {
        let bits = if self.cidr.address().is_ipv4() {
            32
        } else {
            128
        };
        1u128
            .checked_shl(bits - u32::from(self.cidr.prefix_len()))
            .unwrap_or(u128::MAX)
    }

    /// Whether an address is one to be given out: neither the network's own, nor the gateway's, nor IPv4's broadcast address.
    fn offers(&self, address: IpAddr) -> bool {
        let last = self.cidr.nth(self.size() - 1);
        self.cidr.contains(address)
            && ![self.cidr.nth(0), self.cidr.nth(1)].contains(&Some(address))
            && !(address.is_ipv4() && last == Some(address))
    }

    fn take(&mut self, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
        let size = self.size();
        // Among one more address than are taken, a free one is found if there is any.
        let tries = size.min(taken.len() as u128 + 4);
        for _ in 0..tries {
            let index = if self.next < size { self.next } else { FIRST };
            self.next = index + 1;
            if let Some(address) = self.cidr.nth(index)
                && self.offers(address)
                && !taken.contains(&address)
            {
                return Some(address);
            }
        }
        None
    }
}

impl SimulatedNetwork {
    /// A network of one range of addresses.
    ///
    /// # Panics
    /// For a range with no room for a sandbox.
    #[must_use]
    pub fn new(range: Cidr) -> Self {
        Self::with_ranges(&[range])
    }

    /// A network in which every sandbox gets an address of each range.
    ///
    /// # Panics
    /// For a range with no room for a sandbox.
    #[must_use]
    pub fn with_ranges(ranges: &[Cidr]) -> Self {
        let ranges: Result<Vec<_>, _> = ranges.iter().map(|cidr| Range::new(*cidr)).collect();
        let ranges = match ranges {
            Ok(ranges) => ranges,
            Err(error) => panic!("{error}"),
        };
        Self {
            state: Arc::new(Mutex::new(State {
                ranges,
                attached: BTreeMap::new(),
                policies: BTreeMap::new(),
            })),
        }
    }

    /// Whether a connection from a sandbox to an address would be let through, if packets were moved.
    #[must_use]
    pub fn connects(&self, from: &SandboxId, to: IpAddr, protocol: Protocol, port: u16) -> bool {
        let state = self.state.lock();
        let owner = |address: IpAddr| {
            let mut all = state.attached.iter();
            all.find(|(_, at)| at.ips().any(|ip| ip == address))
                .map(|(key, _)| &key.sandbox)
        };
        if owner(to) == Some(from) {
            return true;
        }
        let mut own = state
            .attached
            .iter()
            .filter(|(key, _)| key.sandbox == *from);
        let source = own.find_map(|(_, at)| at.ips().find(|ip| ip.is_ipv4() == to.is_ipv4()));
        let Some(source) = source else {
            return false;
        };
        let out = state
            .policies
            .get(from)
            .is_none_or(|policy| policy.egress.allows(to, protocol, port));
        let into = owner(to)
            .and_then(|target| state.policies.get(target))
            .is_none_or(|policy| policy.ingress.allows(source, protocol, port));
        out && into
    }
}

#[async_trait]
impl NetworkPlugin for SimulatedNetwork {
    async fn attach(&self, sandbox: &SandboxNetwork) -> Result<Attachment, NetworkError> {
        let key = sandbox.key();
        let mut state = self.state.lock();
        let State {
            ranges, attached, ..
        } = &mut *state;
        if attached.contains_key(&key) {
            return Err(NetworkError::AlreadyAttached(key));
        }
        let taken: BTreeSet<IpAddr> = attached.values().flat_map(Attachment::ips).collect();
        let mut addresses = Vec::new();
        for range in ranges.iter_mut() {
            let wanted = sandbox
                .requested
                .iter()
                .find(|ip| range.cidr.contains(**ip));
            let address = match wanted {
                Some(ip) if taken.contains(ip) || !range.offers(*ip) => {
                    return Err(NetworkError::AddressNotAvailable(*ip));
                }
                Some(ip) => *ip,
                None => range
                    .take(&taken)
                    .ok_or_else(|| NetworkError::Exhausted(range.cidr.to_string()))?,
            };
            addresses.push(Address {
                address: Cidr::new(address, range.cidr.prefix_len())
                    .unwrap_or_else(|| Cidr::host(address)),
                gateway: range.cidr.nth(1),
            });
        }
        let given: Vec<IpAddr> = addresses.iter().map(|a| a.address.address()).collect();
        if let Some(foreign) = sandbox.requested.iter().find(|ip| !given.contains(ip)) {
            return Err(NetworkError::AddressNotAvailable(*foreign));
        }
        let routes = addresses.iter().filter_map(|address| {
            let any = if address.address.address().is_ipv4() {
                "0.0.0.0/0"
            } else {
                "::/0"
            };
            Some(Route {
                destination: any.parse().ok()?,
                gateway: address.gateway,
            })
        });
        let attachment = Attachment {
            interfaces: vec![Interface {
                name: sandbox.interface.clone(),
                mac: mac(given.first()),
                inside: true,
            }],
            routes: routes.collect(),
            addresses,
            dns: DnsConfig::default(),
        };
        attached.insert(key, attachment.clone());
        Ok(attachment)
    }

    async fn detach(&self, sandbox: &SandboxNetwork) -> Result<(), NetworkError> {
        self.state.lock().attached.remove(&sandbox.key());
        Ok(())
    }

    async fn check(
        &self,
        sandbox: &SandboxNetwork,
        attached: &Attachment,
    ) -> Result<(), NetworkError> {
        let key = sandbox.key();
        let reason = match self.state.lock().attached.get(&key) {
            Some(own) if own == attached => return Ok(()),
            Some(_) => "it has other addresses",
            None => "it is not attached",
        };
        Err(NetworkError::Broken {
            key,
            reason: reason.to_owned(),
        })
    }

    async fn collect_garbage(
        &self,
        valid: &BTreeSet<AttachmentKey>,
    ) -> Result<Vec<AttachmentKey>, NetworkError> {
        let mut state = self.state.lock();
        let gone: Vec<_> = state
            .attached
            .keys()
            .filter(|key| !valid.contains(*key))
            .cloned()
            .collect();
        for key in &gone {
            state.attached.remove(key);
        }
        Ok(gone)
    }

    async fn set_pod_cidrs(&self, cidrs: &[Cidr]) -> Result<(), NetworkError> {
        let ranges: Result<Vec<_>, _> = cidrs.iter().map(|cidr| Range::new(*cidr)).collect();
        let ranges = ranges?;
        if ranges.is_empty() {
            return Err(NetworkError::InvalidRequest("no range at all".to_owned()));
        }
        self.state.lock().ranges = ranges;
        Ok(())
    }
}

#[async_trait]
impl PolicyEnforcer for SimulatedNetwork {
    async fn apply(&self, policies: &[EndpointPolicy]) -> Result<(), NetworkError> {
        let mut all = BTreeMap::new();
        for policy in policies {
            if all.insert(policy.sandbox.clone(), policy.clone()).is_some() {
                return Err(NetworkError::InvalidRequest(format!(
                    "sandbox {} is named twice",
                    policy.sandbox
                )));
            }
        }
        self.state.lock().policies = all;
        Ok(())
    }
}

/// A hardware address of the locally administered kind, made of the first address.
fn mac(address: Option<&IpAddr>) -> String {
    let bytes = match address {
        Some(IpAddr::V4(ip)) => ip.octets(),
        Some(IpAddr::V6(ip)) => (ip.to_bits() as u32).to_be_bytes(),
        None => [0; 4],
    };
    let tail: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("02:42:{}", tail.join(":"))
}
