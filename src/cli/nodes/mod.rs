//! Several real nodes on one machine.
//!
//! Each is a network namespace with a containerd, a kubelet and a proxy of its own, connected to the others by a bridge. The engines
//! and what runs in them outlive this process, so that pods go on serving while it is away, and are taken over when it comes back. The
//! kubelets and proxies are programs like any other's: `orlop kubelet` and `orlop proxy`, with certificates of their own.

mod agent;
mod containerd;
mod layout;
mod namespace;
mod network;
mod pause;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use orlop::ControlPlane;
use orlop::core::controller::{Action, Context, Controller, Interests, ReconcileError};
use orlop::core::env::Env;
use orlop::core::network::Cidr;
use orlop::core::object::ObjectKey;
use orlop::core::resource::Resource;
use parking_lot::Mutex;

use self::agent::Agents;
use self::containerd::Engine;
use self::layout::{Layout, NodeLayout};
use super::Failure;

/// Nodes.
pub(super) const NODES: Resource = Resource::cluster("", "v1", "nodes", "Node");

/// The most nodes of one cluster on one machine: as many as its network has addresses for, without the first and the last few.
pub(super) const MOST: usize = 250;

/// Where network plug-ins are put: by hand, by Debian, by Fedora.
const CNI_PLUGINS: [&str; 3] = ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"];

/// The bits of the kernel's capability sets.
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_RESOURCE: u32 = 24;

/// Whether this machine can have real nodes; if not, why not.
pub(super) fn possible() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("not run as root".to_owned());
    }
    for (bit, name) in [
        (CAP_NET_ADMIN, "CAP_NET_ADMIN"),
        (CAP_SYS_ADMIN, "CAP_SYS_ADMIN"),
    ] {
        if !has_capability(bit) {
            return Err(format!("root lacks {name} here"));
        }
    }
    for program in ["containerd", "ctr", "runc", "ip", "nft"] {
        if !on_path(program) {
            return Err(format!("no {program} on PATH"));
        }
    }
    if cni_plugins().is_none() {
        return Err(format!(
            "no network plug-ins (bridge, host-local, portmap) in {}",
            CNI_PLUGINS.join(", ")
        ));
    }
    Ok(())
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// The directory of the network plug-ins that nodes need.
fn cni_plugins() -> Option<PathBuf> {
    CNI_PLUGINS.iter().map(PathBuf::from).find(|directory| {
        ["bridge", "host-local", "portmap"]
            .iter()
            .all(|plugin| directory.join(plugin).is_file())
    })
}

fn has_capability(bit: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    set.is_some_and(|set| set & (1 << bit) != 0)
}

/// Whether the kernel lets this process protect others from being killed when memory runs out.
pub(super) fn may_lower_oom_scores() -> bool {
    has_capability(CAP_SYS_RESOURCE)
}

/// The real nodes of one cluster on this machine: their cables and engines. Made before the control plane, which is told its address
/// for nodes and pods; their agents come after it.
pub(super) struct Machine {
    directory: PathBuf,
    layout: Layout,
    nodes: Vec<NodeLayout>,
    removed: Vec<String>,
}

impl Machine {
    /// Connects the nodes. Those of an earlier start that are not wanted any more are removed, with all that runs on them: nobody would
    /// look after it.
    pub(super) async fn prepare(
        directory: &Path,
        count: usize,
        env: &Env,
    ) -> Result<Self, Failure> {
        let Some(count) = u8::try_from(count)
            .ok()
            .filter(|count| usize::from(*count) <= MOST)
        else {
            return Err(Failure::new(format!(
                "at most {MOST} real nodes fit on one machine"
            )));
        };
        let layout = Layout::load_or_choose(directory)?;
        network::ensure_bridge(&layout)?;
        let nodes: Vec<NodeLayout> = (1..=count).map(|number| layout.node(number)).collect();
        let mut removed = Vec::new();
        for node in existing(&layout, directory).filter(|node| !nodes.contains(node)) {
            remove_node(&node, directory, env).await?;
            removed.push(node.name);
        }
        for node in &nodes {
            network::ensure_node(&layout, node)?;
        }
        Ok(Self {
            directory: directory.to_owned(),
            layout,
            nodes,
            removed,
        })
    }

