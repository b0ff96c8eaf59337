//! The programs of a node, `orlop kubelet` and `orlop proxy`: started in its network, kept alive, stopped with this process. Its engine
//! is kept alive with them, and not stopped.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use orlop::ControlPlane;
use orlop::core::env::{CancelToken, TaskGroup};
use orlop::wire::kubeconfig::{Credentials, Kubeconfig};
use orlop::wire::pki::KeyAndCertificate;
use tokio::process::{Child, Command};

use super::containerd::Engine;
use super::layout::{Layout, NodeLayout};
use super::namespace::Namespace;
use crate::cli::Failure;

/// How long certificates of agents are good for. They are made anew at every start.
const VALIDITY: Duration = Duration::from_secs(365 * 86_400);
/// How long a program that ended is waited with; doubled every time up to the longest.
pub(super) const FIRST_WAIT: Duration = Duration::from_millis(500);
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How long an agent may take to stop before it is killed.
const STOP: Duration = Duration::from_secs(10);

/// The agents of all nodes.
pub(in crate::cli) struct Agents {
    tasks: TaskGroup,
}

/// A program to be kept running.
struct Program {
    /// What it is called in what is said about it.
    name: String,
    namespace: Namespace,
    arguments: Vec<OsString>,
    log: PathBuf,
}

impl Agents {
    pub(super) fn start(
        directory: &Path,
        layout: &Layout,
        nodes: &[NodeLayout],
        plane: &ControlPlane,
        server: SocketAddr,
    ) -> Result<Self, Failure> {
        let tasks = TaskGroup::new(plane.env().clone());
        let url = format!("https://{server}");
        for node in nodes {
            let home = node.directory(directory);
            std::fs::create_dir_all(&home)?;
            let engine = Engine::new(node, directory);
            let token = tasks.token();
            let env = plane.env().clone();
            tasks.spawn("engine", async move {
                engine.keep_running(&env, &token).await;
            });
            for program in [
                kubelet(plane, node, &home, &url)?,
                proxy(plane, layout, node, &home, &url)?,
            ] {
                let token = tasks.token();
                let env = plane.env().clone();
                tasks.spawn(
                    "agent",
                    async move { keep_running(program, &env, &token).await },
                );
            }
        }
        Ok(Self { tasks })
    }

    /// Stops them. What runs on the nodes goes on.
    pub(in crate::cli) async fn stop(&self) {
        self.tasks.shutdown().await;
    }
}

fn kubeconfig(
    plane: &ControlPlane,
    url: &str,
    user: &str,
    groups: &[&str],
    path: &Path,
) -> Result<(), Failure> {
    let authority = &plane.pki().authority;
    let groups = groups.iter().copied();
    let certificate = authority.issue_client(user, groups, plane.env().wall(), VALIDITY)?;
    let credentials = Credentials {
        certificate: Some(certificate),
        ..Credentials::default()
    };
    let pem = authority.certificate_pem();
    Kubeconfig::for_cluster("orlop", url, Some(pem), user, &credentials).store(path)?;
    Ok(())
}

