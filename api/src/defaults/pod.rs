//! Defaults of pods and pod templates.

use serde_json::Value;

use super::amounts;
use crate::doc;
use crate::validation::resources;

/// The mode of the files in a volume: `0644`.
const FILE_MODE: i64 = 0o644;

/// A pod: what a template gets, and what only the pod itself gets.
pub(super) fn pod(pod: &mut Value) {
    let spec = doc::ensure_object(pod, "spec");
    pod_spec(spec);
    for list in ["containers", "initContainers"] {
        for container in doc::each_mut(spec, list) {
            requests_from_limits(doc::ensure_object(container, "resources"));
        }
    }
    pod_resources(spec);
    doc::default_to(spec, "enableServiceLinks", true);
    if doc::flag(spec, "hostNetwork") {
        for list in ["containers", "initContainers"] {
            for container in doc::each_mut(spec, list) {
                for port in doc::each_mut(container, "ports") {
                    if let Some(number) = doc::int(port, "containerPort") {
                        doc::default_int(port, "hostPort", number);
                    }
                }
            }
        }
    }
    let status = doc::ensure_object(pod, "status");
    for list in [
        "containerStatuses",
        "initContainerStatuses",
        "ephemeralContainerStatuses",
    ] {
        for status in doc::each_mut(status, list) {
            doc::ensure_object(status, "state");
            doc::ensure_object(status, "lastState");
            doc::default_to(status, "ready", false);
            doc::default_to(status, "restartCount", 0);
            doc::default_to(status, "image", "");
            doc::default_to(status, "imageID", "");
        }
    }
    for condition in doc::each_mut(status, "conditions") {
        doc::default_to(condition, "lastProbeTime", Value::Null);
        doc::default_to(condition, "lastTransitionTime", Value::Null);
    }
}

fn requests_from_limits(resources: &mut Value) {
    let limits: Vec<(String, Value)> = doc::entries(resources, "limits")
        .map(|(name, value)| (name.to_owned(), value.clone()))
        .collect();
    if limits.is_empty() {
        return;
    }
    let requests = doc::ensure_object(resources, "requests");
    for (name, value) in limits {
        doc::default_to(requests, &name, value);
    }
}

/// The requests and limits of a pod as a whole follow from those of its containers.
fn pod_resources(spec: &mut Value) {
    if !doc::has(spec, "resources") {
        return;
    }
    let aggregate = resources::aggregate(spec, "requests");
    let own = doc::get(spec, "resources").clone();
    let limits: Vec<(String, Value)> = doc::entries(&own, "limits")
        .map(|(name, value)| (name.to_owned(), value.clone()))
        .collect();
    if limits.is_empty() {
        return;
    }
    let requests = doc::ensure_object(doc::ensure_object(spec, "resources"), "requests");
    for (name, quantity) in aggregate {
        if resources::is_pod_level(&name) && resources::may_overcommit(&name) {
            doc::default_to(requests, &name, quantity.to_string());
        }
    }
    for (name, value) in limits
        .into_iter()
        .filter(|(name, _)| resources::is_pod_level(name))
    {
        doc::default_to(requests, &name, value);
    }
}

/// A pod template under `key`.
pub(super) fn template(of: &mut Value, key: &str) {
    let template = doc::ensure_object(of, key);
    doc::ensure_object(template, "metadata");
    pod_spec(doc::ensure_object(template, "spec"));
}

/// What pods and templates have in common.
fn pod_spec(spec: &mut Value) {
    doc::default_text(spec, "dnsPolicy", "ClusterFirst");
    doc::default_text(spec, "restartPolicy", "Always");
    doc::ensure_object(spec, "securityContext");
    doc::default_to(spec, "terminationGracePeriodSeconds", 30);
    doc::default_text(spec, "schedulerName", "default-scheduler");
    service_account(spec);
    doc::default_to(spec, "containers", Value::Null);
    for volume in doc::each_mut(spec, "volumes") {
        self::volume(volume);
    }
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in doc::each_mut(spec, list) {
            self::container(container);
        }
    }
    for reference in doc::each_mut(spec, "imagePullSecrets") {
        drop_text(reference, "name");
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are written.
fn service_account(spec: &mut Value) {
    let name = match (
        doc::text(spec, "serviceAccountName"),
        doc::text(spec, "serviceAccount"),
    ) {
        ("", "") => return,
        ("", old) => old.to_owned(),
        (name, _) => name.to_owned(),
    };
    doc::set(spec, "serviceAccountName", name.clone());
    doc::set(spec, "serviceAccount", name);
}

fn drop_text(of: &mut Value, key: &str) {
    if doc::opt_text(of, key) == Some("") {
        doc::remove(of, key);
    }
}

fn container(container: &mut Value) {
    let policy = if image_tag(doc::text(container, "image")) == Some("latest") {
        "Always"
    } else {
        "IfNotPresent"
    };
    doc::default_text(container, "imagePullPolicy", policy);
    doc::default_text(container, "terminationMessagePath", "/dev/termination-log");
    doc::default_text(container, "terminationMessagePolicy", "File");
    doc::ensure_object(container, "resources");
    for port in doc::each_mut(container, "ports") {
        doc::default_text(port, "protocol", "TCP");
        drop_text(port, "name");
    }
    for variable in doc::each_mut(container, "env") {
        drop_text(variable, "value");
        if let Some(source) = doc::object_mut(variable, "valueFrom") {
            field_sources(source);
            if let Some(file) = doc::object_mut(source, "fileKeyRef") {
                doc::default_to(file, "optional", false);
            }
        }
    }
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = doc::object_mut(container, key) {
            handler(probe);
            doc::default_int(probe, "timeoutSeconds", 1);
            doc::default_int(probe, "periodSeconds", 10);
            doc::default_int(probe, "successThreshold", 1);
            doc::default_int(probe, "failureThreshold", 3);
        }
    }
    if let Some(lifecycle) = doc::object_mut(container, "lifecycle") {
        for key in ["postStart", "preStop"] {
            if let Some(hook) = doc::object_mut(lifecycle, key) {
                handler(hook);
            }
        }
    }
}

