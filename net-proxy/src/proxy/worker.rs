//! [`Worker`]: waits for news, and has the backend apply it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use futures::FutureExt;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use orlop_api::typed::{Kind, Notice, Subscription};
use orlop_core::env::CancelToken;
use orlop_core::network::Protocol;
use orlop_core::object::ObjectKey;

use super::Proxy;
use crate::backend::Changes;
use crate::config::{Family, NodePortAddresses};
use crate::conntrack::{Allowed, Conntrack};
use crate::health::ServiceHealth;
use crate::view::{PortView, Tracker};

/// How long to wait after a first failure to apply changes; twice as long after each further one.
pub(super) const FIRST_RETRY: Duration = Duration::from_secs(1);

/// What the API tells.
pub(super) struct Feed {
    pub(super) services: Subscription<Service>,
    pub(super) slices: Subscription<EndpointSlice>,
    pub(super) node: Subscription<Node>,
}

/// Something that the API told.
enum News {
    Service(Notice<Service>),
    Slice(Notice<EndpointSlice>),
    Node(Notice<Node>),
    /// It doesn't fit its type; it is left out.
    Unreadable,
    /// The informers have ended.
    End,
}

impl Feed {
    /// The next thing. Nothing is lost when this future is dropped.
    async fn next(&mut self) -> News {
        async fn of<K: Kind>(from: &mut Subscription<K>, news: fn(Notice<K>) -> News) -> News {
            match from.next().await {
                Ok(Some(notice)) => news(notice),
                Ok(None) => News::End,
                Err(error) => {
                    tracing::warn!(%error, "an object of the API cannot be read");
                    News::Unreadable
                }
            }
        }
        tokio::select! {
            biased;
            news = of(&mut self.node, News::Node) => news,
            news = of(&mut self.services, News::Service) => news,
            news = of(&mut self.slices, News::Slice) => news,
        }
    }
}

/// What a UDP port of a Service is reached by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Front {
    addresses: Vec<(IpAddr, u16)>,
    node_port: Option<u16>,
}

/// Brings changes from the API to the backend.
pub(super) struct Worker<'a> {
    pub(super) proxy: &'a mut Proxy,
    pub(super) tracker: Tracker,
    /// Families whose backend has to be told everything.
    pub(super) missing: BTreeSet<Family>,
    /// Ports without an endpoint here though only those count: for traffic from inside, and from outside.
    pub(super) no_local: BTreeMap<(Family, ObjectKey), (usize, usize)>,
    pub(super) fronts: BTreeMap<(Family, ObjectKey), Vec<Front>>,
    pub(super) checks: BTreeMap<ObjectKey, (u16, usize)>,
    pub(super) conntrack: Conntrack,
    pub(super) service_health: ServiceHealth,
    /// How long to wait after the next failure.
    pub(super) retry: Duration,
}

