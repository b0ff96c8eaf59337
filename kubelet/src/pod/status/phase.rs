//! The phase of a pod.

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus};
use orlop_core::runtime::ContainerState;

use super::{Input, terminated_before};
use crate::pod::spec;

/// How far a container is, as far as the phase is concerned.
enum Progress<'a> {
    /// Nothing is known of it.
    Unknown,
    Running,
    Ended(&'a ContainerStateTerminated),
    /// It waits, and has ended before.
    WaitingAgain(&'a ContainerStateTerminated),
    /// It waits, and never ran.
    Waiting,
}

fn progress<'a>(all: &'a [ContainerStatus], name: &str) -> Progress<'a> {
    let Some(one) = all.iter().find(|one| one.name == name) else {
        return Progress::Unknown;
    };
    let Some(state) = &one.state else {
        return Progress::Unknown;
    };
    if state.running.is_some() {
        return Progress::Running;
    }
    if let Some(ended) = &state.terminated {
        return Progress::Ended(ended);
    }
    match terminated_before(one) {
        Some(before) => Progress::WaitingAgain(before),
        None if state.waiting.is_some() => Progress::Waiting,
        None => Progress::Unknown,
    }
}

/// The phase by what the containers do.
pub(super) fn of(
    input: &Input<'_>,
    init: &[ContainerStatus],
    regular: &[ContainerStatus],
) -> String {
    let pod = input.pod;
    let mut pending = false;
    let mut sidecars_pending = false;
    let (mut unknown, mut running, mut waiting) = (false, false, false);
    for container in spec::init_containers(pod) {
        let own = progress(init, &container.name);
        if spec::is_sidecar(container) {
            match own {
                Progress::Running => {
                    let started = init.iter().find(|one| one.name == container.name);
                    let started = started.is_some_and(|one| one.started == Some(true));
                    sidecars_pending |= !started;
                    running = true;
                }
                Progress::Waiting => {
                    sidecars_pending = true;
                    waiting = true;
                }
                Progress::Unknown => unknown = true,
                Progress::Ended(_) | Progress::WaitingAgain(_) => {}
            }
            continue;
        }
        match own {
            Progress::Ended(ended) | Progress::WaitingAgain(ended) => {
                let code = ended.exit_code;
                if code != 0 && !spec::restarts_after(pod, container, code) {
                    return "Failed".to_owned();
                }
            }
            Progress::Running | Progress::Waiting | Progress::Unknown => pending = true,
        }
    }
    let (mut stopped, mut succeeded, mut restarting) = (0, 0, 0);
    for container in spec::containers(pod) {
        match progress(regular, &container.name) {
            Progress::Unknown => unknown = true,
            Progress::Running => running = true,
            Progress::Waiting => waiting = true,
            Progress::Ended(ended) => {
                stopped += 1;
                succeeded += u32::from(ended.exit_code == 0);
                let again = spec::restarts_after(pod, container, ended.exit_code);
                restarting += u32::from(again);
            }
            Progress::WaitingAgain(before) => {
                stopped += 1;
                let again = spec::restarts_after(pod, container, before.exit_code);
                restarting += u32::from(again);
            }
        }
    }
    // A sidecar that restarts does not put a pod back to the beginning.
    let begun = spec::containers(pod).iter().any(|container| {
        let state = input.seen.latest(&container.name).map(|one| one.state);
        matches!(
            state,
            Some(ContainerState::Running | ContainerState::Exited)
        )
    });
    let phase = if pending || (sidecars_pending && !begun) || waiting {
        "Pending"
    } else if running && !unknown {
        "Running"
    } else if stopped > 0 && !unknown {
        let ends = input.terminating && !spec::is_static(pod);
        if restarting > 0 && !ends {
            "Running"
        } else if stopped == succeeded {
            "Succeeded"
        } else {
            "Failed"
        }
    } else {
        "Pending"
    };
    phase.to_owned()
}
