//! This machine as the node: `orlop up --runtime cri=SOCKET`, in a network namespace that stands for the machine.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use serde_json::{Value, json};

use super::{pod, service, web};
use crate::support::{
    Engine, Kubectl, Namespace, Server, can_have_nodes, eventually, ip, page, run_to_end,
};

/// The address of the machine in its namespace.
const ADDRESS: [u8; 4] = [192, 0, 2, 1];

/// A namespace with an address and a default route, which leads nowhere.
fn machine(id: u32) -> Namespace {
    let machine = Namespace::new(&format!("orlop-host-{id}"));
    let name = machine.name();
    ip(&format!("-n {name} link add eth0 type veth peer name away"));
    ip(&format!("-n {name} addr add 192.0.2.1/24 dev eth0"));
    ip(&format!("-n {name} link set away up"));
    ip(&format!("-n {name} link set eth0 up"));
    ip(&format!("-n {name} route add default via 192.0.2.254"));
    machine
}

fn down(data: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orlop"));
    command.arg("down").arg("--data-dir").arg(data);
    command.output().unwrap()
}

/// Ends what a test that failed leaves on the machine.
struct InTheEnd(PathBuf);

impl Drop for InTheEnd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("orlop down: {:?}", down(&self.0));
        }
    }
}

fn tables() -> String {
    let output = Command::new("nft").args(["list", "tables"]).output();
    String::from_utf8_lossy(&output.unwrap().stdout).into_owned()
}

/// The cgroups of pods, by their uids.
fn cgroups(uids: &[String]) -> String {
    let mut find = Command::new("find");
    find.args(["/sys/fs/cgroup", "-name", "none"]);
    for uid in uids {
        find.args(["-o", "-name", &format!("*pod{uid}*")]);
    }
    String::from_utf8_lossy(&find.output().unwrap().stdout).into_owned()
}

fn mounts(data: &Path) -> Vec<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let plain = mounts.replace("\\040", " ");
    let data = data.canonicalize().unwrap().display().to_string();
    plain
        .lines()
        .filter(|line| line.contains(&data))
        .map(str::to_owned)
        .collect()
}

/// Where the machine answers for a Service.
fn node_port(service: &Value) -> SocketAddr {
    let port = service["spec"]["ports"][0]["nodePort"].as_u64().unwrap();
    SocketAddr::from((ADDRESS, u16::try_from(port).unwrap()))
}

