use std::collections::BTreeMap;
use std::time::Duration;

use orlop_core::env::Moment;
use orlop_core::object::ObjectKey;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::model::Kernel;
use super::ruleset::{KEEP_STALE, Ruleset};
use super::table::{NodePorts, Settings};
use super::*;
use crate::view::tests::{service, slice};
use crate::view::{PortView, Tracker};

fn settings() -> Settings {
    Settings {
        family: Family::V4,
        masquerade_mark: 1 << 14,
        masquerade_all: false,
        cluster_cidrs: vec!["10.200.0.0/16".parse().unwrap()],
        service_cidrs: Vec::new(),
        node_ports: NodePorts::At(vec!["192.0.2.1".parse().unwrap()]),
        node_ip: Some("192.0.2.1".parse().unwrap()),
    }
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("ns", name)
}

/// The ports of a Service with these endpoints behind it, and with a load balancer's address if it is of that type.
fn ports(name: &str, spec: &Value, endpoints: &Value) -> Vec<PortView> {
    let mut tracker = Tracker::new("here");
    let mut object = (*service(name, spec.clone())).clone();
    if spec["type"] == "LoadBalancer" {
        let status = json!({"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}]}});
        object.status = serde_json::from_value(status).unwrap();
    }
    tracker.set_service(&std::sync::Arc::new(object));
    let all =
        json!([{"name": "p80", "port": 8080}, {"name": "p53", "protocol": "UDP", "port": 53}]);
    tracker.set_slice(&slice("1", name, all, endpoints.clone()));
    tracker.view(&key(name), Family::V4)
}

/// The commands that the ports of one Service add to an empty table, without what is there before.
fn commands(spec: &Value, endpoints: &Value) -> String {
    let (mut ruleset, _) = Ruleset::new(settings(), &BTreeMap::new(), Moment::START);
    let services = BTreeMap::from([(key("svc1"), ports("svc1", spec, endpoints))]);
    let script = ruleset.change(&services, false, Moment::START);
    script.render(Family::V4).replace(" ip kube-proxy", "")
}

#[test]
fn a_cluster_ip_becomes_a_chain_and_numbered_endpoints() {
    let spec = json!({"clusterIP": "172.30.0.41", "ports": [{"name": "p80", "port": 80}]});
    let endpoints = json!([{"addresses": ["10.180.0.1"]}, {"addresses": ["10.180.0.2"]}]);
    assert_eq!(
        commands(&spec, &endpoints),
        "\
add map service-endpoints-tcp-0 { typeof numgen random mod 1 : ip daddr . tcp dport ; }
add chain service-AFD2ON2L-ns/svc1/tcp/p80
add element cluster-ips { 172.30.0.41 }
add element service-ips { 172.30.0.41 . tcp . 80 : goto service-AFD2ON2L-ns/svc1/tcp/p80 }
add element hairpin-connections { 10.180.0.1 . 10.180.0.1, 10.180.0.2 . 10.180.0.2 }
add element service-endpoints-tcp-0 { 0 : 10.180.0.1 . 8080, 1 : 10.180.0.2 . 8080 }
add rule service-AFD2ON2L-ns/svc1/tcp/p80 ip daddr 172.30.0.41 tcp dport 80 ip saddr != 10.200.0.0/16 jump mark-for-masquerade
add rule service-AFD2ON2L-ns/svc1/tcp/p80 meta l4proto tcp dnat ip to numgen random mod 2 offset 0 map @service-endpoints-tcp-0
"
    );
}

#[test]
fn nobody_behind_is_an_element() {
    let spec = json!({"type": "NodePort", "clusterIP": "172.30.0.41", "ports": [{"name": "p80", "port": 80, "nodePort": 30080}]});
    assert_eq!(
        commands(&spec, &json!([])),
        "\
add element cluster-ips { 172.30.0.41 }
add element no-endpoint-services { 172.30.0.41 . tcp . 80 comment \"ns/svc1:p80\" : goto reject-chain }
add element no-endpoint-nodeports { tcp . 30080 comment \"ns/svc1:p80\" : goto reject-chain }
"
    );
}

#[test]
fn a_local_load_balancer_with_affinity_has_all_kinds_of_chains() {
    let spec = json!({"type": "LoadBalancer", "clusterIP": "172.30.0.41", "externalTrafficPolicy": "Local",
        "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 30}},
        "loadBalancerSourceRanges": ["192.0.2.0/24"], "ports": [{"name": "p80", "port": 80, "nodePort": 30080}]});
    let endpoints =
        json!([{"addresses": ["10.180.0.1"]}, {"addresses": ["10.180.0.2"], "nodeName": "here"}]);
    assert_eq!(
        commands(&spec, &endpoints).replace("ns/svc1/tcp/p80", "X"),
        include_str!("local_load_balancer.nft")
    );
}

/// A Service's state: whether it is there, and how.
#[derive(Clone, Debug)]
struct State {
    spec: Value,
    endpoints: Value,
}

fn state(index: usize) -> impl Strategy<Value = Option<State>> {
    let kinds = (
        0usize..3,
        any::<bool>(),
        any::<bool>(),
        prop::option::of(0u32..2),
    );
    // Addresses and ports that several Services may claim.
    let claims = (0u16..3, prop::option::of(0u8..3), 0usize..3);
    let endpoints = prop::collection::vec((0u8..12, any::<bool>(), 0u8..4), 0..8);
    prop::option::weighted(0.85, (kinds, claims, endpoints)).prop_map(move |state| {
        let ((kind, inside, outside, affinity), (port, external, ranges), endpoints) = state?;
        let policy = |local| if local { "Local" } else { "Cluster" };
        let word = ["ClusterIP", "NodePort", "LoadBalancer"][kind];
        let mut spec = json!({
            "type": word,
            "clusterIP": format!("172.30.0.{}", index + 1),
            "internalTrafficPolicy": policy(inside), "externalTrafficPolicy": policy(outside),
            "ports": [{"name": "p80", "port": 80}, {"name": "p53", "port": 53, "protocol": "UDP"}],
        });
        if kind > 0 {
            spec["ports"][0]["nodePort"] = (30000 + port).into();
        }
        if let Some(external) = external {
            spec["externalIPs"] = json!([format!("203.0.113.{external}")]);
        }
        if let Some(affinity) = affinity {
            spec["sessionAffinity"] = "ClientIP".into();
            spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": 10 + affinity}});
        }
        spec["loadBalancerSourceRanges"] = [json!([]), json!(["10.0.0.0/8", "10.1.0.0/16"]), json!(["0.0.0.0/0"])][ranges].clone();
        let endpoints = endpoints.into_iter().map(|(address, local, condition)| {
            let conditions = [
                json!({}),
                json!({"ready": true}),
                json!({"ready": false, "serving": false}),
                json!({"ready": false, "serving": true, "terminating": true}),
            ];
            json!({"addresses": [format!("10.200.0.{address}")], "nodeName": if local { "here" } else { "there" },
                "conditions": conditions[condition as usize]})
        });
        Some(State { spec, endpoints: endpoints.collect::<Vec<_>>().into() })
    })
}

#[derive(Clone, Debug)]
enum Step {
    /// Services change, all told or only these.
    Change(Vec<(usize, Option<State>)>, bool),
    /// Time passes, and what is not used is deleted.
    Upkeep(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let one = (0usize..5).prop_flat_map(|index| (Just(index), state(index)));
    prop_oneof![
        4 => (prop::collection::vec(one, 1..4), prop::bool::weighted(0.2)).prop_map(|(changes, all)| Step::Change(changes, all)),
        1 => (0u64..1500).prop_map(Step::Upkeep),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn small_changes_end_where_a_fresh_start_does(steps in prop::collection::vec(step(), 1..14)) {
        let mut kernel = Kernel::default();
        let mut now = Moment::START;
        let mut wanted: BTreeMap<ObjectKey, Vec<PortView>> = BTreeMap::new();
        let (mut ruleset, script) = Ruleset::new(settings(), &wanted, now);
        kernel.run(&script);
        for step in steps {
            match step {
                Step::Upkeep(milliseconds) => {
                    now = now + Duration::from_millis(milliseconds);
                    kernel.run(&Script { delete_chains: ruleset.take_stale(now), ..Script::default() });
                }
                Step::Change(changes, all) => {
                    let mut told = BTreeMap::new();
                    for (index, state) in changes {
                        let name = format!("s{index}");
                        let views = state.map(|state| ports(&name, &state.spec, &state.endpoints));
                        let views = views.unwrap_or_default();
                        told.insert(key(&name), views.clone());
                        wanted.insert(key(&name), views);
                    }
                    wanted.retain(|_, views| !views.is_empty());
                    let script = ruleset.change(if all { &wanted } else { &told }, all, now);
                    kernel.run(&script);
                    // Told again, there is nothing to do.
                    prop_assert!(ruleset.change(&wanted, true, now).is_empty());
                }
            }
        }
        let mut fresh = Kernel::default();
        fresh.run(&Ruleset::new(settings(), &wanted, now).1);
        prop_assert_eq!(kernel.shows(), fresh.shows());
        // And nothing is left in the end.
        kernel.run(&ruleset.change(&BTreeMap::new(), true, now));
        kernel.run(&Script { delete_chains: ruleset.take_stale(now + KEEP_STALE), ..Script::default() });
        let mut empty = Kernel::default();
        empty.run(&Ruleset::new(settings(), &BTreeMap::new(), now).1);
        prop_assert_eq!(kernel.shows(), empty.shows());
        prop_assert_eq!(kernel.idle_chains(), 0);
    }
}

#[test]
fn versions_are_read() {
    assert_eq!(
        version("nftables v1.0.6 (Lester Gooch #5)"),
        Some((1, 0, 6))
    );
    assert_eq!(version("nftables v1.1 (x)"), Some((1, 1, 0)));
    assert_eq!(version("nothing"), None);
}

#[test]
fn a_name_that_no_rule_can_have_has_none() {
    for port in ["a\"b", "a;b", "a\nflush ruleset", "a b", "{"] {
        let spec = json!({"clusterIP": "172.30.0.41", "ports": [{"name": port, "port": 80}]});
        assert_eq!(commands(&spec, &json!([])), "");
    }
}

#[tokio::test]
async fn without_nft_nothing_works_and_that_is_said() {
    let mut config = ProxyConfig::new("here");
    for (program, wanted) in [
        ("/nowhere/nft", "needs the program nft 1.0.1 or later"),
        ("echo", "needs nft 1.0.1 or later, found: echo"),
    ] {
        config.nft = program.to_owned();
        let mut backend = NftBackend::new(Env::tokio(), &config, ProxyMetrics::default());
        let error = backend.probe(&Family::ALL).await.unwrap_err();
        assert!(
            matches!(&error, Error::Unavailable(said) if said.contains(wanted)),
            "{error}"
        );
    }
}
