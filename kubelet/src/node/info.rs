//! [`NodeInfo`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use orlop_core::env::Flag;
use orlop_core::quantity::Quantity;
use parking_lot::Mutex;

use super::Amounts;

/// What is known of the Node. Clones share it, and reading is cheap.
#[derive(Clone)]
pub struct NodeInfo(Arc<Inner>);

struct Inner {
    capacity: Amounts,
    allocatable: Amounts,
    changing: Mutex<Changing>,
}

struct Changing {
    node: Option<Arc<Node>>,
    addresses: Vec<IpAddr>,
    /// Set, and replaced by a new one, when there is something to tell.
    wake: Flag,
}

impl std::fmt::Debug for NodeInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeInfo")
            .field("allocatable", &self.0.allocatable)
            .field("addresses", &self.addresses())
            .finish_non_exhaustive()
    }
}

impl NodeInfo {
    pub(crate) fn new(capacity: Amounts, allocatable: Amounts, addresses: Vec<IpAddr>) -> Self {
        Self(Arc::new(Inner {
            capacity,
            allocatable,
            changing: Mutex::new(Changing {
                node: None,
                addresses,
                wake: Flag::new(),
            }),
        }))
    }

    /// What the machine has, by the name of the resource.
    #[must_use]
    pub fn capacity(&self) -> &BTreeMap<String, Quantity> {
        &self.0.capacity
    }

    /// What pods may have of it.
    #[must_use]
    pub fn allocatable(&self) -> &BTreeMap<String, Quantity> {
        &self.0.allocatable
    }

    /// The Node as it was last seen; `None` before it is registered, and after it was deleted.
    #[must_use]
    pub fn node(&self) -> Option<Arc<Node>> {
        self.0.changing.lock().node.clone()
    }

    /// The Node's uid, if it is known.
    #[must_use]
    pub fn uid(&self) -> Option<String> {
        let changing = self.0.changing.lock();
        changing
            .node
            .as_ref()
            .and_then(|node| node.metadata.uid.clone())
    }

    /// The node's addresses, the main one first.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.0.changing.lock().addresses.clone()
    }

    /// Has the node's status looked at now: something in it changed.
    pub fn tell(&self) {
        std::mem::take(&mut self.0.changing.lock().wake).set();
    }

    /// Resolves with the next [`tell`](Self::tell) after this call.
    pub(super) fn told(&self) -> impl Future<Output = ()> + Send + use<> {
        let wake = self.0.changing.lock().wake.clone();
        async move { wake.wait().await }
    }

    pub(super) fn set_addresses(&self, addresses: Vec<IpAddr>) {
        self.0.changing.lock().addresses = addresses;
    }

    /// Keeps the Node, unless a later one is known.
    pub(super) fn set_node(&self, node: Option<Arc<Node>>) {
        let revision = |node: &Node| {
            let version = node.metadata.resource_version.as_deref();
            version
                .and_then(|version| version.parse::<u64>().ok())
                .unwrap_or(0)
        };
        let mut changing = self.0.changing.lock();
        if let (Some(known), Some(new)) = (&changing.node, &node)
            && revision(known) > revision(new)
        {
            return;
        }
        changing.node = node;
    }
}