fn kubelet(
    plane: &ControlPlane,
    node: &NodeLayout,
    home: &Path,
    url: &str,
) -> Result<Program, Failure> {
    let authority = &plane.pki().authority;
    let config = home.join("kubelet.kubeconfig");
    let user = format!("system:node:{}", node.name);
    kubeconfig(plane, url, &user, &["system:nodes"], &config)?;
    let names = [
        node.name.as_str().into(),
        node.address.to_string().as_str().into(),
    ];
    let serving: KeyAndCertificate =
        authority.issue_server(&user, names, plane.env().wall(), VALIDITY)?;
    let (certificate, key) = (home.join("kubelet.crt"), home.join("kubelet.key"));
    serving.store(&certificate, &key)?;
    let ca = home.join("ca.crt");
    std::fs::write(&ca, authority.certificate_pem())?;
    let mut arguments: Vec<OsString> = vec!["kubelet".into()];
    let mut flag = |name: &str, value: OsString| {
        arguments.push(name.into());
        arguments.push(value);
    };
    flag("--kubeconfig", config.into());
    flag("--hostname-override", node.name.clone().into());
    flag("--node-ip", node.address.to_string().into());
    flag("--address", node.address.to_string().into());
    flag("--root-dir", home.join("kubelet").into());
    flag("--pod-logs-dir", home.join("logs").into());
    let mut socket = OsString::from("unix://");
    socket.push(node.socket());
    flag("--container-runtime-endpoint", socket);
    flag("--cgroup-root", node.cgroup.clone().into());
    // The disk is everybody's: how full it is says nothing of what pods do.
    flag("--eviction-hard", "memory.available<100Mi".into());
    flag("--image-gc-high-threshold", "100".into());
    flag("--tls-cert-file", certificate.into());
    flag("--tls-private-key-file", key.into());
    flag("--client-ca-file", ca.into());
    arguments.push("--exit-with-parent".into());
    Ok(Program {
        name: format!("kubelet of {}", node.name),
        namespace: node.namespace.clone(),
        arguments,
        log: home.join("kubelet.log"),
    })
}

fn proxy(
    plane: &ControlPlane,
    layout: &Layout,
    node: &NodeLayout,
    home: &Path,
    url: &str,
) -> Result<Program, Failure> {
    let config = home.join("proxy.kubeconfig");
    kubeconfig(plane, url, "system:kube-proxy", &[], &config)?;
    let mut arguments: Vec<OsString> = vec!["proxy".into()];
    let mut flag = |name: &str, value: OsString| {
        arguments.push(name.into());
        arguments.push(value);
    };
    flag("--kubeconfig", config.into());
    flag("--hostname-override", node.name.clone().into());
    flag("--cluster-cidr", layout.pods().to_string().into());
    arguments.push("--exit-with-parent".into());
    Ok(Program {
        name: format!("proxy of {}", node.name),
        namespace: node.namespace.clone(),
        arguments,
        log: home.join("proxy.log"),
    })
}

impl Program {
    fn start(&self) -> Result<Child, Failure> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(|error| {
                Failure::new(format!("cannot write {}: {error}", self.log.display()))
            })?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(&self.arguments)
            // Its end of the pipe closes when this process ends, however that comes about.
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            // What the terminal says to this process is not meant for it: it is told by the pipe.
            .process_group(0)
            .kill_on_drop(true);
        let runtime = tokio::runtime::Handle::current();
        let child = self.namespace.enter(move || {
            let _inside = runtime.enter();
            command.spawn()
        })?;
        child.map_err(|error| Failure::new(format!("cannot start: {error}")))
    }
}

/// Starts a program whenever it does not run, until told to stop.
async fn keep_running(program: Program, env: &orlop::core::env::Env, token: &CancelToken) {
    let mut wait = FIRST_WAIT;
    while !token.is_cancelled() {
        let began = env.now();
        match program.start() {
            Err(failure) => tracing::error!(program = program.name, %failure, "cannot be started"),
            Ok(mut child) => {
                let stdin = child.stdin.take();
                match token.run(child.wait()).await {
                    None => {
                        drop(stdin);
                        if env.timeout(STOP, child.wait()).await.is_err() {
                            tracing::warn!(program = program.name, "did not stop and is killed");
                            let _ = child.kill().await;
                        }
                        return;
                    }
                    Some(Ok(status)) => {
                        tracing::error!(program = program.name, %status, log = %program.log.display(), "ended; it is started again");
                    }
                    Some(Err(error)) => {
                        tracing::error!(program = program.name, %error, "cannot be waited for");
                    }
                }
            }
        }
        if env.now().since(began) > LONGEST_WAIT {
            wait = FIRST_WAIT;
        }
        token.run(env.sleep(wait)).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}