    /// The names of nodes of an earlier start that were removed.
    pub(super) fn removed(&self) -> &[String] {
        &self.removed
    }

    /// Where nodes and pods reach this machine.
    pub(super) fn gateway(&self) -> std::net::IpAddr {
        self.layout.gateway().into()
    }

    /// The network of all pods.
    pub(super) fn pods(&self) -> Cidr {
        self.layout.pods()
    }

    /// An address behind all pods: the first for those that only look as if they were there.
    pub(super) fn beyond_pods(&self) -> std::net::Ipv4Addr {
        self.layout.beyond_pods()
    }

    /// What leads to the pods of every node, as a controller: it acts when a node is given its range.
    pub(super) fn routes(&self) -> impl Controller {
        Routes {
            engines: self
                .nodes
                .iter()
                .map(|node| (node.name.clone(), Engine::new(node, &self.directory)))
                .collect(),
            nodes: self.nodes.clone(),
            ranges: Arc::default(),
        }
    }

    /// Starts the engines, or takes over those that run. Returns how many ran already.
    pub(super) async fn start_engines(
        &self,
        env: &Env,
        images: &[PathBuf],
    ) -> Result<usize, Failure> {
        let engines = self.nodes.iter().map(|node| async move {
            Engine::new(node, &self.directory).ensure(env, images).await
        });
        let started = futures::future::try_join_all(engines).await?;
        Ok(started.iter().filter(|started| !**started).count())
    }

    /// Starts a kubelet and a proxy on every node, against a control plane that listens at an address.
    pub(super) fn start_agents(
        &self,
        plane: &ControlPlane,
        server: SocketAddr,
    ) -> Result<Agents, Failure> {
        Agents::start(&self.directory, &self.layout, &self.nodes, plane, server)
    }
}

/// Removes the real nodes of a cluster, with all that runs on them. Returns whether there were any.
pub(super) async fn remove(directory: &Path, env: &Env) -> Result<bool, Failure> {
    let Some(layout) = Layout::load(directory)? else {
        return Ok(false);
    };
    for node in existing(&layout, directory) {
        remove_node(&node, directory, env).await?;
    }
    network::remove_bridge(&layout)?;
    remove_cgroups(&layout.cgroup());
    remove_directory(&layout.run())?;
    Layout::forget(directory);
    Ok(true)
}

/// Whether a cluster has real nodes on this machine.
pub(super) fn exist(directory: &Path) -> Result<bool, Failure> {
    let layout = Layout::load(directory)?;
    Ok(layout.is_some_and(|layout| existing(&layout, directory).next().is_some()))
}

/// The nodes of which there is something on this machine.
fn existing<'a>(
    layout: &'a Layout,
    directory: &'a Path,
) -> impl Iterator<Item = NodeLayout> + use<'a> {
    let nodes = (1..=u8::MAX).map(|number| layout.node(number));
    nodes.filter(|node| {
        node.namespace.path().exists() || node.directory(directory).exists() || node.run.exists()
    })
}

/// Removes a node, with all that runs on it.
async fn remove_node(node: &NodeLayout, directory: &Path, env: &Env) -> Result<(), Failure> {
    let home = node.directory(directory);
    Engine::new(node, directory).remove(env).await?;
    network::remove_node(node)?;
    unmount_below(&home)?;
    unmount_below(&node.run)?;
    remove_directory(&home)?;
    remove_directory(&node.run)?;
    remove_cgroups(&node.cgroup);
    Ok(())
}

/// The cgroup of all of a cluster's pods on this machine.
pub(super) fn cgroup(directory: &Path) -> String {
    layout::cgroup(&layout::id(directory))
}

/// Unmounts what is mounted below a directory, what was mounted last first.
pub(super) fn unmount_below(directory: &Path) -> Result<(), Failure> {
    let mounts = std::fs::read("/proc/self/mountinfo")?;
    for path in mounted_below(&mounts, directory).iter().rev() {
        if let Err(error) = rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH) {
            let path = path.display();
            return Err(Failure::new(format!("cannot unmount {path}: {error}")));
        }
    }
    Ok(())
}

