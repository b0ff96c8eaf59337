//! What a worker asks of a pod's specification.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};
use orlop_core::events::ObjectReference;

use crate::parts::ContainerKind;

/// Annotation: where a pod's specification came from (`api`, `file`).
pub const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
/// Annotation: the hash of a static pod's manifest.
pub const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// Annotation: when a static pod's manifest was first seen.
pub const CONFIG_SEEN: &str = "kubernetes.io/config.seen";
/// Annotation: of a mirror pod, the hash of the manifest that it mirrors.
pub const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";

/// What a pod's own grace is where it has none: 30 s, the API's default.
const DEFAULT_GRACE: i64 = 30;

/// A pod's uid; empty for one that has none.
pub(crate) fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

pub(crate) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

pub(crate) fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

/// The pod as upstream's messages name it: `name_namespace(uid)`.
pub(crate) fn in_words(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    let annotations = pod.metadata.annotations.as_ref()?;
    annotations.get(key).map(String::as_str)
}

/// Whether it is the API's picture of a static pod, which is never run itself.
pub(crate) fn is_mirror(pod: &Pod) -> bool {
    annotation(pod, CONFIG_MIRROR).is_some()
}

/// Whether it came from somewhere else than the API.
pub(crate) fn is_static(pod: &Pod) -> bool {
    annotation(pod, CONFIG_SOURCE).is_some_and(|source| source != "api")
}

pub(crate) fn is_terminal_phase(phase: Option<&str>) -> bool {
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether the API says that the pod has come to its end.
pub(crate) fn is_finished(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    is_terminal_phase(phase)
}

static NO_SPEC: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);

pub(crate) fn spec(pod: &Pod) -> &PodSpec {
    pod.spec.as_ref().unwrap_or(&NO_SPEC)
}

pub(crate) fn init_containers(pod: &Pod) -> &[Container] {
    spec(pod).init_containers.as_deref().unwrap_or_default()
}

pub(crate) fn containers(pod: &Pod) -> &[Container] {
    &spec(pod).containers
}

/// The ephemeral containers, as containers.
pub(crate) fn ephemeral_containers(pod: &Pod) -> Vec<Container> {
    let all = spec(pod).ephemeral_containers.as_deref();
    all.unwrap_or_default().iter().map(as_container).collect()
}

/// An ephemeral container without what makes it one.
pub(crate) fn as_container(from: &EphemeralContainer) -> Container {
    let from = from.clone();
    Container {
        args: from.args,
        command: from.command,
        env: from.env,
        env_from: from.env_from,
        image: from.image,
        image_pull_policy: from.image_pull_policy,
        lifecycle: from.lifecycle,
        liveness_probe: from.liveness_probe,
        name: from.name,
        ports: from.ports,
        readiness_probe: from.readiness_probe,
        resize_policy: from.resize_policy,
        resources: from.resources,
        restart_policy: from.restart_policy,
        restart_policy_rules: from.restart_policy_rules,
        security_context: from.security_context,
        startup_probe: from.startup_probe,
        stdin: from.stdin,
        stdin_once: from.stdin_once,
        termination_message_path: from.termination_message_path,
        termination_message_policy: from.termination_message_policy,
        tty: from.tty,
        volume_devices: from.volume_devices,
        volume_mounts: from.volume_mounts,
        working_dir: from.working_dir,
    }
}

/// A container by its name, and which list it stands in.
pub(crate) fn find(pod: &Pod, name: &str) -> Option<(ContainerKind, Container)> {
    let named = |all: &[Container]| all.iter().find(|one| one.name == name).cloned();
    named(containers(pod))
        .map(|found| (ContainerKind::Regular, found))
        .or_else(|| named(init_containers(pod)).map(|found| (ContainerKind::Init, found)))
        .or_else(|| {
            let all = spec(pod).ephemeral_containers.as_deref();
            let found = all?.iter().find(|one| one.name == name)?;
            Some((ContainerKind::Ephemeral, as_container(found)))
        })
}

/// Whether an init container stays beside the containers: a sidecar.
pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

pub(crate) fn uses_host_network(pod: &Pod) -> bool {
    spec(pod).host_network == Some(true)
}

pub(crate) fn restart_policy(pod: &Pod) -> &str {
    spec(pod).restart_policy.as_deref().unwrap_or("Always")
}

