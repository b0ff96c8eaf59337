//! What is known of sandboxes and containers, so that lists are cheap.
//!
//! CRI's lists tell an id, a state and labels; addresses, times, ends, mounts and limits must be looked up one by one. Most of that never
//! changes, and the rest changes with the state, which only ever goes forward. So what was looked up in one state holds until a list
//! tells of a later one, and a list of a node at rest is one call.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use orlop_core::runtime::{
    Container, ContainerId, ContainerState, Sandbox, SandboxId, SandboxState,
};
use parking_lot::Mutex;

use crate::messages as cri;

/// How long after its end a container may still be given another reason: engines hear of its end and of the memory it ran out of in
/// any order.
const SETTLES_AFTER_MS: i64 = 3_000;

/// How many of each are remembered. A node has far fewer; more than that are forgotten, and looked up again.
const LIMIT: usize = 16 << 10;

/// A sandbox and what it was made with.
#[derive(Clone, Debug)]
pub(crate) struct KnownSandbox {
    pub(crate) sandbox: Sandbox,
    pub(crate) made_with: Arc<cri::PodSandboxConfig>,
}

#[derive(Debug)]
struct KnownContainer {
    container: Container,
    /// Whether nothing about it changes any more.
    settled: bool,
}

/// What is known.
#[derive(Debug, Default)]
pub(crate) struct Known {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    sandboxes: BTreeMap<SandboxId, KnownSandbox>,
    containers: BTreeMap<ContainerId, KnownContainer>,
    /// How often something was changed that a look which is under way may miss.
    changes: u64,
}

/// A look that is under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    changes: u64,
}

impl Known {
    /// Begins a look at something. What it finds is kept only if nothing was changed meanwhile.
    pub(crate) fn look(&self) -> Look {
        Look {
            changes: self.inner.lock().changes,
        }
    }

    /// A container, if what is known of it still holds where a list tells of this state.
    pub(crate) fn container_in(
        &self,
        id: &ContainerId,
        state: ContainerState,
    ) -> Option<Container> {
        let inner = self.inner.lock();
        let known = inner.containers.get(id)?;
        let holds = match (known.container.state, state) {
            (_, ContainerState::Unknown) | (ContainerState::Unknown, _) => false,
            (ContainerState::Exited, _) => known.settled,
            // A list that was under way while it was looked up may be the older one.
            (had, has) => had >= has,
        };
        holds.then(|| known.container.clone())
    }

    /// A container as it was when it was last looked at.
    pub(crate) fn container_once(&self, id: &ContainerId) -> Option<Container> {
        let inner = self.inner.lock();
        inner
            .containers
            .get(id)
            .map(|known| known.container.clone())
    }

    /// Keeps what a look found.
    pub(crate) fn saw_container(&self, look: Look, now: Timestamp, container: &Container) {
        let settled = container.finished.is_some_and(|finished| {
            now.as_millisecond() - finished.as_millisecond() > SETTLES_AFTER_MS
        });
        let mut inner = self.inner.lock();
        if inner.changes != look.changes {
            return;
        }
        if inner.containers.len() >= LIMIT {
            inner.containers.clear();
        }
        let known = inner.containers.get(&container.id);
        if known.is_none_or(|known| known.container.state <= container.state) {
            let known = KnownContainer {
                container: container.clone(),
                settled,
            };
            inner.containers.insert(container.id.clone(), known);
        }
    }

    /// Forgets a container that was changed or removed.
    pub(crate) fn forget_container(&self, id: &ContainerId) {
        let mut inner = self.inner.lock();
        inner.changes += 1;
        inner.containers.remove(id);
    }

    /// Forgets all containers but these, which are all that there are.
    pub(crate) fn only_containers(&self, look: Look, all: &[Container]) {
        let mut inner = self.inner.lock();
        if inner.changes == look.changes && inner.containers.len() > all.len() {
            let all: std::collections::BTreeSet<_> = all.iter().map(|one| &one.id).collect();
            inner.containers.retain(|id, _| all.contains(id));
        }
    }

