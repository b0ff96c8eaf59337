//! What the API is told of a pod.

mod conditions;
mod containers;
mod phase;
mod qos;

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStatus, HostIP, Pod, PodCondition, PodIP,
    PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use orlop_core::runtime::ContainerId;

pub(crate) use self::conditions::{get as condition, transition_times};
use super::observed::Observed;
use super::spec;
use crate::parts::{ContainerKind, ProbeState};

/// Why a container that is to run does not: its `waiting` state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// Why a pod has come to its end otherwise than by its containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// All that a pod's status is made of.
pub(crate) struct Input<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) seen: &'a Observed,
    /// The status before: what was told last, or what the API has.
    pub(crate) old: &'a PodStatus,
    /// Why containers wait, by name.
    pub(crate) waiting: &'a BTreeMap<String, Waiting>,
    /// What ended containers said.
    pub(crate) messages: &'a BTreeMap<ContainerId, String>,
    /// What the probes of a container say.
    pub(crate) probe: &'a dyn Fn(&ContainerId) -> ProbeState,
    /// The runtime's name, which begins the ids of containers.
    pub(crate) runtime: &'a str,
    /// Whether mounts can be read-only with all that lies below.
    pub(crate) recursive_read_only: bool,
    /// The node's addresses.
    pub(crate) host_ips: &'a [IpAddr],
    /// Whether the pod is to run no more.
    pub(crate) terminating: bool,
    /// Why it was brought to its end.
    pub(crate) verdict: Option<&'a Verdict>,
    pub(crate) now: Timestamp,
}

/// A time as the API has it: with whole seconds.
pub(crate) fn api_time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

