//! [`ContainerConfigs`]: turns a pod's words into a runtime's.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::api::node::v1::RuntimeClass;
use orlop_api::typed::Api;
use orlop_core::client::Client;
use orlop_core::env::Env;
use orlop_core::events::{EventRecorder, ObjectReference};
use orlop_core::runtime::{
    ContainerConfig, ContainerMetadata, Device, EnvVar, ImageSpec, Mount, MountSource, Runtime,
    SandboxConfig, SandboxMetadata, Signal, SupplementalGroupsPolicy, UserNamespace,
};
use parking_lot::Mutex;

use super::dns::{self, NodeDns};
use super::env::Surroundings;
use super::expansion::expand;
use super::hostname::hostname;
use super::services::Services;
use super::{hosts, resources, sandbox, security, termination, user_namespace, words};
use crate::blocking::blocking;
use crate::cgroups::Hierarchies;
use crate::config::KubeletConfig;
use crate::objects::ObjectCache;
use crate::parts::{Cgroups, Configs, ContainerRequest, PartError, Volumes};
use crate::volumes::AllocatableSource;

/// The largest resolver configuration that is read, in bytes.
const RESOLV_CONF_LIMIT: u64 = 10 << 20;

/// What is known of the node and does not change while it runs.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeFacts {
    /// All its memory, in bytes.
    pub memory: u64,
    /// Whether cgroups are of version 2.
    pub cgroup_v2: bool,
    /// Whether the kernel counts swap by cgroups.
    pub counts_swap: bool,
    /// The sizes of huge pages that it has, by the kernel's names (`2MB`).
    pub page_sizes: BTreeSet<String>,
    /// The host's own names of hosts.
    pub hosts_file: PathBuf,
}

impl NodeFacts {
    /// Those of this machine.
    #[must_use]
    pub fn of_machine(hierarchies: Option<&Hierarchies>) -> Self {
        Self {
            memory: crate::cgroups::memory_of_machine()
                .and_then(|bytes| u64::try_from(bytes).ok())
                .unwrap_or(0),
            cgroup_v2: hierarchies.is_some_and(Hierarchies::is_v2),
            counts_swap: hierarchies.is_some_and(Hierarchies::counts_swap),
            page_sizes: crate::cgroups::page_sizes(),
            hosts_file: PathBuf::from(hosts::PATH),
        }
    }
}

/// What configurations are made of.
pub struct ConfigSources {
    /// The node agent's choices, with the node's addresses.
    pub config: Arc<KubeletConfig>,
    /// The API, for RuntimeClasses.
    pub client: Arc<dyn Client>,
    /// The runtime, which is asked what it can do.
    pub runtime: Arc<dyn Runtime>,
    /// ConfigMaps and Secrets.
    pub objects: ObjectCache,
    /// Services.
    pub services: Arc<dyn Services>,
    /// Volumes.
    pub volumes: Arc<dyn Volumes>,
    /// Cgroups.
    pub cgroups: Arc<dyn Cgroups>,
    /// Who tells events.
    pub recorder: EventRecorder,
    /// Where randomness comes from.
    pub env: Env,
    /// What the node has for pods: what a container without limits is told as its own (`resourceFieldRef`).
    pub allocatable: AllocatableSource,
    /// What is known of the node.
    pub node: NodeFacts,
}

/// Turns a pod's words into a runtime's. Clones share what is known.
#[derive(Clone)]
pub struct ContainerConfigs(Arc<Inner>);

struct Inner {
    sources: ConfigSources,
    /// Held while a range of user ids is chosen.
    user_ids: Arc<Mutex<()>>,
}

impl fmt::Debug for ContainerConfigs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerConfigs")
            .field("node", &self.0.sources.node)
            .finish_non_exhaustive()
    }
}

impl ContainerConfigs {
    /// Configurations made of these.
    #[must_use]
    pub fn new(sources: ConfigSources) -> Self {
        Self(Arc::new(Inner {
            sources,
            user_ids: Arc::default(),
        }))
    }
}

