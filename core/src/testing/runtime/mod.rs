//! [`SimulatedRuntime`].

mod images;
mod program;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::channel::mpsc;
use futures::{SinkExt, StreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::watch;

use self::images::Images;
use self::program::{CHUNKS, Program};
use super::SimulatedNetwork;
use crate::env::{Env, TaskGroup};
use crate::network::{Cidr, NetworkPlugin, SandboxNetwork};
use crate::runtime::{
    AttachRequest, Connection, Container, ContainerConfig, ContainerFilter, ContainerId,
    ContainerState, ContainerStats, CpuUsage, EventKind, EventStream, EventSubject, ExecRequest,
    Exit, Image, ImageId, ImageSpec, MemoryUsage, NamespaceMode, Process, PullRequest, Resources,
    Runtime, RuntimeCondition, RuntimeError, RuntimeEvent, RuntimeHandler, RuntimeStatus,
    RuntimeVersion, Sandbox, SandboxConfig, SandboxFilter, SandboxId, SandboxMetadata,
    SandboxState, SandboxStats, condition,
};

/// The exit code of what was killed.
const KILLED: i32 = 137;
/// The exit code of what was asked to stop.
const TERMINATED: i32 = 143;
/// How many events a listener may fall behind.
const BACKLOG: usize = 4096;

/// A runtime that runs nothing. It keeps account of sandboxes, containers and images as a runtime does, on the clock of its
/// environment, and forgets them with the process. Clones share it.
///
/// Of programs it knows a few by name and acts as if they ran, in containers and by `exec`: `true`, `false`, `echo`, `cat` and
/// `sleep`. In a container every other program seems to run until it is stopped; by `exec` there is no other. It says of itself that
/// it is `simulated`.
#[derive(Clone)]
pub struct SimulatedRuntime {
    inner: Arc<Inner>,
}

struct Inner {
    env: Env,
    network: Arc<dyn NetworkPlugin>,
    state: Mutex<State>,
    tasks: TaskGroup,
}

#[derive(Default)]
struct State {
    /// The number of the next sandbox or container, which begins its id: ids are in order of creation.
    next: u64,
    /// Sandboxes that are there or about to be.
    names: BTreeSet<SandboxMetadata>,
    sandboxes: BTreeMap<SandboxId, Kept>,
    containers: BTreeMap<ContainerId, Simulated>,
    images: Images,
    echoes: BTreeSet<u16>,
    listeners: Vec<Listener>,
}

/// A sandbox and what its network knows it by.
struct Kept {
    sandbox: Sandbox,
    log_directory: Option<PathBuf>,
    network: Option<SandboxNetwork>,
}

/// A container and the program that seems to run in it.
struct Simulated {
    container: Container,
    program: Program,
    tty: bool,
    stdin_once: bool,
    /// Tells who waits that it has ended, and how.
    ended: watch::Sender<Option<i32>>,
    /// Where attached clients write to; `None` without a standard input, or when it was closed.
    stdin: Option<mpsc::Sender<Bytes>>,
    /// The other end, until the program starts.
    input: Option<mpsc::Receiver<Bytes>>,
    /// Where attached clients read from.
    outputs: Vec<mpsc::Sender<Bytes>>,
}

struct Listener {
    sender: mpsc::Sender<RuntimeEvent>,
    lagged: Arc<AtomicBool>,
}

impl fmt::Debug for SimulatedRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.inner.state.lock();
        f.debug_struct("SimulatedRuntime")
            .field("sandboxes", &state.sandboxes.len())
            .field("containers", &state.containers.len())
            .finish_non_exhaustive()
    }
}

impl SimulatedRuntime {
    /// A runtime with nothing in it, whose sandboxes have addresses of 10.88.0.0/16.
    #[must_use]
    pub fn new(env: Env) -> Self {
        let range = Cidr::new([10, 88, 0, 0].into(), 16);
        let range = range.unwrap_or_else(|| Cidr::host([10, 88, 0, 0].into()));
        Self::with_network(env, Arc::new(SimulatedNetwork::new(range)))
    }

