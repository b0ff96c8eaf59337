//! Which resources there are: one table with all that discovery, routing and authorisation ask of a resource.
//!
//! [`builtin`] is the table of the resources that Kubernetes v1.36 serves in its stable groups. A custom or aggregated
//! resource is described by a [`ResourceInfo`] made at run time, and every function of this crate that takes
//! resources takes both alike.

mod builtin;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use orlop_core::resource::{GroupVersionKind, Resource};

/// What a client may do with a resource, as discovery and RBAC name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// POST to the collection.
    Create,
    /// DELETE of one object.
    Delete,
    /// DELETE of the collection.
    DeleteCollection,
    /// GET of one object.
    Get,
    /// GET of the collection.
    List,
    /// PATCH of one object.
    Patch,
    /// PUT of one object.
    Update,
    /// GET of the collection with `watch=true`.
    Watch,
}

impl Verb {
    /// The verb's name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Get => "get",
            Self::List => "list",
            Self::Patch => "patch",
            Self::Update => "update",
            Self::Watch => "watch",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Everything a stored kind can do, in discovery's order.
pub const ALL_VERBS: &[Verb] = &[
    Verb::Create,
    Verb::Delete,
    Verb::DeleteCollection,
    Verb::Get,
    Verb::List,
    Verb::Patch,
    Verb::Update,
    Verb::Watch,
];

/// A path below an object, such as `status` or `exec`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subresource {
    /// The last segment of its URL.
    pub name: Cow<'static, str>,
    /// The kind of its body; often the parent's own.
    pub kind: GroupVersionKind,
    /// Its verbs, in discovery's order.
    pub verbs: Vec<Verb>,
}

/// What is known of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceInfo {
    /// Group, version, plural, kind and scope.
    pub resource: Resource,
    /// The singular name that kubectl accepts.
    pub singular: Cow<'static, str>,
    /// The abbreviations that kubectl accepts.
    pub short_names: Vec<Cow<'static, str>>,
    /// The groups of resources it is part of, such as `all`.
    pub categories: Vec<Cow<'static, str>>,
    /// The kind of its lists; empty when it can't be listed.
    pub list_kind: Cow<'static, str>,
    /// Its verbs, in discovery's order.
    pub verbs: Vec<Verb>,
    /// Its subresources, sorted by name.
    pub subresources: Vec<Subresource>,
    /// The resource whose storage it shares, when it is another view of that one.
    pub stored_as: Option<Resource>,
}

impl ResourceInfo {
    /// A resource with all verbs, a lower-case kind as singular name and no subresources. What else it has is set on
    /// the fields.
    #[must_use]
    pub fn new(resource: Resource) -> Self {
        Self {
            singular: resource.kind.to_lowercase().into(),
            short_names: Vec::new(),
            categories: Vec::new(),
            list_kind: format!("{}List", resource.kind).into(),
            verbs: ALL_VERBS.to_vec(),
            subresources: Vec::new(),
            stored_as: None,
            resource,
        }
    }

    /// Whether clients may do this.
    #[must_use]
    pub fn allows(&self, verb: Verb) -> bool {
        self.verbs.contains(&verb)
    }

    /// The subresource of that name.
    #[must_use]
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|sub| sub.name == name)
    }

    /// The resource under which objects are stored: itself, unless it is a view of another one.
    #[must_use]
    pub fn storage(&self) -> &Resource {
        self.stored_as.as_ref().unwrap_or(&self.resource)
    }

    /// Whether objects of it are kept at all: reviews and bindings are answered and forgotten, and component statuses
    /// are made up on the way out.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        self.allows(Verb::Create) && self.allows(Verb::Get)
    }
}

/// The built-in resources, sorted as discovery lists them: by group, then version, then plural.
#[must_use]
pub fn builtin() -> &'static [ResourceInfo] {
    &TABLE.resources
}

/// The built-in resource of a URL.
#[must_use]
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static ResourceInfo> {
    let at = *TABLE.by_plural.get(&(group, version, plural))?;
    Some(&TABLE.resources[at])
}

/// Whether a group has built-in resources, of whatever version.
#[must_use]
pub fn has_group(group: &str) -> bool {
    builtin().iter().any(|info| info.resource.group == group)
}

/// The built-in resource whose objects have this kind. `Scale`, `Eviction`, `TokenRequest` and the like are bodies of
/// subresources only and have none.
#[must_use]
pub fn find_kind(group: &str, version: &str, kind: &str) -> Option<&'static ResourceInfo> {
    let at = *TABLE.by_kind.get(&(group, version, kind))?;
    Some(&TABLE.resources[at])
}

/// The built-in resource of a kind, by the name that [`Resource::gvk`] gives.
#[must_use]
pub fn find_gvk(gvk: &GroupVersionKind) -> Option<&'static ResourceInfo> {
    find_kind(&gvk.group, &gvk.version, &gvk.kind)
}

type Names = (&'static str, &'static str, &'static str);

struct Table {
    resources: Vec<ResourceInfo>,
    by_plural: BTreeMap<Names, usize>,
    by_kind: BTreeMap<Names, usize>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut resources = builtin::resources();
    resources.sort_by(|a, b| discovery_order(a).cmp(&discovery_order(b)));
    let mut by_plural = BTreeMap::new();
    let mut by_kind = BTreeMap::new();
    for (at, info) in resources.iter().enumerate() {
        let r = &info.resource;
        // The table is written with static names, so each of them is borrowed.
        if let (
            Cow::Borrowed(group),
            Cow::Borrowed(version),
            Cow::Borrowed(plural),
            Cow::Borrowed(kind),
        ) = (&r.group, &r.version, &r.plural, &r.kind)
        {
            by_plural.insert((*group, *version, *plural), at);
            by_kind.insert((*group, *version, *kind), at);
        }
    }
    Table {
        resources,
        by_plural,
        by_kind,
    }
});

