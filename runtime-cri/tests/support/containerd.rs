//! A containerd of a test's own, and images for it, which need no network.
//!
//! It stands by itself, so that tests of other crates can have it, too:
//!
//! ```ignore
//! #[path = "../../runtime-cri/tests/support/containerd.rs"]
//! mod containerd;
//! ```
//!
//! (`base64`, `ring`, `rustix` with `process`, `serde_json` and `tempfile` are needed as dev-dependencies.) A test that uses it runs
//! [`isolated`], by which all that it leaves behind is taken back, also when it fails.

// Each test that includes this file uses a part of it.
#![allow(dead_code, unreachable_pub)]

#[path = "isolated.rs"]
pub mod isolated;
#[path = "preflight.rs"]
pub mod preflight;
#[path = "registry.rs"]
pub mod registry;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::json;

pub use self::isolated::isolated;
use self::isolated::missing_tool;
use self::registry::{Entry, Registry};

/// The image with a shell's usual programs.
pub const BUSYBOX: &str = "images.test/busybox:1";

/// An image that the registry gives only to who [logs in](registry::LOGIN).
pub const PRIVATE: &str = "images.test/private:1";

/// A port on which every sandbox sends back what is sent to it.
pub const ECHO: u16 = 7;

/// The image of sandboxes.
const PAUSE: &str = "images.test/pause:1";

/// Where the plug-ins of CNI are looked for.
const CNI: [&str; 3] = ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"];

/// Where a busybox that needs no libraries is looked for.
const BUSYBOXES: [&str; 2] = ["/bin/busybox", "/usr/bin/busybox"];

/// The programs of the busybox that its image has.
const PROGRAMS: [&str; 40] = [
    "sh", "cat", "chmod", "cp", "date", "dd", "df", "echo", "env", "false", "find", "grep", "head",
    "hostname", "id", "ip", "kill", "ln", "ls", "mkdir", "mount", "mv", "nc", "printf", "ps",
    "pwd", "rm", "sed", "seq", "sleep", "sort", "stat", "stty", "tail", "tar", "touch", "true",
    "wc", "whoami", "yes",
];

/// What is missing on this machine.
pub fn missing() -> Option<String> {
    missing_tool(&["containerd", "containerd-shim-runc-v2", "runc"])
        .or_else(|| {
            cni()
                .is_none()
                .then(|| "no plug-ins of CNI on this machine".to_owned())
        })
        .or_else(|| match busybox() {
            Some(busybox) => preflight::refusal(&busybox),
            None => Some("no static busybox on this machine".to_owned()),
        })
}

fn cni() -> Option<&'static str> {
    let needed = ["bridge", "host-local", "loopback", "portmap"];
    CNI.into_iter().find(|dir| {
        needed
            .iter()
            .all(|plugin| Path::new(dir).join(plugin).is_file())
    })
}

fn busybox() -> Option<Vec<u8>> {
    let found = BUSYBOXES.iter().find_map(|path| fs::read(path).ok())?;
    // One that needs libraries names its loader.
    let needs_loader = found.windows(8).any(|part| part == b"/ld-linu");
    (!needs_loader).then_some(found)
}

/// A containerd that runs. Only in [`isolated`] tests.
pub struct Containerd {
    dir: PathBuf,
    process: Option<Child>,
    registry: Registry,
}