    /// A runtime whose sandboxes are attached to a network.
    #[must_use]
    pub fn with_network(env: Env, network: Arc<dyn NetworkPlugin>) -> Self {
        Self {
            inner: Arc::new(Inner {
                tasks: TaskGroup::new(env.clone()),
                env,
                network,
                state: Mutex::default(),
            }),
        }
    }

    /// Makes pulling an image fail, as one that no registry has.
    pub fn forbid_image(&self, image: &str) {
        self.inner.state.lock().images.forbid(image);
    }

    /// Makes every sandbox send back what is sent to a port.
    pub fn echo_at(&self, port: u16) {
        self.inner.state.lock().echoes.insert(port);
    }
}

impl Inner {
    fn tell(&self, state: &mut State, kind: EventKind, subject: EventSubject) {
        let event = RuntimeEvent {
            at: self.env.wall(),
            kind,
            subject,
        };
        state
            .listeners
            .retain_mut(|listener| match listener.sender.try_send(event.clone()) {
                Ok(()) => true,
                Err(error) => {
                    listener.lagged.store(error.is_full(), Ordering::Release);
                    false
                }
            });
    }

    /// Ends a running container.
    fn end(&self, state: &mut State, id: &ContainerId, code: i32) {
        let Some(own) = state.containers.get_mut(id) else {
            return;
        };
        if own.container.state != ContainerState::Running {
            return;
        }
        own.container.state = ContainerState::Exited;
        own.container.finished = Some(self.env.wall());
        let reason = if code == 0 { "Completed" } else { "Error" };
        own.container.exit = Some(Exit {
            code,
            reason: reason.to_owned(),
            message: String::new(),
        });
        own.ended.send_replace(Some(code));
        own.stdin = None;
        own.outputs.clear();
        let subject = subject(&own.container);
        self.tell(state, EventKind::Stopped, subject);
    }

    /// Removes a container, whatever it does.
    fn remove(&self, state: &mut State, id: &ContainerId) {
        self.end(state, id, KILLED);
        if let Some(own) = state.containers.remove(id) {
            self.tell(state, EventKind::Deleted, subject(&own.container));
        }
    }

    fn new_id(&self, state: &mut State) -> String {
        state.next += 1;
        format!("{:016x}{:016x}", state.next, self.env.random_u64())
    }

    /// Kills what runs in a sandbox and marks it as stopped. Returns what its network is to take back.
    fn halt(&self, state: &mut State, id: &SandboxId) -> Option<SandboxNetwork> {
        let kept = state.sandboxes.get_mut(id)?;
        let network = kept.network.clone();
        let was = std::mem::replace(&mut kept.sandbox.state, SandboxState::NotReady);
        for container in members(state, id) {
            self.end(state, &container, KILLED);
        }
        if was == SandboxState::Ready {
            self.tell(state, EventKind::Stopped, EventSubject::Sandbox(id.clone()));
        }
        network
    }
}

/// The containers of a sandbox.
fn members(state: &State, id: &SandboxId) -> Vec<ContainerId> {
    let mine = state
        .containers
        .values()
        .filter(|own| own.container.sandbox == *id);
    mine.map(|own| own.container.id.clone()).collect()
}

fn subject(container: &Container) -> EventSubject {
    EventSubject::Container {
        sandbox: container.sandbox.clone(),
        container: container.id.clone(),
    }
}

fn wrong_state(id: &impl fmt::Display, what: &str) -> RuntimeError {
    RuntimeError::WrongState(format!("{id} {what}"))
}

/// A sandbox's name, given back unless the sandbox comes about.
struct Reserved<'a> {
    inner: &'a Inner,
    name: Option<SandboxMetadata>,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            self.inner.state.lock().names.remove(&name);
        }
    }
}

