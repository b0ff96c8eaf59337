//! This machine as a node: `orlop up --runtime cri=SOCKET`.
//!
//! What runs on it outlives the program, so which engine runs it is written down in the cluster's directory: the next `orlop up` must
//! not begin on another one while pods go on unnoticed, and `orlop down` must find what it is to end.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use orlop::HostNode;
use orlop::core::env::Env;
use orlop::core::runtime::{Runtime, Sandbox};
use orlop::kubelet::cgroups::CgroupManager;
use orlop::kubelet::config::KubeletConfig;
use orlop::kubelet::labels::POD_UID;
use orlop::kubelet::parts::Cgroups;
use orlop::net_proxy::{Proxy, ProxyConfig};
use orlop::runtime_cri::CriRuntime;
use orlop::wire::kubeconfig::ClientConfig;
use orlop::wire::remote::RemoteClient;
use serde::{Deserialize, Serialize};

use super::{Failure, directory, kubelet, nodes, pods};

/// The file in the cluster's directory.
const FILE: &str = "nodes/host.json";

/// What is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// The Node's name.
    node: String,
    /// The engine's endpoint.
    endpoint: String,
}

impl Record {
    fn load(cluster: &Path) -> Result<Option<Self>, Failure> {
        let path = cluster.join(FILE);
        let show = |error: &dyn std::fmt::Display| {
            Failure::new(format!("cannot read {}: {error}", path.display()))
        };
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| show(&error)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(show(&error)),
        }
    }

    fn store(&self, cluster: &Path) -> Result<(), Failure> {
        let path = cluster.join(FILE);
        let written = path
            .parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| std::fs::write(&path, serde_json::to_vec_pretty(self)?));
        written.map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))
    }

    /// What the kubelet of this machine is told. All that it keeps is in the cluster's directory, and its cgroups are below one of the
    /// cluster's own, so that clusters on one machine do not take what the other one has for garbage.
    fn config(&self, cluster: &Path) -> KubeletConfig {
        let mut config = KubeletConfig::new(&self.node);
        let home = home(cluster);
        config.pod_logs_dir = home.join("logs");
        config.root_dir = home;
        config.cgroup_root = nodes::cgroup(cluster);
        config.node_ips = kubelet::own_addresses();
        // The disk and the engine's images are everybody's: how full it is says nothing of what pods do.
        config
            .eviction_hard
            .retain(|signal, _| signal == "memory.available");
        config.image_gc_high_threshold_percent = 100;
        kubelet::adapt(&mut config);
        config
    }
}

fn home(cluster: &Path) -> PathBuf {
    cluster.join("nodes/host")
}

/// The engine by which this machine is or was a node of a cluster.
pub(super) fn known(cluster: &Path) -> Result<Option<String>, Failure> {
    Ok(Record::load(cluster)?.map(|record| record.endpoint))
}

/// This machine as a node of a cluster in the same process.
///
/// # Errors
/// When the engine does not answer, or is another one than the one that the cluster's pods are in.
pub(super) async fn node(endpoint: &str, cluster: &Path, env: &Env) -> Result<HostNode, Failure> {
    let name = directory::hostname()
        .ok_or_else(|| Failure::new("this machine has no name that a node could have"))?;
    if let Some(before) = known(cluster)?
        && before != endpoint
    {
        return Err(Failure::new(format!(
            "the pods of this cluster are in the engine at {before}: name that one, or end them with `orlop down` first"
        )));
    }
    let runtime = CriRuntime::connect(endpoint, env.clone()).await?;
    // It may connect later, but a wrong name is to be told now.
    runtime.status().await.map_err(|error| {
        Failure::new(format!("the engine at {endpoint} does not answer: {error}"))
    })?;
    let record = Record {
        node: name,
        endpoint: endpoint.to_owned(),
    };
    record.store(cluster)?;
    Ok(HostNode::new(Arc::new(runtime), record.config(cluster)))
}

