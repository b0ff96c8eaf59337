//! A runtime of one's own, driven by Orlop's kubelet: pods are processes of this machine, run by the user who runs this program, without
//! images or isolation.
//!
//! `cargo run --example custom_runtime`. It needs no privileges: cgroups and mounts are what a kubelet needs root for, and a runtime
//! that has neither can do without.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, LogParams, PostParams};
use orlop::core::env::{Env, Flag, TaskGroup};
use orlop::core::runtime::{
    Container, ContainerConfig, ContainerFilter, ContainerId, ContainerState, Exit, Image, ImageId,
    ImageSpec, PullRequest, Runtime, RuntimeCondition, RuntimeError, RuntimeFeatures,
    RuntimeStatus, RuntimeVersion, Sandbox, SandboxConfig, SandboxFilter, SandboxId, SandboxState,
    condition,
};
use orlop::kubelet::config::KubeletConfig;
use orlop::{ControlPlane, HostNode};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{from_value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

/// Runs containers as processes. Clones share them.
#[derive(Clone)]
struct Processes(Arc<Inner>);

struct Inner {
    env: Env,
    /// One task for each process, which waits for its end.
    tasks: TaskGroup,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sandboxes: BTreeMap<SandboxId, (Sandbox, Option<PathBuf>)>,
    containers: BTreeMap<ContainerId, Kept>,
    images: BTreeMap<String, Image>,
}

#[derive(Clone)]
struct Kept {
    container: Container,
    config: ContainerConfig,
    process: Option<Pid>,
    ended: Flag,
}

impl Processes {
    fn new(env: Env) -> Self {
        let (tasks, state) = (TaskGroup::new(env.clone()), Mutex::default());
        Self(Arc::new(Inner { env, tasks, state }))
    }

    fn kept(&self, id: &ContainerId) -> Result<Kept, RuntimeError> {
        let kept = self.0.state.lock().containers.get(id).cloned();
        kept.ok_or_else(|| RuntimeError::not_found("container", id))
    }

    fn change(&self, id: &ContainerId, change: impl FnOnce(&mut Kept)) {
        if let Some(kept) = self.0.state.lock().containers.get_mut(id) {
            change(kept);
        }
    }

    fn ended(&self, id: &ContainerId, code: i32, message: String) {
        let reason = if code == 0 { "Completed" } else { "Error" };
        self.change(id, |kept| {
            kept.process = None;
            kept.container.state = ContainerState::Exited;
            kept.container.finished = Some(self.0.env.wall());
            kept.container.exit = Some(Exit {
                code,
                reason: reason.to_owned(),
                message,
            });
            kept.ended.set();
        });
    }
}

#[async_trait]
impl Runtime for Processes {
    async fn status(&self) -> Result<RuntimeStatus, RuntimeError> {
        let ready = [condition::RUNTIME_READY, condition::NETWORK_READY];
        Ok(RuntimeStatus {
            version: RuntimeVersion {
                name: "processes".to_owned(),
                version: "1.0".to_owned(),
            },
            conditions: ready.map(RuntimeCondition::holding).into(),
            handlers: Vec::new(),
            features: RuntimeFeatures::default(),
        })
    }

    async fn run_sandbox(&self, config: &SandboxConfig) -> Result<SandboxId, RuntimeError> {
        let id = SandboxId::new(self.0.env.uuid());
        let sandbox = Sandbox {
            id: id.clone(),
            metadata: config.metadata.clone(),
            state: SandboxState::Ready,
            created: self.0.env.wall(),
            // There is no network of the pod's own.
            addresses: vec![[127, 0, 0, 1].into()],
            namespaces: config.security.namespaces.clone(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            handler: config.handler.clone(),
        };
        let mut state = self.0.state.lock();
        let taken = |(other, _): &(Sandbox, _)| other.metadata == sandbox.metadata;
        if state.sandboxes.values().any(taken) {
            return Err(RuntimeError::AlreadyExists(sandbox.metadata.to_string()));
        }
        let logs = config.log_directory.clone();
        state.sandboxes.insert(id.clone(), (sandbox, logs));
        Ok(id)
    }

    async fn stop_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        for container in self.containers(&ContainerFilter::of(id)).await? {
            self.stop_container(&container.id, Duration::ZERO).await?;
        }
        if let Some((sandbox, _)) = self.0.state.lock().sandboxes.get_mut(id) {
            sandbox.state = SandboxState::NotReady;
            sandbox.addresses.clear();
        }
        Ok(())
    }

    async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        self.stop_sandbox(id).await?;
        let mut state = self.0.state.lock();
        state.sandboxes.remove(id);
        let stays = |_: &ContainerId, kept: &mut Kept| kept.container.sandbox != *id;
        state.containers.retain(stays);
        Ok(())
    }

    async fn sandboxes(&self, filter: &SandboxFilter) -> Result<Vec<Sandbox>, RuntimeError> {
        let state = self.0.state.lock();
        let all = state.sandboxes.values().map(|(sandbox, _)| sandbox);
        Ok(all
            .filter(|sandbox| filter.matches(sandbox))
            .cloned()
            .collect())
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: &ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        let id = ContainerId::new(self.0.env.uuid());
        let mut state = self.0.state.lock();
        let Some((_, logs)) = state.sandboxes.get(sandbox) else {
            return Err(RuntimeError::not_found("sandbox", sandbox));
        };
        let log_path = logs.as_ref().zip(config.log_path.as_ref());
        let container = Container {
            id: id.clone(),
            sandbox: sandbox.clone(),
            metadata: config.metadata.clone(),
            state: ContainerState::Created,
            created: self.0.env.wall(),
            started: None,
            finished: None,
            exit: None,
            image: config.image.clone(),
            image_ref: config.image.image.clone(),
            image_id: ImageId::new(config.image.image.clone()),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            mounts: config.mounts.clone(),
            log_path: log_path.map(|(directory, name)| directory.join(name)),
            resources: None,
            user: None,
            stop_signal: config.stop_signal.clone().unwrap_or_default(),
        };
        let kept = Kept {
            container,
            config: config.clone(),
            process: None,
            ended: Flag::new(),
        };
        state.containers.insert(id.clone(), kept);
        Ok(id)
    }

    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let kept = self.kept(id)?;
        let mut words = kept.config.command.iter().chain(&kept.config.args);
        let program = words.next().ok_or_else(|| {
            RuntimeError::InvalidRequest("there are no images here: a command is needed".to_owned())
        })?;
        let env = kept.config.env.iter().filter_map(|variable| {
            let value = String::from_utf8(variable.value.to_vec()).ok()?;
            Some((variable.name.clone(), value))
        });
        let mut command = Command::new(program);
        command.args(words).env_clear().envs(env);
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = match command.process_group(0).kill_on_drop(true).spawn() {
            Ok(child) => child,
            Err(error) => {
                self.ended(id, 127, error.to_string());
                return Err(RuntimeError::Failed(format!("{program}: {error}")));
            }
        };
        let process = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        self.change(id, |kept| {
            kept.process = process;
            kept.container.state = ContainerState::Running;
            kept.container.started = Some(self.0.env.wall());
        });
        // A kubelet reads logs in CRI's format: when, which stream, whether the line is whole, the line.
        let mut log = kept
            .container
            .log_path
            .and_then(|path| File::create(path).ok());
        let (this, id) = (self.clone(), id.clone());
        self.0.tasks.spawn("process", async move {
            let output = child.stdout.take().map(|out| BufReader::new(out).lines());
            if let Some(mut lines) = output {
                while let Ok(Some(line)) = lines.next_line().await {
                    if let Some(log) = &mut log {
                        // A full disk does not stop the process.
                        let _ = writeln!(log, "{} stdout F {line}", this.0.env.wall());
                    }
                }
            }
            let status = child.wait().await.unwrap_or_default();
            let signalled = status.signal().map(|signal| 128 + signal);
            this.ended(
                &id,
                status.code().or(signalled).unwrap_or(-1),
                String::new(),
            );
        });
        Ok(())
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError> {
        let Ok(kept) = self.kept(id) else {
            return Ok(());
        };
        for (signal, patience) in [(Signal::TERM, grace), (Signal::KILL, Duration::MAX)] {
            let Some(process) = kept.process.filter(|_| !kept.ended.is_set()) else {
                break;
            };
            if patience.is_zero() {
                continue;
            }
            // It may just have ended by itself.
            let _ = kill_process_group(process, signal);
            let patience = patience.min(Duration::from_secs(3600));
            let _ = self.0.env.timeout(patience, kept.ended.wait()).await;
        }
        Ok(())
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.stop_container(id, Duration::ZERO).await?;
        self.0.state.lock().containers.remove(id);
        Ok(())
    }

    async fn containers(&self, filter: &ContainerFilter) -> Result<Vec<Container>, RuntimeError> {
        let state = self.0.state.lock();
        let all = state.containers.values().map(|kept| &kept.container);
        Ok(all.filter(|one| filter.matches(one)).cloned().collect())
    }

    /// Every image is there, because none is needed.
    async fn pull_image(&self, request: &PullRequest) -> Result<ImageId, RuntimeError> {
        let name = &request.image.image;
        let image = Image {
            id: ImageId::new(name),
            tags: vec![name.clone()],
            digests: Vec::new(),
            size: 0,
            user: None,
            pinned: true,
        };
        self.0.state.lock().images.insert(name.clone(), image);
        Ok(ImageId::new(name))
    }

    async fn images(&self) -> Result<Vec<Image>, RuntimeError> {
        Ok(self.0.state.lock().images.values().cloned().collect())
    }

    async fn remove_image(&self, image: &ImageSpec) -> Result<(), RuntimeError> {
        self.0.state.lock().images.remove(&image.image);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let env = Env::tokio();
    let runtime = Processes::new(env.clone());
    let directory = tempfile::tempdir()?;
    let mut config = KubeletConfig::new("here");
    config.node_ips = vec![[127, 0, 0, 1].into()];
    config.root_dir = directory.path().join("kubelet");
    config.pod_logs_dir = directory.path().join("logs");
    config.container_logs_dir = None;
    config.cgroups_per_qos = false;
    config.eviction_hard.clear();
    let node = HostNode::new(Arc::new(runtime.clone()), config).without_proxy();
    let plane = ControlPlane::builder()
        .in_memory()
        .with_defaults()
        .node(node)
        .start()
        .await?;
    let pods: Api<Pod> = Api::default_namespaced(plane.kube_client());
    let pause = || env.sleep(Duration::from_millis(100));

    // Work that ends.
    let jobs: Api<Job> = Api::default_namespaced(plane.kube_client());
    // A dollar is doubled, as in any pod: the shell gets two.
    let says = "echo hello from process $$$$, which is pod $POD";
    let name = json!({"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}});
    let container =
        json!({"name": "c", "image": "none", "command": ["sh", "-c", says], "env": [name]});
    let template = json!({"spec": {"restartPolicy": "Never", "containers": [container]}});
    let spec = json!({"completions": 3, "parallelism": 3, "template": template});
    let job = from_value(json!({"metadata": {"name": "greetings"}, "spec": spec}))?;
    jobs.create(&PostParams::default(), &job).await?;
    while jobs
        .get("greetings")
        .await?
        .status
        .and_then(|s| s.succeeded)
        != Some(3)
    {
        pause().await;
    }
    // Logs take the way that they take for kubectl: from the API server to the kubelet, which reads the file.
    for pod in pods
        .list(&ListParams::default().labels("job-name=greetings"))
        .await?
    {
        let name = pod.metadata.name.unwrap_or_default();
        print!("{}", pods.logs(&name, &LogParams::default()).await?);
    }

    // Work that goes on until it is deleted.
    let deployments: Api<Deployment> = Api::default_namespaced(plane.kube_client());
    let labels = json!({"app": "sleeper"});
    let container = json!({"name": "c", "image": "none", "command": ["sleep", "3600"]});
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [container]}});
    let spec = json!({"replicas": 2, "selector": {"matchLabels": labels}, "template": template});
    let sleeper = from_value(json!({"metadata": {"name": "sleeper"}, "spec": spec}))?;
    deployments.create(&PostParams::default(), &sleeper).await?;
    let ready = |status: Option<i32>| status == Some(2);
    while !ready(
        deployments
            .get("sleeper")
            .await?
            .status
            .and_then(|s| s.ready_replicas),
    ) {
        pause().await;
    }
    let running = ContainerFilter {
        state: Some(ContainerState::Running),
        ..Default::default()
    };
    println!(
        "{} processes sleep",
        runtime.containers(&running).await?.len()
    );
    deployments
        .delete("sleeper", &DeleteParams::default())
        .await?;
    while !runtime.containers(&running).await?.is_empty() {
        pause().await;
    }
    println!("and were ended with their pods");
    plane.shutdown().await;
    Ok(())
}
