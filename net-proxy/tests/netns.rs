//! Real traffic through real rules: network namespaces stand for a node, its pods and a client outside. Root, `ip` and `nft` are needed;
//! without them each test says that it was skipped.

mod lab;

use std::collections::BTreeSet;
use std::io::ErrorKind;

use lab::{Lab, NODE_IP, OUTSIDE_IP, ask_again, ask_udp};
use orlop_net_proxy::NodePortAddresses;
use serde_json::json;

const VIP: &str = "10.96.0.10:80";

/// A Service of one TCP port, reached by its cluster IP.
fn plain() -> serde_json::Value {
    json!({"clusterIP": "10.96.0.10", "ports": [{"port": 80}]})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_ip_leads_to_all_endpoints() {
    let Some(lab) = Lab::new("spread") else {
        return;
    };
    let proxy = lab.start(|_| {});
    lab.pods_serve(&["a", "b"]);
    lab.service("web", plain()).await;
    lab.slice("web", json!([lab.ready("a"), lab.elsewhere("b")]))
        .await;
    lab.until("both endpoints answer", || {
        let answers = (0..12).filter_map(|_| lab.ask("c", VIP).ok());
        answers
            .map(|answer| answer.server)
            .collect::<BTreeSet<_>>()
            .len()
            == 2
    })
    .await;
    // A pod is seen as itself, somebody from outside as the node, so that the answer comes back this way.
    assert_eq!(
        lab.ask("c", VIP).unwrap().client.to_string(),
        Lab::pod_ip("c")
    );
    let seen = lab.ask("outside", VIP).unwrap();
    let pod = Lab::pod_ip(&seen.server);
    let node_side = format!("{}1", pod.strip_suffix('2').unwrap());
    assert_eq!(seen.client.to_string(), node_side);
    // The node itself is a client, too.
    lab.ask("node", VIP).unwrap();
    // A port that the Service doesn't have refuses.
    let refused = lab.ask("c", "10.96.0.10:81").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    // One endpoint goes.
    lab.slice("web", json!([lab.ready("a")])).await;
    lab.until("only one answers", || {
        (0..12).all(|_| lab.ask("c", VIP).is_ok_and(|answer| answer.server == "a"))
    })
    .await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_of_the_other_family_work_as_well() {
    let Some(lab) = Lab::new("six") else { return };
    let proxy = lab.start(|_| {});
    lab.pods_serve(&["a", "b"]);
    let spec = json!({"clusterIPs": ["fd00:96::10"], "type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]});
    lab.service("web", spec).await;
    let endpoints = json!([{"addresses": [Lab::pod_ip6("a")], "nodeName": "node"}, {"addresses": [Lab::pod_ip6("b")], "nodeName": "node"}]);
    lab.slice_of("web", "IPv6", endpoints).await;
    lab.until("both endpoints answer", || {
        let answers = (0..12).filter_map(|_| lab.ask("c", "[fd00:96::10]:80").ok());
        answers
            .map(|answer| answer.server)
            .collect::<BTreeSet<_>>()
            .len()
            == 2
    })
    .await;
    assert_eq!(
        lab.ask("c", "[fd00:96::10]:80").unwrap().client.to_string(),
        Lab::pod_ip6("c")
    );
    lab.ask("outside", "[2001:db8::1]:30080").unwrap();
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_port_is_reached_from_outside() {
    let Some(lab) = Lab::new("nodeport") else {
        return;
    };
    let proxy = lab.start(|_| {});
    lab.pods_serve(&["a"]);
    let spec = |policy: &str| {
        json!({"type": "NodePort", "clusterIP": "10.96.0.10", "externalTrafficPolicy": policy,
            "ports": [{"port": 80, "nodePort": 30080, "name": ""}, {"port": 80, "nodePort": 30080, "protocol": "UDP"}]})
    };
    let at = format!("{NODE_IP}:30080");
    lab.service("web", spec("Cluster")).await;
    lab.slice("web", json!([lab.ready("a")])).await;
    lab.until("it answers", || lab.ask("outside", &at).is_ok())
        .await;
    let seen = lab.ask("outside", &at).unwrap();
    assert_eq!(seen.client.to_string(), "10.200.1.1", "masqueraded");
    assert_eq!(ask_udp(&lab.udp("outside", &at)).unwrap().server, "a");
    // Only the node's main address has it.
    assert!(lab.ask("a", "10.200.1.1:30080").is_err());

    lab.service("web", spec("Local")).await;
    lab.until("the client's address is kept", || {
        lab.ask("outside", &at)
            .is_ok_and(|seen| seen.client.to_string() == OUTSIDE_IP)
    })
    .await;
    // Nobody here: another node may do better, so nothing is said. Pods of this node get through all the same.
    lab.slice("web", json!([lab.elsewhere("a")])).await;
    lab.until("it is dropped", || {
        lab.ask("outside", &at)
            .is_err_and(|error| error.kind() == ErrorKind::TimedOut)
    })
    .await;
    assert_eq!(lab.ask("c", &at).unwrap().server, "a");
    // Nobody anywhere.
    lab.slice("web", json!([])).await;
    lab.until("it is refused", || {
        lab.ask("outside", &at)
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    })
    .await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_reaches_itself_through_its_service() {
    let Some(lab) = Lab::new("hairpin") else {
        return;
    };
    let proxy = lab.start(|_| {});
    lab.pods_serve(&["a"]);
    lab.service("web", plain()).await;
    lab.slice("web", json!([lab.ready("a")])).await;
    lab.until("it answers", || lab.ask("a", VIP).is_ok()).await;
    assert_ne!(
        lab.ask("a", VIP).unwrap().client.to_string(),
        Lab::pod_ip("a")
    );
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_stays_with_its_endpoint_and_so_after_a_restart() {
    let Some(lab) = Lab::new("affinity") else {
        return;
    };
    let proxy = lab.start(|_| {});
    lab.pods_serve(&["a", "b"]);
    let spec = json!({"clusterIP": "10.96.0.10", "sessionAffinity": "ClientIP", "ports": [{"port": 80}],
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}});
    lab.service("web", spec).await;
    lab.slice("web", json!([lab.ready("a"), lab.ready("b")]))
        .await;
    lab.until("it answers", || lab.ask("c", VIP).is_ok()).await;
    let first = lab.ask("c", VIP).unwrap().server;
    let stays = || (0..10).all(|_| lab.ask("c", VIP).unwrap().server == first);
    assert!(stays());
    proxy.stop().await;
    let marker = json!({"clusterIP": "10.96.0.99", "ports": [{"port": 80}]});
    lab.service("marker", marker).await;
    let proxy = lab.start(|_| {});
    lab.until("the table is made anew", || {
        let table = lab.nft("list table ip kube-proxy");
        table.is_ok_and(|text| text.contains("10.96.0.99"))
    })
    .await;
    let table = lab.nft("list table ip kube-proxy").unwrap();
    assert!(table.contains("expires"), "{table}");
    assert!(stays());
    // The endpoint goes, and so does the loyalty to it.
    let other = if first == "a" { "b" } else { "a" };
    lab.slice("web", json!([lab.ready(other)])).await;
    lab.until("the other answers", || {
        lab.ask("c", VIP).is_ok_and(|answer| answer.server == other)
    })
    .await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_with_nobody_behind_refuses() {
    let Some(lab) = Lab::new("refuse") else {
        return;
    };
    let proxy = lab.start(|config| config.service_cidrs = vec!["10.96.0.0/16".parse().unwrap()]);
    // Names as long as can be, too.
    let long = json!({"type": "NodePort", "clusterIP": "10.96.0.12", "sessionAffinity": "ClientIP",
        "ports": [{"port": 80, "nodePort": 30080, "name": "p".repeat(63)}]});
    lab.service(&"s".repeat(63), long).await;
    lab.service("web", plain()).await;
    lab.until("it is refused", || {
        lab.ask("c", VIP)
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    })
    .await;
    let from_node = lab.ask("node", VIP).unwrap_err();
    assert_eq!(from_node.kind(), ErrorKind::ConnectionRefused);
    // An address that no Service has is silent.
    let nobody = lab.ask("c", "10.96.0.200:80").unwrap_err();
    assert_eq!(nobody.kind(), ErrorKind::TimedOut);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_balancers_address_lets_in_whom_it_shall() {
    let Some(lab) = Lab::new("ranges") else {
        return;
    };
    let proxy = lab.start(|_| {});
    lab.pods_serve(&["a"]);
    let spec = |range: &str| {
        json!({"type": "LoadBalancer", "clusterIP": "10.96.0.10", "externalIPs": ["198.51.100.2"],
            "loadBalancerSourceRanges": [range, "203.0.113.0/24", "203.0.113.128/25"], "ports": [{"port": 80}]})
    };
    let status = json!({"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}]}});
    lab.service_with_status("web", spec("192.0.2.0/24"), status.clone())
        .await;
    lab.slice("web", json!([lab.ready("a")])).await;
    lab.until("it answers", || {
        lab.ask("outside", "198.51.100.1:80").is_ok()
    })
    .await;
    lab.service_with_status("web", spec("198.18.0.0/15"), status)
        .await;
    lab.until("it drops", || {
        lab.ask("outside", "198.51.100.1:80")
            .is_err_and(|error| error.kind() == ErrorKind::TimedOut)
    })
    .await;
    lab.ask("outside", "198.51.100.2:80").unwrap();
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_udp_client_leaves_an_endpoint_that_is_gone() {
    let Some(lab) = Lab::new("udp") else { return };
    if std::process::Command::new("conntrack")
        .arg("--version")
        .output()
        .is_err()
    {
        println!("skipped: udp: conntrack is not there");
        return;
    }
    let proxy = lab.start(|_| {});
    lab.pods_serve(&["a", "b"]);
    let spec = json!({"clusterIP": "10.96.0.10", "ports": [{"port": 53, "protocol": "UDP"}]});
    // The client begins before there is anything.
    let socket = lab.udp("c", "10.96.0.10:53");
    assert!(ask_udp(&socket).is_err());
    lab.service("dns", spec).await;
    lab.slice("dns", json!([lab.ready("a")])).await;
    lab.until("the first answers", || {
        ask_udp(&socket).is_ok_and(|answer| answer.server == "a")
    })
    .await;
    lab.slice("dns", json!([lab.ready("b")])).await;
    lab.until("the second answers", || {
        ask_udp(&socket).is_ok_and(|answer| answer.server == "b")
    })
    .await;
    // A third one comes, and the client stays where it is.
    lab.slice("dns", json!([lab.ready("a"), lab.ready("b")]))
        .await;
    tokio::task::block_in_place(|| std::thread::sleep(std::time::Duration::from_millis(500)));
    assert!((0..5).all(|_| ask_udp(&socket).unwrap().server == "b"));
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_outlive_the_proxy_and_cleanup_leaves_nothing() {
    let Some(lab) = Lab::new("restart") else {
        return;
    };
    let proxy = lab.start(|_| {});
    lab.pods_serve(&["a", "b"]);
    lab.service("web", plain()).await;
    lab.service(
        "gone",
        json!({"clusterIP": "10.96.0.11", "ports": [{"port": 80}]}),
    )
    .await;
    lab.slice("web", json!([lab.ready("a")])).await;
    lab.until("it answers", || lab.ask("c", VIP).is_ok()).await;
    let mut connection = lab.connect("c", VIP).unwrap();
    ask_again(&mut connection).unwrap();

    proxy.stop().await;
    lab.ask("c", VIP).unwrap();
    let client = lab.api.client();
    let services = orlop_core::resource::Resource::namespaced("", "v1", "services", "Service");
    client
        .resource(&services)
        .namespace("ns")
        .delete("gone", Default::default())
        .await
        .unwrap();

    let proxy = lab.start(|_| {});
    lab.until("what an earlier run left is gone", || {
        ask_again(&mut connection).unwrap();
        lab.ask("c", VIP).unwrap();
        !lab.nft("list table ip kube-proxy")
            .unwrap()
            .contains("10.96.0.11")
    })
    .await;
    ask_again(&mut connection).unwrap();

    // Somebody throws everything away.
    lab.nft("flush ruleset").unwrap();
    lab.until("it is there again", || lab.ask("c", VIP).is_ok())
        .await;

    let mut proxy = proxy.stop().await;
    lab.nft("add table ip other").unwrap();
    proxy.cleanup().await.unwrap();
    assert_eq!(lab.nft("list tables").unwrap().trim(), "table ip other");
    proxy.cleanup().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_ports_are_where_they_are_wanted() {
    let Some(lab) = Lab::new("where") else { return };
    lab.pods_serve(&["a"]);
    let spec = json!({"type": "NodePort", "clusterIP": "10.96.0.10", "ports": [{"port": 80, "nodePort": 30080}]});
    lab.service("web", spec).await;
    lab.slice("web", json!([lab.ready("a")])).await;
    let (main, other) = (format!("{NODE_IP}:30080"), "10.200.3.1:30080");
    let pods: Vec<orlop_core::network::Cidr> = vec![
        "10.200.0.0/16".parse().unwrap(),
        "10.200.3.0/24".parse().unwrap(),
    ];
    for (wanted, at_main, at_other) in [
        (NodePortAddresses::Primary, true, false),
        (NodePortAddresses::All, true, true),
        (NodePortAddresses::Networks(pods.clone()), false, true),
    ] {
        let shown = format!("{wanted:?}");
        let proxy = lab.start(|config| {
            config.nodeport_addresses = wanted;
            // Several networks of pods, of which one is part of another.
            config.cluster_cidrs.clone_from(&pods);
            config.cluster_cidrs.push("10.201.0.0/16".parse().unwrap());
        });
        lab.until(&shown, || {
            lab.ask("c", &main).is_ok() == at_main && lab.ask("c", other).is_ok() == at_other
        })
        .await;
        assert_eq!(
            lab.ask("c", VIP).unwrap().client.to_string(),
            Lab::pod_ip("c")
        );
        proxy.stop().await;
    }
    // Everybody is seen as the node.
    let proxy = lab.start(|config| config.masquerade_all = true);
    lab.until("a pod is masqueraded", || {
        lab.ask("c", VIP)
            .is_ok_and(|seen| seen.client.to_string() == "10.200.1.1")
    })
    .await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_fails_is_followed_by_a_table_made_anew() {
    let Some(lab) = Lab::new("fails") else { return };
    let proxy = lab.start(|_| {});
    lab.pods_serve(&["a", "b"]);
    lab.service("web", plain()).await;
    lab.slice("web", json!([lab.ready("a")])).await;
    lab.until("it answers", || lab.ask("c", VIP).is_ok()).await;
    // The table is there, but not as it is known to be.
    lab.nft("flush set ip kube-proxy hairpin-connections")
        .unwrap();
    lab.slice("web", json!([lab.ready("b")])).await;
    lab.until("the other answers", || {
        lab.ask("c", VIP).is_ok_and(|answer| answer.server == "b")
    })
    .await;
    let set = lab
        .nft("list set ip kube-proxy hairpin-connections")
        .unwrap();
    assert!(set.contains(&Lab::pod_ip("b")), "{set}");
    // What is not used any more is gone after a while.
    lab.slice("web", json!([])).await;
    lab.until("its chain is deleted", || {
        !lab.nft("list table ip kube-proxy")
            .unwrap()
            .contains("ns/web/tcp")
    })
    .await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_protocol_is_spread_over_the_endpoints() {
    let Some(lab) = Lab::new("protocols") else {
        return;
    };
    let proxy = lab.start(|_| {});
    lab.pods_serve(&["a", "b"]);
    let spec = json!({"clusterIP": "10.96.0.10", "ports": [{"port": 80}, {"port": 80, "protocol": "UDP"}, {"port": 80, "protocol": "SCTP"}]});
    lab.service("web", spec).await;
    lab.slice("web", json!([lab.ready("a"), lab.ready("b")]))
        .await;
    lab.until("both endpoints answer by UDP", || {
        let answers = (0..12).filter_map(|_| ask_udp(&lab.udp("c", VIP)).ok());
        answers
            .map(|answer| answer.server)
            .collect::<BTreeSet<_>>()
            .len()
            == 2
    })
    .await;
    let answers: BTreeSet<String> = (0..20).map(|_| lab.ask("c", VIP).unwrap().server).collect();
    assert_eq!(answers.len(), 2);
    // Nobody here speaks SCTP, but its rules are there.
    let map = lab
        .nft("list map ip kube-proxy service-endpoints-sctp-0")
        .unwrap();
    assert!(
        map.contains(&Lab::pod_ip("a")) && map.contains(&Lab::pod_ip("b")),
        "{map}"
    );
    proxy.stop().await;
}
