//! The keys under which objects stand in the store: `/registry/<group>/<resource>/<namespace>/<name>`, without the namespace for what
//! belongs to the cluster. The core group is written `core`.

use orlop_core::resource::Resource;

/// What all keys begin with.
pub(crate) const ROOT: &str = "/registry/";

/// What the keys of a resource begin with.
pub(crate) fn prefix(resource: &Resource) -> String {
    let group = if resource.group.is_empty() {
        "core"
    } else {
        &resource.group
    };
    format!("{ROOT}{group}/{}/", resource.plural)
}

/// The key of an object.
pub(crate) fn object(resource: &Resource, namespace: &str, name: &str) -> String {
    let mut key = prefix(resource);
    if resource.namespaced {
        key.push_str(namespace);
        key.push('/');
    }
    key.push_str(name);
    key
}

/// The part of a key that names the resource: what [`prefix`] made.
pub(crate) fn prefix_of(key: &str) -> Option<&str> {
    let rest = key.strip_prefix(ROOT)?;
    let group = rest.find('/')?;
    let resource = rest[group + 1..].find('/')?;
    Some(&key[..ROOT.len() + group + 1 + resource + 1])
}

/// The part of a key that names the object: `namespace/name` or `name`.
pub(crate) fn name_of(key: &str) -> Option<&str> {
    prefix_of(key).map(|prefix| &key[prefix.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_can_be_taken_apart() {
        let pods = Resource::namespaced("", "v1", "pods", "Pod");
        let key = object(&pods, "default", "web-0");
        assert_eq!(key, "/registry/core/pods/default/web-0");
        assert_eq!(prefix_of(&key), Some("/registry/core/pods/"));
        assert_eq!(name_of(&key), Some("default/web-0"));
        let roles = Resource::cluster(
            "rbac.authorization.k8s.io",
            "v1",
            "clusterroles",
            "ClusterRole",
        );
        assert_eq!(
            object(&roles, "", "system:node"),
            "/registry/rbac.authorization.k8s.io/clusterroles/system:node"
        );
        assert_eq!(prefix_of("/registry/x"), None);
    }
}
