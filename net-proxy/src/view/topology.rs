//! Which endpoints traffic goes to: traffic policies, hints, endpoints that are about to end.

use super::{Endpoint, ServicePort};

/// The endpoints by policy.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    pub(super) cluster: Vec<Endpoint>,
    pub(super) local: Vec<Endpoint>,
    pub(super) has_endpoints: bool,
}

/// Whom the hints keep traffic with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nearness {
    SameNode,
    SameZone,
    Anywhere,
}

/// Chooses. Ready endpoints are preferred; without any, those that serve while they end are used, for each policy by itself.
pub(super) fn choose(all: &[Endpoint], port: &ServicePort, node: &str, zone: &str) -> Chosen {
    let mut chosen = Chosen::default();
    if port.uses_cluster_endpoints() {
        let nearness = nearness(all, node, zone);
        let ready = all.iter().filter(|endpoint| endpoint.ready);
        let near = ready.filter(|endpoint| match nearness {
            Nearness::Anywhere => true,
            Nearness::SameNode => endpoint.node_hints.iter().any(|hint| hint == node),
            Nearness::SameZone => endpoint.zone_hints.iter().any(|hint| hint == zone),
        });
        chosen.cluster = near.cloned().collect();
        if chosen.cluster.is_empty() {
            chosen.cluster = ending(all.iter());
        }
        chosen.has_endpoints = !chosen.cluster.is_empty();
    }
    if port.uses_local_endpoints() {
        let local = || all.iter().filter(|endpoint| endpoint.local);
        chosen.local = local().filter(|endpoint| endpoint.ready).cloned().collect();
        if chosen.local.is_empty() {
            chosen.local = ending(local());
        }
        chosen.has_endpoints |= all
            .iter()
            .any(|endpoint| endpoint.ready || endpoint.serves_while_terminating());
    }
    chosen
}

fn ending<'a>(endpoints: impl Iterator<Item = &'a Endpoint>) -> Vec<Endpoint> {
    endpoints
        .filter(|endpoint| endpoint.serves_while_terminating())
        .cloned()
        .collect()
}

/// Hints hold only if every ready endpoint has some and one of them means us: otherwise somebody is just about to write them, or nobody
/// is near.
fn nearness(all: &[Endpoint], node: &str, zone: &str) -> Nearness {
    let ready = || all.iter().filter(|endpoint| endpoint.ready);
    let holds = |hints: fn(&Endpoint) -> &[String], us: &str| {
        !us.is_empty()
            && ready().all(|endpoint| !hints(endpoint).is_empty())
            && ready().any(|endpoint| hints(endpoint).iter().any(|hint| hint == us))
    };
    if holds(|endpoint| &endpoint.node_hints, node) {
        Nearness::SameNode
    } else if holds(|endpoint| &endpoint.zone_hints, zone) {
        Nearness::SameZone
    } else {
        Nearness::Anywhere
    }
}