/// What stops a sandbox from being configured.
fn no_sandbox<M: fmt::Display>(message: M) -> PartError {
    PartError::of_pod("FailedCreatePodSandBox", message.to_string())
}

/// What stops a container from being configured.
fn no_container(message: impl Into<String>) -> PartError {
    PartError::new("CreateContainerConfigError", "Failed", message)
}

impl Inner {
    fn pod_dir(&self, pod: &Pod) -> PathBuf {
        self.sources
            .config
            .pod_dir(pod.metadata.uid.as_deref().unwrap_or_default())
    }

    async fn sandbox(&self, pod: &Pod, attempt: u32) -> Result<SandboxConfig, PartError> {
        let ConfigSources { config, .. } = &self.sources;
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let metadata = SandboxMetadata {
            namespace: text(&pod.metadata.namespace),
            name: text(&pod.metadata.name),
            uid: text(&pod.metadata.uid),
            attempt,
        };
        let spec = pod
            .spec
            .as_ref()
            .ok_or_else(|| no_sandbox("the pod has no specification"))?;
        let failed = no_sandbox::<String>;
        let handler = self
            .handler(spec.runtime_class_name.as_deref())
            .await
            .map_err(failed)?;
        let user = self.user_namespace(pod, &handler).await.map_err(failed)?;
        let confined = security::of_sandbox(pod, user);
        if confined.identity.supplemental_groups_policy == SupplementalGroupsPolicy::Strict {
            // A runtime that does not know the policy would give groups that the pod does not want.
            let status = self.sources.runtime.status().await.map_err(no_sandbox)?;
            if !status.features.supplemental_groups_policy {
                return Err(failed(
                    "SupplementalGroupsPolicy=Strict is not supported in this node".to_owned(),
                ));
            }
        }
        let name = if spec.host_network == Some(true) {
            String::new()
        } else {
            hostname(pod, &config.cluster_domain)
                .map_err(failed)?
                .kernel
        };
        let dns = self.dns(pod).await.map_err(failed)?;
        let logs = config.pod_log_dir(&metadata.namespace, &metadata.name, &metadata.uid);
        make_log_dir(logs.clone()).await.map_err(no_sandbox)?;
        Ok(SandboxConfig {
            metadata,
            hostname: name,
            log_directory: Some(logs),
            dns: Some(dns),
            ports: sandbox::ports(pod),
            labels: words::sandbox_labels(pod),
            annotations: pod.metadata.annotations.clone().unwrap_or_default(),
            handler,
            cgroup_parent: self.sources.cgroups.ensure(pod).await?,
            sysctls: sandbox::sysctls(pod),
            security: confined,
            overhead: resources::overhead(pod, config),
            resources: resources::sandbox_resources(pod, config),
        })
    }

    /// The handler of a RuntimeClass; the default one without a class.
    async fn handler(&self, class: Option<&str>) -> Result<String, String> {
        let Some(class) = class.filter(|class| !class.is_empty()) else {
            return Ok(String::new());
        };
        let classes = Api::<RuntimeClass>::all(self.sources.client.clone());
        let found = classes.get(class).await;
        let found =
            found.map_err(|status| format!("failed to get sandbox runtime: {}", status.message))?;
        Ok(found.handler.clone())
    }

    /// The user namespace of a pod.
    async fn user_namespace(&self, pod: &Pod, handler: &str) -> Result<UserNamespace, String> {
        if pod.spec.as_ref().and_then(|spec| spec.host_users) != Some(false) {
            return Ok(UserNamespace::Host);
        }
        // A runtime that knows nothing of them would run the pod as the host's own users.
        let status = self
            .sources
            .runtime
            .status()
            .await
            .map_err(|error| error.to_string())?;
        let own = status.handlers.iter().find(|own| own.name == handler);
        if !own.is_some_and(|own| own.user_namespaces) {
            return Err(format!(
                "RuntimeClass handler {handler:?} does not support user namespaces"
            ));
        }
        self.written_user_namespace(pod).await
    }

