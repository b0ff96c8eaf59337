//! Which slices to make, change and delete, with as few writes as possible.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use orlop_core::object::ObjectKey;

/// The ports of a slice, sorted: endpoints with the same ones share slices.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ports(Vec<(String, i32, String, Option<String>)>);

impl Ports {
    pub(super) fn new(ports: Vec<EndpointPort>) -> Self {
        let mut ports: Vec<_> = ports
            .into_iter()
            .map(|port| {
                let protocol = port.protocol.unwrap_or_else(|| "TCP".to_owned());
                (
                    port.name.unwrap_or_default(),
                    port.port.unwrap_or(0),
                    protocol,
                    port.app_protocol,
                )
            })
            .collect();
        ports.sort();
        Self(ports)
    }

    pub(super) fn into_ports(self) -> Option<Vec<EndpointPort>> {
        let port = |(name, port, protocol, app_protocol)| EndpointPort {
            name: Some(name),
            port: Some(port),
            protocol: Some(protocol),
            app_protocol,
        };
        Some(self.0.into_iter().map(port).collect::<Vec<_>>()).filter(|ports| !ports.is_empty())
    }
}

/// A slice that is there.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) key: ObjectKey,
    pub(super) slice: Arc<EndpointSlice>,
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) create: Vec<(Ports, Vec<Endpoint>)>,
    pub(super) update: Vec<(Known, Vec<Endpoint>)>,
    pub(super) delete: Vec<ObjectKey>,
}

/// What an endpoint is, whatever its conditions: whose, and where.
fn identity(endpoint: &Endpoint) -> (Vec<String>, Option<String>) {
    (
        endpoint.addresses.clone(),
        endpoint
            .target_ref
            .as_ref()
            .and_then(|target| target.uid.clone()),
    )
}

/// Plans one address type of a Service.
///
/// An endpoint stays in its slice. New ones go into slices that have to be written anyway, then where the most of them fit into one slice, then
/// into slices of their own. Slices that end empty are deleted, but one stays if nothing else does: it says that there is nothing.
pub(super) fn plan(
    existing: &[Known],
    mut wanted: BTreeMap<Ports, Vec<Endpoint>>,
    labels: &BTreeMap<String, String>,
    max: usize,
) -> Plan {
    let mut groups: BTreeMap<Ports, Vec<Known>> = BTreeMap::new();
    for known in existing {
        let ports = Ports::new(known.slice.ports.clone().unwrap_or_default());
        groups.entry(ports).or_default().push(known.clone());
    }
    if wanted.is_empty() {
        // Keep a slice to say so: one that is empty already, or any.
        let keep = groups
            .iter()
            .find(|(_, slices)| {
                slices
                    .iter()
                    .any(|known| known.slice.endpoints.iter().flatten().next().is_none())
            })
            .or(groups.iter().next())
            .map(|(ports, _)| ports.clone());
        wanted.insert(keep.unwrap_or_default(), Vec::new());
    }
    let mut result = Plan::default();
    for (ports, endpoints) in wanted {
        let slices = groups.remove(&ports).unwrap_or_default();
        plan_group(&mut result, ports, slices, endpoints, labels, max);
    }
    result
        .delete
        .extend(groups.into_values().flatten().map(|known| known.key));
    result
}

