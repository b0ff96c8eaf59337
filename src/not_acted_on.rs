//! What is stored and has no effect yet: the kinds whose controller, signer or plug-in is not there. Who makes one is warned.

use orlop_core::resource::Resource;

/// The resources that nothing acts on in a control plane with the default parts, each with its warning.
pub fn not_acted_on() -> impl Iterator<Item = (Resource, &'static str)> {
    NOT_ACTED_ON.iter().cloned()
}

/// The warning of one resource.
macro_rules! stored {
    ($plural:literal) => {
        concat!(
            $plural,
            " are stored, but nothing acts on them in this version"
        )
    };
    ($plural:literal, $missing:literal) => {
        concat!($plural, " are stored, but ", $missing, " in this version")
    };
}

const fn namespaced(group: &'static str, plural: &'static str, kind: &'static str) -> Resource {
    Resource::namespaced(group, "v1", plural, kind)
}

const NOT_ACTED_ON: &[(Resource, &str)] = &[
    (
        namespaced("apps", "statefulsets", "StatefulSet"),
        stored!("statefulsets"),
    ),
    (
        namespaced("batch", "cronjobs", "CronJob"),
        stored!("cronjobs"),
    ),
    (
        namespaced("", "replicationcontrollers", "ReplicationController"),
        stored!("replicationcontrollers"),
    ),
    (
        namespaced(
            "autoscaling",
            "horizontalpodautoscalers",
            "HorizontalPodAutoscaler",
        ),
        stored!("horizontalpodautoscalers"),
    ),
    (
        namespaced("policy", "poddisruptionbudgets", "PodDisruptionBudget"),
        stored!(
            "poddisruptionbudgets",
            "nothing keeps their status up to date"
        ),
    ),
    (
        namespaced("networking.k8s.io", "ingresses", "Ingress"),
        stored!("ingresses"),
    ),
    (
        namespaced("networking.k8s.io", "networkpolicies", "NetworkPolicy"),
        stored!("networkpolicies", "nothing enforces them"),
    ),
    (
        namespaced("", "resourcequotas", "ResourceQuota"),
        stored!("resourcequotas", "nothing enforces them"),
    ),
    (
        namespaced("", "persistentvolumeclaims", "PersistentVolumeClaim"),
        stored!("persistentvolumeclaims", "nothing binds them to volumes"),
    ),
    (
        Resource::cluster(
            "storage.k8s.io",
            "v1",
            "volumeattachments",
            "VolumeAttachment",
        ),
        stored!("volumeattachments"),
    ),
    (
        namespaced("resource.k8s.io", "resourceclaims", "ResourceClaim"),
        stored!("resourceclaims", "nothing allocates devices to them"),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_warning_is_about_a_resource_that_is_served() {
        for (resource, warning) in not_acted_on() {
            let found =
                orlop_api::resources::find(&resource.group, &resource.version, &resource.plural);
            let found = found.unwrap_or_else(|| panic!("{} is not served", resource.qualified()));
            assert_eq!(found.resource, resource);
            assert!(warning.starts_with(&*resource.plural));
        }
    }
}