#[async_trait]
impl Runtime for SimulatedRuntime {
    async fn status(&self) -> Result<RuntimeStatus, RuntimeError> {
        let network = match self.inner.network.status().await {
            Ok(()) => RuntimeCondition::holding(condition::NETWORK_READY),
            Err(error) => RuntimeCondition::failing(
                condition::NETWORK_READY,
                "NetworkPluginNotReady",
                error.to_string(),
            ),
        };
        Ok(RuntimeStatus {
            version: RuntimeVersion {
                name: "simulated".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            },
            conditions: vec![RuntimeCondition::holding(condition::RUNTIME_READY), network],
            handlers: vec![RuntimeHandler::default()],
            features: crate::runtime::RuntimeFeatures::default(),
        })
    }

    async fn run_sandbox(&self, config: &SandboxConfig) -> Result<SandboxId, RuntimeError> {
        let inner = &*self.inner;
        if !config.handler.is_empty() {
            return Err(RuntimeError::Unsupported("runtime handlers"));
        }
        if config.metadata.name.is_empty() || config.metadata.uid.is_empty() {
            return Err(RuntimeError::InvalidRequest(
                "a sandbox needs a name and a uid".to_owned(),
            ));
        }
        let (id, mut reserved) = {
            let mut state = inner.state.lock();
            if !state.names.insert(config.metadata.clone()) {
                return Err(RuntimeError::AlreadyExists(format!(
                    "sandbox {}",
                    config.metadata
                )));
            }
            let id = SandboxId::new(inner.new_id(&mut state));
            let name = Some(config.metadata.clone());
            (id, Reserved { inner, name })
        };
        let namespaces = config.security.namespaces.clone();
        let mut addresses = Vec::new();
        let mut network = None;
        if namespaces.network != NamespaceMode::Node {
            let mut request = SandboxNetwork::new(id.clone(), format!("/run/netns/{id}"));
            request.namespace.clone_from(&config.metadata.namespace);
            request.name.clone_from(&config.metadata.name);
            request.uid.clone_from(&config.metadata.uid);
            request.ports.clone_from(&config.ports);
            let attached = inner.network.attach(&request).await;
            let attached = attached.map_err(|error| RuntimeError::Failed(error.to_string()))?;
            addresses.extend(attached.ips());
            network = Some(request);
        }
        let mut state = inner.state.lock();
        let sandbox = Sandbox {
            id: id.clone(),
            metadata: config.metadata.clone(),
            state: SandboxState::Ready,
            created: inner.env.wall(),
            addresses,
            namespaces,
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            handler: config.handler.clone(),
        };
        let kept = Kept {
            sandbox,
            log_directory: config.log_directory.clone(),
            network,
        };
        state.sandboxes.insert(id.clone(), kept);
        reserved.name = None;
        for kind in [EventKind::Created, EventKind::Started] {
            inner.tell(&mut state, kind, EventSubject::Sandbox(id.clone()));
        }
        Ok(id)
    }