fn uids(kubectl: &Kubectl<'_>) -> Vec<String> {
    let pods = kubectl.json("get pods");
    let items = pods["items"].as_array().unwrap().iter();
    items
        .map(|pod| pod["metadata"]["uid"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn this_machine_is_the_node() {
    if !can_have_nodes("this_machine_is_the_node") {
        return;
    }
    let machine = machine(std::process::id());
    machine.move_in();
    // With a blank, as people have them.
    let directory = tempfile::Builder::new().prefix("orlop test-").tempdir();
    let directory = Arc::new(directory.unwrap());
    let data = directory.path().join("data");
    let engine_directory = tempfile::Builder::new().prefix("orlop-engine-").tempdir();
    let engine_directory = engine_directory.unwrap();
    let engine = Engine::start(&machine, engine_directory.path());
    engine.set_pod_range("10.88.0.0/24", true);
    let _in_the_end = InTheEnd(data.clone());
    let runtime = format!("cri={}", engine.socket().display());
    let arguments = ["--runtime", &runtime];

    // A wrong name is told at once.
    let wrong = run_to_end(&data, &["--runtime", "cri=/nowhere/engine.sock"]);
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(
        !wrong.status.success() && said.contains("/nowhere/engine.sock"),
        "{said}"
    );

    let mut server = Server::start_in(&directory, &arguments);
    let kubectl = Kubectl::new(&server);
    kubectl.until("get nodes --no-headers", |out| out.contains(" Ready "));
    kubectl.until("get serviceaccounts default", |_| true);
    let node = kubectl.json("get nodes");
    // The addresses of pods are the engine's matter.
    assert_eq!(node["items"][0]["spec"]["podCIDR"], json!(null));
    assert_eq!(
        node["items"][0]["status"]["addresses"][0]["address"],
        "192.0.2.1"
    );

    kubectl.file("web.json", &web("web", 2).to_string());
    let object = service("web", json!({"type": "NodePort"}));
    kubectl.file("service.json", &object.to_string());
    kubectl.file("client.json", &pod("client", "sleep 1000").to_string());
    kubectl.ok("apply -f web.json -f service.json -f client.json");
    kubectl.ok("rollout status deployment/web --timeout=80s");
    kubectl.ok("wait --for=condition=Ready pod/client --timeout=80s");
    let pods = kubectl.ok("get pods -l app=web -o jsonpath={.items[*].metadata.name}");
    let names: BTreeSet<String> = pods.split(' ').map(str::to_owned).collect();
    assert_eq!(names.len(), 2);
    let object = kubectl.json("get service web");
    let outside = node_port(&object);
    let cluster = object["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let inside = SocketAddr::new(cluster.parse().unwrap(), 80);
    for address in [outside, inside] {
        let mut seen = BTreeSet::new();
        eventually("pages of both pods", || {
            seen.extend(page(address));
            (seen == names).then_some(())
        });
    }
    // From a pod; and the API server, which serves where pods reach it.
    let ask = |to: &str, port: u16| {
        format!(
            "exec client -- sh -c 'printf \"GET / HTTP/1.0\\r\\n\\r\\n\" | nc -w 3 {to} {port}'"
        )
    };
    let mut seen = BTreeSet::new();
    eventually("pages of both pods in a pod", || {
        let out = kubectl.run(&ask(&cluster, 80)).stdout;
        let out = String::from_utf8_lossy(&out).into_owned();
        seen.extend(out.lines().last().map(|line| line.trim().to_owned()));
        seen.retain(|line| names.contains(line));
        (seen == names).then_some(())
    });
    kubectl.ok(
        "exec client -- sh -c 'echo | nc -w 3 $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT'",
    );

    // kubectl reaches the kubelet, which is in the same process.
    let talk = "exec client -- sh -c 'echo out; exit 3'";
    let output = kubectl.run(talk);
    assert_eq!(
        (output.status.code(), &*output.stdout),
        (Some(3), &b"out\n"[..])
    );
    kubectl.file(
        "talker.json",
        &pod("talker", "echo hello; sleep 1000").to_string(),
    );
    kubectl.ok("apply -f talker.json");
    kubectl.until("logs talker", |out| out == "hello\n");
    let forward = kubectl
        .command("port-forward deployment/web :8080")
        .stdout(Stdio::piped())
        .spawn();
    let mut forward = forward.unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(forward.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    let port = line.strip_prefix("Forwarding from 127.0.0.1:");
    let port = port.and_then(|rest| rest.split(' ').next());
    let port: u16 = port.unwrap_or_else(|| panic!("{line}")).parse().unwrap();
    let forwarded = page(SocketAddr::from(([127, 0, 0, 1], port)));
    forward.kill().unwrap();
    forward.wait().unwrap();
    assert!(forwarded.is_some_and(|page| names.contains(&page)));

    // The program is killed: all goes on, and the next one takes it over. `orlop down` has to wait until nobody uses the directory.
    let refused = down(&data);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("stop it first"),
        "{said}"
    );
    let containers = "get pods -o jsonpath={.items[*].status.containerStatuses[*].containerID}";
    let restarts = "get pods -o jsonpath={.items[*].status.containerStatuses[*].restartCount}";
    let before = kubectl.ok(containers);
    server.signal("KILL");
    server.wait();
    assert!(page(outside).is_some_and(|page| names.contains(&page)));
    drop(server);
    let server = Server::start_in(&directory, &arguments);
    let kubectl = Kubectl::new(&server);
    kubectl.until("get nodes --no-headers", |out| out.contains(" Ready "));
    let all = uids(&kubectl);
    kubectl.ok("delete pod talker --wait=true");
    let lost = before
        .split(' ')
        .filter(|id| !kubectl.ok(containers).contains(id));
    assert_eq!(lost.count(), 1, "only the talker is gone");
    assert_eq!(kubectl.ok(restarts), "0 0 0");
    assert!(page(outside).is_some());

    // Deleted, nothing is left of pods.
    kubectl.ok("delete -f web.json -f service.json -f client.json --wait=true");
    eventually("nothing is left of pods", || {
        let left = (engine.left_of_pods(), mounts(&data), cgroups(&all));
        (left.0.is_empty() && left.1.is_empty() && left.2.is_empty()).then_some(())
    });

    // Not deleted, `orlop down` ends them.
    kubectl.ok("apply -f web.json -f service.json");
    kubectl.ok("rollout status deployment/web --timeout=80s");
    let all = uids(&kubectl);
    let outside = node_port(&kubectl.json("get service web"));
    eventually("a page", || page(outside));
    assert!(tables().contains("kube-proxy"));
    assert!(server.stop().success());
    assert_ne!(mounts(&data), Vec::<String>::new());
    assert!(
        page(outside).is_some(),
        "the pods do not serve while the program is away"
    );
    // With another engine they would be forgotten.
    let other = run_to_end(&data, &["--runtime", "cri=/another.sock"]);
    let said = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(said.contains("`orlop down`"), "{said}");
    for (round, wanted) in [(1, "no node any more"), (2, "no real nodes")] {
        let ended = down(&data);
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        assert!(
            ended.status.success() && said.contains(wanted),
            "{round}: {ended:?}"
        );
    }
    assert_eq!(engine.left_of_pods(), Vec::<String>::new());
    assert_eq!(mounts(&data), Vec::<String>::new());
    assert_eq!(cgroups(&all), "");
    // What else is there the engine's plug-ins wrote.
    assert!(!tables().contains("kube-proxy"), "{}", tables());
    assert!(!data.join("nodes/host").exists());
}