fn plan_group(
    result: &mut Plan,
    ports: Ports,
    slices: Vec<Known>,
    endpoints: Vec<Endpoint>,
    labels: &BTreeMap<String, String>,
    max: usize,
) {
    let none_wanted = endpoints.is_empty();
    let mut missing: BTreeMap<_, Endpoint> = endpoints
        .into_iter()
        .map(|endpoint| (identity(&endpoint), endpoint))
        .collect();
    struct Draft {
        known: Known,
        endpoints: Vec<Endpoint>,
        changed: bool,
    }
    let mut drafts: Vec<Draft> = slices
        .into_iter()
        .map(|known| {
            let before: Vec<Endpoint> = known.slice.endpoints.clone().unwrap_or_default();
            let kept: Vec<Endpoint> = before
                .iter()
                .filter_map(|endpoint| missing.remove(&identity(endpoint)))
                .collect();
            let changed = kept != before || known.slice.metadata.labels.as_ref() != Some(labels);
            Draft {
                known,
                endpoints: kept,
                changed,
            }
        })
        .collect();
    let mut rest: Vec<Endpoint> = missing.into_values().collect();
    for draft in drafts
        .iter_mut()
        .filter(|draft| draft.changed && !draft.endpoints.is_empty())
    {
        let room = max.saturating_sub(draft.endpoints.len()).min(rest.len());
        draft.endpoints.extend(rest.drain(..room));
    }
    // What is left over after whole slices goes where it fits, the fullest first: an update is cheaper than another slice.
    if !rest.len().is_multiple_of(max) {
        let count = rest.len() % max;
        let fullest = drafts
            .iter_mut()
            .filter(|draft| draft.endpoints.len() + count <= max)
            .max_by_key(|draft| draft.endpoints.len());
        if let Some(draft) = fullest {
            draft.endpoints.extend(rest.drain(..count));
            draft.changed = true;
        }
    }
    while !rest.is_empty() {
        let count = rest.len().min(max);
        let part: Vec<Endpoint> = rest.drain(..count).collect();
        match drafts.iter_mut().find(|draft| draft.endpoints.is_empty()) {
            Some(empty) => {
                empty.endpoints = part;
                empty.changed = true;
            }
            None => result.create.push((ports.clone(), part)),
        }
    }
    let mut keep_empty = none_wanted;
    if none_wanted && drafts.is_empty() {
        result.create.push((ports, Vec::new()));
        return;
    }
    for draft in drafts {
        if draft.endpoints.is_empty() && !std::mem::take(&mut keep_empty) {
            result.delete.push(draft.known.key);
        } else if draft.changed {
            result.update.push((draft.known, draft.endpoints));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn endpoint(n: usize) -> Endpoint {
        Endpoint {
            addresses: vec![format!("10.0.{}.{}", n / 256, n % 256)],
            ..Endpoint::default()
        }
    }

    fn ports() -> Ports {
        Ports::new(vec![EndpointPort {
            port: Some(80),
            ..EndpointPort::default()
        }])
    }

    fn known(name: &str, endpoints: Vec<Endpoint>) -> Known {
        let slice = EndpointSlice {
            endpoints: Some(endpoints),
            ports: ports().into_ports(),
            metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                labels: Some(BTreeMap::new()),
                ..Default::default()
            },
            ..EndpointSlice::default()
        };
        Known {
            key: ObjectKey::new("n", name),
            slice: Arc::new(slice),
        }
    }

    fn wanted(all: impl IntoIterator<Item = usize>) -> BTreeMap<Ports, Vec<Endpoint>> {
        BTreeMap::from([(ports(), all.into_iter().map(endpoint).collect())])
    }

    #[test]
    fn nothing_to_do_is_nothing_done() {
        let there = [known("a", (0..5).map(endpoint).collect())];
        let plan = plan(&there, wanted(0..5), &BTreeMap::new(), 10);
        assert!(plan.create.is_empty() && plan.update.is_empty() && plan.delete.is_empty());
    }

    #[test]
    fn new_endpoints_go_where_they_cost_least() {
        let there = [
            known("a", (0..9).map(endpoint).collect()),
            known("b", (20..25).map(endpoint).collect()),
        ];
        let all = (0..9).chain(20..25).chain(30..33);
        let plan = plan(&there, wanted(all), &BTreeMap::new(), 10);
        assert!(plan.create.is_empty() && plan.delete.is_empty());
        assert_eq!(plan.update.len(), 1);
        assert_eq!(&*plan.update[0].0.key.name, "b");
    }

    #[test]
    fn one_empty_slice_says_that_there_is_nothing() {
        let first = plan(&[], BTreeMap::new(), &BTreeMap::new(), 10);
        assert_eq!(first.create.len(), 1);
        let there = [known("a", vec![endpoint(1)]), known("b", vec![endpoint(2)])];
        let emptied = plan(&there, BTreeMap::new(), &BTreeMap::new(), 10);
        assert_eq!((emptied.update.len(), emptied.delete.len()), (1, 1));
        assert!(emptied.update[0].1.is_empty());
    }

    proptest! {
        /// Whatever was there, afterwards every wanted endpoint is in exactly one slice, and no slice is too full.
        #[test]
        fn the_plan_leads_to_what_is_wanted(
            slices in proptest::collection::vec(proptest::collection::btree_set(0..40usize, 0..8), 0..6),
            want in proptest::collection::btree_set(0..40usize, 0..40),
        ) {
            let mut taken = std::collections::BTreeSet::new();
            let there: Vec<Known> = slices
                .iter()
                .enumerate()
                .map(|(n, set)| known(&format!("s{n}"), set.iter().filter(|e| taken.insert(**e)).map(|e| endpoint(*e)).collect()))
                .collect();
            let plan = plan(&there, wanted(want.iter().copied()), &BTreeMap::new(), 8);
            let mut after: BTreeMap<ObjectKey, Vec<Endpoint>> =
                there.iter().map(|k| (k.key.clone(), k.slice.endpoints.clone().unwrap())).collect();
            for (known, endpoints) in plan.update {
                after.insert(known.key, endpoints);
            }
            for key in plan.delete {
                after.remove(&key);
            }
            let all: Vec<Vec<Endpoint>> = after.into_values().chain(plan.create.into_iter().map(|(_, e)| e)).collect();
            prop_assert!(all.iter().all(|slice| slice.len() <= 8));
            prop_assert!(!all.is_empty());
            let mut have: Vec<String> = all.iter().flatten().map(|e| e.addresses[0].clone()).collect();
            let mut should: Vec<String> = want.iter().map(|n| endpoint(*n).addresses[0].clone()).collect();
            have.sort();
            should.sort();
            prop_assert_eq!(have, should);
        }
    }
}
