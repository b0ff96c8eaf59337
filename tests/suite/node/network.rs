//! Pods have addresses and reach one another; Services lead to them; nothing is left behind.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::json;

use super::{pod, service, web};
use crate::support::{Machine, eventually, page, until_nothing_is_left};

#[test]
fn a_service_spreads_requests_over_pods_of_two_nodes() {
    let Some(machine) = Machine::start("a_service_spreads_requests_over_pods_of_two_nodes", 2, &[])
    else {
        return;
    };
    let kubectl = machine.kubectl();
    let mut deployment = web("web", 2);
    // One on each node: a port of the host is given once.
    deployment["spec"]["template"]["spec"]["containers"][0]["ports"] =
        json!([{"containerPort": 8080, "hostPort": 18090}]);
    kubectl.file("web.json", &deployment.to_string());
    kubectl.file(
        "service.json",
        &service("web", json!({"type": "NodePort"})).to_string(),
    );
    kubectl.ok("apply -f web.json -f service.json");
    kubectl.ok("rollout status deployment/web --timeout=80s");
    let pods = kubectl.json("get pods -l app=web");
    let names: BTreeSet<String> = pods["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names.len(), 2);

    // From outside, by a node's port, whichever node is asked.
    let object = kubectl.json("get service web");
    let port = u16::try_from(object["spec"]["ports"][0]["nodePort"].as_u64().unwrap()).unwrap();
    let nodes = kubectl.json("get nodes");
    for node in nodes["items"].as_array().unwrap() {
        let address = node["status"]["addresses"][0]["address"].as_str().unwrap();
        let address = SocketAddr::new(address.parse().unwrap(), port);
        let mut seen = BTreeSet::new();
        eventually("pages of both pods", || {
            seen.extend(page(address));
            (seen == names).then_some(())
        });
    }

    // From a pod, by the address of the Service; from a pod behind it, too, which may reach itself so.
    kubectl.file("client.json", &pod("client", "sleep 1000").to_string());
    kubectl.ok("apply -f client.json");
    kubectl.ok("wait --for=condition=Ready pod/client --timeout=60s");
    let ip = object["spec"]["clusterIP"].as_str().unwrap();
    let first = names.first().unwrap();
    for from in ["client", first] {
        let mut seen = BTreeSet::new();
        eventually("pages of both pods", || {
            let line = format!(
                "exec {from} -- sh -c 'printf \"GET / HTTP/1.0\\r\\n\\r\\n\" | nc -w 3 {ip} 80'"
            );
            let answer = kubectl.run(&line);
            let text = String::from_utf8_lossy(&answer.stdout).into_owned();
            seen.extend(text.lines().last().map(|line| line.trim().to_owned()));
            seen.retain(|line| names.contains(line));
            (seen == names).then_some(())
        });
    }

    // Nobody behind it: refused at once, not left waiting.
    kubectl.ok("scale deployment/web --replicas=0");
    let address = nodes["items"][0]["status"]["addresses"][0]["address"]
        .as_str()
        .unwrap();
    let address = SocketAddr::new(address.parse().unwrap(), port);
    eventually("a refusal", || {
        let refused =
            std::net::TcpStream::connect_timeout(&address, std::time::Duration::from_secs(1));
        matches!(refused, Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused)
            .then_some(())
    });

    kubectl.ok("delete -f web.json -f service.json -f client.json --wait=true");
    until_nothing_is_left(&machine, 2);
}

#[test]
fn host_network_and_host_ports() {
    let Some(machine) = Machine::start("host_network_and_host_ports", 1, &[]) else {
        return;
    };
    let kubectl = machine.kubectl();
    let node = kubectl.json("get node node-1");
    let ip = node["status"]["addresses"][0]["address"]
        .as_str()
        .unwrap()
        .to_owned();
    let script = "echo $MY_NAME > /www/index.html; exec httpd -f -p $MY_PORT -h /www";
    let environment = |port: &str| {
        json!([
            {"name": "MY_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "MY_PORT", "value": port},
        ])
    };
    let mut on_host = pod("on-host", script);
    on_host["spec"]["hostNetwork"] = json!(true);
    on_host["spec"]["containers"][0]["env"] = environment("18080");
    let mut by_port = pod("by-port", script);
    by_port["spec"]["containers"][0]["env"] = environment("8080");
    by_port["spec"]["containers"][0]["ports"] = json!([{"containerPort": 8080, "hostPort": 18081}]);
    kubectl.file("a.json", &on_host.to_string());
    kubectl.file("b.json", &by_port.to_string());
    kubectl.ok("apply -f a.json -f b.json");
    kubectl.ok("wait --for=condition=Ready pod/on-host pod/by-port --timeout=80s");
    let status = kubectl.json("get pod on-host");
    assert_eq!(status["status"]["podIP"], ip.as_str());
    for (port, name) in [(18080, "on-host"), (18081, "by-port")] {
        let address = SocketAddr::new(ip.parse().unwrap(), port);
        assert_eq!(eventually(name, || page(address)), name);
    }
    kubectl.ok("delete pod on-host by-port --wait=true");
    until_nothing_is_left(&machine, 1);
}