fn handler(of: &mut Value) {
    if let Some(get) = doc::object_mut(of, "httpGet") {
        doc::default_text(get, "path", "/");
        doc::default_text(get, "scheme", "HTTP");
    }
    if let Some(grpc) = doc::object_mut(of, "grpc") {
        doc::default_to(grpc, "service", "");
    }
}

fn field_sources(of: &mut Value) {
    if let Some(field) = doc::object_mut(of, "fieldRef") {
        doc::default_text(field, "apiVersion", "v1");
    }
    if let Some(resource) = doc::object_mut(of, "resourceFieldRef") {
        doc::default_to(resource, "divisor", "0");
        if let Some(divisor) = resource.get_mut("divisor") {
            amounts::quantity(divisor, false);
        }
    }
}

fn volume(volume: &mut Value) {
    let has_source = volume.as_object().is_some_and(|fields| {
        fields
            .iter()
            .any(|(key, value)| key != "name" && !value.is_null())
    });
    if !has_source {
        doc::ensure_object(volume, "emptyDir");
    }
    for key in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = doc::object_mut(volume, key) {
            doc::default_to(source, "defaultMode", FILE_MODE);
        }
    }
    for file in volume
        .get_mut("downwardAPI")
        .into_iter()
        .flat_map(|source| doc::each_mut(source, "items"))
    {
        field_sources(file);
    }
    if let Some(projected) = doc::object_mut(volume, "projected") {
        for source in doc::each_mut(projected, "sources") {
            if let Some(token) = doc::object_mut(source, "serviceAccountToken") {
                doc::default_to(token, "expirationSeconds", 3600);
            }
            if let Some(certificate) = doc::object_mut(source, "podCertificate") {
                doc::default_to(certificate, "maxExpirationSeconds", 86_400);
            }
            if let Some(downward) = doc::object_mut(source, "downwardAPI") {
                doc::each_mut(downward, "items").for_each(field_sources);
            }
        }
        doc::default_to(projected, "sources", Value::Null);
    }
    if let Some(ephemeral) = doc::object_mut(volume, "ephemeral")
        && let Some(template) = doc::object_mut(ephemeral, "volumeClaimTemplate")
    {
        doc::ensure_object(template, "metadata");
        let spec = doc::ensure_object(template, "spec");
        doc::default_to(spec, "volumeMode", "Filesystem");
        doc::ensure_object(spec, "resources");
    }
    if let Some(image) = doc::object_mut(volume, "image") {
        let policy = if image_tag(doc::text(image, "reference")) == Some("latest") {
            "Always"
        } else {
            "IfNotPresent"
        };
        doc::default_text(image, "pullPolicy", policy);
    }
    storage_source(volume);
}

/// Defaults of the sources that pods share with PersistentVolumes.
pub(super) fn storage_source(of: &mut Value) {
    if let Some(host) = doc::object_mut(of, "hostPath") {
        doc::default_to(host, "type", "");
    }
    if let Some(iscsi) = doc::object_mut(of, "iscsi") {
        doc::default_text(iscsi, "iscsiInterface", "default");
        doc::default_to(iscsi, "lun", 0);
    }
    if let Some(rbd) = doc::object_mut(of, "rbd") {
        doc::default_text(rbd, "pool", "rbd");
        doc::default_text(rbd, "user", "admin");
        doc::default_text(rbd, "keyring", "/etc/ceph/keyring");
    }
    if let Some(disk) = doc::object_mut(of, "azureDisk") {
        doc::default_to(disk, "cachingMode", "ReadWrite");
        doc::default_to(disk, "kind", "Shared");
        doc::default_to(disk, "fsType", "ext4");
        doc::default_to(disk, "readOnly", false);
    }
    if let Some(scale) = doc::object_mut(of, "scaleIO") {
        doc::default_text(scale, "storageMode", "ThinProvisioned");
        doc::default_text(scale, "fsType", "xfs");
    }
}

/// The tag of an image: `latest` where it has neither tag nor digest, none where it has a digest only or can't be read.
fn image_tag(image: &str) -> Option<&str> {
    let (name, digest) = image
        .split_once('@')
        .map_or((image, false), |(name, _)| (name, true));
    let (name, tag) = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (name, None),
    };
    let path = match name.split_once('/') {
        Some((domain, path))
            if domain.contains(['.', ':'])
                || domain == "localhost"
                || domain.to_lowercase() != domain =>
        {
            path
        }
        _ => name,
    };
    let readable = path.split('/').all(|part| {
        part.bytes().all(|b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-')
        }) && part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.ends_with(|c: char| c.is_ascii_alphanumeric())
    });
    match tag {
        _ if !readable => None,
        Some(tag) => Some(tag),
        None if digest => None,
        None => Some("latest"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_of_images() {
        for (image, tag) in [
            ("nginx", Some("latest")),
            ("nginx:1.2", Some("1.2")),
            ("localhost:5000/a/b", Some("latest")),
            ("reg.io:5000/a/b:x", Some("x")),
            ("a@sha256:00", None),
            ("a:latest@sha256:00", Some("latest")),
            ("", None),
            ("Upper", None),
            (" ", None),
        ] {
            assert_eq!(image_tag(image), tag, "{image}");
        }
    }
}