    /// A sandbox, as a list that tells of this state has it.
    pub(crate) fn sandbox_in(&self, id: &SandboxId, state: SandboxState) -> Option<Sandbox> {
        let mut inner = self.inner.lock();
        let known = inner.sandboxes.get_mut(id)?;
        if state == SandboxState::NotReady {
            // It never becomes ready again, and its addresses are another's by now.
            known.sandbox.state = state;
            known.sandbox.addresses.clear();
        }
        Some(known.sandbox.clone())
    }

    /// What a sandbox was made with.
    pub(crate) fn made_with(&self, id: &SandboxId) -> Option<Arc<cri::PodSandboxConfig>> {
        let inner = self.inner.lock();
        inner.sandboxes.get(id).map(|known| known.made_with.clone())
    }

    /// Keeps what a look found.
    pub(crate) fn saw_sandbox(&self, look: Look, known: KnownSandbox) {
        let mut inner = self.inner.lock();
        if inner.changes != look.changes {
            return;
        }
        if inner.sandboxes.len() >= LIMIT {
            inner.sandboxes.clear();
        }
        inner.sandboxes.insert(known.sandbox.id.clone(), known);
    }

    /// Forgets a sandbox that was changed or removed, and its containers.
    pub(crate) fn forget_sandbox(&self, id: &SandboxId) {
        let mut inner = self.inner.lock();
        inner.changes += 1;
        inner.sandboxes.remove(id);
        inner
            .containers
            .retain(|_, known| known.container.sandbox != *id);
    }

    /// Forgets all sandboxes but these, which are all that there are.
    pub(crate) fn only_sandboxes(&self, look: Look, all: &[Sandbox]) {
        let mut inner = self.inner.lock();
        if inner.changes == look.changes && inner.sandboxes.len() > all.len() {
            let all: std::collections::BTreeSet<_> = all.iter().map(|one| &one.id).collect();
            inner.sandboxes.retain(|id, _| all.contains(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::{listed, looked_up};

    fn container(state: cri::ContainerState, finished: i64) -> Container {
        let status = cri::ContainerStatus {
            state: state.into(),
            finished_at: finished,
            ..cri::ContainerStatus::default()
        };
        let item = cri::Container {
            id: "c".to_owned(),
            pod_sandbox_id: "s".to_owned(),
            ..cri::Container::default()
        };
        looked_up(listed(item), status)
    }

    #[test]
    fn what_was_seen_holds_until_a_later_state() {
        let (known, id) = (Known::default(), ContainerId::new("c"));
        let now = Timestamp::from_second(100).unwrap();
        let see = |container: &Container| known.saw_container(known.look(), now, container);
        see(&container(cri::ContainerState::Created, 0));
        assert!(known.container_in(&id, ContainerState::Created).is_some());
        assert!(known.container_in(&id, ContainerState::Running).is_none());
        see(&container(cri::ContainerState::Running, 0));
        assert!(known.container_in(&id, ContainerState::Running).is_some());
        // A list that began earlier changes nothing, nor does a look that ends late.
        see(&container(cri::ContainerState::Created, 0));
        let running = known.container_in(&id, ContainerState::Created).unwrap();
        assert_eq!(running.state, ContainerState::Running);
        assert!(known.container_in(&id, ContainerState::Exited).is_none());
        // Its reason may still change for a while after the end.
        see(&container(cri::ContainerState::Exited, 99_000_000_000));
        assert!(known.container_in(&id, ContainerState::Exited).is_none());
        see(&container(cri::ContainerState::Exited, 90_000_000_000));
        assert!(known.container_in(&id, ContainerState::Exited).is_some());
    }

    #[test]
    fn a_look_that_a_change_overtook_is_not_kept() {
        let (known, id) = (Known::default(), ContainerId::new("c"));
        let running = container(cri::ContainerState::Running, 0);
        let look = known.look();
        known.forget_container(&id);
        known.saw_container(look, Timestamp::UNIX_EPOCH, &running);
        assert!(known.container_once(&id).is_none());
        known.saw_container(known.look(), Timestamp::UNIX_EPOCH, &running);
        known.only_containers(known.look(), &[]);
        assert!(known.container_once(&id).is_none());
    }
}