    /// The user namespace that a pod with a sandbox has.
    async fn written_user_namespace(&self, pod: &Pod) -> Result<UserNamespace, String> {
        if pod.spec.as_ref().and_then(|spec| spec.host_users) != Some(false) {
            return Ok(UserNamespace::Host);
        }
        let pods = self.sources.config.root_dir.join("pods");
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let (lock, most) = (self.user_ids.clone(), self.sources.config.max_pods);
        blocking(move || {
            let _held = lock.lock();
            user_namespace::of_pod(&pods, &uid, most)
        })
        .await
    }

    async fn dns(&self, pod: &Pod) -> Result<orlop_core::runtime::DnsConfig, String> {
        let ConfigSources {
            config, recorder, ..
        } = &self.sources;
        let text = match config
            .resolv_conf
            .clone()
            .filter(|path| !path.as_os_str().is_empty())
        {
            Some(path) => {
                let read = blocking(move || read_bounded(&path, RESOLV_CONF_LIMIT)).await;
                Some(String::from_utf8_lossy(&read?).into_owned())
            }
            None => None,
        };
        let node = NodeDns {
            cluster_dns: &config.cluster_dns,
            cluster_domain: &config.cluster_domain,
            node_ips: &config.node_ips,
            resolv_conf: text.as_deref(),
        };
        let (dns, warnings) = dns::of_pod(pod, &node)?;
        let mut about = words::reference_of(pod, &Container::default());
        about.field_path.clear();
        for (reason, message) in warnings.pod {
            recorder.warning(about.clone(), reason, message);
        }
        let about = ObjectReference {
            kind: "Node".to_owned(),
            name: config.node_name.clone(),
            uid: config.node_name.clone(),
            ..ObjectReference::default()
        };
        for (reason, message) in warnings.node {
            recorder.warning(about.clone(), reason, message);
        }
        Ok(dns)
    }

