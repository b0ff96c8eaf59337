//! The statuses of pods on simulated nodes.

use jiff::Timestamp;
use serde_json::{Value, json};

/// The phase.
pub(super) fn phase(pod: &Value) -> &str {
    pod.pointer("/status/phase")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Whether its containers are started again whenever they end: such a pod runs until it is deleted.
pub(super) fn runs_forever(pod: &Value) -> bool {
    matches!(
        pod.pointer("/spec/restartPolicy").and_then(Value::as_str),
        None | Some("Always")
    )
}

fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a Value> {
    pod.pointer("/status/conditions")?
        .as_array()?
        .iter()
        .find(|condition| condition["type"] == kind)
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

/// When it was given to its node.
pub(super) fn bound_at(pod: &Value) -> Option<Timestamp> {
    time(&condition(pod, "PodScheduled")?["lastTransitionTime"])
}

/// When its containers were started.
pub(super) fn started_at(pod: &Value) -> Option<Timestamp> {
    time(pod.pointer("/status/containerStatuses/0/state/running/startedAt")?)
}

/// Since when somebody says that it is not ready, though it runs: the node controller does, of the pods of nodes that it does not hear of.
pub(super) fn doubted_since(pod: &Value) -> Option<Timestamp> {
    let ready = condition(pod, "Ready")?;
    if ready["status"] == "True" {
        return None;
    }
    time(&ready["lastTransitionTime"])
}

/// It is ready after all.
pub(super) fn ready_after_all(now: Timestamp) -> Value {
    json!({"conditions": [{
        "type": "Ready",
        "status": "True",
        "lastTransitionTime": seconds(now),
        "reason": null,
        "message": null,
    }]})
}

fn seconds(now: Timestamp) -> String {
    Timestamp::from_second(now.as_second())
        .unwrap_or(now)
        .to_string()
}

fn list<'a>(pod: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    pod.pointer("/spec")
        .and_then(|spec| spec.get(field))
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// Ids of containers are made of the pod's: nothing else is there to name.
fn container_id(pod: &Value, name: &str) -> String {
    let uid = pod
        .pointer("/metadata/uid")
        .and_then(Value::as_str)
        .unwrap_or_default();
    format!("simulated://{uid}-{name}")
}

fn conditions(pod: &Value, now: &str, ready: bool, reason: Option<&str>) -> Value {
    let generation = pod
        .pointer("/metadata/generation")
        .cloned()
        .unwrap_or(Value::Null);
    let make = |kind: &str, status: bool, reason: Option<&str>| {
        let mut made = json!({
            "type": kind,
            "status": if status { "True" } else { "False" },
            "lastProbeTime": null,
            "lastTransitionTime": now,
        });
        if !generation.is_null() {
            made["observedGeneration"] = generation.clone();
        }
        if let Some(reason) = reason {
            made["reason"] = json!(reason);
        }
        made
    };
    json!([
        make("PodReadyToStartContainers", ready, None),
        make("Initialized", true, reason),
        make("Ready", ready, reason),
        make("ContainersReady", ready, reason),
    ])
}

fn ended(pod: &Value, container: &Value, started: &str, now: &str) -> Value {
    let name = container["name"].as_str().unwrap_or_default();
    let id = container_id(pod, name);
    json!({
        "name": name,
        "image": container["image"],
        "imageID": "",
        "containerID": id,
        "ready": false,
        "started": false,
        "restartCount": 0,
        "lastState": {},
        "state": {"terminated": {
            "exitCode": 0, "reason": "Completed", "startedAt": started, "finishedAt": now, "containerID": id,
        }},
    })
}

fn up(pod: &Value, container: &Value, now: &str) -> Value {
    let name = container["name"].as_str().unwrap_or_default();
    json!({
        "name": name,
        "image": container["image"],
        "imageID": "",
        "containerID": container_id(pod, name),
        "ready": true,
        "started": true,
        "restartCount": 0,
        "lastState": {},
        "state": {"running": {"startedAt": now}},
    })
}

fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

/// All containers up, all init containers done.
pub(super) fn running(pod: &Value, pod_ip: &str, host_ip: &str, now: Timestamp) -> Value {
    let now = seconds(now);
    let containers: Vec<Value> = list(pod, "containers")
        .map(|container| up(pod, container, &now))
        .collect();
    let init: Vec<Value> = list(pod, "initContainers")
        .map(|container| {
            if is_sidecar(container) {
                up(pod, container, &now)
            } else {
                let mut status = ended(pod, container, &now, &now);
                status["ready"] = json!(true);
                status
            }
        })
        .collect();
    let mut status = json!({
        "phase": "Running",
        "conditions": conditions(pod, &now, true, None),
        "hostIP": host_ip,
        "hostIPs": [{"ip": host_ip}],
        "podIP": pod_ip,
        "podIPs": [{"ip": pod_ip}],
        "startTime": now,
        "containerStatuses": containers,
    });
    if !init.is_empty() {
        status["initContainerStatuses"] = json!(init);
    }
    if let Some(generation) = pod.pointer("/metadata/generation") {
        status["observedGeneration"] = generation.clone();
    }
    status
}

/// All containers ended well.
pub(super) fn succeeded(pod: &Value, now: Timestamp) -> Value {
    let started = pod
        .pointer("/status/startTime")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let now = seconds(now);
    let started = if started.is_empty() {
        now.clone()
    } else {
        started
    };
    let containers: Vec<Value> = list(pod, "containers")
        .map(|container| ended(pod, container, &started, &now))
        .collect();
    json!({
        "phase": "Succeeded",
        "conditions": conditions(pod, &now, false, Some("PodCompleted")),
        "containerStatuses": containers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_doubted_when_another_says_that_it_is_not_ready() {
        let mut pod = json!({
            "metadata": {"name": "p", "uid": "u"},
            "spec": {"containers": [{"name": "c", "image": "z"}]},
        });
        pod["status"] = running(&pod, "10.0.0.2", "198.18.0.2", Timestamp::UNIX_EPOCH);
        assert_eq!(doubted_since(&pod), None);
        pod["status"]["conditions"][2]["status"] = json!("False");
        assert_eq!(doubted_since(&pod), Some(Timestamp::UNIX_EPOCH));
    }

    #[test]
    fn statuses_follow_the_spec() {
        let pod = json!({
            "metadata": {"name": "p", "uid": "u"},
            "spec": {
                "restartPolicy": "Never",
                "initContainers": [{"name": "i", "image": "x"}, {"name": "s", "image": "y", "restartPolicy": "Always"}],
                "containers": [{"name": "c", "image": "z"}],
            },
        });
        assert!(!runs_forever(&pod));
        let status = running(&pod, "10.0.0.2", "198.18.0.2", Timestamp::UNIX_EPOCH);
        assert_eq!(
            status["initContainerStatuses"][0]["state"]["terminated"]["reason"],
            "Completed"
        );
        assert!(status["initContainerStatuses"][1]["state"]["running"].is_object());
        assert_eq!(status["containerStatuses"][0]["ready"], true);
        let done = succeeded(&pod, Timestamp::UNIX_EPOCH);
        assert_eq!(done["conditions"][2]["reason"], "PodCompleted");
    }
}
