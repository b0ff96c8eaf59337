//! The statuses of a pod's containers.

use k8s_openapi::api::core::v1::{
    Container as Spec, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, ContainerUser, LinuxContainerUser, VolumeMountStatus,
};
use orlop_core::runtime::{Container, ContainerState as State};

use super::{Input, api_time, terminated_before, text};
use crate::parts::ContainerKind;
use crate::pod::actions::{has_begun, should_start};
use crate::pod::observed::restart_count;
use crate::pod::spec;

/// The code of a container that was lost.
const LOST: i32 = 137;

/// The statuses of the containers of one list: init containers in the pod's order, the others by name.
pub(super) fn statuses(
    input: &Input<'_>,
    kind: ContainerKind,
    specs: &[Spec],
    old: &[ContainerStatus],
) -> Vec<ContainerStatus> {
    let of = |spec: &Spec| {
        let before = old.iter().find(|one| one.name == spec.name);
        let mut one = status(input, kind, spec, before);
        health(input, kind, spec, &mut one);
        one
    };
    let mut all: Vec<ContainerStatus> = specs.iter().map(of).collect();
    if kind != ContainerKind::Init {
        all.sort_by(|a, b| a.name.cmp(&b.name));
    }
    all
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: text(reason),
            message: text(message),
        }),
        ..ContainerState::default()
    }
}

fn ended(code: i32, reason: &str, message: &str) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: code,
            reason: text(reason),
            message: text(message),
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    }
}

fn status(
    input: &Input<'_>,
    kind: ContainerKind,
    spec: &Spec,
    before: Option<&ContainerStatus>,
) -> ContainerStatus {
    let mut of_name = input.seen.named(&spec.name);
    let mut one = match of_name.next() {
        Some(latest) => seen(input, spec, latest, before),
        None => unseen(input, spec, before),
    };
    if let Some(previous) = of_name.next() {
        one.last_state = Some(state(input, previous));
    } else if let Some(before) = before
        && input.seen.latest(&spec.name).is_some()
    {
        // The one before is gone from the runtime, but was told of.
        one.last_state = if before.container_id == one.container_id {
            before.last_state.clone()
        } else {
            let state = before.state.clone();
            let ended = state.filter(|state| state.terminated.is_some());
            ended.or_else(|| before.last_state.clone())
        };
    }
    if kind == ContainerKind::Init {
        let latest = input.seen.latest(&spec.name);
        if latest.is_some_and(|one| {
            one.state == State::Exited && one.exit.as_ref().is_some_and(|exit| exit.code == 0)
        }) && !spec::is_sidecar(spec)
        {
            return one;
        }
        // The runtime has forgotten one that must have been done.
        let waits = one
            .state
            .as_ref()
            .is_some_and(|state| state.waiting.is_some());
        if latest.is_none() && waits && !spec::is_sidecar(spec) && has_begun(input.pod, input.seen)
        {
            one.state = Some(ended(
                0,
                "Completed",
                "Unable to get init container status from container runtime and pod has been initialized, treat it as exited normally",
            ));
            return one;
        }
    }
    // One that is to be started, and was tried, waits.
    let tried = input.waiting.get(&spec.name);
    if let Some(why) = tried
        && should_start(input.pod, input.seen, spec)
    {
        let was = one.state.take();
        if was.as_ref().is_some_and(|state| state.terminated.is_some()) {
            one.last_state = was;
        }
        one.state = Some(waiting(&why.reason, &why.message));
    }
    one.last_state.get_or_insert_default();
    one
}

/// A container of which the runtime has nothing.
fn unseen(input: &Input<'_>, spec: &Spec, before: Option<&ContainerStatus>) -> ContainerStatus {
    let reason = if spec::init_containers(input.pod).is_empty() {
        "ContainerCreating"
    } else {
        "PodInitializing"
    };
    let mut one = ContainerStatus {
        name: spec.name.clone(),
        image: spec.image.clone().unwrap_or_default(),
        state: Some(waiting(reason, "")),
        volume_mounts: mounts(input, spec),
        ..ContainerStatus::default()
    };
    let Some(before) = before else {
        return one;
    };
    let state = before.state.as_ref();
    if state.is_some_and(|state| state.terminated.is_some()) {
        return before.clone();
    }
    one.restart_count = before.restart_count;
    one.last_state.clone_from(&before.last_state);
    let ran = state.is_some_and(|state| state.running.is_some());
    if ran && terminated_before(before).is_none() {
        one.last_state = Some(ended(
            LOST,
            "ContainerStatusUnknown",
            "The container could not be located when the pod was deleted.  The container used to be Running",
        ));
    }
    if ran && !spec::is_being_deleted(input.pod) {
        one.restart_count += 1;
    }
    one
}

