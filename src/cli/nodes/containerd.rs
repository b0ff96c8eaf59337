//! The container engine of a node: a containerd of its own, in the node's network.

use std::fmt::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use orlop::core::env::{CancelToken, Env};
use orlop::core::network::Cidr;
use orlop::runtime_cri::CriRuntime;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use serde_json::json;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::agent::{FIRST_WAIT, LONGEST_WAIT};
use super::layout::NodeLayout;
use super::namespace::run;
use super::pause;
use crate::cli::{Failure, pods};

/// How long a new engine may take until it answers.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is asked meanwhile.
const LOOK: Duration = Duration::from_millis(50);
/// The namespace of an engine's store that CRI uses.
const NAMESPACE: &str = "k8s.io";

/// A descriptor that can be waited for. (What would be used instead of the deprecated constructor is not safe for descriptors in general;
/// this one is owned, so that it stays open, and the same, for as long as it is waited for.)
#[expect(deprecated)]
fn watched(handle: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(handle, Interest::READABLE)
}

/// The engine of a node.
#[derive(Clone, Debug)]
pub(super) struct Engine {
    node: NodeLayout,
    directory: PathBuf,
}

impl Engine {
    /// The engine of a node whose files are in a directory.
    pub(super) fn new(node: &NodeLayout, cluster: &Path) -> Self {
        Self {
            node: node.clone(),
            directory: node.directory(cluster),
        }
    }

    fn networks(&self) -> PathBuf {
        self.directory.join("net.d")
    }

    fn pid_file(&self) -> PathBuf {
        self.node.run.join("containerd.pid")
    }

    /// Starts it, unless it runs already: then it is taken over, with all that runs in it. Returns whether it was started.
    pub(super) async fn ensure(&self, env: &Env, images: &[PathBuf]) -> Result<bool, Failure> {
        let started = if self.answers() {
            false
        } else {
            self.start()?;
            self.ready(env).await?;
            true
        };
        let pause = self.directory.join("pause.tar");
        pause::write(&pause)?;
        self.import(&pause)?;
        for image in images {
            self.import(image)?;
        }
        Ok(started)
    }

    /// Waits until it answers.
    async fn ready(&self, env: &Env) -> Result<(), Failure> {
        let begin = env.now();
        while !self.answers() {
            if env.now().since(begin) > PATIENCE {
                return Err(Failure::new(format!(
                    "containerd of {} does not answer; see {}",
                    self.node.name,
                    self.log().display()
                )));
            }
            env.sleep(LOOK).await;
        }
        Ok(())
    }

    /// Whether something that it started may still run.
    fn left_something(&self) -> bool {
        let tasks = Path::new("containerd/io.containerd.runtime.v2.task").join(NAMESPACE);
        let tasks = std::fs::read_dir(self.node.run.join(tasks));
        tasks.is_ok_and(|mut tasks| tasks.next().is_some()) && self.node.namespace.path().exists()
    }

    fn log(&self) -> PathBuf {
        self.directory.join("containerd.log")
    }