impl Worker<'_> {
    pub(super) async fn run(&mut self, feed: &mut Feed, cancel: &CancelToken) {
        let env = self.proxy.env.clone();
        let period = self.proxy.config.sync_period;
        // What was listed waits to be read; it is applied as one.
        let mut not_before = env.now();
        let mut next_check = env.now() + period;
        loop {
            let wanted = self.tracker.has_changes() || !self.missing.is_empty();
            let upkeep = self.proxy.backend.next_upkeep();
            let mut wake = upkeep.map_or(next_check, |upkeep| upkeep.min(next_check));
            if wanted {
                wake = wake.min(not_before);
            }
            let news = tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                () = env.sleep_until(wake) => None,
                news = feed.next() => Some(news),
            };
            if let Some(news) = news {
                if !self.hear(news) {
                    return;
                }
                continue;
            }
            // What has come meanwhile goes along.
            while let Some(news) = feed.next().now_or_never() {
                if !self.hear(news) {
                    return;
                }
            }
            let now = env.now();
            if wanted && not_before <= now {
                let applied = self.sync().await;
                not_before = now + self.pause(applied);
            }
            if upkeep.is_some_and(|upkeep| upkeep <= now) || next_check <= now {
                next_check = now + period;
                self.upkeep().await;
            }
        }
    }

    /// How long to wait until the next sync.
    fn pause(&mut self, applied: bool) -> Duration {
        let config = &self.proxy.config;
        if applied {
            self.retry = FIRST_RETRY;
            return config.min_sync_period;
        }
        let pause = self
            .retry
            .max(config.min_sync_period)
            .min(config.sync_period);
        self.retry = (2 * self.retry).min(config.sync_period);
        pause
    }

    /// Takes something to heart. Returns whether there is more to come.
    fn hear(&mut self, news: News) -> bool {
        let metrics = self.proxy.metrics.clone();
        let matters = match news {
            News::Service(notice) => {
                let matters = match notice {
                    Notice::Added { object, .. } | Notice::Updated { new: object, .. } => {
                        self.tracker.set_service(&object)
                    }
                    Notice::Deleted { object, .. } => self.tracker.remove_service(&object),
                };
                if matters {
                    metrics.service_changed();
                }
                matters
            }
            News::Slice(notice) => {
                let matters = match notice {
                    Notice::Added { object, .. } | Notice::Updated { new: object, .. } => {
                        self.tracker.set_slice(&object)
                    }
                    Notice::Deleted { object, .. } => self.tracker.remove_slice(&object),
                };
                if matters {
                    metrics.endpoints_changed();
                }
                matters
            }
            News::Node(notice) => {
                let matters = match notice {
                    Notice::Added { object, .. } | Notice::Updated { new: object, .. } => {
                        self.tracker.set_node(Some(&object))
                    }
                    Notice::Deleted { .. } => self.tracker.set_node(None),
                };
                self.proxy.health.set_eligible(self.tracker.node_eligible());
                matters
            }
            News::Unreadable => false,
            News::End => return false,
        };
        if matters {
            let now = self.proxy.env.wall();
            for &family in &self.proxy.config.families {
                self.proxy.health.queued(family);
                metrics.queued(family, now);
            }
        }
        true
    }

    /// Applies what has changed. Returns whether all of it went well.
    async fn sync(&mut self) -> bool {
        let changed = self.tracker.take_changes();
        let triggers = self.tracker.take_triggers();
        let node_ips = if self.proxy.config.node_ips.is_empty() {
            self.tracker.node_addresses().to_vec()
        } else {
            self.proxy.config.node_ips.clone()
        };
        let mut well = true;
        for family in self.proxy.config.families.clone() {
            // Whoever missed something is told everything.
            let changed = changed.as_ref().filter(|_| !self.missing.contains(&family));
            let of_family = node_ips.iter().filter(|&&ip| Family::of(ip) == family);
            let changes = self.changes(family, changed, of_family.copied().collect());
            let env = self.proxy.env.clone();
            let start = env.now();
            match self.proxy.backend.apply(&changes).await {
                Ok(applied) => {
                    let now = env.wall();
                    let took = env.now().since(start);
                    tracing::debug!(
                        family = family.as_str(),
                        services = changes.services.len(),
                        all = changes.all,
                        bytes = applied.bytes,
                        rebuilt = applied.rebuilt,
                        ?took,
                        "rules are synced"
                    );
                    self.missing.remove(&family);
                    self.proxy.metrics.synced(family, changes.all, took, now);
                    for &trigger in &triggers {
                        self.proxy.metrics.programmed(family, trigger, now);
                    }
                    self.proxy.health.updated(family);
                    self.count(&changes);
                    self.flows(&changes).await;
                }
                Err(error) => {
                    tracing::error!(
                        %error,
                        family = family.as_str(),
                        retry = ?self.retry,
                        "rules cannot be synced: Services work as they did before, and their changes don't show"
                    );
                    self.proxy.metrics.sync_failed(family);
                    self.proxy.health.queued(family);
                    self.missing.insert(family);
                    well = false;
                }
            }
        }
        if well {
            self.proxy.metrics.nothing_pending();
        }
        self.health_checks(changed.as_ref(), &node_ips).await;
        well
    }

    fn changes(
        &self,
        family: Family,
        changed: Option<&BTreeSet<ObjectKey>>,
        node_ips: Vec<IpAddr>,
    ) -> Changes {
        let view = |key: &ObjectKey| (key.clone(), self.tracker.view(key, family));
        let services = match changed {
            Some(changed) => changed.iter().map(view).collect(),
            None => self.tracker.services().map(view).collect(),
        };
        Changes {
            family,
            services,
            all: changed.is_none(),
            node_ips,
        }
    }

    /// Counts ports without endpoints on this node.
    fn count(&mut self, changes: &Changes) {
        if changes.all {
            self.no_local
                .retain(|(family, _), _| *family != changes.family);
        }
        for (key, views) in &changes.services {
            let lacks = |outside: bool| {
                let lacking = views.iter().filter(|view| {
                    let reachable = if outside {
                        view.reachable_outside()
                    } else {
                        view.reachable_inside()
                    };
                    view.has_endpoints && !reachable
                });
                lacking.count()
            };
            let at = (changes.family, key.clone());
            match (lacks(false), lacks(true)) {
                (0, 0) => self.no_local.remove(&at),
                counts => self.no_local.insert(at, counts),
            };
        }
        let of_family = self
            .no_local
            .iter()
            .filter(|((family, _), _)| *family == changes.family);
        let (inside, outside) = of_family.fold((0, 0), |(inside, outside), (_, counts)| {
            (inside + counts.0, outside + counts.1)
        });
        self.proxy
            .metrics
            .no_local_endpoints(changes.family, inside, outside);
    }

    /// Ends UDP flows to endpoints that are gone.
    async fn flows(&mut self, changes: &Changes) {
        let mut allowed = Allowed::default();
        let gone = |front: Front, allowed: &mut Allowed| {
            for at in front.addresses {
                allowed.addresses.entry(at).or_default();
            }
            if let Some(port) = front.node_port {
                allowed.node_ports.entry(port).or_default();
            }
        };
        if changes.all {
            let keys = self.fronts.keys().filter(|(family, key)| {
                *family == changes.family && !changes.services.contains_key(key)
            });
            for at in keys.cloned().collect::<Vec<_>>() {
                for front in self.fronts.remove(&at).unwrap_or_default() {
                    gone(front, &mut allowed);
                }
            }
        }
        for (key, views) in &changes.services {
            let at = (changes.family, key.clone());
            for front in self.fronts.remove(&at).unwrap_or_default() {
                gone(front, &mut allowed);
            }
            let udp = views
                .iter()
                .filter(|view| view.name.protocol == Protocol::Udp);
            let mut fronts = Vec::new();
            for view in udp {
                let front = front(view);
                for &at in &front.addresses {
                    allowed
                        .addresses
                        .entry(at)
                        .or_default()
                        .extend(&view.serving);
                }
                if let Some(port) = front.node_port {
                    allowed
                        .node_ports
                        .entry(port)
                        .or_default()
                        .extend(&view.serving);
                }
                fronts.push(front);
            }
            if !fronts.is_empty() {
                self.fronts.insert(at, fronts);
            }
        }
        if allowed.is_empty() {
            return;
        }
        if self.proxy.config.nodeport_addresses == NodePortAddresses::Primary {
            allowed.node_ips.clone_from(&changes.node_ips);
        }
        let start = self.proxy.env.now();
        let deleted = self.conntrack.reconcile(changes.family, &allowed).await;
        let took = self.proxy.env.now().since(start);
        self.proxy
            .metrics
            .flows_deleted(changes.family, deleted, took);
    }

    /// Brings what load balancers are told up to date.
    async fn health_checks(&mut self, changed: Option<&BTreeSet<ObjectKey>>, node_ips: &[IpAddr]) {
        let families = &self.proxy.config.families;
        match changed {
            Some(changed) => {
                for key in changed {
                    match self.tracker.health_check(key, families) {
                        Some(check) => self.checks.insert(key.clone(), check),
                        None => self.checks.remove(key),
                    };
                }
            }
            None => {
                let all = self.tracker.services();
                let checks = all.filter_map(|key| {
                    Some((key.clone(), self.tracker.health_check(key, families)?))
                });
                self.checks = checks.collect();
            }
        }
        let everywhere = [IpAddr::V4(Ipv4Addr::UNSPECIFIED)];
        let primary = self.proxy.config.nodeport_addresses == NodePortAddresses::Primary;
        let at = if primary && !node_ips.is_empty() {
            node_ips
        } else {
            &everywhere
        };
        self.service_health.sync(&self.checks, at).await;
    }

    /// Lets the backend look after what it applied.
    async fn upkeep(&mut self) {
        for family in self.proxy.config.families.clone() {
            if let Err(error) = self.proxy.backend.upkeep(family).await {
                tracing::warn!(%error, family = family.as_str(), "what was applied is gone, and is applied again");
                self.missing.insert(family);
            }
        }
    }
}

fn front(view: &PortView) -> Front {
    let port = &view.port;
    let external = port.external_ips.iter().chain(&port.load_balancer_ips);
    let addresses = std::iter::once(&port.cluster_ip).chain(external);
    Front {
        addresses: addresses.map(|&address| (address, port.port)).collect(),
        node_port: port.node_port,
    }
}