/// Ends what runs on this machine as a node of a cluster: its pods, their mounts and cgroups, and the proxy's rules. Returns whether it
/// was one.
pub(super) async fn remove(cluster: &Path, env: &Env) -> Result<bool, Failure> {
    let Some(record) = Record::load(cluster)? else {
        return Ok(false);
    };
    let endpoint = &record.endpoint;
    let engine = |error: &dyn std::fmt::Display| {
        Failure::new(format!(
            "the pods of this cluster are in the engine at {endpoint}, which has to end them: {error}"
        ))
    };
    let runtime = CriRuntime::connect(endpoint, env.clone()).await;
    let runtime: Arc<dyn Runtime> = Arc::new(runtime.map_err(|error| engine(&error))?);
    let config = record.config(cluster);
    let cgroups = CgroupManager::of_machine(&config, &*runtime, env.clone()).await?;

    // The engine may run pods that are not this cluster's. Those that are have a directory or a cgroup here.
    let on_machine = cgroups.on_machine().await;
    let mut ours: BTreeSet<String> = on_machine.iter().cloned().collect();
    for entry in std::fs::read_dir(config.root_dir.join("pods"))
        .into_iter()
        .flatten()
    {
        ours.extend(entry?.file_name().to_str().map(str::to_owned));
    }
    let meant = |sandbox: &Sandbox| {
        let uid = sandbox.labels.get(POD_UID);
        uid.is_some_and(|uid| ours.contains(uid))
    };
    pods::end(&*runtime, meant)
        .await
        .map_err(|error| engine(&error))?;
    for uid in &on_machine {
        cgroups.remove(uid).await?;
    }
    cgroups.remove_empty_roots().await?;
    nodes::remove_cgroups(&config.cgroup_root);
    nodes::unmount_below(&config.root_dir)?;
    nodes::remove_directory(&config.root_dir)?;

    // Nobody is asked what to remove.
    let nobody = RemoteClient::new(&ClientConfig::new("https://localhost"), env)?;
    let proxy = Proxy::builder(Arc::new(nobody), env.clone());
    let mut proxy = proxy.config(ProxyConfig::new(&record.node)).build()?;
    proxy.cleanup().await?;

    let path = cluster.join(FILE);
    std::fs::remove_file(&path)
        .map_err(|error| Failure::new(format!("cannot remove {}: {error}", path.display())))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_chosen_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(known(directory.path()).unwrap(), None);
        let record = Record {
            node: "here".to_owned(),
            endpoint: "/run/a b.sock".to_owned(),
        };
        record.store(directory.path()).unwrap();
        assert_eq!(Record::load(directory.path()).unwrap(), Some(record));
        let path = directory.path().join(FILE);
        std::fs::write(&path, "half").unwrap();
        let failure = known(directory.path()).unwrap_err().to_string();
        assert!(failure.contains("host.json"), "{failure}");
    }

    #[test]
    fn all_that_is_kept_is_in_the_cluster_s_directory() {
        let record = Record {
            node: "here".to_owned(),
            endpoint: "x".to_owned(),
        };
        let (a, b) = (
            record.config(Path::new("/a")),
            record.config(Path::new("/b")),
        );
        assert!(a.root_dir.starts_with("/a") && a.pod_logs_dir.starts_with("/a"));
        assert_eq!(a.container_logs_dir, None);
        assert_ne!(a.cgroup_root, b.cgroup_root);
    }

    #[test]
    fn a_disk_that_others_filled_costs_nobody_pods_or_images() {
        let record = Record {
            node: "here".to_owned(),
            endpoint: "x".to_owned(),
        };
        let config = record.config(Path::new("/a"));
        let signals: Vec<&String> = config.eviction_hard.keys().collect();
        assert_eq!(signals, ["memory.available"]);
        assert_eq!(config.image_gc_high_threshold_percent, 100);
    }
}
