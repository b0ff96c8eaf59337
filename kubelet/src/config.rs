//! How a node agent is set up.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Taint;

/// The choices of a node agent, by the names and with the defaults of Kubernetes' `KubeletConfiguration` (and of the kubelet's flags,
/// for what stands in none).
#[derive(Clone, Debug, PartialEq)]
pub struct KubeletConfig {
    /// The name of the Node: the host's name in lower case, or `--hostname-override`.
    pub node_name: String,
    /// The addresses of the node, the main one first (`--node-ip`). Empty: that of the interface with the default route.
    pub node_ips: Vec<IpAddr>,
    /// Labels that the Node is registered with (`--node-labels`).
    pub node_labels: BTreeMap<String, String>,
    /// Taints that the Node is registered with.
    pub register_with_taints: Vec<Taint>,
    /// Whether the Node is registered at all (`--register-node`).
    pub register_node: bool,
    /// `spec.providerID`.
    pub provider_id: String,
    /// Where pods' volumes and the agent's own records are (`--root-dir`): `/var/lib/kubelet`.
    pub root_dir: PathBuf,
    /// Where the logs of pods are (`podLogsDir`): `/var/log/pods`.
    pub pod_logs_dir: PathBuf,
    /// Where a link for every container's log is: `/var/log/containers`; none without.
    pub container_logs_dir: Option<PathBuf>,
    /// A directory of manifests, or one manifest, of pods that run without the API (`staticPodPath`).
    pub static_pod_path: Option<PathBuf>,
    /// How often that directory is read (`fileCheckFrequency`).
    pub file_check_frequency: Duration,
    /// Where the HTTPS API listens (`address`, `port`); port 10250.
    pub listen: SocketAddr,
    /// Name servers for pods (`clusterDNS`).
    pub cluster_dns: Vec<IpAddr>,
    /// The domain of the cluster (`clusterDomain`).
    pub cluster_domain: String,
    /// The host's resolver configuration (`resolvConf`).
    pub resolv_conf: Option<PathBuf>,
    /// The most pods (`maxPods`).
    pub max_pods: u32,
    /// The most processes of a pod (`podPidsLimit`); -1 for no limit.
    pub pod_pids_limit: i64,
    /// How often every pod is looked at though nothing happened (`syncFrequency`).
    pub sync_frequency: Duration,
    /// How often the runtime is asked what runs, where it tells of no changes by itself.
    pub relist_period: Duration,
    /// How often the node's status is looked at (`nodeStatusUpdateFrequency`).
    pub node_status_update_frequency: Duration,
    /// How often it is told though it has not changed (`nodeStatusReportFrequency`).
    pub node_status_report_frequency: Duration,
    /// How long the node's Lease holds (`nodeLeaseDurationSeconds`); it is renewed four times in that time.
    pub node_lease_duration: Duration,
    /// Whether cgroups of pods and service classes are made (`cgroupsPerQOS`).
    pub cgroups_per_qos: bool,
    /// The cgroup that all others of the agent are in (`cgroupRoot`), as a path below the hierarchy's root; empty for that root.
    pub cgroup_root: String,
    /// Who makes cgroups, where the runtime does not say (`cgroupDriver`); `cgroupfs` without.
    pub systemd_cgroups: bool,
    /// Whether CPU limits are enforced by quota (`cpuCFSQuota`).
    pub cpu_cfs_quota: bool,
    /// The period of the quota (`cpuCFSQuotaPeriod`).
    pub cpu_cfs_quota_period: Duration,
    /// What is kept from pods for the system (`systemReserved`): quantities by resource name.
    pub system_reserved: BTreeMap<String, String>,
    /// What is kept from pods for Kubernetes' own parts (`kubeReserved`).
    pub kube_reserved: BTreeMap<String, String>,
    /// Thresholds at which pods are evicted at once (`evictionHard`): a quantity or a percentage by signal (`memory.available`, …).
    pub eviction_hard: BTreeMap<String, String>,
    /// How long a node stays under pressure after the last sign of it (`evictionPressureTransitionPeriod`).
    pub eviction_pressure_transition_period: Duration,
    /// Percent of the image file system at which unused images are removed (`imageGCHighThresholdPercent`).
    pub image_gc_high_threshold_percent: u8,
    /// Percent down to which they are removed (`imageGCLowThresholdPercent`).
    pub image_gc_low_threshold_percent: u8,
    /// How long an image is kept although nobody uses it (`imageMinimumGCAge`).
    pub image_minimum_gc_age: Duration,
    /// Whether only one image is pulled at a time (`serializeImagePulls`).
    pub serialize_image_pulls: bool,
    /// The size at which a container's log is rotated, in bytes (`containerLogMaxSize`).
    pub container_log_max_size: u64,
    /// How many files of a container's log there are (`containerLogMaxFiles`).
    pub container_log_max_files: u32,
    /// How long streams of exec, attach and port-forward may be idle (`streamingConnectionIdleTimeout`).
    pub streaming_connection_idle_timeout: Duration,
    /// The longest back-off of a container that keeps ending (`crashLoopBackOff.maxContainerRestartPeriod`).
    pub max_container_restart_period: Duration,
    /// The runtime cannot lower the score by which the kernel chooses whom to kill (it lacks `CAP_SYS_RESOURCE`): negative scores are
    /// not asked for.
    pub restrict_oom_score_adj: bool,
}

