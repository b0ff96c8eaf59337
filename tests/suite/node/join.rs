//! A machine joins a cluster: `orlop kubelet` and `orlop proxy` as programs of their own, certificates by requests.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::{pod, service, web};
use crate::support::{Engine, Kubectl, Machine, Namespace, eventually, ip};

/// The machine's number on the cluster's bridge: far from those of its nodes.
const NUMBER: u8 = 99;
const TOKEN: (&str, &str) = ("abcdef", "0123456789abcdef");

/// A machine that is not the cluster's own. What it runs is gone when it is dropped.
struct Other {
    programs: Vec<Child>,
    engine: Engine,
    namespace: Namespace,
    cgroup: String,
    address: String,
    server: String,
    directory: PathBuf,
}

impl Drop for Other {
    fn drop(&mut self) {
        for program in &mut self.programs {
            let _ = program.kill();
            let _ = program.wait();
        }
        if std::thread::panicking() {
            for log in ["kubelet.log", "proxy.log"] {
                let text = std::fs::read_to_string(self.directory.join(log));
                eprintln!("--- {log} ---\n{}", text.unwrap_or_default());
            }
        }
    }
}

impl Other {
    fn new(machine: &Machine) -> Self {
        let id = machine.id();
        let network = machine.network();
        let address = format!("172.31.{network}.{NUMBER}");
        let gateway = format!("172.31.{network}.254");
        let namespace = Namespace::new(&format!("orlop-{id}-{NUMBER}"));
        let inside = namespace.name();
        ip(&format!(
            "link add orl{id}n{NUMBER} type veth peer name eth0 netns {inside}"
        ));
        ip(&format!("link set orl{id}n{NUMBER} master orl-{id} up"));
        ip(&format!("-n {inside} addr add {address}/24 dev eth0"));
        ip(&format!("-n {inside} link set eth0 up"));
        ip(&format!("-n {inside} route add default via {gateway}"));
        let directory = machine.server().directory().path().join("other");
        std::fs::create_dir_all(&directory).unwrap();
        let forward = namespace
            .command("sh")
            .args(["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])
            .status();
        assert!(forward.unwrap().success());
        let engine = Engine::start(&namespace, &directory);
        let port = machine.server().url().rsplit(':').next().unwrap();
        Self {
            programs: Vec::new(),
            engine,
            namespace,
            cgroup: format!("/orlop-{id}/node-{NUMBER}"),
            address,
            server: format!("https://{gateway}:{port}"),
            directory,
        }
    }

    /// A kubeconfig with a token.
    fn kubeconfig(&self, name: &str, authority: &str, token: &str) -> PathBuf {
        let path = self.directory.join(name);
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": {"server": self.server, "certificate-authority-data": authority}}],
            "users": [{"name": "it", "user": {"token": token}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        });
        std::fs::write(&path, text.to_string()).unwrap();
        path
    }

    fn kubelet(&self, bootstrap: &Path) -> Command {
        let mut command = self.namespace.command(env!("CARGO_BIN_EXE_orlop"));
        command
            .arg("kubelet")
            .arg("--bootstrap-kubeconfig")
            .arg(bootstrap)
            .arg("--kubeconfig")
            .arg(self.directory.join("kubelet.conf"))
            .args(["--hostname-override", "other"])
            .args(["--container-runtime-endpoint", &self.engine.endpoint()])
            .arg("--root-dir")
            .arg(self.directory.join("kubelet"))
            .arg("--pod-logs-dir")
            .arg(self.directory.join("logs"))
            .args(["--cgroup-root", &self.cgroup])
            .args(["--eviction-hard", "memory.available<1Mi"])
            .args(["--image-gc-high-threshold", "100"])
            .env("ORLOP_LOG", "info")
            .stdin(Stdio::null());
        command
    }

    /// Starts a program, which writes to a log.
    fn start(&mut self, mut command: Command, log: &str) {
        let file = File::options()
            .create(true)
            .append(true)
            .open(self.directory.join(log));
        let file = file.unwrap();
        command.stdout(file.try_clone().unwrap()).stderr(file);
        self.programs.push(command.spawn().unwrap());
    }

    fn kill_last(&mut self) {
        let mut program = self.programs.pop().unwrap();
        program.kill().unwrap();
        program.wait().unwrap();
    }

    fn identity(&self) -> String {
        let path = self
            .directory
            .join("kubelet/pki/kubelet-client-current.pem");
        std::fs::read_to_string(path).unwrap()
    }
}

fn requests(kubectl: &Kubectl<'_>, signer: &str) -> Vec<Value> {
    let all = kubectl.json("get certificatesigningrequests");
    let items = all["items"].as_array().unwrap().iter();
    items
        .filter(|request| request["spec"]["signerName"] == signer)
        .cloned()
        .collect()
}

fn is_secret(path: &Path) -> bool {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o077 == 0
}

#[test]
fn a_machine_joins_with_a_token() {
    let Some(machine) = Machine::start("a_machine_joins_with_a_token", 1, &[]) else {
        return;
    };
    let kubectl = machine.kubectl();
    let mut other = Other::new(&machine);
    let authority = kubectl
        .ok("config view --raw -o jsonpath={.clusters[0].cluster.certificate-authority-data}");

    // A token that nobody gave out: one line, and the end.
    let wrong = other.kubeconfig("wrong.conf", &authority, "ffffff.ffffffffffffffff");
    let output = other.kubelet(&wrong).env_remove("ORLOP_LOG").output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        (output.status.code(), said.trim_end()),
        (
            Some(1),
            "orlop: cannot create certificate signing request: Unauthorized"
        )
    );

    // One that was: the request is approved and signed by itself, and the Node is there.
    let (id, secret) = TOKEN;
    kubectl.ok(&format!(
        "create secret generic bootstrap-token-{id} --namespace kube-system --type bootstrap.kubernetes.io/token \
         --from-literal token-id={id} --from-literal token-secret={secret} \
         --from-literal usage-bootstrap-authentication=true"
    ));
    let bootstrap = other.kubeconfig("bootstrap.conf", &authority, &format!("{id}.{secret}"));
    let kubelet = other.kubelet(&bootstrap);
    other.start(kubelet, "kubelet.log");
    let client = "kubernetes.io/kube-apiserver-client-kubelet";
    let serving = "kubernetes.io/kubelet-serving";
    let range = kubectl.until("get node other -o jsonpath={.spec.podCIDR}", |out| {
        out.contains('/')
    });
    let condition = &requests(&kubectl, client)[0]["status"]["conditions"][0];
    assert_eq!(
        (&condition["type"], &condition["reason"]),
        (&json!("Approved"), &json!("AutoApproved"))
    );
    other.engine.set_pod_range(&range, false);
    // From nodes and pods elsewhere.
    ip(&format!("route replace {range} via {}", other.address));
    kubectl.until("get node other --no-headers", |out| out.contains(" Ready "));
    let pki = other.directory.join("kubelet/pki");
    for file in [
        pki.join("kubelet-client-current.pem"),
        pki.join("kubelet.key"),
        other.directory.join("kubelet.conf"),
    ] {
        assert!(is_secret(&file), "{}", file.display());
    }

    // The serving certificate waits for a person.
    let asked = eventually("a request", || {
        requests(&kubectl, serving).into_iter().next()
    });
    assert_eq!(asked["spec"]["username"], "system:node:other");
    assert_eq!(asked["status"], json!({}));
    let name = asked["metadata"]["name"].as_str().unwrap().to_owned();
    let mut talker = pod("talker", "echo hello; sleep 1000");
    talker["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": "other"});
    kubectl.file("talker.json", &talker.to_string());
    kubectl.ok("apply -f talker.json");
    kubectl.ok("wait --for=condition=Ready pod/talker --timeout=80s");
    let refused = kubectl.fails("logs talker");
    assert!(refused.contains("certificate"), "{refused}");
    kubectl.ok(&format!("certificate approve {name}"));
    kubectl.until("logs talker", |out| out == "hello\n");
    let output = kubectl.run("exec talker -- sh -c 'hostname; exit 5'");
    assert_eq!(
        (output.status.code(), &*output.stdout),
        (Some(5), &b"talker\n"[..])
    );
    assert!(is_secret(&pki.join("kubelet-server-current.pem")));

