//! A cluster with real nodes: network namespaces, each with a containerd, a kubelet and a proxy.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::{Kubectl, Server, eventually, images};

#[path = "../../../runtime-cri/tests/support/preflight.rs"]
mod preflight;

/// The image that pods of these tests are made of.
pub(crate) const IMAGE: &str = "orlop.test/busybox:1";

/// A running `orlop up` with real nodes. When it is dropped, nothing is left of it.
pub(crate) struct Machine {
    /// `None` only while it is being started again.
    server: Option<Server>,
    directory: Arc<TempDir>,
    arguments: Vec<String>,
}

/// Why there can be no real nodes here.
fn missing() -> Option<String> {
    let root = Command::new("id").arg("-u").output().ok()?;
    if root.stdout != b"0\n" {
        return Some("not run as root".to_owned());
    }
    for program in ["containerd", "ctr", "runc", "ip", "nft", "kubectl"] {
        let path = std::env::var_os("PATH").unwrap_or_default();
        if !std::env::split_paths(&path).any(|directory| directory.join(program).is_file()) {
            return Some(format!("no {program} on PATH"));
        }
    }
    let plugins = ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"];
    if !plugins
        .iter()
        .any(|directory| Path::new(directory).join("bridge").is_file())
    {
        return Some("no network plug-ins".to_owned());
    }
    match images::busybox() {
        Some(busybox) => preflight::refusal(&std::fs::read(busybox).unwrap()),
        None => Some("no statically linked busybox".to_owned()),
    }
}

/// Whether there can be real nodes here. Where there can be none, says which test is skipped.
pub(crate) fn can_have_nodes(test: &str) -> bool {
    let why = missing();
    if let Some(why) = &why {
        println!("SKIPPED {test}: {why}");
    }
    why.is_none()
}

impl Machine {
    /// Starts a cluster with so many nodes, and waits until they are ready. Where there can be none, says which test is skipped.
    pub(crate) fn start(test: &str, nodes: usize, arguments: &[&str]) -> Option<Self> {
        if !can_have_nodes(test) {
            return None;
        }
        let directory = tempfile::Builder::new()
            .prefix("orlop-test-")
            .tempdir()
            .unwrap();
        let archive = directory.path().join("busybox.tar");
        images::write_busybox(&images::busybox().unwrap(), IMAGE, &archive);
        let count = nodes.to_string();
        let archive = archive.display().to_string();
        let all = [
            "--runtime",
            "containerd",
            "--nodes",
            &count,
            "--images",
            &archive,
        ];
        let all = all
            .iter()
            .chain(arguments)
            .map(|word| (*word).to_owned())
            .collect();
        let mut machine = Self {
            server: None,
            directory: Arc::new(directory),
            arguments: all,
        };
        machine.start_again();
        let wanted = nodes;
        machine.kubectl().until("get nodes --no-headers", |out| {
            let ready = |line: &&str| line.split_whitespace().nth(1) == Some("Ready");
            out.lines()
                .filter(|line| line.starts_with("node-"))
                .filter(ready)
                .count()
                == wanted
        });
        machine
            .kubectl()
            .until("get serviceaccounts default", |_| true);
        Some(machine)
    }

    /// Starts the program on what is there.
    pub(crate) fn start_again(&mut self) {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        self.server = Some(Server::start_in(&self.directory, &arguments));
    }

    /// Asks the program to stop, and waits until it has. What runs on the nodes goes on.
    pub(crate) fn stop(&mut self) {
        assert!(self.server.take().unwrap().stop().success());
    }

    /// How many nodes there are to be from the next start on.
    pub(crate) fn set_nodes(&mut self, nodes: usize) {
        let flag = self.arguments.iter().position(|word| word == "--nodes");
        self.arguments[flag.unwrap() + 1] = nodes.to_string();
    }

    /// The network namespaces of the pods of a node.
    pub(crate) fn pod_namespaces(&self, node: usize) -> Vec<String> {
        let containers = self.ctr(node, &["containers", "list", "--quiet"]);
        let mut found: Vec<String> = containers
            .lines()
            .flat_map(|id| {
                let info = self.ctr(node, &["containers", "info", id]);
                let texts: Vec<String> = info.split('"').map(str::to_owned).collect();
                texts
                    .into_iter()
                    .filter(|text| text.contains("/netns/cni-"))
            })
            .collect();
        found.sort();
        found.dedup();
        found
    }

