//! What a runtime has of one pod.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use orlop_core::runtime::{
    Container, ContainerId, ContainerState, NamespaceMode, Sandbox, SandboxId, SandboxState,
};

use super::spec;
use crate::labels;

/// The sandboxes and containers of a pod, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Its sandboxes. There is more than one after one has died.
    pub sandboxes: Vec<Arc<Sandbox>>,
    /// Its containers, of all its sandboxes.
    pub containers: Vec<Arc<Container>>,
}

/// Whether a pod's sandbox will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SandboxVerdict {
    /// Whether another one is needed.
    pub(crate) renew: bool,
    /// The attempt of the one that is used, or of the one to be made.
    pub(crate) attempt: u32,
    /// The newest one that is there.
    pub(crate) id: Option<SandboxId>,
}

impl Observed {
    /// Sorts, so that the newest come first.
    pub(crate) fn sorted(mut sandboxes: Vec<Sandbox>, mut containers: Vec<Container>) -> Self {
        sandboxes.sort_by_key(|one| {
            std::cmp::Reverse((one.created, one.metadata.attempt, one.id.clone()))
        });
        containers.sort_by_key(|one| {
            std::cmp::Reverse((one.created, one.metadata.attempt, one.id.clone()))
        });
        Self {
            sandboxes: sandboxes.into_iter().map(Arc::new).collect(),
            containers: containers.into_iter().map(Arc::new).collect(),
        }
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sandboxes.is_empty() && self.containers.is_empty()
    }

    /// The newest container of a name.
    #[must_use]
    pub fn latest(&self, name: &str) -> Option<&Arc<Container>> {
        self.containers
            .iter()
            .find(|one| container_name(one) == name)
    }

    /// The container of an id.
    #[must_use]
    pub fn by_id(&self, id: &ContainerId) -> Option<&Arc<Container>> {
        self.containers.iter().find(|one| one.id == *id)
    }

    /// All containers of a name, the newest first.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Arc<Container>> {
        self.containers
            .iter()
            .filter(move |one| container_name(one) == name)
    }

    /// Those that run, or of which the runtime cannot tell.
    pub fn alive(&self) -> impl Iterator<Item = &Arc<Container>> {
        let ended = |one: &&Arc<Container>| {
            !matches!(one.state, ContainerState::Exited | ContainerState::Created)
        };
        self.containers.iter().filter(ended)
    }

    /// Whether anything runs or can be run in.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.alive().next().is_some() || self.has_ready_sandbox()
    }

    /// Whether there is a sandbox that can be run in.
    pub(crate) fn has_ready_sandbox(&self) -> bool {
        let ready = |one: &Arc<Sandbox>| one.state == SandboxState::Ready;
        self.sandboxes.iter().any(ready)
    }

    /// The addresses of the newest sandbox.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        self.sandboxes
            .first()
            .map_or(&[], |one| one.addresses.as_slice())
    }

    /// Whether the newest sandbox will do for a pod.
    pub(crate) fn sandbox(&self, pod: &Pod) -> SandboxVerdict {
        let Some(newest) = self.sandboxes.first() else {
            return SandboxVerdict {
                renew: true,
                attempt: 0,
                id: None,
            };
        };
        let host_network = spec::uses_host_network(pod);
        let ready = |one: &&Arc<Sandbox>| one.state == SandboxState::Ready;
        let usable = newest.state == SandboxState::Ready
            && self.sandboxes.iter().filter(ready).count() == 1
            && (newest.namespaces.network == NamespaceMode::Node) == host_network
            && (host_network || !newest.addresses.is_empty());
        SandboxVerdict {
            renew: !usable,
            attempt: newest.metadata.attempt + u32::from(!usable),
            id: Some(newest.id.clone()),
        }
    }
}

/// The name that the pod gives a container.
pub(crate) fn container_name(container: &Container) -> &str {
    let label = container.labels.get(labels::CONTAINER_NAME);
    label.map_or(&container.metadata.name, |name| name)
}

/// How many there were before a container.
pub(crate) fn restart_count(container: &Container) -> u32 {
    let annotation = container.annotations.get(labels::CONTAINER_RESTART_COUNT);
    let count = annotation.and_then(|text| text.parse().ok());
    count.unwrap_or(container.metadata.attempt)
}

/// The code that a container ended with. One that ended unseen counts as failed.
pub(crate) fn exit_code(container: &Container) -> i32 {
    container.exit.as_ref().map_or(-1, |exit| exit.code)
}

/// Whether a container is not the one that the pod wants any more.
pub(crate) fn is_outdated(
    container: &Container,
    wanted: &k8s_openapi::api::core::v1::Container,
) -> bool {
    // One that was made by somebody else has no hash, and is left alone.
    let hash = container.annotations.get(labels::CONTAINER_HASH);
    hash.is_some_and(|hash| *hash != spec::container_hash(wanted))
}
