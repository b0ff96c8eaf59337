//! The hash that names a version.

use k8s_openapi::api::core::v1::PodTemplateSpec;

use super::POD_TEMPLATE_HASH;

/// Letters that are hard to mistake and spell no words: those of Kubernetes' generated names.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A hash of a pod template, and of how often such a hash was taken already, for names and labels: at most ten characters.
///
/// It depends on what the template says alone, not on the order of its maps; the label that holds the hash does not count.
#[must_use]
pub fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    // The JSON of a value has its keys sorted.
    let text = serde_json::to_value(without_hash(template))
        .map(|value| value.to_string())
        .unwrap_or_default();
    let mut hash = fnv1a(0x811c_9dc5, text.as_bytes());
    if let Some(collisions) = collisions {
        hash = fnv1a(hash, &collisions.to_le_bytes());
    }
    hash.to_string()
        .bytes()
        .map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()]))
        .collect()
}

fn fnv1a(hash: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(hash, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

/// Whether two templates are the same version.
pub(crate) fn same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    without_hash(a) == without_hash(b)
}

/// The template without the label that a ReplicaSet adds, and with empty maps as if they were not there.
fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    if let Some(metadata) = &mut template.metadata {
        if let Some(labels) = &mut metadata.labels {
            labels.remove(POD_TEMPLATE_HASH);
        }
        metadata.labels = metadata.labels.take().filter(|labels| !labels.is_empty());
        metadata.annotations = metadata
            .annotations
            .take()
            .filter(|annotations| !annotations.is_empty());
        metadata.creation_timestamp = None;
    }
    if template
        .metadata
        .as_ref()
        .is_some_and(|metadata| *metadata == Default::default())
    {
        template.metadata = None;
    }
    template
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn template(labels: serde_json::Value, image: &str) -> PodTemplateSpec {
        serde_json::from_value(json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": image}]}}))
            .unwrap()
    }

    #[test]
    fn a_hash_is_of_the_template_alone() {
        let plain = template(json!({"app": "web", "tier": "a"}), "nginx:1");
        let marked = template(
            json!({"tier": "a", POD_TEMPLATE_HASH: "x", "app": "web"}),
            "nginx:1",
        );
        assert_eq!(template_hash(&plain, None), template_hash(&marked, None));
        assert!(same_template(&plain, &marked));
        let other = template(json!({"app": "web", "tier": "a"}), "nginx:2");
        assert_ne!(template_hash(&plain, None), template_hash(&other, None));
        assert!(!same_template(&plain, &other));
        assert_ne!(template_hash(&plain, None), template_hash(&plain, Some(1)));
        assert_ne!(
            template_hash(&plain, Some(1)),
            template_hash(&plain, Some(2))
        );
    }

    /// A hash that changed from one release to the next would roll out every Deployment again.
    #[test]
    fn the_hash_is_stable() {
        let hash = template_hash(&template(json!({"app": "web"}), "nginx:1"), None);
        assert_eq!(hash, STABLE);
        assert!(hash.len() <= 10 && hash.bytes().all(|c| ALPHABET.contains(&c)));
    }

    const STABLE: &str = "79bfd649dc";
}
