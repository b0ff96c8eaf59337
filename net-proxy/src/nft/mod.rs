//! Services by nftables.
//!
//! There is one table a family, `kube-proxy`, laid out as Kubernetes' nftables mode does it, with maps from addresses and ports to
//! chains, and a chain for each port of each Service. Three things are done otherwise, each for speed with thousands of Services:
//! endpoints stand in shared maps of numbers instead of a map in every rule; an endpoint has a chain of its own only
//! where clients stay with their endpoint; and connections of an endpoint with itself are known by one set.
//!
//! Every change is one transaction with what has changed and nothing else. What the kernel has is remembered, never read; when a
//! transaction fails, the table is made anew within one transaction.

mod affinity;
#[cfg(test)]
mod model;
mod names;
mod pool;
mod rules;
mod ruleset;
mod script;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use orlop_core::env::{Env, Moment};
use orlop_core::network::Protocol;

use self::ruleset::Ruleset;
use self::script::{Script, TABLE, family_word};
use self::table::{CANARY, NodePorts, Settings};
use crate::Error;
use crate::backend::{Applied, Backend, Changes};
use crate::config::{Family, NodePortAddresses, ProxyConfig};
use crate::exec::Exec;
use crate::metrics::ProxyMetrics;
use crate::view::protocol_word;

/// How long one transaction may take. Tens of thousands of Services take some seconds.
const LIMIT: Duration = Duration::from_secs(120);
/// The oldest nft that writes what is asked of it.
const OLDEST: (u32, u32, u32) = (1, 0, 1);

/// Services by nftables.
pub struct NftBackend {
    env: Env,
    exec: Exec,
    config: ProxyConfig,
    metrics: ProxyMetrics,
    /// What the kernel has; nothing where that is not known.
    known: BTreeMap<Family, Ruleset>,
}

impl fmt::Debug for NftBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NftBackend")
            .field("known", &self.known.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl NftBackend {
    /// A backend that has written nothing yet.
    #[must_use]
    pub fn new(env: Env, config: &ProxyConfig, metrics: ProxyMetrics) -> Self {
        Self {
            exec: Exec::new(env.clone(), config.command_prefix.clone()),
            env,
            config: config.clone(),
            metrics,
            known: BTreeMap::new(),
        }
    }

    fn settings(&self, changes: &Changes) -> Settings {
        let family = changes.family;
        let of_family = |cidr: &&orlop_core::network::Cidr| Family::of(cidr.address()) == family;
        let node_ports = match &self.config.nodeport_addresses {
            // Traffic to the loopback never reaches another machine's endpoints.
            NodePortAddresses::Primary => {
                let addresses = changes.node_ips.iter().filter(|ip| !ip.is_loopback());
                NodePorts::At(addresses.copied().collect())
            }
            NodePortAddresses::All => NodePorts::Everywhere,
            NodePortAddresses::Networks(networks) => {
                NodePorts::In(networks.iter().filter(of_family).copied().collect())
            }
        };
        let cidrs = self.config.cluster_cidrs.iter().filter(of_family);
        Settings {
            family,
            masquerade_mark: 1 << self.config.masquerade_bit,
            masquerade_all: self.config.masquerade_all,
            cluster_cidrs: cidrs.map(|cidr| cidr.network()).collect(),
            service_cidrs: {
                let cidrs = self.config.service_cidrs.iter().filter(of_family);
                cidrs.copied().collect()
            },
            node_ports,
            node_ip: changes.node_ips.first().copied(),
        }
    }

    /// A table without Services, but with rules that choose.
    fn sample(&self, family: Family) -> Script {
        let nothing = Changes {
            family,
            services: BTreeMap::new(),
            all: true,
            node_ips: Vec::new(),
        };
        let (_, mut script) =
            Ruleset::new(self.settings(&nothing), &nothing.services, self.env.now());
        let ip = family_word(family);
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let map = ruleset::numbered(family, script::Container::Endpoints(protocol, 0));
            let rule = format!(
                "meta l4proto {} dnat {ip} to numgen random mod 2 offset 0 map @{}",
                protocol_word(protocol),
                map.1
            );
            script.add_sets.push(map);
            script.add_rules.push(("services".to_owned(), rule));
        }
        script
    }

    async fn transaction(&self, family: Family, script: &Script) -> Result<usize, Error> {
        let text = script.render(family);
        tracing::trace!(family = family.as_str(), %text, "nft transaction");
        self.exec
            .run(&self.config.nft, &["-f", "-"], &text, 4096, LIMIT)
            .await?;
        Ok(text.len())
    }

    /// Makes the table anew. Who stays with which endpoint is carried over.
    async fn rebuild(&mut self, settings: Settings, changes: &Changes) -> Result<Applied, Error> {
        let family = changes.family;
        let (ruleset, mut script) = Ruleset::new(settings, &changes.services, self.env.now());
        script
            .fill_sets
            .extend(self.clients(family, &ruleset).await);
        let bytes = self.transaction(family, &script).await?;
        self.known.insert(family, ruleset);
        Ok(Applied {
            bytes,
            rebuilt: true,
        })
    }

    /// The clients that stay with their endpoints, as the kernel knows them.
    async fn clients(&self, family: Family, wanted: &Ruleset) -> Vec<(String, Vec<String>)> {
        let wanted = wanted.affinity_sets();
        if wanted.is_empty() {
            return Vec::new();
        }
        match affinity::read(&self.exec, &self.config.nft, family, &wanted).await {
            Ok(clients) => clients,
            // There may be no table. At worst clients choose anew.
            Err(error) => {
                tracing::debug!(%error, family = family.as_str(), "no clients are carried over");
                Vec::new()
            }
        }
    }
}

