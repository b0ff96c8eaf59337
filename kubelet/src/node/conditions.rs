//! The conditions of the node, with upstream's reasons and messages.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::NodeCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use orlop_core::runtime::{RuntimeCondition, RuntimeStatus, condition};

/// What the node runs out of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Memory.
    pub memory: bool,
    /// Disk space or inodes.
    pub disk: bool,
    /// Process ids.
    pub pid: bool,
}

/// A condition that has changed, for an event: `NodeReady`, `NodeHasDiskPressure`, ….
pub(super) type Change = &'static str;

/// Brings the conditions of ours up to date, and says which changed. Those of others stay as they are. `not_ready` says why the node is
/// not ready.
pub(super) fn update(
    conditions: &mut Vec<NodeCondition>,
    pressure: Pressure,
    not_ready: Option<&str>,
    now: Timestamp,
) -> Vec<Change> {
    let mut changes = Vec::new();
    let now = now_in_seconds(now);
    let kinds = [
        (
            "MemoryPressure",
            pressure.memory,
            (
                "KubeletHasInsufficientMemory",
                "kubelet has insufficient memory available",
                "NodeHasInsufficientMemory",
            ),
            (
                "KubeletHasSufficientMemory",
                "kubelet has sufficient memory available",
                "NodeHasSufficientMemory",
            ),
        ),
        (
            "DiskPressure",
            pressure.disk,
            (
                "KubeletHasDiskPressure",
                "kubelet has disk pressure",
                "NodeHasDiskPressure",
            ),
            (
                "KubeletHasNoDiskPressure",
                "kubelet has no disk pressure",
                "NodeHasNoDiskPressure",
            ),
        ),
        (
            "PIDPressure",
            pressure.pid,
            (
                "KubeletHasInsufficientPID",
                "kubelet has insufficient PID available",
                "NodeHasInsufficientPID",
            ),
            (
                "KubeletHasSufficientPID",
                "kubelet has sufficient PID available",
                "NodeHasSufficientPID",
            ),
        ),
        (
            "Ready",
            not_ready.is_none(),
            (
                "KubeletReady",
                "kubelet is posting ready status",
                "NodeReady",
            ),
            (
                "KubeletNotReady",
                not_ready.unwrap_or_default(),
                "NodeNotReady",
            ),
        ),
    ];
    for (kind, holds, yes, no) in kinds {
        let (reason, message, event) = if holds { yes } else { no };
        let status = if holds { "True" } else { "False" };
        let at = conditions
            .iter()
            .position(|one| one.type_ == kind)
            .unwrap_or_else(|| {
                conditions.push(NodeCondition {
                    type_: kind.to_owned(),
                    ..NodeCondition::default()
                });
                conditions.len() - 1
            });
        let one = &mut conditions[at];
        one.last_heartbeat_time = Some(Time(now));
        one.reason = Some(reason.to_owned());
        one.message = Some(message.to_owned());
        if one.status != status {
            // A node that was never ready has not ceased to be.
            let first = one.status.is_empty();
            status.clone_into(&mut one.status);
            one.last_transition_time = Some(Time(now));
            if !(first && event == "NodeNotReady") {
                changes.push(event);
            }
        }
    }
    changes
}

/// The API's times have whole seconds.
pub(super) fn now_in_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// Why a runtime cannot run pods, if it cannot; each reason by itself.
pub(super) fn runtime_errors(status: &RuntimeStatus) -> Vec<String> {
    let missing = |kind: &str| RuntimeCondition::failing(kind, "", "");
    let kinds = [
        (condition::RUNTIME_READY, "container runtime not ready"),
        (
            condition::NETWORK_READY,
            "container runtime network not ready",
        ),
    ];
    let mut errors = Vec::new();
    for (kind, what) in kinds {
        let found = status
            .conditions
            .iter()
            .find(|one| one.kind == kind)
            .cloned();
        let found = found.unwrap_or_else(|| missing(kind));
        if !found.holds {
            errors.push(format!(
                "{what}: {}={} reason:{} message:{}",
                found.kind, found.holds, found.reason, found.message
            ));
        }
    }
    errors
}

/// Several reasons as one message: one as it is, more in brackets, none twice.
pub(super) fn aggregate(errors: &[String]) -> Option<String> {
    let mut once: Vec<&str> = Vec::new();
    for error in errors {
        if !once.contains(&error.as_str()) {
            once.push(error);
        }
    }
    match once.as_slice() {
        [] => None,
        [one] => Some((*one).to_owned()),
        more => Some(format!("[{}]", more.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use orlop_core::runtime::{RuntimeFeatures, RuntimeVersion};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn words(conditions: &[NodeCondition]) -> Vec<String> {
        let word = |one: &NodeCondition| {
            format!(
                "{}={} {} {}",
                one.type_,
                one.status,
                one.reason.as_deref().unwrap(),
                one.last_transition_time.as_ref().unwrap().0.as_second()
            )
        };
        conditions.iter().map(word).collect()
    }

    #[test]
    fn conditions_change_when_something_does() {
        let mut conditions = vec![NodeCondition {
            type_: "NetworkUnavailable".into(),
            status: "False".into(),
            reason: Some("RouteCreated".into()),
            last_transition_time: Some(Time(at(1))),
            ..NodeCondition::default()
        }];
        let changes = update(
            &mut conditions,
            Pressure::default(),
            Some("no network"),
            at(10),
        );
        assert_eq!(
            changes,
            [
                "NodeHasSufficientMemory",
                "NodeHasNoDiskPressure",
                "NodeHasSufficientPID"
            ]
        );
        assert_eq!(conditions[4].message.as_deref(), Some("no network"));
        let full = Pressure {
            disk: true,
            ..Pressure::default()
        };
        let changes = update(&mut conditions, full, None, at(20));
        assert_eq!(changes, ["NodeHasDiskPressure", "NodeReady"]);
        assert_eq!(update(&mut conditions, full, None, at(30)), [""; 0]);
        assert_eq!(conditions[1].last_heartbeat_time, Some(Time(at(30))));
        assert_eq!(
            words(&conditions),
            [
                "NetworkUnavailable=False RouteCreated 1",
                "MemoryPressure=False KubeletHasSufficientMemory 10",
                "DiskPressure=True KubeletHasDiskPressure 20",
                "PIDPressure=False KubeletHasSufficientPID 10",
                "Ready=True KubeletReady 20"
            ]
        );
        assert_eq!(
            update(&mut conditions, full, Some("x"), at(40)),
            ["NodeNotReady"]
        );
    }

    #[test]
    fn what_the_runtime_lacks_is_said_as_upstream_does() {
        let mut status = RuntimeStatus {
            version: RuntimeVersion {
                name: "containerd".into(),
                version: "1.6.20".into(),
            },
            conditions: vec![
                RuntimeCondition::holding(condition::RUNTIME_READY),
                RuntimeCondition::failing(
                    condition::NETWORK_READY,
                    "NetworkPluginNotReady",
                    "Network plugin returns error: cni plugin not initialized",
                ),
            ],
            handlers: Vec::new(),
            features: RuntimeFeatures::default(),
        };
        let network = "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady \
                       message:Network plugin returns error: cni plugin not initialized";
        assert_eq!(runtime_errors(&status), [network]);
        status.conditions.remove(0);
        let both = runtime_errors(&status);
        assert_eq!(
            aggregate(&both).unwrap(),
            format!(
                "[container runtime not ready: RuntimeReady=false reason: message:, {network}]"
            )
        );
        assert_eq!(aggregate(&[]), None);
        assert_eq!(aggregate(&["a".into(), "a".into()]).as_deref(), Some("a"));
    }
}
