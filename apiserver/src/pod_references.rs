//! What a pod refers to: the objects that its node must be able to read.

use serde_json::Value;

use crate::names::{list_at, text_at, text_field};

/// The containers of a pod, of all three kinds.
pub(crate) fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    [
        "/spec/initContainers",
        "/spec/containers",
        "/spec/ephemeralContainers",
    ]
    .into_iter()
    .flat_map(|pointer| list_at(pod, pointer))
}

fn volumes(pod: &Value) -> &[Value] {
    list_at(pod, "/spec/volumes")
}

fn projections(pod: &Value) -> impl Iterator<Item = &Value> {
    volumes(pod)
        .iter()
        .flat_map(|volume| list_at(volume, "/projected/sources"))
}

fn from_environment<'a>(
    pod: &'a Value,
    one: &'static str,
    all: &'static str,
) -> impl Iterator<Item = &'a str> {
    containers(pod).flat_map(move |container| {
        let single = list_at(container, "/env")
            .iter()
            .map(move |env| text_at(env, one));
        single.chain(
            list_at(container, "/envFrom")
                .iter()
                .map(move |source| text_at(source, all)),
        )
    })
}

/// The names of the secrets that a pod refers to.
pub(crate) fn secrets(pod: &Value) -> impl Iterator<Item = &str> {
    let pull = list_at(pod, "/spec/imagePullSecrets")
        .iter()
        .map(|reference| text_field(reference, "name"));
    let environment = from_environment(pod, "/valueFrom/secretKeyRef/name", "/secretRef/name");
    let projected = projections(pod).map(|source| text_at(source, "/secret/name"));
    // Every kind of volume names its secret in one of these ways.
    let mounted = volumes(pod)
        .iter()
        .filter_map(Value::as_object)
        .flat_map(|volume| volume.values())
        .flat_map(|source| {
            [
                text_field(source, "secretName"),
                text_at(source, "/secretRef/name"),
                text_at(source, "/nodePublishSecretRef/name"),
            ]
        });
    pull.chain(environment)
        .chain(projected)
        .chain(mounted)
        .filter(|name| !name.is_empty())
}

/// The names of the config maps that a pod refers to.
pub(crate) fn config_maps(pod: &Value) -> impl Iterator<Item = &str> {
    let environment =
        from_environment(pod, "/valueFrom/configMapKeyRef/name", "/configMapRef/name");
    let projected = projections(pod).map(|source| text_at(source, "/configMap/name"));
    let mounted = volumes(pod)
        .iter()
        .map(|volume| text_at(volume, "/configMap/name"));
    environment
        .chain(projected)
        .chain(mounted)
        .filter(|name| !name.is_empty())
}

/// Whether a pod's projected volumes take from trust bundles of the cluster.
pub(crate) fn uses_trust_bundles(pod: &Value) -> bool {
    projections(pod).any(|source| {
        source
            .get("clusterTrustBundle")
            .is_some_and(Value::is_object)
    })
}

/// The names of the persistent volume claims that a pod refers to, its generic ephemeral volumes' among them.
pub(crate) fn claims(pod: &Value) -> impl Iterator<Item = String> {
    volumes(pod).iter().filter_map(|volume| {
        let claim = text_at(volume, "/persistentVolumeClaim/claimName");
        if !claim.is_empty() {
            return Some(claim.to_owned());
        }
        let ephemeral = volume.get("ephemeral").is_some_and(Value::is_object);
        ephemeral.then(|| {
            format!(
                "{}-{}",
                text_at(pod, "/metadata/name"),
                text_field(volume, "name")
            )
        })
    })
}

/// The names of the resource claims that a pod refers to: those it names itself, and those made for it.
pub(crate) fn resource_claims(pod: &Value) -> impl Iterator<Item = &str> {
    let named = list_at(pod, "/spec/resourceClaims").iter();
    let made = list_at(pod, "/status/resourceClaimStatuses").iter();
    named
        .chain(made)
        .map(|claim| text_field(claim, "resourceClaimName"))
        .chain(std::iter::once(text_at(
            pod,
            "/status/extendedResourceClaimStatus/resourceClaimName",
        )))
        .filter(|name| !name.is_empty())
}

/// Whether a pod is the image of a static pod of a node.
pub(crate) fn is_mirror(pod: &Value) -> bool {
    pod.pointer("/metadata/annotations/kubernetes.io~1config.mirror")
        .is_some()
}