impl Containerd {
    /// Starts one in a directory, with a bridge and addresses of 10.244.1.0/24 for its sandboxes.
    pub fn start(dir: &Path) -> Self {
        let registry = Registry::start();
        add_images(&registry);
        let conflist = json!({
            "cniVersion": "0.4.0",
            "name": "pods",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": "cni0",
                    "isGateway": true,
                    "hairpinMode": true,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": dir.join("addresses"),
                        "ranges": [[{ "subnet": "10.244.1.0/24" }]],
                        "routes": [{ "dst": "0.0.0.0/0" }],
                    },
                },
                { "type": "portmap", "capabilities": { "portMappings": true }, "snat": true },
            ],
        });
        let hosts = dir.join("certs.d").join(registry::HOST);
        fs::create_dir_all(&hosts).expect("a directory");
        // The registry is the image's host itself, and no mirror: nobody else is asked when it refuses.
        let address = format!("http://{}", registry.address());
        let server = format!(
            "server = \"{address}\"\n[host.\"{address}\"]\ncapabilities = [\"pull\", \"resolve\"]\n"
        );
        fs::write(hosts.join("hosts.toml"), server).expect("a file");
        let networks = dir.join("net.d");
        fs::create_dir(&networks).expect("a directory");
        fs::write(networks.join("10-pods.conflist"), conflist.to_string()).expect("a file");
        fs::write(dir.join("containerd.toml"), config(dir)).expect("a file");
        let mut containerd = Self {
            dir: dir.to_owned(),
            process: None,
            registry,
        };
        containerd.run();
        containerd
    }

    /// The path of its socket.
    pub fn socket(&self) -> String {
        self.dir.join("c.sock").display().to_string()
    }

    /// The directory that it lives in.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What its images come from.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Kills it and leaves its containers running: `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("a kill");
            process.wait().expect("an end");
        }
    }

    /// Starts it, and waits until it answers.
    pub fn run(&mut self) {
        let log = self.dir.join("containerd.log");
        let text = || fs::read_to_string(&log).unwrap_or_default();
        let before = text().len();
        let open = || {
            fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(&log)
                .expect("a log")
        };
        let process = Command::new("containerd")
            .arg("--config")
            .arg(self.dir.join("containerd.toml"))
            .stdin(Stdio::null())
            .stdout(open())
            .stderr(open())
            .spawn()
            .expect("containerd");
        self.process = Some(process);
        for _ in 0..600 {
            if text()[before..].contains("containerd successfully booted") {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("containerd does not serve:\n{}", text());
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = fs::read_to_string(self.dir.join("containerd.log")).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(40)..];
            eprintln!("the end of containerd's log:\n{}", last.join("\n"));
        }
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn add_images(registry: &Registry) {
    let busybox = busybox().expect("a static busybox");
    let mut files = Vec::new();
    for dir in ["bin", "etc", "proc", "sys", "dev", "root", "run", "var"] {
        files.push((dir.to_owned(), Entry::Directory(0o755)));
    }
    files.push(("tmp".to_owned(), Entry::Directory(0o1777)));
    files.push(("bin/busybox".to_owned(), Entry::File(0o755, busybox)));
    for program in PROGRAMS {
        files.push((format!("bin/{program}"), Entry::Link("busybox")));
    }
    let users = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
    files.push(("etc/passwd".to_owned(), Entry::File(0o644, users.into())));
    let groups = "root:x:0:\nnogroup:x:65534:\n";
    files.push(("etc/group".to_owned(), Entry::File(0o644, groups.into())));
    let files: Vec<_> = files
        .iter()
        .map(|(path, entry)| (path.as_str(), entry))
        .collect();
    let env = json!(["PATH=/bin"]);
    registry.add("busybox:1", &files, &json!({ "Env": env, "Cmd": ["sh"] }));
    registry.add(
        "private:1",
        &files,
        &json!({ "Env": env, "Cmd": ["sh"], "User": "65534" }),
    );
    registry.make_private("private");
    let pause = format!("nc -ll -p {ECHO} -e cat & while :; do sleep 2147483; done");
    registry.add(
        "pause:1",
        &files,
        &json!({ "Env": env, "Entrypoint": ["sh", "-c", pause] }),
    );
}

fn config(dir: &Path) -> String {
    let (dir, cni) = (dir.display(), cni().expect("plug-ins of CNI"));
    format!(
        r#"
version = 2
root = "{dir}/root"
state = "{dir}/state"
disabled_plugins = [
    "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.aufs", "io.containerd.internal.v1.tracing", "io.containerd.internal.v1.opt",
]
[grpc]
  address = "{dir}/c.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  disable_apparmor = true
  restrict_oom_score_adj = true
  tolerate_missing_hugetlb_controller = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni}"
    conf_dir = "{dir}/net.d"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{dir}/certs.d"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
      Root = "{dir}/runc"
"#
    )
}