    // Services lead there and from there. The proxy is who it is by a service account.
    kubectl.ok("create serviceaccount kube-proxy --namespace kube-system");
    kubectl.ok(
        "create clusterrolebinding proxy --clusterrole system:node-proxier --serviceaccount kube-system:kube-proxy",
    );
    let token = kubectl.ok("create token kube-proxy --namespace kube-system");
    let config = other.kubeconfig("proxy.conf", &authority, token.trim());
    let mut proxy = other.namespace.command(env!("CARGO_BIN_EXE_orlop"));
    proxy
        .arg("proxy")
        .arg("--kubeconfig")
        .arg(&config)
        .args(["--hostname-override", "other"])
        .env("ORLOP_LOG", "info")
        .stdin(Stdio::null());
    other.start(proxy, "proxy.log");
    kubectl.file("web.json", &web("web", 1).to_string());
    kubectl.file("service.json", &service("web", json!({})).to_string());
    kubectl.ok("apply -f web.json -f service.json");
    kubectl.ok("rollout status deployment/web --timeout=80s");
    let address = kubectl.ok("get service web -o jsonpath={.spec.clusterIP}");
    let ask = format!(
        "exec talker -- sh -c 'printf \"GET / HTTP/1.0\\r\\n\\r\\n\" | nc -w 3 {address} 80'"
    );
    kubectl.until(&ask, |out| out.contains("web-"));
    // What it wrote stays when it ends, until it is told to remove it.
    other.kill_last();
    kubectl.until(&ask, |out| out.contains("web-"));
    let tables = |other: &Other| {
        let listed = other
            .namespace
            .command("nft")
            .args(["list", "tables"])
            .output();
        String::from_utf8_lossy(&listed.unwrap().stdout).into_owned()
    };
    assert!(tables(&other).contains("kube-proxy"));
    for _ in 0..2 {
        let mut cleanup = other.namespace.command(env!("CARGO_BIN_EXE_orlop"));
        let cleanup = cleanup.args(["proxy", "--cleanup"]).output().unwrap();
        assert!(cleanup.status.success(), "{cleanup:?}");
        assert!(!tables(&other).contains("kube-proxy"));
    }

    // Killed and started again it is who it was, though the token is gone: from the cluster, and from its disk.
    let identity = other.identity();
    kubectl.ok(&format!(
        "delete secret bootstrap-token-{id} --namespace kube-system"
    ));
    std::fs::remove_file(&bootstrap).unwrap();
    other.kill_last();
    let kubelet = other.kubelet(&bootstrap);
    other.start(kubelet, "kubelet.log");
    kubectl.until("exec talker -- echo again", |out| out == "again\n");
    kubectl.ok("delete pod talker --wait=true");
    eventually("nothing is left of pods", || {
        other.engine.left_of_pods().is_empty().then_some(())
    });
    assert_eq!(other.identity(), identity);
    assert_eq!(
        (
            requests(&kubectl, client).len(),
            requests(&kubectl, serving).len()
        ),
        (1, 1)
    );
    drop(other);
}
