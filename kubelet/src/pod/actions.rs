//! What is to be done for a pod, given what is there.

use k8s_openapi::api::core::v1::{Container, Pod};
use orlop_core::runtime::{ContainerId, ContainerState, SandboxId};

use super::observed::{Observed, exit_code, is_outdated};
use super::spec;
use crate::parts::{ProbeFailure, ProbeState};

/// What is to be done, in this order: kill, make a sandbox, start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Actions {
    /// Whether all containers are to be killed and the sandboxes stopped.
    pub(crate) kill_pod: bool,
    /// Whether a sandbox is to be made.
    pub(crate) create_sandbox: bool,
    /// The newest sandbox.
    pub(crate) sandbox: Option<SandboxId>,
    /// The attempt of the sandbox that is used or made.
    pub(crate) attempt: u32,
    /// Single containers to be killed.
    pub(crate) kill: Vec<Kill>,
    /// Ephemeral containers to be started, by their place in the pod.
    pub(crate) ephemeral: Vec<usize>,
    /// Init containers to be started, in this order.
    pub(crate) init: Vec<usize>,
    /// Containers to be started.
    pub(crate) regular: Vec<usize>,
}

/// A container to be killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kill {
    pub(crate) id: ContainerId,
    pub(crate) name: String,
    /// What the event says.
    pub(crate) message: String,
    /// The probe that gave it up, whose own grace counts.
    pub(crate) probe: Option<ProbeFailure>,
}

/// Whether a container that does not run is to be started.
pub(crate) fn should_start(pod: &Pod, seen: &Observed, container: &Container) -> bool {
    if spec::is_being_deleted(pod) {
        return false;
    }
    let Some(latest) = seen.latest(&container.name) else {
        return true;
    };
    match latest.state {
        ContainerState::Running => false,
        // It was made and could not be started, or nobody knows how it is.
        ContainerState::Created | ContainerState::Unknown => true,
        ContainerState::Exited => spec::restarts_after(pod, container, exit_code(latest)),
    }
}

/// Whether any of the regular containers was ever made.
pub(crate) fn has_begun(pod: &Pod, seen: &Observed) -> bool {
    let known = |container: &Container| {
        let state = seen.latest(&container.name).map(|latest| latest.state);
        state.is_some_and(|state| state != ContainerState::Unknown)
    };
    spec::containers(pod).iter().any(known)
}

/// What is to be done for a pod that is to run.
pub(crate) fn decide(
    pod: &Pod,
    seen: &Observed,
    probe: &dyn Fn(&ContainerId) -> ProbeState,
) -> Actions {
    let sandbox = seen.sandbox(pod);
    let mut actions = Actions {
        sandbox: sandbox.id,
        attempt: sandbox.attempt,
        ..Actions::default()
    };
    if sandbox.renew {
        begin_anew(pod, seen, &mut actions);
        return actions;
    }
    let ephemeral = spec::spec(pod).ephemeral_containers.as_deref();
    for (at, container) in ephemeral.unwrap_or_default().iter().enumerate() {
        // They are never restarted.
        if seen.latest(&container.name).is_none() {
            actions.ephemeral.push(at);
        }
    }
    if !initialise(pod, seen, probe, &mut actions) {
        return actions;
    }
    let mut kept = 0;
    for (at, container) in spec::containers(pod).iter().enumerate() {
        let running = seen.latest(&container.name);
        let Some(running) = running.filter(|one| one.state == ContainerState::Running) else {
            if should_start(pod, seen, container) {
                actions.regular.push(at);
                kill_unknown(seen, container, "Container", &mut actions);
            }
            continue;
        };
        let failed = probe(&running.id).failed;
        let (mut message, restart) = if is_outdated(running, container) {
            let message = format!("Container {} definition changed", container.name);
            (message, true)
        } else if let Some(failed) = failed {
            let message = format!("Container {} failed {} probe", container.name, word(failed));
            (message, spec::restarts_when_killed(pod, container))
        } else {
            kept += 1;
            continue;
        };
        if restart {
            message.push_str(", will be restarted");
            actions.regular.push(at);
        }
        actions.kill.push(Kill {
            id: running.id.clone(),
            name: container.name.clone(),
            message,
            probe: failed,
        });
    }
    if kept == 0 && actions.regular.is_empty() {
        // All have ended for good: sidecars do not keep a pod alive.
        actions.kill_pod = true;
        actions.init.clear();
    }
    actions
}

fn word(failed: ProbeFailure) -> &'static str {
    match failed {
        ProbeFailure::Liveness => "liveness",
        ProbeFailure::Startup => "startup",
    }
}