    fn start(&self) -> Result<(), Failure> {
        let show = |path: &Path| {
            let path = path.display().to_string();
            move |error: std::io::Error| Failure::new(format!("cannot write {path}: {error}"))
        };
        for directory in [&self.node.run, &self.networks()] {
            std::fs::create_dir_all(directory).map_err(show(directory))?;
        }
        let path = self.directory.join("containerd.toml");
        std::fs::write(&path, self.configuration()).map_err(show(&path))?;
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())
            .map_err(show(&self.log()))?;
        let errors = log.try_clone().map_err(show(&self.log()))?;
        let mut command = Command::new("containerd");
        command
            .arg("--config")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            // It outlives this process, and what the terminal says to this one is not meant for it.
            .process_group(0);
        let child = self
            .node
            .namespace
            .enter(move || command.spawn())?
            .map_err(|error| Failure::new(format!("cannot start containerd: {error}")))?;
        let file = self.pid_file();
        std::fs::write(&file, child.id().to_string()).map_err(show(&file))
    }

    /// Its pid, if it runs: the file may be older than the process that has its number now.
    fn pid(&self) -> Option<String> {
        let pid = std::fs::read_to_string(self.pid_file()).ok()?;
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command).into_owned();
        let ours = self.directory.join("containerd.toml");
        command.contains(&*ours.to_string_lossy()).then_some(pid)
    }

    /// Waits until it runs no more. It may be another's child: what waits is a handle of the process, not its parent.
    async fn ended(&self) -> Result<(), Failure> {
        let failed = |error: std::io::Error| {
            Failure::new(format!(
                "cannot watch containerd of {}: {error}",
                self.node.name
            ))
        };
        let Some(pid) = self.pid().and_then(|pid| pid.parse().ok()) else {
            return Ok(());
        };
        let Some(pid) = Pid::from_raw(pid) else {
            return Ok(());
        };
        let handle = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Ok(handle) => watched(handle).map_err(failed)?,
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            Err(error) => return Err(failed(error.into())),
        };
        // The number may have become another's before there was a handle.
        if self.pid().is_some() {
            let _ready = handle.readable().await.map_err(failed)?;
        }
        // One that this process started stays in the table of processes until it is asked for; for another's this is refused.
        let _ = waitid(
            WaitId::PidFd(handle.get_ref().as_fd()),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
        );
        Ok(())
    }

    /// Starts it again whenever it ends, until told to stop. It outlives this: what runs in it goes on.
    pub(super) async fn keep_running(self, env: &Env, token: &CancelToken) {
        let name = &self.node.name;
        let mut wait = FIRST_WAIT;
        while !token.is_cancelled() {
            let began = env.now();
            match token.run(self.ended()).await {
                None => return,
                Some(Ok(())) => {
                    tracing::error!(node = name, log = %self.log().display(), "containerd ended; it is started again");
                }
                Some(Err(failure)) => tracing::error!(node = name, %failure),
            }
            if env.now().since(began) > LONGEST_WAIT {
                wait = FIRST_WAIT;
            }
            token.run(env.sleep(wait)).await;
            wait = (wait * 2).min(LONGEST_WAIT);
            if let Some(Err(failure)) = token.run(self.ensure(env, &[])).await {
                tracing::error!(node = name, %failure, "containerd cannot be started");
            }
        }
    }

    fn answers(&self) -> bool {
        self.pid().is_some() && self.ctr(&["version"]).is_ok()
    }

    fn ctr(&self, arguments: &[&str]) -> Result<String, Failure> {
        let socket = self.node.socket().display().to_string();
        let mut all = vec!["--address", &socket, "--namespace", NAMESPACE];
        all.extend(arguments);
        run("ctr", &all)
    }

    /// Puts the images of an archive into its store.
    fn import(&self, archive: &Path) -> Result<(), Failure> {
        self.ctr(&["images", "import", &archive.to_string_lossy()])
            .map(drop)
    }

    /// Tells it which addresses its pods have: from then on its network is ready.
    pub(super) fn set_pod_cidrs(&self, cidrs: &[Cidr]) -> Result<(), Failure> {
        let ranges: Vec<_> = cidrs
            .iter()
            .map(|cidr| json!([{ "subnet": cidr.to_string() }]))
            .collect();
        let list = json!({
            "cniVersion": "0.4.0",
            "name": "orlop",
            "plugins": [
                {
                    "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
                    "ipam": {
                        "type": "host-local",
                        // Gone with the sandboxes after a restart of the machine.
                        "dataDir": self.node.run.join("ipam"),
                        "ranges": ranges,
                        "routes": [{ "dst": "0.0.0.0/0" }],
                    },
                },
                { "type": "portmap", "capabilities": { "portMappings": true }, "snat": true },
            ],
        });
        let path = self.networks().join("10-orlop.conflist");
        let text = list.to_string();
        if std::fs::read_to_string(&path).is_ok_and(|have| have == text) {
            return Ok(());
        }
        // The engine reads the directory again when a file of it is renamed (not when one comes from elsewhere), and it must never see half a
        // file.
        let draft = self.networks().join("10-orlop.new");
        std::fs::write(&draft, text)
            .and_then(|()| std::fs::rename(&draft, &path))
            .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))
    }

    /// Stops all that runs in it, and it.
    pub(super) async fn remove(&self, env: &Env) -> Result<(), Failure> {
        // What an engine started it alone can end: processes, network namespaces, addresses. One that was killed has to come back for that.
        if !self.answers() && self.left_something() {
            self.start()?;
            self.ready(env).await?;
        }
        if self.answers() {
            let endpoint = format!("unix://{}", self.node.socket().display());
            let runtime = CriRuntime::connect(&endpoint, env.clone()).await?;
            pods::end(&runtime, |_| true).await?;
            // What is no pod's.
            let tasks = self.ctr(&["tasks", "list", "--quiet"])?;
            for task in tasks.split_whitespace() {
                // One that ends by itself meanwhile is as good.
                let _ = self.ctr(&["tasks", "kill", "--signal", "SIGKILL", "--all", task]);
                let _ = self.ctr(&["tasks", "delete", "--force", task]);
            }
            let containers = self.ctr(&["containers", "list", "--quiet"])?;
            for container in containers.split_whitespace() {
                let _ = self.ctr(&["containers", "delete", container]);
            }
        }
        if let Some(pid) = self.pid() {
            let _ = run("kill", &[&pid]);
            for _ in 0..100 {
                if self.pid().is_none() {
                    break;
                }
                std::thread::sleep(LOOK);
            }
        }
        Ok(())
    }

    fn configuration(&self) -> String {
        let disabled = ["btrfs", "zfs", "devmapper", "aufs"]
            .map(|name| format!("\"io.containerd.snapshotter.v1.{name}\""))
            .join(", ");
        let quoted = |path: &Path| format!("\"{}\"", path.display());
        let mut text = String::new();
        let mut line = |line: &str| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{line}");
        };
        line("version = 2");
        line(&format!(
            "root = {}",
            quoted(&self.directory.join("containerd"))
        ));
        line(&format!(
            "state = {}",
            quoted(&self.node.run.join("containerd"))
        ));
        line(&format!("disabled_plugins = [{disabled}]"));
        line("[grpc]");
        line(&format!("address = {}", quoted(&self.node.socket())));
        line("[plugins.\"io.containerd.grpc.v1.cri\"]");
        line(&format!("sandbox_image = \"{}\"", pause::NAME));
        line("stream_server_address = \"127.0.0.1\"");
        line("stream_server_port = \"0\"");
        line("tolerate_missing_hugetlb_controller = true");
        line("enable_unprivileged_ports = true");
        line("enable_unprivileged_icmp = true");
        if !Path::new("/sys/kernel/security/apparmor").exists() {
            line("disable_apparmor = true");
        }
        // The engine may not give processes a better score than its own has.
        if !super::may_lower_oom_scores() {
            line("restrict_oom_score_adj = true");
        }
        line("[plugins.\"io.containerd.grpc.v1.cri\".cni]");
        line(&format!(
            "bin_dir = {}",
            quoted(&super::cni_plugins().unwrap_or_default())
        ));
        line(&format!("conf_dir = {}", quoted(&self.networks())));
        line("max_conf_num = 1");
        line("[plugins.\"io.containerd.grpc.v1.cri\".containerd]");
        line("snapshotter = \"overlayfs\"");
        line("default_runtime_name = \"runc\"");
        line("[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]");
        line("runtime_type = \"io.containerd.runc.v2\"");
        line("[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]");
        line("SystemdCgroup = false");
        line(&format!("Root = {}", quoted(&self.node.run.join("runc"))));
        text
    }
}