/// A container that the runtime has.
fn seen(
    input: &Input<'_>,
    spec: &Spec,
    latest: &Container,
    before: Option<&ContainerStatus>,
) -> ContainerStatus {
    let count = i32::try_from(restart_count(latest)).unwrap_or(i32::MAX);
    let image = if latest.image.user_specified.is_empty() {
        &latest.image.image
    } else {
        &latest.image.user_specified
    };
    let mut one = ContainerStatus {
        name: spec.name.clone(),
        image: image.clone(),
        image_id: if latest.image_ref.is_empty() {
            latest.image_id.as_str().to_owned()
        } else {
            latest.image_ref.clone()
        },
        container_id: Some(format!("{}://{}", input.runtime, latest.id)),
        restart_count: count,
        volume_mounts: mounts(input, spec),
        resources: spec.resources.clone(),
        allocated_resources: spec.resources.as_ref().and_then(|own| own.requests.clone()),
        user: latest.user.as_ref().map(|user| ContainerUser {
            linux: Some(LinuxContainerUser {
                uid: user.uid,
                gid: user.gid,
                supplemental_groups: Some(user.supplemental_groups.clone())
                    .filter(|groups| !groups.is_empty()),
            }),
        }),
        ..ContainerStatus::default()
    };
    let ran = before
        .and_then(|before| before.state.as_ref())
        .is_some_and(|state| state.running.is_some());
    one.state = Some(if latest.state == State::Unknown && ran {
        one.restart_count = before.map_or(0, |before| before.restart_count) + 1;
        ended(
            LOST,
            "ContainerStatusUnknown",
            "The container could not be located when the pod was terminated",
        )
    } else {
        state(input, latest)
    });
    one
}

/// How a container is.
fn state(input: &Input<'_>, container: &Container) -> ContainerState {
    match container.state {
        State::Running => ContainerState {
            running: Some(ContainerStateRunning {
                started_at: Some(api_time(container.started.unwrap_or(container.created))),
            }),
            ..ContainerState::default()
        },
        // It is about to be started: the runtime is asked for both in one go.
        State::Created => waiting("ContainerCreating", ""),
        State::Unknown => waiting("", ""),
        State::Exited => {
            let exit = container.exit.as_ref();
            let said = input.messages.get(&container.id).map(String::as_str);
            // What the runtime says and what the container said are told one after the other.
            let runtime = exit.map_or("", |exit| exit.message.as_str());
            let message = match said.filter(|said| !said.is_empty()) {
                Some(said) if runtime.is_empty() => said.to_owned(),
                Some(said) => format!("{runtime}: {said}"),
                None => runtime.to_owned(),
            };
            let reason = exit.map_or("", |exit| exit.reason.as_str());
            ContainerState {
                terminated: Some(ContainerStateTerminated {
                    container_id: Some(format!("{}://{}", input.runtime, container.id)),
                    exit_code: exit.map_or(-1, |exit| exit.code),
                    reason: text(reason),
                    message: text(&message),
                    started_at: container.started.map(api_time),
                    finished_at: container.finished.map(api_time),
                    signal: None,
                }),
                ..ContainerState::default()
            }
        }
    }
}

/// Whether it has started and is ready.
fn health(input: &Input<'_>, kind: ContainerKind, spec: &Spec, one: &mut ContainerStatus) {
    let state = one.state.clone().unwrap_or_default();
    if kind == ContainerKind::Ephemeral {
        return;
    }
    if kind == ContainerKind::Init && !spec::is_sidecar(spec) {
        one.started = Some(state.running.is_some());
        one.ready = state.terminated.is_some_and(|ended| ended.exit_code == 0);
        return;
    }
    let running = input.seen.latest(&spec.name);
    let running = running.filter(|latest| latest.state == State::Running);
    let Some(running) = running.filter(|_| state.running.is_some()) else {
        one.started = Some(false);
        one.ready = false;
        return;
    };
    let probe = (input.probe)(&running.id);
    let started = spec.startup_probe.is_none() || probe.started == Some(true);
    let ready = spec.readiness_probe.is_none() || probe.ready == Some(true);
    one.started = Some(started);
    one.ready = started && ready;
}

/// How volumes are mounted, as far as the API is told.
fn mounts(input: &Input<'_>, spec: &Spec) -> Option<Vec<VolumeMountStatus>> {
    let mounts = spec
        .volume_mounts
        .as_deref()
        .filter(|all| !all.is_empty())?;
    let of = |mount: &k8s_openapi::api::core::v1::VolumeMount| {
        let read_only = mount.read_only == Some(true);
        let recursive = match mount.recursive_read_only.as_deref() {
            Some("Enabled") => true,
            Some("IfPossible") => input.recursive_read_only,
            _ => false,
        };
        let word = if recursive { "Enabled" } else { "Disabled" };
        VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only: read_only.then_some(true),
            recursive_read_only: read_only.then(|| word.to_owned()),
            ..VolumeMountStatus::default()
        }
    };
    Some(mounts.iter().map(of).collect())
}