pub(crate) fn is_being_deleted(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether a container that ended with a code is to run again: by its own rules, its own policy, or the pod's policy, whichever comes
/// first.
pub(crate) fn restarts_after(pod: &Pod, container: &Container, code: i32) -> bool {
    let by_policy = |policy: &str| match policy {
        "Never" => false,
        "OnFailure" => code != 0,
        _ => true,
    };
    let Some(own) = container.restart_policy.as_deref() else {
        return by_policy(restart_policy(pod));
    };
    let rules = container.restart_policy_rules.as_deref();
    let matching = rules.unwrap_or_default().iter().find(|rule| {
        rule.exit_codes.as_ref().is_some_and(|codes| {
            let named = codes.values.as_ref().is_some_and(|all| all.contains(&code));
            match codes.operator.as_str() {
                "In" => named,
                "NotIn" => !named,
                _ => false,
            }
        })
    });
    matching.is_some_and(|rule| rule.action == "Restart") || by_policy(own)
}

/// Whether a container that has to be killed is to run again, where it has no exit code to judge by.
pub(crate) fn restarts_when_killed(pod: &Pod, container: &Container) -> bool {
    let own = container.restart_policy.as_deref();
    own.unwrap_or_else(|| restart_policy(pod)) != "Never"
}

/// How long a container may take to end: while the pod is deleted what the deletion says, else the pod's own grace.
pub(crate) fn grace(pod: &Pod) -> Duration {
    let seconds = pod
        .metadata
        .deletion_grace_period_seconds
        .or(spec(pod).termination_grace_period_seconds)
        .unwrap_or(DEFAULT_GRACE);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// What tells whether a container that runs is the one that is wanted: of all that makes a container, a pod's author can change only the
/// image.
pub fn container_hash(container: &Container) -> String {
    let image = container.image.as_deref().unwrap_or_default();
    format!(
        "{:x}",
        fnv(&[container.name.as_bytes(), b"\0", image.as_bytes()])
    )
}

/// FNV-1a, 32 bits.
fn fnv(parts: &[&[u8]]) -> u32 {
    let bytes = parts.iter().flat_map(|part| part.iter());
    bytes.fold(0x811c_9dc5, |hash: u32, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

/// What an event about a pod is about.
pub(crate) fn reference(pod: &Pod) -> ObjectReference {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    // A static pod has another uid in the API than here: events are found by the mirror's hash, as upstream's are.
    ObjectReference {
        kind: "Pod".to_owned(),
        api_version: "v1".to_owned(),
        namespace: text(&pod.metadata.namespace),
        name: text(&pod.metadata.name),
        uid: text(&pod.metadata.uid),
        resource_version: text(&pod.metadata.resource_version),
        field_path: String::new(),
    }
}

/// What an event about a container of a pod is about.
pub(crate) fn container_reference(pod: &Pod, kind: ContainerKind, name: &str) -> ObjectReference {
    let list = match kind {
        ContainerKind::Init => "initContainers",
        ContainerKind::Regular => "containers",
        ContainerKind::Ephemeral => "ephemeralContainers",
    };
    ObjectReference {
        field_path: format!("spec.{list}{{{name}}}"),
        ..reference(pod)
    }
}

/// A duration as Go prints it, to the second: `10s`, `1m20s`, `5m0s`.
pub(crate) fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}h{minutes}m{rest}s")
    } else if minutes > 0 {
        format!("{minutes}m{rest}s")
    } else {
        format!("{rest}s")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    #[test]
    fn who_restarts() {
        let rule = |operator: &str| json!([{"action": "Restart", "exitCodes": {"operator": operator, "values": [42]}}]);
        for (pod_policy, own, rules, code, expected) in [
            ("Always", None, json!(null), 0, true),
            ("OnFailure", None, json!(null), 0, false),
            ("OnFailure", None, json!(null), 1, true),
            ("Never", None, json!(null), 1, false),
            ("Never", Some("Always"), json!(null), 0, true),
            ("Always", Some("Never"), json!(null), 1, false),
            ("Never", Some("Never"), rule("In"), 42, true),
            ("Never", Some("Never"), rule("In"), 1, false),
            ("Always", Some("Never"), rule("NotIn"), 1, true),
            ("Always", Some("Never"), rule("NotIn"), 42, false),
            ("Never", Some("OnFailure"), rule("In"), 7, true),
        ] {
            let pod = pod(json!({"restartPolicy": pod_policy,
                "containers": [{"name": "c", "restartPolicy": own, "restartPolicyRules": rules}]}));
            let got = restarts_after(&pod, &containers(&pod)[0], code);
            assert_eq!(got, expected, "{pod_policy} {own:?} {rules} {code}");
        }
    }

    #[test]
    fn only_the_image_makes_another_container() {
        let of = |value| container_hash(&serde_json::from_value::<Container>(value).unwrap());
        let web = of(json!({"name": "web", "image": "nginx:1"}));
        assert_eq!(
            web,
            of(json!({"name": "web", "image": "nginx:1", "command": ["x"]}))
        );
        assert_ne!(web, of(json!({"name": "web", "image": "nginx:2"})));
    }

    #[test]
    fn durations_are_printed_as_go_prints_them() {
        for (seconds, text) in [
            (10, "10s"),
            (80, "1m20s"),
            (300, "5m0s"),
            (3600, "1h0m0s"),
            (0, "0s"),
        ] {
            assert_eq!(go_duration(Duration::from_secs(seconds)), text);
        }
    }
}