pub(crate) fn text(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

/// The status of a pod.
pub(crate) fn generate(input: &Input<'_>) -> PodStatus {
    let (pod, old) = (input.pod, input.old);
    let mut status = PodStatus {
        qos_class: Some(qos::class(pod).to_owned()),
        observed_generation: pod.metadata.generation,
        start_time: Some(
            old.start_time
                .clone()
                .unwrap_or_else(|| api_time(input.now)),
        ),
        // What others write is kept.
        nominated_node_name: old.nominated_node_name.clone(),
        resource_claim_statuses: old.resource_claim_statuses.clone(),
        extended_resource_claim_status: old.extended_resource_claim_status.clone(),
        ..PodStatus::default()
    };
    let ephemeral = spec::ephemeral_containers(pod);
    let of = |kind, specs: &[_], old: &Option<Vec<_>>| {
        containers::statuses(input, kind, specs, old.as_deref().unwrap_or_default())
    };
    let regular = of(
        ContainerKind::Regular,
        spec::containers(pod),
        &old.container_statuses,
    );
    let init = of(
        ContainerKind::Init,
        spec::init_containers(pod),
        &old.init_container_statuses,
    );
    let ephemeral = of(
        ContainerKind::Ephemeral,
        &ephemeral,
        &old.ephemeral_container_statuses,
    );

    let mut phase = phase::of(input, &init, &regular);
    // A pod that has come to its end stays there.
    let before = pod.status.as_ref().and_then(|api| api.phase.as_deref());
    let ended = [before, old.phase.as_deref()]
        .into_iter()
        .find(|phase| spec::is_terminal_phase(*phase))
        .flatten();
    if let Some(ended) = ended {
        phase = ended.to_owned();
    }
    if old.phase.as_deref() == Some(&phase) {
        status.reason.clone_from(&old.reason);
        status.message.clone_from(&old.message);
    }
    if let Some(verdict) = input.verdict.filter(|_| ended.is_none()) {
        "Failed".clone_into(&mut phase);
        status.reason = text(&verdict.reason);
        status.message = text(&verdict.message);
    }
    status.phase = Some(phase);

    let conditions = conditions::all(input, &init, &regular, status.phase.as_deref());
    status.conditions = Some(conditions);
    status.container_statuses = Some(regular);
    status.init_container_statuses = Some(init).filter(|all| !all.is_empty());
    status.ephemeral_container_statuses = Some(ephemeral).filter(|all| !all.is_empty());
    addresses(input, &mut status);
    status
}

/// The addresses: at most one of each family, the node's own family first.
fn addresses(input: &Input<'_>, status: &mut PodStatus) {
    let host = input.host_ips;
    let own = if spec::uses_host_network(input.pod) {
        host
    } else {
        input.seen.addresses()
    };
    let v4_first = host.first().is_none_or(IpAddr::is_ipv4);
    let family = |v4: bool| own.iter().find(|ip| ip.is_ipv4() == v4);
    let ips: Vec<PodIP> = [v4_first, !v4_first]
        .into_iter()
        .filter_map(family)
        .map(|ip| PodIP { ip: ip.to_string() })
        .collect();
    if ips.is_empty() && !input.seen.has_ready_sandbox() {
        // A pod whose sandbox has ended is told of with the addresses that it had.
        status.pod_ip.clone_from(&input.old.pod_ip);
        status.pod_ips.clone_from(&input.old.pod_ips);
    } else {
        status.pod_ip = ips.first().map(|first| first.ip.clone());
        status.pod_ips = Some(ips).filter(|ips| !ips.is_empty());
    }
    status.host_ip = host.first().map(ToString::to_string);
    let hosts = host.iter().take(2).map(|ip| HostIP { ip: ip.to_string() });
    status.host_ips = Some(hosts.collect::<Vec<_>>()).filter(|ips| !ips.is_empty());
}

/// The last status of a pod whose containers are all gone: of a container that nobody saw end it says so, and the pod has come to its
/// end.
pub(crate) fn conclude(pod: &Pod, status: &mut PodStatus, now: Timestamp) {
    let unseen = |one: &mut ContainerStatus| {
        let ended = one
            .state
            .as_ref()
            .and_then(|state| state.terminated.as_ref());
        if ended.is_none() {
            one.state = Some(ContainerState {
                terminated: Some(ContainerStateTerminated {
                    exit_code: 137,
                    reason: Some("ContainerStatusUnknown".to_owned()),
                    message: text("The container could not be located when the pod was terminated"),
                    ..ContainerStateTerminated::default()
                }),
                ..ContainerState::default()
            });
        }
        one.ready = false;
        one.started = Some(false);
    };
    let has_moved = |one: &ContainerStatus| {
        let waits = one.state.as_ref().is_none_or(|s| s.waiting.is_some());
        !waits || terminated_before(one).is_some()
    };
    let inits = status.init_container_statuses.as_deref();
    let inits = inits.unwrap_or_default();
    let regular = status.container_statuses.as_deref().unwrap_or_default();
    let last_init_done = inits.last().is_some_and(|last| {
        let state = last.state.as_ref();
        let ended = state.and_then(|state| state.terminated.as_ref());
        ended.is_some_and(|ended| ended.exit_code == 0)
            || state.is_some_and(|state| state.running.is_some()) && last.started == Some(true)
    });
    let initialised =
        spec::init_containers(pod).is_empty() || regular.iter().any(has_moved) || last_init_done;
    // Of the init containers, those that follow the last one that ever ran have nothing to tell; the first one always has.
    let tried = inits.iter().rposition(has_moved).map_or(1, |at| at + 1);
    if initialised {
        for one in status.container_statuses.iter_mut().flatten() {
            unseen(one);
        }
    }
    let inits = status.init_container_statuses.iter_mut().flatten();
    for one in inits.take(tried) {
        unseen(one);
    }
    for one in status.ephemeral_container_statuses.iter_mut().flatten() {
        one.ready = false;
    }
    if !spec::is_terminal_phase(status.phase.as_deref()) && !spec::is_static(pod) {
        status.phase = Some("Failed".to_owned());
    }
    let old = status.conditions.clone().unwrap_or_default();
    let phase = status.phase.clone();
    for condition in status.conditions.iter_mut().flatten() {
        conditions::conclude(condition, phase.as_deref());
    }
    if let Some(conditions) = &mut status.conditions {
        transition_times(&old, conditions, now);
    }
}

fn terminated_before(one: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    one.last_state.as_ref()?.terminated.as_ref()
}

/// The status while containers may still run of a pod that has come to its end: as long as they do, the phase is the old one, and the
/// pod is not ready.
pub(crate) fn hold_back(status: &mut PodStatus, old: &PodStatus, now: Timestamp) {
    let was = old.phase.as_deref().unwrap_or("Pending");
    if spec::is_terminal_phase(Some(was)) || !spec::is_terminal_phase(status.phase.as_deref()) {
        return;
    }
    let ended = status.phase.replace(was.to_owned());
    status.reason.clone_from(&old.reason);
    status.message.clone_from(&old.message);
    let before: Vec<PodCondition> = old.conditions.clone().unwrap_or_default();
    for condition in status.conditions.iter_mut().flatten() {
        conditions::conclude(condition, ended.as_deref());
    }
    if let Some(conditions) = &mut status.conditions {
        transition_times(&before, conditions, now);
    }
}

#[cfg(test)]
mod tests;