/// Kubernetes' order of its own groups in `/apis`; groups that are not here come after them, by name.
const GROUP_ORDER: &[&str] = &[
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
];

/// The place of a group among all groups: compare these to sort groups as `/apis` lists them.
#[must_use]
pub fn group_order(group: &str) -> (usize, &str) {
    let place = GROUP_ORDER
        .iter()
        .position(|known| *known == group)
        .unwrap_or(GROUP_ORDER.len());
    (place, group)
}

/// The place of a version in its group, the preferred one first: stable before beta before alpha, higher before lower,
/// and names that are no such version last, by name.
#[must_use]
pub fn version_order(version: &str) -> impl Ord + use<> {
    let parsed = parse_version(version);
    (
        std::cmp::Reverse(parsed),
        if parsed.is_none() {
            version.to_owned()
        } else {
            String::new()
        },
    )
}

/// Level (2 stable, 1 beta, 0 alpha), major and minor of `v1`, `v2beta3`.
fn parse_version(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let digits = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (major, tail) = rest.split_at(digits);
    let number = |text: &str| {
        if text.starts_with('0') {
            None
        } else {
            text.parse::<u64>().ok()
        }
    };
    let major = number(major)?;
    if tail.is_empty() {
        return Some((2, major, 0));
    }
    let (level, minor) = match (tail.strip_prefix("beta"), tail.strip_prefix("alpha")) {
        (Some(minor), _) => (1, minor),
        (_, Some(minor)) => (0, minor),
        _ => return None,
    };
    Some((level, major, number(minor)?))
}

/// Sorts resources as discovery lists them: groups in Kubernetes' order, the preferred version first, then by plural.
#[must_use]
pub fn discovery_order(info: &ResourceInfo) -> impl Ord + use<'_> {
    let r = &info.resource;
    (group_order(&r.group), version_order(&r.version), &*r.plural)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_by_plural_and_by_kind() {
        let pods = find("", "v1", "pods").unwrap();
        assert_eq!(pods.resource, Resource::namespaced("", "v1", "pods", "Pod"));
        assert_eq!(pods.short_names, ["po"]);
        assert_eq!(pods.categories, ["all"]);
        assert_eq!(pods.list_kind, "PodList");
        assert!(pods.allows(Verb::Watch) && pods.is_stored());
        assert_eq!(
            pods.subresource("eviction").unwrap().kind,
            GroupVersionKind::new("policy", "v1", "Eviction")
        );
        assert_eq!(find_gvk(&pods.resource.gvk()), Some(pods));
        assert_eq!(find("apps", "v1", "pods"), None);
        assert_eq!(find_kind("autoscaling", "v1", "Scale"), None);
    }

    #[test]
    fn views_are_stored_as_another_resource() {
        let v1 = find("autoscaling", "v1", "horizontalpodautoscalers").unwrap();
        assert_eq!(v1.storage().version, "v2");
        let events = find("events.k8s.io", "v1", "events").unwrap();
        assert_eq!(
            *events.storage(),
            Resource::namespaced("", "v1", "events", "Event")
        );
        let core = find("", "v1", "events").unwrap();
        assert_eq!(core.storage(), &core.resource);
    }

    #[test]
    fn odd_verbs() {
        assert!(
            !find("", "v1", "namespaces")
                .unwrap()
                .allows(Verb::DeleteCollection)
        );
        assert_eq!(find("", "v1", "bindings").unwrap().verbs, [Verb::Create]);
        assert_eq!(
            find("", "v1", "componentstatuses").unwrap().verbs,
            [Verb::Get, Verb::List]
        );
        assert!(
            !find("authentication.k8s.io", "v1", "tokenreviews")
                .unwrap()
                .is_stored()
        );
        assert_eq!(find("", "v1", "endpoints").unwrap().singular, "endpoints");
    }

    #[test]
    fn the_table_is_sorted_and_without_doubles() {
        let all = builtin();
        assert_eq!(all.len(), 60);
        assert!(
            all.windows(2)
                .all(|pair| discovery_order(&pair[0]) < discovery_order(&pair[1]))
        );
        for info in all {
            assert!(info.verbs.is_sorted(), "{:?}", info.resource);
            assert!(
                info.subresources.is_sorted_by(|a, b| a.name < b.name),
                "{:?}",
                info.resource
            );
            assert!(info.subresources.iter().all(|sub| sub.verbs.is_sorted()));
        }
    }

    #[test]
    fn versions_sort_by_what_they_promise() {
        let mut versions = vec![
            "v1alpha1",
            "foo10",
            "v11beta2",
            "v1",
            "v10beta3",
            "v3beta1",
            "v12alpha1",
            "v11alpha2",
            "foo1",
            "v2",
            "v10",
        ];
        versions.sort_by_key(|version| version_order(version));
        assert_eq!(
            versions,
            [
                "v10",
                "v2",
                "v1",
                "v11beta2",
                "v10beta3",
                "v3beta1",
                "v12alpha1",
                "v11alpha2",
                "v1alpha1",
                "foo1",
                "foo10"
            ]
        );
    }
}