    /// Kills the program, and it alone.
    pub(crate) fn kill(&mut self) {
        let mut server = self.server.take().unwrap();
        server.signal("KILL");
        server.wait();
    }

    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    pub(crate) fn kubectl(&self) -> Kubectl<'_> {
        Kubectl::new(self.server())
    }

    /// What the cluster wrote down of its names and addresses.
    fn layout(&self) -> serde_json::Value {
        let path = self.directory.path().join("data/nodes/network.json");
        let text = std::fs::read_to_string(path).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// The id by which the cluster's things on this machine are named.
    pub(crate) fn id(&self) -> String {
        self.layout()["id"].as_str().unwrap().to_owned()
    }

    /// The third number of the addresses of nodes.
    pub(crate) fn network(&self) -> u64 {
        self.layout()["network"].as_u64().unwrap()
    }

    /// The network namespace of a node, by its number from one.
    pub(crate) fn namespace(&self, node: usize) -> String {
        format!("orlop-{}-{node}", self.id())
    }

    fn run_directory(&self, node: usize) -> PathBuf {
        PathBuf::from(format!("/run/orlop/{}/node-{node}", self.id()))
    }

    /// What the engine of a node answers.
    pub(crate) fn ctr(&self, node: usize, arguments: &[&str]) -> String {
        let socket = self.run_directory(node).join("containerd.sock");
        let output = Command::new("ctr")
            .arg("--address")
            .arg(socket)
            .args(["--namespace", "k8s.io"])
            .args(arguments)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The pid of the engine of a node.
    pub(crate) fn engine(&self, node: usize) -> String {
        std::fs::read_to_string(self.run_directory(node).join("containerd.pid")).unwrap()
    }

    /// What is left of pods on this machine, apart from what the nodes themselves are: containers, mounts, cgroups, addresses.
    pub(crate) fn left_of_pods(&self, nodes: usize) -> Vec<String> {
        let mut left = Vec::new();
        for node in 1..=nodes {
            let containers = self.ctr(node, &["containers", "list", "--quiet"]);
            left.extend(containers.lines().map(|id| format!("container {id}")));
            let addresses = self.run_directory(node).join("ipam/orlop");
            for entry in std::fs::read_dir(addresses).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.starts_with(|c: char| c.is_ascii_digit()) {
                    left.push(format!("address {name}"));
                }
            }
        }
        let data = self
            .directory
            .path()
            .join("data/nodes")
            .canonicalize()
            .unwrap();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mounted = mounts
            .lines()
            .filter_map(|line| line.split_whitespace().nth(4));
        left.extend(
            mounted
                .filter(|path| Path::new(path).starts_with(&data) && path.contains("/pods/"))
                .map(|path| format!("mount {path}")),
        );
        let cgroups = Command::new("find")
            .args([
                "/sys/fs/cgroup",
                "-path",
                &format!("*orlop-{}*", self.id()),
                "-name",
                "pod*",
            ])
            .output()
            .unwrap();
        let cgroups = String::from_utf8_lossy(&cgroups.stdout).into_owned();
        left.extend(cgroups.lines().map(|path| format!("cgroup {path}")));
        left
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let id = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.id())).ok();
        if std::thread::panicking() {
            for node in 1..=3 {
                for log in ["kubelet.log", "proxy.log"] {
                    let path = format!("data/nodes/node-{node}/{log}");
                    if let Ok(text) = std::fs::read_to_string(self.directory.path().join(&path)) {
                        let tail: Vec<&str> = text.lines().rev().take(60).collect();
                        let tail: Vec<&str> = tail.into_iter().rev().collect();
                        eprintln!("--- {path} ---\n{}", tail.join("\n"));
                    }
                }
            }
        }
        drop(self.server.take());
        let down = Command::new(env!("CARGO_BIN_EXE_orlop"))
            .arg("down")
            .arg("--data-dir")
            .arg(self.directory.path().join("data"))
            .output()
            .unwrap();
        if std::thread::panicking() {
            eprintln!("orlop down: {down:?}");
            return;
        }
        assert!(down.status.success(), "{down:?}");
        if let Some(id) = id {
            assert_eq!(left_of_cluster(&id), Vec::<String>::new());
        }
    }
}

/// What is left of a cluster after `orlop down`.
fn left_of_cluster(id: &str) -> Vec<String> {
    let mut left = Vec::new();
    for arguments in [
        &["ip", "-o", "link"][..],
        &["ip", "netns"],
        &["nft", "list", "tables"],
    ] {
        let output = Command::new(arguments[0])
            .args(&arguments[1..])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        left.extend(
            text.lines()
                .filter(|line| line.contains(id))
                .map(str::to_owned),
        );
    }
    for (command, find) in [("ps", "-ef"), ("mount", "-l")] {
        let output = Command::new(command).arg(find).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let own = format!("/run/orlop/{id}");
        left.extend(
            text.lines()
                .filter(|line| line.contains(&own))
                .map(str::to_owned),
        );
    }
    let cgroups = Command::new("find")
        .args(["/sys/fs/cgroup", "-name", &format!("orlop-{id}")])
        .output()
        .unwrap();
    left.extend(
        String::from_utf8_lossy(&cgroups.stdout)
            .lines()
            .map(str::to_owned),
    );
    left
}

/// Asks a web server for its page, once. `None` if it does not answer.
pub(crate) fn page(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.contains(" 200 ").then(|| body.trim().to_owned())
}

/// Waits until nothing is left of pods.
pub(crate) fn until_nothing_is_left(machine: &Machine, nodes: usize) {
    let mut seen = Vec::new();
    let gone = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually("nothing is left of pods", || {
            seen = machine.left_of_pods(nodes);
            seen.is_empty().then_some(())
        });
    }));
    assert!(gone.is_ok(), "left: {seen:#?}");
}
