//! Zones: when many nodes fail together, it is rarely the nodes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use orlop_core::env::Moment;
use orlop_core::queue::TokenBucket;

use super::{Health, NodeLifecycleOptions};

/// How a zone is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Most nodes are healthy.
    Normal,
    /// Too many are not.
    Partial,
    /// None is.
    Full,
}

/// The zone of a node, from its labels.
pub(super) fn of(node: &Node) -> String {
    let label = |name: &str| {
        node.metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(name))
            .cloned()
            .unwrap_or_default()
    };
    format!(
        "{}:{}",
        label("topology.kubernetes.io/region"),
        label("topology.kubernetes.io/zone")
    )
}

#[derive(Debug, Default)]
pub(super) struct Zones {
    zones: BTreeMap<String, Zone>,
}

#[derive(Debug)]
struct Zone {
    state: State,
    rate: f64,
    bucket: TokenBucket,
}

/// The state of a zone with so many nodes, of which so many are not ready.
fn state(nodes: usize, unhealthy: usize, threshold: f64) -> State {
    if nodes > 0 && unhealthy == nodes {
        State::Full
    } else if unhealthy > 2 && unhealthy as f64 / nodes as f64 >= threshold {
        State::Partial
    } else {
        State::Normal
    }
}

impl Zones {
    /// Takes note of all nodes' zones and health.
    pub(super) fn observe(
        &mut self,
        options: &NodeLifecycleOptions,
        nodes: &[(String, Health)],
        now: Moment,
    ) {
        let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for (zone, health) in nodes {
            let (all, unhealthy) = counts.entry(zone).or_default();
            *all += 1;
            *unhealthy += usize::from(*health != Health::Ready);
        }
        self.zones
            .retain(|zone, _| counts.contains_key(zone.as_str()));
        for (zone, (all, unhealthy)) in counts {
            let state = state(all, unhealthy, options.unhealthy_threshold);
            let rate = match state {
                State::Partial if all > options.large_zone => options.secondary_eviction_rate,
                State::Partial => 0.0,
                State::Normal | State::Full => options.eviction_rate,
            };
            match self.zones.get_mut(zone) {
                Some(known) => {
                    known.state = state;
                    if (known.rate - rate).abs() > f64::EPSILON {
                        known.rate = rate;
                        known.bucket = TokenBucket::new(rate, 1, now);
                    }
                }
                None => {
                    let bucket = TokenBucket::new(rate, 1, now);
                    self.zones.insert(
                        zone.to_owned(),
                        Zone {
                            state,
                            rate,
                            bucket,
                        },
                    );
                }
            }
        }
    }

    /// Whether no zone has a healthy node.
    pub(super) fn all_are_lost(&self) -> bool {
        !self.zones.is_empty() && self.zones.values().all(|zone| zone.state == State::Full)
    }

    /// Whether another node of a zone may be tainted now.
    pub(super) fn may_taint(&mut self, zone: &str, now: Moment) -> bool {
        self.zones
            .get_mut(zone)
            .is_some_and(|zone| zone.rate > 0.0 && zone.bucket.try_take(now))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_state_of_a_zone() {
        for (nodes, unhealthy, expected) in [
            (1, 1, State::Full),
            (2, 1, State::Normal),
            (4, 3, State::Partial),
            (10, 5, State::Normal),
            (10, 6, State::Partial),
            (10, 10, State::Full),
            (3, 2, State::Normal),
        ] {
            assert_eq!(
                state(nodes, unhealthy, 0.55),
                expected,
                "{unhealthy} of {nodes}"
            );
        }
    }

    #[test]
    fn a_zone_is_tainted_one_node_at_a_time_and_not_at_all_when_it_is_small_and_sick() {
        let options = NodeLifecycleOptions::default();
        let nodes = |unhealthy: usize| -> Vec<(String, Health)> {
            (0..10)
                .map(|n| {
                    (
                        "z".to_owned(),
                        if n < unhealthy {
                            Health::Unknown
                        } else {
                            Health::Ready
                        },
                    )
                })
                .collect()
        };
        let mut zones = Zones::default();
        let start = Moment::START;
        zones.observe(&options, &nodes(2), start);
        assert!(zones.may_taint("z", start));
        assert!(!zones.may_taint("z", start + Duration::from_secs(9)));
        assert!(zones.may_taint("z", start + Duration::from_secs(11)));
        zones.observe(&options, &nodes(7), start + Duration::from_secs(60));
        assert!(!zones.may_taint("z", start + Duration::from_secs(600)));
        assert!(!zones.all_are_lost());
        zones.observe(&options, &nodes(10), start);
        assert!(zones.all_are_lost());
    }
}