/// The pod has no sandbox that will do: whatever is there goes, and it begins with its first container, unless all are done.
fn begin_anew(pod: &Pod, seen: &Observed, actions: &mut Actions) {
    actions.kill_pod = true;
    let all = spec::containers(pod);
    let may_restart = |container: &Container| spec::restarts_when_killed(pod, container);
    let never_again = !all.iter().any(may_restart) && actions.attempt != 0;
    if never_again && !seen.containers.is_empty() {
        return;
    }
    let done = |container: &Container| {
        let latest = seen.latest(&container.name);
        latest.is_some_and(|latest| {
            latest.state == ContainerState::Exited
                && exit_code(latest) == 0
                && !spec::restarts_after(pod, container, 0)
        })
    };
    let wanted: Vec<usize> = (0..all.len()).filter(|at| !done(&all[*at])).collect();
    if wanted.is_empty() && has_begun(pod, seen) {
        return;
    }
    actions.create_sandbox = true;
    if spec::init_containers(pod).is_empty() {
        actions.regular = wanted;
    } else {
        actions.init = vec![0];
    }
}

/// A container of which the runtime cannot tell might run: it is killed before another one is started.
fn kill_unknown(seen: &Observed, container: &Container, what: &str, actions: &mut Actions) {
    let latest = seen.latest(&container.name);
    if let Some(latest) = latest.filter(|latest| latest.state == ContainerState::Unknown) {
        actions.kill.push(Kill {
            id: latest.id.clone(),
            name: container.name.clone(),
            message: format!("{what} is in \"unknown\" state, try killing it before restart"),
            probe: None,
        });
    }
}

/// What is to be done for the init containers. Whether the regular ones may run.
///
/// Init containers run one after the other; the *frontier* is the last one that was ever made. What lies before it is done, except for
/// sidecars, which are kept running. When the frontier is done, the next one is started. Once a regular container is there, all have been
/// done, whatever the runtime has forgotten meanwhile.
fn initialise(
    pod: &Pod,
    seen: &Observed,
    probe: &dyn Fn(&ContainerId) -> ProbeState,
    actions: &mut Actions,
) -> bool {
    let all = spec::init_containers(pod);
    let Some(last) = all.len().checked_sub(1) else {
        return true;
    };
    let is_there = |container: &Container| {
        let state = seen.latest(&container.name).map(|latest| latest.state);
        matches!(
            state,
            Some(ContainerState::Created | ContainerState::Running)
        )
    };
    // An ended container may be of a sandbox that is gone, and says nothing about this one.
    let begun = spec::containers(pod).iter().any(is_there);
    let frontier = (0..all.len())
        .rev()
        .find(|at| seen.latest(&all[*at].name).is_some());
    if !begun && frontier.is_none() {
        actions.init.push(0);
        return false;
    }
    let mut ready = begun;
    for (at, container) in all.iter().enumerate() {
        let at_frontier = !begun && Some(at) == frontier;
        if !begun && Some(at) > frontier {
            break;
        }
        let done = if spec::is_sidecar(container) {
            keep_sidecar(at, seen, container, probe, actions)
        } else if at_frontier {
            match run_once(pod, at, seen, container, actions) {
                Some(done) => done,
                None => return false,
            }
        } else {
            continue;
        };
        if at_frontier && done {
            if at == last {
                ready = true;
            } else {
                actions.init.push(at + 1);
            }
        }
    }
    ready
}

/// Keeps a sidecar running. Whether it has started, so that the next one may.
fn keep_sidecar(
    at: usize,
    seen: &Observed,
    container: &Container,
    probe: &dyn Fn(&ContainerId) -> ProbeState,
    actions: &mut Actions,
) -> bool {
    let latest = seen.latest(&container.name);
    let Some(running) = latest.filter(|latest| latest.state == ContainerState::Running) else {
        kill_unknown(seen, container, "Init container", actions);
        actions.init.push(at);
        return false;
    };
    let state = probe(&running.id);
    let name = &container.name;
    let message = match state.failed {
        Some(failed) => format!("Init container {name} failed {} probe", word(failed)),
        None if is_outdated(running, container) => {
            format!("Init container {name} definition changed")
        }
        None => return container.startup_probe.is_none() || state.started == Some(true),
    };
    actions.kill.push(Kill {
        id: running.id.clone(),
        name: name.clone(),
        message,
        probe: state.failed,
    });
    actions.init.push(at);
    false
}

/// Runs an init container to its end. Whether it is done; `None` if it failed for good, and the pod with it.
fn run_once(
    pod: &Pod,
    at: usize,
    seen: &Observed,
    container: &Container,
    actions: &mut Actions,
) -> Option<bool> {
    let latest = seen.latest(&container.name)?;
    let again = match latest.state {
        ContainerState::Running => return Some(false),
        ContainerState::Exited if exit_code(latest) == 0 => return Some(true),
        ContainerState::Created => true,
        ContainerState::Exited => spec::restarts_after(pod, container, exit_code(latest)),
        ContainerState::Unknown => spec::restarts_when_killed(pod, container),
    };
    if !again {
        actions.kill_pod = true;
        actions.init.clear();
        return None;
    }
    kill_unknown(seen, container, "Init container", actions);
    actions.init.push(at);
    Some(false)
}

#[cfg(test)]
mod tests;