#[async_trait]
impl Backend for NftBackend {
    fn mode(&self) -> &'static str {
        "nftables"
    }

    async fn probe(&mut self, families: &[Family]) -> Result<Vec<Family>, Error> {
        let limit = Duration::from_secs(10);
        let oldest = format!("{}.{}.{}", OLDEST.0, OLDEST.1, OLDEST.2);
        let answer = self
            .exec
            .run(&self.config.nft, &["--version"], "", 4096, limit)
            .await;
        let answer = answer.map_err(|error| {
            Error::Unavailable(format!(
                "nftables mode needs the program nft {oldest} or later: {error}"
            ))
        })?;
        let answer = String::from_utf8_lossy(&answer);
        if version(&answer).is_none_or(|found| found < OLDEST) {
            return Err(Error::Unavailable(format!(
                "nftables mode needs nft {oldest} or later, found: {}",
                answer.trim()
            )));
        }
        let mut served = Vec::new();
        let mut why = None;
        for &family in families {
            // All kinds of rules that Services need are shown to the kernel, and not applied.
            let sample = self.sample(family);
            let text = sample.render(family);
            match self
                .exec
                .run(
                    &self.config.nft,
                    &["--check", "-f", "-"],
                    &text,
                    4096,
                    limit,
                )
                .await
            {
                Ok(_) => served.push(family),
                Err(error) => {
                    tracing::warn!(%error, family = family.as_str(), "nftables cannot serve this family");
                    why = Some(error);
                }
            }
        }
        match why {
            Some(error) if served.is_empty() => Err(Error::Unavailable(format!(
                "this kernel takes no nftables rules for Services from this process: {error}"
            ))),
            _ => Ok(served),
        }
    }

    async fn apply(&mut self, changes: &Changes) -> Result<Applied, Error> {
        let settings = self.settings(changes);
        // Taken out: if anything goes wrong from here on, nothing is known.
        let known = self.known.remove(&changes.family);
        let Some(mut known) = known.filter(|known| known.has_settings(&settings)) else {
            if !changes.all {
                return Err(Error::Backend(
                    "what the kernel has is not known".to_owned(),
                ));
            }
            return self.rebuild(settings, changes).await;
        };
        let script = known.change(&changes.services, changes.all, self.env.now());
        let mut applied = Applied::default();
        if !script.is_empty() {
            applied.bytes = self.transaction(changes.family, &script).await?;
        }
        self.known.insert(changes.family, known);
        Ok(applied)
    }

    async fn upkeep(&mut self, family: Family) -> Result<(), Error> {
        let now = self.env.now();
        let Some(known) = self.known.get_mut(&family) else {
            return Ok(());
        };
        let stale = known.take_stale(now);
        if !stale.is_empty() {
            let script = Script {
                delete_chains: stale,
                ..Script::default()
            };
            if let Err(error) = self.transaction(family, &script).await {
                tracing::warn!(%error, family = family.as_str(), "cannot delete old chains yet");
                self.metrics.cleanup_failed(family);
                if let Some(known) = self.known.get_mut(&family) {
                    known.keep_stale(script.delete_chains, now + self.config.sync_period);
                }
            }
        }
        let canary = Script {
            flush: vec![CANARY.to_owned()],
            ..Script::default()
        };
        if let Err(error) = self.transaction(family, &canary).await {
            self.known.remove(&family);
            return Err(error);
        }
        Ok(())
    }

    fn next_upkeep(&self) -> Option<Moment> {
        self.known.values().filter_map(Ruleset::next_stale).min()
    }

    async fn cleanup(&mut self) -> Result<(), Error> {
        let mut result = Ok(());
        for family in Family::ALL {
            self.known.remove(&family);
            let ip = family_word(family);
            // What is to be deleted must be there.
            let text = format!("add table {ip} {TABLE}\ndelete table {ip} {TABLE}\n");
            let done = self
                .exec
                .run(&self.config.nft, &["-f", "-"], &text, 4096, LIMIT)
                .await;
            result = result.and(done.map(drop));
        }
        result
    }
}

/// The version in `nftables v1.0.6 (Lester Gooch #5)`.
fn version(text: &str) -> Option<(u32, u32, u32)> {
    let word = text
        .split_whitespace()
        .find_map(|word| word.strip_prefix('v'))?;
    let mut numbers = word.split('.').map(|number| number.parse::<u32>().ok());
    let mut next = || numbers.next().unwrap_or(Some(0));
    Some((next()?, next()?, next()?))
}