/// Where something is mounted below a directory, by `/proc/self/mountinfo`, in its order.
fn mounted_below(mounts: &[u8], directory: &Path) -> Vec<PathBuf> {
    let lines = mounts.split(|byte| *byte == b'\n');
    let places = lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    places
        .map(unescape)
        .filter(|path| path.starts_with(directory))
        .collect()
}

/// A path in which blanks and what else would break a line stand as a backslash and three octal digits.
fn unescape(text: &[u8]) -> PathBuf {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, more)) = rest.split_first() {
        let octal = more.get(..3).filter(|_| byte == b'\\').and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        plain.push(octal.unwrap_or(byte));
        rest = if octal.is_some() { &more[3..] } else { more };
    }
    PathBuf::from(std::ffi::OsString::from_vec(plain))
}

pub(super) fn remove_directory(directory: &Path) -> Result<(), Failure> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Failure::new(format!(
            "cannot remove {}: {error}",
            directory.display()
        ))),
        _ => Ok(()),
    }
}

/// Removes a cgroup and those below it, in every hierarchy that has it.
pub(super) fn remove_cgroups(path: &str) {
    fn remove(directory: &Path) {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove(&entry.path());
            }
        }
        // One that something still runs in stays.
        let _ = std::fs::remove_dir(directory);
    }
    let relative = path.trim_start_matches('/');
    let root = Path::new("/sys/fs/cgroup");
    remove(&root.join(relative));
    for hierarchy in std::fs::read_dir(root).into_iter().flatten().flatten() {
        remove(&hierarchy.path().join(relative));
    }
}

/// Tells engines the addresses of their pods, and leads to them.
struct Routes {
    nodes: Vec<NodeLayout>,
    engines: BTreeMap<String, Engine>,
    ranges: Arc<Mutex<BTreeMap<String, Vec<Cidr>>>>,
}

#[async_trait]
impl Controller for Routes {
    fn name(&self) -> &str {
        "machine-routes"
    }

    fn interests(&self) -> Interests {
        Interests::new().for_each(NODES)
    }

    async fn reconcile(&self, ctx: &Context, key: &ObjectKey) -> Result<Action, ReconcileError> {
        let Some(engine) = self.engines.get(&*key.name) else {
            return Ok(Action::Done);
        };
        let Some(node) = ctx.store(&NODES).get(key) else {
            return Ok(Action::Done);
        };
        let value = node.value()?;
        let texts = value
            .pointer("/spec/podCIDRs")
            .and_then(|list| list.as_array());
        let ranges: Vec<Cidr> = texts
            .into_iter()
            .flatten()
            .filter_map(|text| text.as_str()?.parse().ok())
            .collect();
        if ranges.is_empty() {
            return Ok(Action::Done);
        }
        let (engine, nodes, known) = (engine.clone(), self.nodes.clone(), self.ranges.clone());
        let name = key.name.to_string();
        let done = tokio::task::spawn_blocking(move || {
            // One after the other: what leads to a node is told to all others.
            let mut known = known.lock();
            if known.get(&name) == Some(&ranges) {
                return Ok(());
            }
            engine.set_pod_cidrs(&ranges)?;
            let mine = BTreeMap::from([(name.clone(), ranges.clone())]);
            network::route(&nodes, &mine)?;
            known.insert(name, ranges);
            Ok::<(), Failure>(())
        });
        match done.await {
            Ok(Ok(())) => Ok(Action::Done),
            Ok(Err(failure)) => Err(ReconcileError::other(failure)),
            Err(error) => Err(ReconcileError::other(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_below_a_directory_with_blanks() {
        let mounts = b"24 1 0:22 / /proc rw - proc proc rw\n\
            80 24 0:50 / /a\\040b/nodes/node-1/x rw - tmpfs tmpfs rw\n\
            81 24 0:51 / /a rw - tmpfs tmpfs rw\n\
            82 24 0:52 / /a\\040bc rw - tmpfs tmpfs rw\n";
        let found = mounted_below(mounts, Path::new("/a b"));
        assert_eq!(found, [PathBuf::from("/a b/nodes/node-1/x")]);
        assert_eq!(unescape(b"\\134\\9"), PathBuf::from("\\\\9"));
    }
}
