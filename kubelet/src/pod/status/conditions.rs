//! The conditions of a pod.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition};

use super::{Input, api_time, terminated_before, text};
use crate::pod::spec;

/// The conditions that the node agent alone writes, beside `DisruptionTarget`, which it writes when it evicts.
const OWN: [&str; 5] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
];

/// Whether a condition is the node agent's to write.
fn is_own(kind: &str) -> bool {
    OWN.contains(&kind)
}

/// A condition by its type.
pub(crate) fn get<'a>(all: &'a [PodCondition], kind: &str) -> Option<&'a PodCondition> {
    all.iter().find(|one| one.type_ == kind)
}

/// Gives conditions the time of their last change: now for those that changed.
pub(crate) fn transition_times(old: &[PodCondition], new: &mut [PodCondition], now: Timestamp) {
    for condition in new {
        let before = get(old, &condition.type_);
        let same = before.filter(|before| before.status == condition.status);
        let kept = same.and_then(|before| before.last_transition_time.clone());
        condition.last_transition_time = Some(kept.unwrap_or_else(|| api_time(now)));
    }
}

/// What a condition is once the pod has come to its end.
pub(super) fn conclude(condition: &mut PodCondition, phase: Option<&str>) {
    let ends = match condition.type_.as_str() {
        "Ready" | "ContainersReady" => true,
        "PodReadyToStartContainers" => {
            condition.status = "False".to_owned();
            false
        }
        _ => false,
    };
    if ends {
        condition.status = "False".to_owned();
        condition.reason = Some(end_reason(phase).to_owned());
        condition.message = None;
    }
}

fn end_reason(phase: Option<&str>) -> &'static str {
    if phase == Some("Succeeded") {
        "PodCompleted"
    } else {
        "PodFailed"
    }
}

/// Holds, or does not and why.
struct Finding {
    holds: bool,
    reason: &'static str,
    message: String,
}

impl Finding {
    fn holds() -> Self {
        Self {
            holds: true,
            reason: "",
            message: String::new(),
        }
    }

    fn fails(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            holds: false,
            reason,
            message: message.into(),
        }
    }
}

/// All conditions of a pod: those of others as they are, then the node agent's own.
pub(super) fn all(
    input: &Input<'_>,
    init: &[ContainerStatus],
    regular: &[ContainerStatus],
    phase: Option<&str>,
) -> Vec<PodCondition> {
    let api = input.pod.status.as_ref();
    let api = api.and_then(|status| status.conditions.as_deref());
    let api = api.unwrap_or_default();
    let old = input.old.conditions.as_deref().unwrap_or_default();
    let foreign = api.iter().filter(|one| !is_own(&one.type_));
    let mut all: Vec<PodCondition> = foreign.cloned().collect();
    // It may have been written here and not be seen in the API yet.
    if get(&all, "DisruptionTarget").is_none()
        && let Some(own) = get(old, "DisruptionTarget")
    {
        all.push(own.clone());
    }
    let kept = all.len();
    let sandbox = if input.seen.sandbox(input.pod).renew {
        Finding {
            holds: false,
            reason: "",
            message: String::new(),
        }
    } else {
        Finding::holds()
    };
    let containers = containers_ready(input, init, regular, phase);
    let ready = if containers.holds {
        gates(input, &all)
    } else {
        Finding::fails(containers.reason, containers.message.clone())
    };
    for (kind, finding) in [
        ("PodReadyToStartContainers", sandbox),
        ("Initialized", initialized(input, init, regular, phase)),
        ("Ready", ready),
        ("ContainersReady", containers),
        ("PodScheduled", Finding::holds()),
    ] {
        all.push(PodCondition {
            type_: kind.to_owned(),
            status: if finding.holds { "True" } else { "False" }.to_owned(),
            reason: text(finding.reason),
            message: text(&finding.message),
            observed_generation: input.pod.metadata.generation,
            ..PodCondition::default()
        });
    }
    transition_times(old, &mut all[kept..], input.now);
    all
}

/// Names as Go prints a list: `[a b]`.
fn list(names: &[&str]) -> String {
    format!("[{}]", names.join(" "))
}

fn shortcomings(unknown: &[&str], lacking: &[&str], what: &str) -> String {
    let mut messages = Vec::new();
    if !unknown.is_empty() {
        messages.push(format!("containers with unknown status: {}", list(unknown)));
    }
    if !lacking.is_empty() {
        messages.push(format!("containers with {what} status: {}", list(lacking)));
    }
    messages.join(", ")
}

fn containers_ready(
    input: &Input<'_>,
    init: &[ContainerStatus],
    regular: &[ContainerStatus],
    phase: Option<&str>,
) -> Finding {
    let (mut unknown, mut unready) = (Vec::new(), Vec::new());
    let sidecars = spec::init_containers(input.pod).iter();
    let sidecars = sidecars.filter(|container| spec::is_sidecar(container));
    for container in sidecars.chain(spec::containers(input.pod)) {
        let mut statuses = init.iter().chain(regular);
        match statuses.find(|one| one.name == container.name) {
            None => unknown.push(container.name.as_str()),
            Some(one) if !one.ready => unready.push(container.name.as_str()),
            Some(_) => {}
        }
    }
    if phase == Some("Failed") || (phase == Some("Succeeded") && unknown.is_empty()) {
        return Finding::fails(end_reason(phase), "");
    }
    let message = shortcomings(&unknown, &unready, "unready");
    if message.is_empty() {
        Finding::holds()
    } else {
        Finding::fails("ContainersNotReady", message)
    }
}

/// Whether the conditions hold that others are to set before the pod counts as ready.
fn gates(input: &Input<'_>, conditions: &[PodCondition]) -> Finding {
    let gates = spec::spec(input.pod).readiness_gates.as_deref();
    let mut messages = Vec::new();
    for gate in gates.unwrap_or_default() {
        let kind = &gate.condition_type;
        match get(conditions, kind) {
            None => messages.push(format!(
                "corresponding condition of pod readiness gate \"{kind}\" does not exist."
            )),
            Some(one) if one.status != "True" => messages.push(format!(
                "the status of pod readiness gate \"{kind}\" is not \"True\", but {}",
                one.status
            )),
            Some(_) => {}
        }
    }
    if messages.is_empty() {
        Finding::holds()
    } else {
        Finding::fails("ReadinessGatesNotReady", messages.join(", "))
    }
}

fn initialized(
    input: &Input<'_>,
    init: &[ContainerStatus],
    regular: &[ContainerStatus],
    phase: Option<&str>,
) -> Finding {
    let (mut unknown, mut incomplete) = (Vec::new(), Vec::new());
    for container in spec::init_containers(input.pod) {
        match init.iter().find(|one| one.name == container.name) {
            None => unknown.push(container.name.as_str()),
            Some(one) => {
                let done = if spec::is_sidecar(container) {
                    one.started == Some(true)
                } else {
                    one.ready
                };
                if !done {
                    incomplete.push(container.name.as_str());
                }
            }
        }
    }
    if phase == Some("Succeeded") && unknown.is_empty() {
        return Finding {
            holds: true,
            reason: "PodCompleted",
            message: String::new(),
        };
    }
    let has_run = |one: &ContainerStatus| {
        let state = one.state.as_ref();
        state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
            || one.started == Some(true)
            || terminated_before(one).is_some()
    };
    if regular.iter().any(has_run) {
        return Finding::holds();
    }
    let message = shortcomings(&unknown, &incomplete, "incomplete");
    if message.is_empty() {
        Finding::holds()
    } else {
        Finding::fails("ContainersNotInitialized", message)
    }
}