    async fn stop_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        let network = self.inner.halt(&mut self.inner.state.lock(), id);
        if let Some(network) = network {
            let detached = self.inner.network.detach(&network).await;
            detached.map_err(|error| RuntimeError::Failed(error.to_string()))?;
            if let Some(kept) = self.inner.state.lock().sandboxes.get_mut(id) {
                kept.network = None;
                kept.sandbox.addresses.clear();
            }
        }
        Ok(())
    }

    async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        self.stop_sandbox(id).await?;
        let inner = &*self.inner;
        let mut state = inner.state.lock();
        for container in members(&state, id) {
            inner.remove(&mut state, &container);
        }
        if let Some(kept) = state.sandboxes.remove(id) {
            state.names.remove(&kept.sandbox.metadata);
            inner.tell(
                &mut state,
                EventKind::Deleted,
                EventSubject::Sandbox(id.clone()),
            );
        }
        Ok(())
    }

    async fn sandboxes(&self, filter: &SandboxFilter) -> Result<Vec<Sandbox>, RuntimeError> {
        let state = self.inner.state.lock();
        let all = state.sandboxes.values().map(|kept| &kept.sandbox);
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
        let inner = &*self.inner;
        let mut state = inner.state.lock();
        if config.metadata.name.is_empty() {
            return Err(RuntimeError::InvalidRequest(
                "a container needs a name".to_owned(),
            ));
        }
        let kept = state
            .sandboxes
            .get(sandbox)
            .ok_or_else(|| RuntimeError::not_found("sandbox", sandbox))?;
        if kept.sandbox.state != SandboxState::Ready {
            return Err(wrong_state(sandbox, "is not ready"));
        }
        let log_path = kept
            .log_directory
            .as_ref()
            .zip(config.log_path.as_ref())
            .map(|(directory, log)| directory.join(log));
        let taken = |own: &&Simulated| {
            own.container.sandbox == *sandbox && own.container.metadata == config.metadata
        };
        if state.containers.values().find(taken).is_some() {
            return Err(RuntimeError::AlreadyExists(format!(
                "container {} (attempt {})",
                config.metadata.name, config.metadata.attempt
            )));
        }
        let image = state
            .images
            .find(&config.image.image)
            .ok_or_else(|| RuntimeError::not_found("image", &config.image.image))?;
        let (image_id, image_ref) = (
            image.id.clone(),
            image.digests.first().cloned().unwrap_or_default(),
        );
        let (stdin, input) = if config.stdin {
            let (sender, receiver) = mpsc::channel(CHUNKS);
            (Some(sender), Some(receiver))
        } else {
            (None, None)
        };
        let id = ContainerId::new(inner.new_id(&mut state));
        let container = Container {
            id: id.clone(),
            sandbox: sandbox.clone(),
            metadata: config.metadata.clone(),
            state: ContainerState::Created,
            created: inner.env.wall(),
            started: None,
            finished: None,
            exit: None,
            image: config.image.clone(),
            image_ref,
            image_id,
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            mounts: config.mounts.clone(),
            log_path,
            resources: Some(config.resources.clone()),
            user: None,
            stop_signal: config.stop_signal.clone().unwrap_or_default(),
        };
        let words: Vec<String> = config.command.iter().chain(&config.args).cloned().collect();
        inner.tell(&mut state, EventKind::Created, subject(&container));
        let own = Simulated {
            container,
            program: Program::parse(&words).unwrap_or(Program::Forever),
            tty: config.tty,
            stdin_once: config.stdin_once,
            ended: watch::Sender::new(None),
            stdin,
            input,
            outputs: Vec::new(),
        };
        state.containers.insert(id.clone(), own);
        Ok(id)
    }

    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let inner = &*self.inner;
        let mut state = inner.state.lock();
        let own = state
            .containers
            .get_mut(id)
            .ok_or_else(|| RuntimeError::not_found("container", id))?;
        if own.container.state != ContainerState::Created {
            return Err(wrong_state(id, "was started before"));
        }
        own.container.state = ContainerState::Running;
        own.container.started = Some(inner.env.wall());
        let (program, input) = (own.program.clone(), own.input.take());
        let mut ended = own.ended.subscribe();
        let subject = subject(&own.container);
        let sandbox = own.container.sandbox.clone();
        inner.tell(&mut state, EventKind::Started, subject);
        // A sandbox that stopped meanwhile stopped its containers before this one ran.
        let ready = |kept: &Kept| kept.sandbox.state == SandboxState::Ready;
        if !state.sandboxes.get(&sandbox).is_some_and(ready) {
            inner.end(&mut state, id, KILLED);
            return Ok(());
        }
        drop(state);

        let (weak, env, id) = (Arc::downgrade(&self.inner), inner.env.clone(), id.clone());
        inner
            .tasks
            .spawn_until_cancelled("simulated container", async move {
                let out = Output(weak.clone(), id.clone());
                let run = std::pin::pin!(program.run(&env, input, |chunk| out.write(chunk)));
                let stopped = std::pin::pin!(ended.wait_for(Option::is_some));
                let code = match futures::future::select(run, stopped).await {
                    futures::future::Either::Left((code, _)) => code,
                    futures::future::Either::Right(_) => return,
                };
                if let Some(inner) = weak.upgrade() {
                    inner.end(&mut inner.state.lock(), &id, code);
                }
            });
        Ok(())
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError> {
        let code = if grace.is_zero() { KILLED } else { TERMINATED };
        let inner = &*self.inner;
        inner.end(&mut inner.state.lock(), id, code);
        Ok(())
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.inner.remove(&mut self.inner.state.lock(), id);
        Ok(())
    }

    async fn containers(&self, filter: &ContainerFilter) -> Result<Vec<Container>, RuntimeError> {
        let state = self.inner.state.lock();
        let all = state.containers.values().map(|own| &own.container);
        Ok(all
            .filter(|container| filter.matches(container))
            .cloned()
            .collect())
    }

    async fn update_container(
        &self,
        id: &ContainerId,
        resources: &Resources,
    ) -> Result<(), RuntimeError> {
        let mut state = self.inner.state.lock();
        let own = state
            .containers
            .get_mut(id)
            .ok_or_else(|| RuntimeError::not_found("container", id))?;
        if own.container.state == ContainerState::Exited {
            return Err(wrong_state(id, "has exited"));
        }
        let current = own.container.resources.take().unwrap_or_default();
        own.container.resources = Some(current.updated(resources));
        Ok(())
    }

    async fn pull_image(&self, request: &PullRequest) -> Result<ImageId, RuntimeError> {
        self.inner.state.lock().images.pull(&request.image.image)
    }

    async fn images(&self) -> Result<Vec<Image>, RuntimeError> {
        Ok(self.inner.state.lock().images.all())
    }

    async fn remove_image(&self, image: &ImageSpec) -> Result<(), RuntimeError> {
        self.inner.state.lock().images.remove(&image.image);
        Ok(())
    }

    async fn image(&self, image: &ImageSpec) -> Result<Option<Image>, RuntimeError> {
        Ok(self.inner.state.lock().images.find(&image.image).cloned())
    }

    async fn exec(&self, id: &ContainerId, request: &ExecRequest) -> Result<Process, RuntimeError> {
        if request.command.is_empty() {
            return Err(RuntimeError::InvalidRequest("no command".to_owned()));
        }
        if request.tty && request.stderr {
            return Err(RuntimeError::InvalidRequest(
                "a terminal has no separate standard error".to_owned(),
            ));
        }
        let ended = self.inner.state.lock().running(id)?.ended.subscribe();
        let program = Program::parse(&request.command).ok_or_else(|| {
            RuntimeError::Failed(format!(
                "{:?}: this runtime is simulated and has no such program",
                request.command[0]
            ))
        })?;
        Ok(program::exec(program, request, ended, &self.inner.tasks))
    }

    async fn attach(
        &self,
        id: &ContainerId,
        request: &AttachRequest,
    ) -> Result<Process, RuntimeError> {
        let mut state = self.inner.state.lock();
        let own = state.running(id)?;
        let stdin = if request.stdin {
            let sender = if own.stdin_once {
                own.stdin.take()
            } else {
                own.stdin.clone()
            };
            sender.map(program::sink)
        } else {
            None
        };
        let stdout = request.stdout.then(|| {
            let (sender, receiver) = mpsc::channel(CHUNKS);
            own.outputs.push(sender);
            program::output(receiver)
        });
        let mut ended = own.ended.subscribe();
        Ok(Process {
            stdin,
            stdout,
            stderr: (request.stderr && !own.tty).then(|| stream::empty().boxed()),
            resize: (request.tty && own.tty).then(program::resize),
            exit: Box::pin(async move {
                let code = ended.wait_for(Option::is_some).await.map(|code| *code);
                Ok(code.ok().flatten().unwrap_or(KILLED))
            }),
        })
    }

    async fn port_forward(&self, id: &SandboxId, port: u16) -> Result<Connection, RuntimeError> {
        let state = self.inner.state.lock();
        let kept = state
            .sandboxes
            .get(id)
            .ok_or_else(|| RuntimeError::not_found("sandbox", id))?;
        if kept.sandbox.state != SandboxState::Ready {
            return Err(wrong_state(id, "is not ready"));
        }
        if !state.echoes.contains(&port) {
            return Err(RuntimeError::Refused(port));
        }
        let (sender, receiver) = mpsc::channel(CHUNKS);
        Ok(Connection {
            send: program::sink(sender),
            receive: program::output(receiver),
        })
    }

    async fn container_stats(
        &self,
        filter: &ContainerFilter,
    ) -> Result<Vec<ContainerStats>, RuntimeError> {
        let containers = self.containers(filter).await?;
        let running = containers
            .into_iter()
            .filter(|c| c.state == ContainerState::Running);
        Ok(running.map(|c| self.nothing_used(c)).collect())
    }

    async fn sandbox_stats(
        &self,
        filter: &SandboxFilter,
    ) -> Result<Vec<SandboxStats>, RuntimeError> {
        let mut all = Vec::new();
        for sandbox in self.sandboxes(filter).await? {
            if sandbox.state != SandboxState::Ready {
                continue;
            }
            let containers = self
                .container_stats(&ContainerFilter::of(&sandbox.id))
                .await?;
            let (cpu, memory) = self.zero();
            all.push(SandboxStats {
                id: sandbox.id,
                metadata: sandbox.metadata,
                labels: sandbox.labels,
                cpu,
                memory,
                interfaces: Vec::new(),
                processes: Some(0),
                io_pressure: None,
                containers,
            });
        }
        Ok(all)
    }

    async fn events(&self) -> Result<EventStream, RuntimeError> {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let lagged = Arc::new(AtomicBool::new(false));
        let listener = Listener {
            sender,
            lagged: lagged.clone(),
        };
        self.inner.state.lock().listeners.push(listener);
        let end = stream::once(async move { lagged.load(Ordering::Acquire) })
            .filter_map(async |lagged| lagged.then_some(Err(RuntimeError::Lagged)));
        Ok(Box::pin(receiver.map(Ok).chain(end)))
    }

    async fn set_pod_cidrs(&self, cidrs: &[Cidr]) -> Result<(), RuntimeError> {
        let set = self.inner.network.set_pod_cidrs(cidrs).await;
        set.map_err(|error| RuntimeError::InvalidRequest(error.to_string()))
    }
}

