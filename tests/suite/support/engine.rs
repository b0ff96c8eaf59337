//! A machine of its own for a test: a network namespace with a containerd in it.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::json;

use super::{IMAGE, eventually, images};

/// The image of sandboxes: it only waits.
const PAUSE: &str = "orlop.test/pause:1";

/// A network namespace. When it is dropped it is gone, with all interfaces in it.
pub(crate) struct Namespace {
    name: String,
}

/// Runs `ip`.
///
/// # Panics
/// When it fails.
#[track_caller]
pub(crate) fn ip(line: &str) {
    let output = Command::new("ip")
        .args(line.split_whitespace())
        .output()
        .unwrap();
    assert!(output.status.success(), "ip {line}: {output:?}");
}

impl Namespace {
    pub(crate) fn new(name: &str) -> Self {
        ip(&format!("netns add {name}"));
        ip(&format!("-n {name} link set lo up"));
        Self {
            name: name.to_owned(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn file(&self) -> File {
        File::open(Path::new("/run/netns").join(&self.name)).unwrap()
    }

    /// Moves this thread into it, and with it all programs that it starts from now on. (`ip netns exec` would also hide the cgroups.)
    pub(crate) fn move_in(&self) {
        move_into_link_name_space(self.file().as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }

    /// A program that runs inside.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.name))
            .arg("--")
            .arg(program);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

/// A containerd with images for pods. When it is dropped, it is gone with all that runs in it.
pub(crate) struct Engine {
    directory: PathBuf,
    child: Child,
}

impl Engine {
    /// Starts one in a namespace, with its files in a directory, and waits until it answers.
    pub(crate) fn start(namespace: &Namespace, directory: &Path) -> Self {
        let plugins = ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"];
        let plugins = plugins
            .iter()
            .find(|plugins| Path::new(plugins).join("bridge").is_file())
            .unwrap();
        std::fs::create_dir_all(directory.join("net.d")).unwrap();
        let at = |name: &str| format!("{:?}", directory.join(name).display().to_string());
        let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
        let text = format!(
            "version = 2
root = {root}
state = {state}
disabled_plugins = [\"io.containerd.snapshotter.v1.btrfs\", \"io.containerd.snapshotter.v1.zfs\", \"io.containerd.snapshotter.v1.devmapper\", \"io.containerd.snapshotter.v1.aufs\"]
[grpc]
address = {socket}
[{cri}]
sandbox_image = \"{PAUSE}\"
stream_server_address = \"127.0.0.1\"
stream_server_port = \"0\"
tolerate_missing_hugetlb_controller = true
disable_apparmor = true
restrict_oom_score_adj = true
[{cri}.cni]
bin_dir = \"{plugins}\"
conf_dir = {networks}
max_conf_num = 1
[{cri}.containerd]
snapshotter = \"overlayfs\"
default_runtime_name = \"runc\"
[{cri}.containerd.runtimes.runc]
runtime_type = \"io.containerd.runc.v2\"
[{cri}.containerd.runtimes.runc.options]
SystemdCgroup = false
Root = {runc}
",
            root = at("root"),
            state = at("state"),
            socket = at("c.sock"),
            networks = at("net.d"),
            runc = at("runc"),
        );
        let config = directory.join("containerd.toml");
        std::fs::write(&config, text).unwrap();
        let log = File::create(directory.join("containerd.log")).unwrap();
        let child = namespace
            .command("containerd")
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let engine = Self {
            directory: directory.to_owned(),
            child,
        };
        eventually("containerd answers", || engine.ctr(&["version"]));
        let busybox = images::busybox().unwrap();
        for (name, command) in [(IMAGE, &["sh"][..]), (PAUSE, &["sleep", "1000000"][..])] {
            let archive = directory.join("image.tar");
            images::write_busybox_with(&busybox, name, command, &archive);
            let archive = archive.display().to_string();
            engine.ctr(&["images", "import", &archive]).unwrap();
        }
        engine
    }

    /// What it answers; `None` if it does not.
    pub(crate) fn ctr(&self, arguments: &[&str]) -> Option<String> {
        let output = Command::new("ctr")
            .arg("--address")
            .arg(self.socket())
            .args(["--namespace", "k8s.io"])
            .args(arguments)
            .output()
            .unwrap();
        let answered = output.status.success();
        answered.then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.join("c.sock")
    }

    /// How a kubelet is told of it.
    pub(crate) fn endpoint(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Tells it which addresses pods have: from then on its network is ready.
    pub(crate) fn set_pod_range(&self, range: &str, masquerade: bool) {
        let list = json!({
            "cniVersion": "0.4.0", "name": "pods",
            "plugins": [
                {
                    "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": masquerade, "hairpinMode": true,
                    "ipam": {
                        "type": "host-local", "dataDir": self.addresses(), "ranges": [[{"subnet": range}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true},
            ],
        });
        let networks = self.directory.join("net.d");
        std::fs::write(networks.join("draft"), list.to_string()).unwrap();
        std::fs::rename(networks.join("draft"), networks.join("10-pods.conflist")).unwrap();
    }

    fn addresses(&self) -> PathBuf {
        self.directory.join("addresses")
    }

    /// What is left of pods: containers, addresses.
    pub(crate) fn left_of_pods(&self) -> Vec<String> {
        let mut left = Vec::new();
        let containers = self.ctr(&["containers", "list", "--quiet"]).unwrap();
        left.extend(containers.lines().map(|id| format!("container {id}")));
        let addresses = std::fs::read_dir(self.addresses().join("pods"));
        for entry in addresses.into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(|c: char| c.is_ascii_digit()) {
                left.push(format!("address {name}"));
            }
        }
        left
    }
}

impl Engine {
    /// The network namespaces of pods that are there.
    fn pod_namespaces(&self) -> Vec<String> {
        let list = self.ctr(&["containers", "list", "--quiet"]);
        let infos = list.iter().flat_map(|list| list.lines());
        let infos: Vec<String> = infos
            .filter_map(|id| self.ctr(&["containers", "info", id]))
            .collect();
        let words = infos.iter().flat_map(|info| info.split('"'));
        words
            .filter_map(|word| word.split_once("/netns/cni-"))
            .map(|(_, name)| format!("cni-{name}"))
            .collect()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let namespaces = self.pod_namespaces();
        for task in self
            .ctr(&["tasks", "list", "--quiet"])
            .iter()
            .flat_map(|list| list.lines())
        {
            let _ = self.ctr(&["tasks", "kill", "--signal", "SIGKILL", "--all", task]);
            let _ = self.ctr(&["tasks", "delete", "--force", task]);
        }
        for name in namespaces {
            let _ = Command::new("ip").args(["netns", "del", &name]).output();
        }
        let id = self.child.id().to_string();
        let _ = Command::new("kill").arg(id).status();
        let _ = self.child.wait();
        // What containers had mounted, the last first.
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = self.directory.display().to_string();
        let mut places: Vec<String> = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .map(|place| place.replace("\\040", " "))
            .filter(|place| place.starts_with(&own))
            .collect();
        places.reverse();
        for place in places {
            let _ = Command::new("umount").args(["-l", &place]).status();
        }
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.directory.join("containerd.log"));
            let log = log.unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(20).collect();
            eprintln!(
                "--- containerd, the last line first ---\n{}",
                tail.join("\n")
            );
        }
    }
}