    async fn container(
        &self,
        request: &ContainerRequest<'_>,
    ) -> Result<ContainerConfig, PartError> {
        let ConfigSources {
            config,
            node,
            volumes,
            ..
        } = &self.sources;
        let (pod, container) = (request.pod, request.container);
        let surroundings = Surroundings {
            config,
            objects: &self.sources.objects,
            services: &*self.sources.services,
            allocatable: &self.sources.allocatable,
            recorder: &self.sources.recorder,
        };
        let user = self
            .written_user_namespace(pod)
            .await
            .map_err(no_container)?;
        let confined = security::of_container(
            pod,
            container,
            request.image,
            request.target.as_ref(),
            user.clone(),
            &config.root_dir.join("seccomp"),
        )
        .map_err(no_container)?;
        let env = surroundings
            .environment(request)
            .await
            .map_err(no_container)?;
        let mut mounts = volumes
            .mounts(pod, container, request.volumes, &env)
            .await?;
        if let UserNamespace::Pod { uids, gids } = &user {
            for mount in mounts
                .iter_mut()
                .filter(|mount| matches!(mount.source, MountSource::Host(_)))
            {
                if mount.uids.is_empty() && mount.gids.is_empty() {
                    mount.uids.clone_from(uids);
                    mount.gids.clone_from(gids);
                }
            }
        }
        let at_hosts = |mount: &Mount| mount.container_path == Path::new(hosts::PATH);
        if !request.pod_ips.is_empty() && !mounts.iter().any(at_hosts) {
            mounts.push(self.hosts_mount(request).await?);
        }
        mounts.extend(self.termination_mount(pod, container).await?);
        let metadata = &pod.metadata;
        let logs = config.pod_log_dir(
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.name.as_deref().unwrap_or_default(),
            metadata.uid.as_deref().unwrap_or_default(),
        );
        // Not every runtime makes the directory of the file that it is told to write.
        let made = make_log_dir(logs.join(&container.name)).await;
        made.map_err(|error| no_container(error.to_string()))?;
        let expanded = |words: &Option<Vec<String>>| -> Vec<String> {
            let known = |name: &str| {
                env.iter()
                    .find(|own| own.name == name)
                    .map(|own| own.value.clone())
            };
            let word = |word: &String| String::from_utf8_lossy(&expand(word, known)).into_owned();
            words.iter().flatten().map(word).collect()
        };
        let stop_signal = container
            .lifecycle
            .as_ref()
            .and_then(|lifecycle| lifecycle.stop_signal.as_deref());
        Ok(ContainerConfig {
            metadata: ContainerMetadata {
                name: container.name.clone(),
                attempt: request.attempt,
            },
            image: ImageSpec {
                image: request.image.id.as_str().to_owned(),
                user_specified: container.image.clone().unwrap_or_default(),
                handler: String::new(),
                annotations: pod.metadata.annotations.clone().unwrap_or_default(),
            },
            command: expanded(&container.command),
            args: expanded(&container.args),
            working_dir: container.working_dir.clone().unwrap_or_default(),
            mounts,
            devices: devices(request)?,
            cdi_devices: Vec::new(),
            labels: words::container_labels(pod, container),
            annotations: words::container_annotations(pod, container, request.attempt),
            log_path: Some(PathBuf::from(&container.name).join(format!("{}.log", request.attempt))),
            stdin: container.stdin == Some(true),
            stdin_once: container.stdin_once == Some(true),
            tty: container.tty == Some(true),
            resources: resources::container_resources(pod, container, config, node),
            security: confined,
            stop_signal: stop_signal.and_then(Signal::parse),
            env: env
                .into_iter()
                .filter(|own: &EnvVar| !own.name.is_empty())
                .collect(),
        })
    }

    /// The pod's `/etc/hosts`, written anew where it is not as it should be.
    async fn hosts_mount(&self, request: &ContainerRequest<'_>) -> Result<Mount, PartError> {
        let ConfigSources { config, node, .. } = &self.sources;
        let (pod, dir) = (request.pod.clone(), self.pod_dir(request.pod));
        let host_network = pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
        let name = hostname(&pod, &config.cluster_domain).map_err(no_container)?;
        let (addresses, host_file) = (request.pod_ips.to_vec(), node.hosts_file.clone());
        let path = dir.join("etc-hosts");
        let file = path.clone();
        let written = blocking(move || {
            let content = if host_network {
                hosts::of_host(&pod, &fs::read(host_file)?)
            } else {
                hosts::own(&pod, &addresses, &name).into_bytes()
            };
            make_private(&dir)?;
            hosts::write(&file, &content)
        });
        written
            .await
            .map_err(|error| no_container(format!("failed to write {path:?}: {error}")))?;
        Ok(relabelled(Mount::host(path, hosts::PATH)))
    }