impl KubeletConfig {
    /// Kubernetes' defaults, for a node of this name.
    pub fn new(node_name: impl Into<String>) -> Self {
        let quantities = |pairs: &[(&str, &str)]| {
            let owned = pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            owned.collect()
        };
        Self {
            node_name: node_name.into(),
            node_ips: Vec::new(),
            node_labels: BTreeMap::new(),
            register_with_taints: Vec::new(),
            register_node: true,
            provider_id: String::new(),
            root_dir: PathBuf::from("/var/lib/kubelet"),
            pod_logs_dir: PathBuf::from("/var/log/pods"),
            container_logs_dir: Some(PathBuf::from("/var/log/containers")),
            static_pod_path: None,
            file_check_frequency: Duration::from_secs(20),
            listen: SocketAddr::from(([0, 0, 0, 0], 10250)),
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            resolv_conf: Some(PathBuf::from("/etc/resolv.conf")),
            max_pods: 110,
            pod_pids_limit: -1,
            sync_frequency: Duration::from_secs(60),
            relist_period: Duration::from_secs(1),
            node_status_update_frequency: Duration::from_secs(10),
            node_status_report_frequency: Duration::from_secs(300),
            node_lease_duration: Duration::from_secs(40),
            cgroups_per_qos: true,
            cgroup_root: String::new(),
            systemd_cgroups: false,
            cpu_cfs_quota: true,
            cpu_cfs_quota_period: Duration::from_millis(100),
            system_reserved: BTreeMap::new(),
            kube_reserved: BTreeMap::new(),
            eviction_hard: quantities(&[
                ("memory.available", "100Mi"),
                ("nodefs.available", "10%"),
                ("nodefs.inodesFree", "5%"),
                ("imagefs.available", "15%"),
                ("imagefs.inodesFree", "5%"),
            ]),
            eviction_pressure_transition_period: Duration::from_secs(300),
            image_gc_high_threshold_percent: 85,
            image_gc_low_threshold_percent: 80,
            image_minimum_gc_age: Duration::from_secs(120),
            serialize_image_pulls: true,
            container_log_max_size: 10 << 20,
            container_log_max_files: 5,
            streaming_connection_idle_timeout: Duration::from_secs(4 * 3600),
            max_container_restart_period: Duration::from_secs(300),
            restrict_oom_score_adj: false,
        }
    }

    /// The directory of a pod: `<root_dir>/pods/<uid>`.
    #[must_use]
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root_dir.join("pods").join(uid)
    }

    /// The directory of a pod's logs: `<pod_logs_dir>/<namespace>_<name>_<uid>`.
    #[must_use]
    pub fn pod_log_dir(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.pod_logs_dir.join(format!("{namespace}_{name}_{uid}"))
    }
}
