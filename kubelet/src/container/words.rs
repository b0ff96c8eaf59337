//! Labels, annotations and how a pod is called in messages and events.

use k8s_openapi::api::core::v1::{Container, Pod};
use orlop_core::events::ObjectReference;
use orlop_core::runtime::Labels;

use crate::labels;

/// Annotation: the container's ports as JSON.
const PORTS: &str = "io.kubernetes.container.ports";

/// A pod in a message: `name_namespace(uid)`.
pub(crate) fn pod_text(pod: &Pod) -> String {
    let meta = &pod.metadata;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    format!(
        "{}_{}({})",
        text(&meta.name),
        text(&meta.namespace),
        text(&meta.uid)
    )
}

/// What an event about a container is about.
pub(crate) fn reference_of(pod: &Pod, container: &Container) -> ObjectReference {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let spec = pod.spec.as_ref();
    let init = spec
        .and_then(|spec| spec.init_containers.as_ref())
        .into_iter()
        .flatten();
    let ephemeral = spec
        .and_then(|spec| spec.ephemeral_containers.as_ref())
        .into_iter()
        .flatten();
    let list = if init.into_iter().any(|own| own.name == container.name) {
        "initContainers"
    } else if ephemeral.into_iter().any(|own| own.name == container.name) {
        "ephemeralContainers"
    } else {
        "containers"
    };
    ObjectReference {
        kind: "Pod".to_owned(),
        api_version: "v1".to_owned(),
        namespace: text(&pod.metadata.namespace),
        name: text(&pod.metadata.name),
        uid: text(&pod.metadata.uid),
        resource_version: text(&pod.metadata.resource_version),
        field_path: format!("spec.{list}{{{}}}", container.name),
    }
}

/// What a sandbox or a container is found by.
fn identity(pod: &Pod) -> impl Iterator<Item = (String, String)> {
    let meta = &pod.metadata;
    [
        (labels::POD_NAME, &meta.name),
        (labels::POD_NAMESPACE, &meta.namespace),
        (labels::POD_UID, &meta.uid),
    ]
    .into_iter()
    .map(|(label, value)| (label.to_owned(), value.clone().unwrap_or_default()))
}

/// The labels of a sandbox: the pod's own, and whose it is.
pub(super) fn sandbox_labels(pod: &Pod) -> Labels {
    let mut all = pod.metadata.labels.clone().unwrap_or_default();
    all.extend(identity(pod));
    all
}

/// The labels of a container.
pub(super) fn container_labels(pod: &Pod, container: &Container) -> Labels {
    let mut all: Labels = identity(pod).collect();
    all.insert(labels::CONTAINER_NAME.to_owned(), container.name.clone());
    all
}

/// The annotations of a container: what must be known of it when its pod is not known any more.
pub(super) fn container_annotations(pod: &Pod, container: &Container, attempt: u32) -> Labels {
    let mut all = Labels::new();
    let mut put = |name: &str, value: String| {
        all.insert(name.to_owned(), value);
    };
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    put(
        labels::CONTAINER_HASH,
        crate::pod::container_hash(container),
    );
    put(labels::CONTAINER_RESTART_COUNT, attempt.to_string());
    put(
        labels::TERMINATION_MESSAGE_PATH,
        text(&container.termination_message_path),
    );
    put(
        labels::TERMINATION_MESSAGE_POLICY,
        text(&container.termination_message_policy),
    );
    let spec = pod.spec.as_ref();
    let grace = pod.metadata.deletion_grace_period_seconds;
    let grace = grace.or(spec.and_then(|spec| spec.termination_grace_period_seconds));
    if let Some(grace) = grace {
        put(labels::POD_TERMINATION_GRACE_PERIOD, grace.to_string());
    }
    let pre_stop = container
        .lifecycle
        .as_ref()
        .and_then(|lifecycle| lifecycle.pre_stop.as_ref());
    if let Some(hook) = pre_stop.and_then(|hook| serde_json::to_string(hook).ok()) {
        put(labels::PRE_STOP_HANDLER, hook);
    }
    let ports = container.ports.as_ref().filter(|ports| !ports.is_empty());
    if let Some(ports) = ports.and_then(|ports| serde_json::to_string(ports).ok()) {
        put(PORTS, ports);
    }
    all
}