    /// The file into which the container writes why it ended: a new one for every container.
    async fn termination_mount(
        &self,
        pod: &Pod,
        container: &Container,
    ) -> Result<Option<Mount>, PartError> {
        let wanted = container
            .termination_message_path
            .as_deref()
            .unwrap_or_default();
        if wanted.is_empty() {
            return Ok(None);
        }
        let dir = self.pod_dir(pod).join("containers").join(&container.name);
        let path = dir.join(format!("{:08x}", self.sources.env.random_u64() as u32));
        let file = path.clone();
        let made = blocking(move || {
            make_private(&dir)?;
            let mut options = fs::OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o666);
            let file = options.open(&file)?;
            // Whoever the container runs as writes it, whatever this process' mask is.
            file.set_permissions(fs::Permissions::from_mode(0o666))
        });
        made.await.map_err(|error| {
            no_container(format!(
                "failed to make termination-log file {path:?}: {error}"
            ))
        })?;
        let inside = absolute(wanted);
        Ok(Some(relabelled(Mount::host(path, inside))))
    }

    async fn termination_message(
        &self,
        container: &Container,
        ended: &orlop_core::runtime::Container,
    ) -> String {
        // What the container was made with counts, where the runtime still knows it.
        let word = |label: &str, own: &Option<String>| {
            let made_with = ended.annotations.get(label).cloned();
            made_with.or_else(|| own.clone()).unwrap_or_default()
        };
        let path = word(
            crate::labels::TERMINATION_MESSAGE_PATH,
            &container.termination_message_path,
        );
        let policy = word(
            crate::labels::TERMINATION_MESSAGE_POLICY,
            &container.termination_message_policy,
        );
        let exit = ended.exit.as_ref();
        let failed = exit.is_none_or(|exit| exit.code != 0 && exit.reason != "ContainerCannotRun");
        let mut of_file = None;
        if !path.is_empty() {
            let inside = absolute(&path);
            let mount = ended
                .mounts
                .iter()
                .find(|mount| mount.container_path == inside);
            if let Some(MountSource::Host(file)) = mount.map(|mount| mount.source.clone()) {
                of_file = blocking(move || termination::of_file(&file)).await;
            }
        }
        if let Some(message) = of_file.filter(|message| !message.is_empty()) {
            return message;
        }
        match ended.log_path.clone() {
            Some(log) if policy == "FallbackToLogsOnError" && failed => {
                blocking(move || termination::of_log(&log)).await
            }
            _ => String::new(),
        }
    }
}

/// Makes a directory for logs, which everybody may read.
async fn make_log_dir(directory: PathBuf) -> std::io::Result<()> {
    blocking(move || {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&directory)
    })
    .await
}

/// The block devices of a container.
fn devices(request: &ContainerRequest<'_>) -> Result<Vec<Device>, PartError> {
    let wanted = request.container.volume_devices.iter().flatten();
    let device = |wanted: &k8s_openapi::api::core::v1::VolumeDevice| {
        let volume = request.volumes.by_name.get(&wanted.name);
        let volume = volume.ok_or_else(|| {
            no_container(format!(
                "cannot find volume {:?} to map into container {:?}",
                wanted.name, request.container.name
            ))
        })?;
        Ok(Device {
            container_path: PathBuf::from(&wanted.device_path),
            host_path: volume.path.clone(),
            permissions: if volume.read_only { "r" } else { "mrw" }.to_owned(),
        })
    };
    wanted.map(device).collect()
}

/// A path inside a container, from its root.
fn absolute(path: &str) -> PathBuf {
    Path::new("/").join(path)
}

/// A directory that nobody but the node agent's own group looks into.
fn make_private(path: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(path)
}

/// A mount that gets the container's label, where the machine has labels.
fn relabelled(mut mount: Mount) -> Mount {
    mount.selinux_relabel = Path::new("/sys/fs/selinux/enforce").exists();
    mount
}

fn read_bounded(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("open {}: {error}", path.display());
    if fs::metadata(path).map_err(failed)?.len() > most {
        return Err(format!("{} is larger than {most} bytes", path.display()));
    }
    fs::read(path).map_err(failed)
}

#[async_trait]
impl Configs for ContainerConfigs {
    async fn sandbox(&self, pod: &Arc<Pod>, attempt: u32) -> Result<SandboxConfig, PartError> {
        self.0.sandbox(pod, attempt).await
    }

    async fn container(
        &self,
        request: &ContainerRequest<'_>,
    ) -> Result<ContainerConfig, PartError> {
        self.0.container(request).await
    }

    async fn termination_message(
        &self,
        _: &Pod,
        container: &Container,
        ended: &orlop_core::runtime::Container,
    ) -> String {
        self.0.termination_message(container, ended).await
    }
}
