//! The program and the engines are killed; the pods go on.

use serde_json::Value;

use super::{pod, service, web};
use crate::support::{Kubectl, Machine, eventually, page, until_nothing_is_left};

/// The ids of the containers of all pods, and how often they were started again.
fn containers(kubectl: &Kubectl<'_>) -> Vec<(String, u64)> {
    let pods = kubectl.json("get pods -l app=web");
    let statuses = pods["items"].as_array().unwrap().iter().flat_map(|pod| {
        pod["status"]["containerStatuses"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    });
    let mut all: Vec<_> = statuses
        .map(|status| {
            (
                status["containerID"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned(),
                status["restartCount"].as_u64().unwrap(),
            )
        })
        .collect();
    all.sort();
    all
}

fn kill(pid: &str) {
    let mut kill = std::process::Command::new("kill");
    assert!(kill.args(["-KILL", pid.trim()]).status().unwrap().success());
}

/// Waits for another engine than this.
fn new_engine(machine: &Machine, old: &str) -> String {
    eventually("another engine", || {
        let pid = machine.engine(1);
        (!pid.is_empty() && pid != old).then_some(pid)
    })
}

#[test]
fn containers_outlive_the_program_and_the_engine() {
    let Some(mut machine) = Machine::start("containers_outlive_the_program_and_the_engine", 1, &[])
    else {
        return;
    };
    let kubectl = machine.kubectl();
    kubectl.file("web.json", &web("web", 2).to_string());
    kubectl.file(
        "service.json",
        &service("web", serde_json::json!({"type": "NodePort"})).to_string(),
    );
    kubectl.file("doomed.json", &pod("doomed", "sleep 1000").to_string());
    kubectl.ok("apply -f web.json -f service.json -f doomed.json");
    kubectl.ok("rollout status deployment/web --timeout=80s");
    kubectl.ok("wait --for=condition=Ready pod/doomed --timeout=80s");
    let before = containers(&kubectl);
    assert_eq!(before.len(), 2);
    let node = kubectl.json("get node node-1");
    let ip = node["status"]["addresses"][0]["address"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let object = kubectl.json("get service web");
    let port = object["spec"]["ports"][0]["nodePort"].as_u64().unwrap();
    let address = std::net::SocketAddr::new(ip, u16::try_from(port).unwrap());
    assert!(eventually("a page", || page(address)).starts_with("web-"));
    // Deleted, but with a long grace: it is not gone when the program is killed.
    kubectl.ok("delete pod doomed --grace-period=60 --wait=false");

    machine.kill();
    assert!(
        page(address).is_some(),
        "the pods do not serve while the program is away"
    );
    machine.start_again();

    let kubectl = machine.kubectl();
    // `sh -c "sleep"` does not heed SIGTERM as the first process, so this needs the kill at the end of a grace; force saves the wait.
    kubectl.ok("delete pod doomed --grace-period=1 --ignore-not-found --wait=true");
    kubectl.until("get nodes --no-headers", |out| out.contains(" Ready "));
    assert_eq!(containers(&kubectl), before);
    assert!(page(address).is_some());

    // The engine.
    let pid = machine.engine(1);
    kill(&pid);
    assert!(
        page(address).is_some(),
        "the pods do not serve while the engine is away"
    );
    // The program, which is still there, starts it again; and once more when it was not the one that started it.
    let second = new_engine(&machine, &pid);
    machine.kill();
    machine.start_again();
    assert_eq!(machine.engine(1), second);
    kill(&second);
    new_engine(&machine, &second);
    let kubectl = machine.kubectl();
    kubectl.until("get nodes --no-headers", |out| out.contains(" Ready "));
    kubectl.file("later.json", &pod("later", "sleep 1000").to_string());
    kubectl.ok("apply -f later.json");
    kubectl.ok("wait --for=condition=Ready pod/later --timeout=80s");
    assert_eq!(containers(&kubectl), before);
    let events: Value = kubectl.json("get events");
    let killed = events["items"].as_array().unwrap().iter().any(|event| {
        event["reason"] == "Killing"
            && event["involvedObject"]["name"]
                .as_str()
                .is_some_and(|name| name.starts_with("web-"))
    });
    assert!(!killed);

    kubectl.ok("delete -f web.json -f service.json -f later.json --wait=true");
    until_nothing_is_left(&machine, 1);
}
