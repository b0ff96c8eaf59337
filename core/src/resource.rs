//! The names of kinds and resources: group, version, kind, plural.

use std::borrow::Cow;
use std::fmt;

/// `apiVersion` and `kind` of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersionKind {
    /// The API group; empty for the core group.
    pub group: Cow<'static, str>,
    /// The version in the group, such as `v1`.
    pub version: Cow<'static, str>,
    /// The kind, such as `Pod`.
    pub kind: Cow<'static, str>,
}

impl GroupVersionKind {
    /// A kind from static names.
    #[must_use]
    pub const fn new(group: &'static str, version: &'static str, kind: &'static str) -> Self {
        Self {
            group: Cow::Borrowed(group),
            version: Cow::Borrowed(version),
            kind: Cow::Borrowed(kind),
        }
    }

    /// A kind from the two fields that every object carries.
    #[must_use]
    pub fn from_api_version(api_version: &str, kind: &str) -> Self {
        let (group, version) = split_api_version(api_version);
        Self {
            group: group.to_owned().into(),
            version: version.to_owned().into(),
            kind: kind.to_owned().into(),
        }
    }

    /// The `apiVersion`: `group/version`, or the version alone for the core group.
    #[must_use]
    pub fn api_version(&self) -> String {
        join_api_version(&self.group, &self.version)
    }
}

impl fmt::Display for GroupVersionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() {
            write!(f, "{}, Kind={}", self.version, self.kind)
        } else {
            write!(f, "{}/{}, Kind={}", self.group, self.version, self.kind)
        }
    }
}

/// A resource of the API: what a URL names, and enough to build that URL and the objects behind it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource {
    /// The API group; empty for the core group.
    pub group: Cow<'static, str>,
    /// The version in the group.
    pub version: Cow<'static, str>,
    /// The plural name in the URL, such as `pods`.
    pub plural: Cow<'static, str>,
    /// The kind of its objects, such as `Pod`.
    pub kind: Cow<'static, str>,
    /// Whether its objects live in a namespace.
    pub namespaced: bool,
}

impl Resource {
    /// A resource whose objects live in a namespace.
    ///
    /// ```
    /// use orlop_core::resource::Resource;
    /// const DEPLOYMENTS: Resource = Resource::namespaced("apps", "v1", "deployments", "Deployment");
    /// assert_eq!(DEPLOYMENTS.api_version(), "apps/v1");
    /// assert_eq!(DEPLOYMENTS.path(Some("default")), "/apis/apps/v1/namespaces/default/deployments");
    /// ```
    #[must_use]
    pub const fn namespaced(
        group: &'static str,
        version: &'static str,
        plural: &'static str,
        kind: &'static str,
    ) -> Self {
        Self::known(group, version, plural, kind, true)
    }

    /// A resource whose objects belong to the cluster as a whole.
    #[must_use]
    pub const fn cluster(
        group: &'static str,
        version: &'static str,
        plural: &'static str,
        kind: &'static str,
    ) -> Self {
        Self::known(group, version, plural, kind, false)
    }

    const fn known(
        group: &'static str,
        version: &'static str,
        plural: &'static str,
        kind: &'static str,
        namespaced: bool,
    ) -> Self {
        Self {
            group: Cow::Borrowed(group),
            version: Cow::Borrowed(version),
            plural: Cow::Borrowed(plural),
            kind: Cow::Borrowed(kind),
            namespaced,
        }
    }

    /// The kind of its objects.
    #[must_use]
    pub fn gvk(&self) -> GroupVersionKind {
        GroupVersionKind {
            group: self.group.clone(),
            version: self.version.clone(),
            kind: self.kind.clone(),
        }
    }

    /// The `apiVersion` of its objects.
    #[must_use]
    pub fn api_version(&self) -> String {
        join_api_version(&self.group, &self.version)
    }

    /// `plural.group`, the name that messages use; the plural alone for the core group.
    #[must_use]
    pub fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_string()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// The URL path of its collection, in one namespace or over all.
    #[must_use]
    pub fn path(&self, namespace: Option<&str>) -> String {
        let mut path = if self.group.is_empty() {
            "/api/".to_owned()
        } else {
            format!("/apis/{}/", self.group)
        };
        path.push_str(&self.version);
        if let Some(namespace) = namespace.filter(|_| self.namespaced) {
            path.push_str("/namespaces/");
            path.push_str(namespace);
        }
        path.push('/');
        path.push_str(&self.plural);
        path
    }
}

/// Splits an `apiVersion` into group and version.
#[must_use]
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// Joins group and version to an `apiVersion`.
#[must_use]
pub fn join_api_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}