impl SimulatedRuntime {
    /// What is used by what does not run: nothing, now.
    fn zero(&self) -> (Option<CpuUsage>, Option<MemoryUsage>) {
        let at = self.inner.env.wall();
        let cpu = CpuUsage {
            at,
            usage_core_nanoseconds: 0,
            usage_nano_cores: Some(0),
            pressure: None,
        };
        let memory = MemoryUsage {
            at,
            working_set: 0,
            available: None,
            usage: Some(0),
            rss: Some(0),
            page_faults: Some(0),
            major_page_faults: Some(0),
            pressure: None,
        };
        (Some(cpu), Some(memory))
    }

    fn nothing_used(&self, container: Container) -> ContainerStats {
        let (cpu, memory) = self.zero();
        ContainerStats {
            id: container.id,
            metadata: container.metadata,
            labels: container.labels,
            cpu,
            memory,
            swap: None,
            writable_layer: None,
            io_pressure: None,
        }
    }
}

impl State {
    fn running(&mut self, id: &ContainerId) -> Result<&mut Simulated, RuntimeError> {
        let own = self
            .containers
            .get_mut(id)
            .ok_or_else(|| RuntimeError::not_found("container", id))?;
        if own.container.state == ContainerState::Running {
            Ok(own)
        } else {
            Err(wrong_state(id, "does not run"))
        }
    }
}

/// Where a container's program writes to: whoever is attached.
struct Output(Weak<Inner>, ContainerId);

impl Output {
    async fn write(&self, chunk: Bytes) -> bool {
        let outputs = |inner: Arc<Inner>| {
            let mut state = inner.state.lock();
            let own = state.containers.get_mut(&self.1)?;
            own.outputs.retain(|output| !output.is_closed());
            Some(own.outputs.clone())
        };
        let outputs = self.0.upgrade().and_then(outputs);
        for mut output in outputs.unwrap_or_default() {
            // Who let go meanwhile is dropped with the next write.
            let _ = output.send(chunk.clone()).await;
        }
        true
    }
}
