//! A node in this process: the machine that it runs on.

use std::fmt;
use std::sync::Arc;

use orlop_core::runtime::Runtime;
use orlop_kubelet::config::KubeletConfig;
use orlop_kubelet::volumes::VolumeManager;
use orlop_net_proxy::ProxyConfig;

/// What adds kinds of volumes to the usual ones.
type Volumes = Box<dyn FnOnce(VolumeManager) -> VolumeManager + Send>;

/// This machine as a node of the control plane in the same process: a kubelet over a runtime, and a service proxy.
///
/// ```no_run
/// use std::sync::Arc;
/// use orlop::core::env::Env;
/// use orlop::kubelet::config::KubeletConfig;
/// use orlop::runtime_cri::CriRuntime;
/// use orlop::{ControlPlane, HostNode};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let runtime = CriRuntime::connect("unix:///run/containerd/containerd.sock", Env::tokio()).await?;
/// let node = HostNode::new(Arc::new(runtime), KubeletConfig::new("this-machine"));
/// let plane = ControlPlane::builder().in_memory().with_defaults().node(node).start().await?;
/// plane.shutdown().await; // the containers go on
/// # Ok(())
/// # }
/// ```
#[must_use]
pub struct HostNode {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) config: KubeletConfig,
    pub(crate) proxy: Option<ProxyConfig>,
    pub(crate) volumes: Volumes,
}

impl fmt::Debug for HostNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostNode")
            .field("node", &self.config.node_name)
            .finish_non_exhaustive()
    }
}

impl HostNode {
    /// A node whose pods the runtime runs.
    pub fn new(runtime: Arc<dyn Runtime>, config: KubeletConfig) -> Self {
        let mut proxy = ProxyConfig::new(&config.node_name);
        proxy.node_ips.clone_from(&config.node_ips);
        Self {
            runtime,
            proxy: Some(proxy),
            config,
            volumes: Box::new(|volumes| volumes),
        }
    }

    /// Adds kinds of volumes, or puts others in the place of the usual ones.
    pub fn volumes(
        mut self,
        change: impl FnOnce(VolumeManager) -> VolumeManager + Send + 'static,
    ) -> Self {
        self.volumes = Box::new(change);
        self
    }

    /// How Services are led to their pods; by nftables and Kubernetes' defaults without.
    pub fn proxy(mut self, config: ProxyConfig) -> Self {
        self.proxy = Some(config);
        self
    }

    /// Leaves Services to somebody else.
    pub fn without_proxy(mut self) -> Self {
        self.proxy = None;
        self
    }
}
