//! Discovery: what a server serves, in the two forms that clients ask for.
//!
//! The plain form is one document for each level (`/api`, `/apis`, `/apis/<group>`, `/apis/<group>/<version>`); the
//! aggregated form is one document below `/api` and one below `/apis` that holds everything. Both are made from a
//! [`Catalog`], which takes built-in and custom resources alike.

mod form;

use orlop_core::resource::{GroupVersionKind, join_api_version};
use serde_json::{Map, Value, json};

use crate::resources::{ResourceInfo, Subresource, discovery_order};
pub use form::Form;

/// Resources in discovery's order, grouped.
#[derive(Clone, Debug)]
pub struct Catalog<'a> {
    groups: Vec<Group<'a>>,
}

#[derive(Clone, Debug)]
struct Group<'a> {
    name: &'a str,
    /// The preferred version first.
    versions: Vec<Version<'a>>,
}

#[derive(Clone, Debug)]
struct Version<'a> {
    name: &'a str,
    /// Sorted by plural.
    resources: Vec<&'a ResourceInfo>,
}

impl<'a> Catalog<'a> {
    /// Groups resources, which may come in any order.
    pub fn new(resources: impl IntoIterator<Item = &'a ResourceInfo>) -> Self {
        let mut resources: Vec<_> = resources.into_iter().collect();
        resources.sort_by(|a, b| discovery_order(a).cmp(&discovery_order(b)));
        let mut groups: Vec<Group<'a>> = Vec::new();
        for info in resources {
            let r = &info.resource;
            if groups.last().is_none_or(|group| group.name != r.group) {
                groups.push(Group {
                    name: &r.group,
                    versions: Vec::new(),
                });
            }
            let Some(group) = groups.last_mut() else {
                continue;
            };
            match group.versions.last_mut() {
                Some(version) if version.name == r.version => version.resources.push(info),
                _ => group.versions.push(Version {
                    name: &r.version,
                    resources: vec![info],
                }),
            }
        }
        Self { groups }
    }

    /// The names of the groups but the core one, in the order of `/apis`.
    pub fn groups(&self) -> impl Iterator<Item = &'a str> {
        self.groups
            .iter()
            .map(|group| group.name)
            .filter(|name| !name.is_empty())
    }

    /// The versions of a group, the preferred one first; none for an unknown group.
    pub fn versions(&self, group: &str) -> impl Iterator<Item = &'a str> {
        self.find(group)
            .into_iter()
            .flat_map(|group| group.versions.iter().map(|version| version.name))
    }

    fn find(&self, name: &str) -> Option<&Group<'a>> {
        self.groups.iter().find(|group| group.name == name)
    }

    /// The body of `/api`. `server_address` is the host and port at which clients reach the server.
    #[must_use]
    pub fn core_versions(&self, server_address: &str) -> Value {
        let versions: Vec<_> = self.versions("").collect();
        json!({
            "kind": "APIVersions",
            "versions": versions,
            "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": server_address }],
        })
    }

    /// The body of `/apis`.
    #[must_use]
    pub fn group_list(&self) -> Value {
        let groups = self
            .groups
            .iter()
            .filter(|group| !group.name.is_empty())
            .map(Group::plain);
        let groups: Vec<_> = groups.map(Value::Object).collect();
        json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
    }

    /// The body of `/apis/<group>`.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<Value> {
        let mut body = self
            .find(name)
            .filter(|group| !group.name.is_empty())?
            .plain();
        body.insert("kind".into(), "APIGroup".into());
        body.insert("apiVersion".into(), "v1".into());
        Some(Value::Object(body))
    }

    /// The body of `/apis/<group>/<version>`, or of `/api/<version>` for the empty group.
    #[must_use]
    pub fn resources(&self, group: &str, version: &str) -> Option<Value> {
        let found = self
            .find(group)?
            .versions
            .iter()
            .find(|v| v.name == version)?;
        let mut resources = Vec::new();
        for info in &found.resources {
            resources.push(plain_resource(info));
            resources.extend(
                info.subresources
                    .iter()
                    .map(|sub| plain_subresource(info, sub)),
            );
        }
        let mut body = json!({
            "kind": "APIResourceList",
            "groupVersion": join_api_version(group, version),
            "resources": resources,
        });
        // The core group's list has never had one.
        if !group.is_empty() {
            body["apiVersion"] = "v1".into();
        }
        Some(body)
    }

    /// The aggregated body of `/api` (`core` is true) or `/apis`. `Form::Plain` has none and is read as the newest.
    #[must_use]
    pub fn aggregated(&self, core: bool, form: Form) -> Value {
        let groups = self
            .groups
            .iter()
            .filter(|group| group.name.is_empty() == core);
        let items: Vec<_> = groups.map(Group::aggregated).collect();
        let version = if form == Form::V2Beta1 {
            "v2beta1"
        } else {
            "v2"
        };
        json!({
            "kind": "APIGroupDiscoveryList",
            "apiVersion": join_api_version("apidiscovery.k8s.io", version),
            "metadata": {},
            "items": items,
        })
    }
}

impl Group<'_> {
    fn plain(&self) -> Map<String, Value> {
        let versions: Vec<_> = self
            .versions
            .iter()
            .map(|v| json!({ "groupVersion": join_api_version(self.name, v.name), "version": v.name }))
            .collect();
        let mut body = Map::new();
        body.insert("name".into(), self.name.into());
        body.insert(
            "preferredVersion".into(),
            versions.first().cloned().unwrap_or(Value::Null),
        );
        body.insert("versions".into(), versions.into());
        body
    }

    fn aggregated(&self) -> Value {
        let versions: Vec<_> = self
            .versions
            .iter()
            .map(|version| {
                let resources: Vec<_> = version
                    .resources
                    .iter()
                    .map(|info| aggregated_resource(info))
                    .collect();
                json!({ "version": version.name, "resources": resources, "freshness": "Current" })
            })
            .collect();
        let metadata = if self.name.is_empty() {
            json!({})
        } else {
            json!({ "name": self.name })
        };
        json!({ "metadata": metadata, "versions": versions })
    }
}

fn verbs(verbs: &[crate::resources::Verb]) -> Value {
    verbs.iter().map(|verb| verb.as_str()).collect()
}

fn plain_resource(info: &ResourceInfo) -> Value {
    let r = &info.resource;
    let mut body = json!({
        "name": r.plural,
        "singularName": info.singular,
        "namespaced": r.namespaced,
        "kind": r.kind,
        "verbs": verbs(&info.verbs),
    });
    if !info.short_names.is_empty() {
        body["shortNames"] = json!(info.short_names);
    }
    if !info.categories.is_empty() {
        body["categories"] = json!(info.categories);
    }
    if info.is_stored() {
        body["storageVersionHash"] = storage_version_hash(&info.storage().gvk()).into();
    }
    body
}

fn plain_subresource(parent: &ResourceInfo, sub: &Subresource) -> Value {
    let r = &parent.resource;
    let mut body = json!({
        "name": format!("{}/{}", r.plural, sub.name),
        "singularName": "",
        "namespaced": r.namespaced,
        "kind": sub.kind.kind,
        "verbs": verbs(&sub.verbs),
    });
    if let Some((group, version)) = foreign(parent, sub) {
        body["group"] = group.into();
        body["version"] = version.into();
    }
    body
}

/// Group and version of a subresource's kind, when they are not the parent's.
fn foreign<'a>(parent: &ResourceInfo, sub: &'a Subresource) -> Option<(&'a str, &'a str)> {
    let same =
        sub.kind.group == parent.resource.group && sub.kind.version == parent.resource.version;
    (!same).then_some((&*sub.kind.group, &*sub.kind.version))
}

fn aggregated_resource(info: &ResourceInfo) -> Value {
    let r = &info.resource;
    let mut body = json!({
        "resource": r.plural,
        // Empty names stand for the group and version in which this is listed.
        "responseKind": { "group": "", "version": "", "kind": r.kind },
        "scope": if r.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": info.singular,
        "verbs": verbs(&info.verbs),
    });
    if !info.short_names.is_empty() {
        body["shortNames"] = json!(info.short_names);
    }
    if !info.categories.is_empty() {
        body["categories"] = json!(info.categories);
    }
    if !info.subresources.is_empty() {
        body["subresources"] = info
            .subresources
            .iter()
            .map(|sub| {
                let (group, version) = foreign(info, sub).unwrap_or_default();
                json!({
                    "subresource": sub.name,
                    "responseKind": { "group": group, "version": version, "kind": sub.kind.kind },
                    "verbs": verbs(&sub.verbs),
                })
            })
            .collect();
    }
    body
}

/// The hash by which clients tell whether the stored form of a kind has changed.
#[must_use]
pub fn storage_version_hash(kind: &GroupVersionKind) -> String {
    use base64::Engine;
    let name = format!("{}/{}/{}", kind.group, kind.version, kind.kind);
    let digest = ring::digest::digest(&ring::digest::SHA256, name.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(&digest.as_ref()[..8])
}

#[cfg(test)]
mod tests {
    use orlop_core::resource::Resource;

    use super::*;
    use crate::resources;

    fn builtin() -> Catalog<'static> {
        Catalog::new(resources::builtin())
    }

    #[test]
    fn the_core_list() {
        let body = builtin().resources("", "v1").unwrap();
        assert_eq!(body["kind"], "APIResourceList");
        assert_eq!(body["groupVersion"], "v1");
        assert!(body.get("apiVersion").is_none());
        let resources = body["resources"].as_array().unwrap();
        assert_eq!(resources.len(), 39);
        assert!(resources.is_sorted_by(|a, b| a["name"].as_str() < b["name"].as_str()));
        let find = |name: &str| resources.iter().find(|r| r["name"] == name).unwrap();
        assert_eq!(
            *find("pods"),
            json!({
                "name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod",
                "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
                "shortNames": ["po"], "categories": ["all"], "storageVersionHash": "xPOwRZ+Yhw8=",
            })
        );
        assert_eq!(
            *find("pods/eviction"),
            json!({
                "name": "pods/eviction", "singularName": "", "namespaced": true, "kind": "Eviction",
                "group": "policy", "version": "v1", "verbs": ["create"],
            })
        );
        assert_eq!(
            *find("namespaces/finalize"),
            json!({"name": "namespaces/finalize", "singularName": "", "namespaced": false, "kind": "Namespace", "verbs": ["update"]})
        );
        assert!(find("bindings").get("storageVersionHash").is_none());
        assert!(
            find("componentstatuses")
                .get("storageVersionHash")
                .is_none()
        );
    }

    #[test]
    fn storage_version_hashes_are_upstreams() {
        let body = builtin().resources("apps", "v1").unwrap();
        assert_eq!(body["apiVersion"], "v1");
        let hashes: Vec<_> = body["resources"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|r| r["storageVersionHash"].as_str())
            .collect();
        assert_eq!(
            hashes,
            [
                "85nkx63pcBU=",
                "dd7pWHUlMKQ=",
                "8aSe+NMegvE=",
                "P1RzHs8/mWQ=",
                "H+vl74LkKdo="
            ]
        );
        // Both events are stored as the core group's.
        let events = builtin().resources("events.k8s.io", "v1").unwrap();
        assert_eq!(events["resources"][0]["storageVersionHash"], "r2yiGXH7wu8=");
    }

    #[test]
    fn groups_in_upstreams_order() {
        let body = builtin().group_list();
        let names: Vec<_> = body["groups"]
            .as_array()
            .unwrap()
            .iter()
            .map(|g| g["name"].as_str().unwrap())
            .collect();
        assert_eq!(
            names[..5],
            [
                "apps",
                "events.k8s.io",
                "authentication.k8s.io",
                "authorization.k8s.io",
                "autoscaling"
            ]
        );
        assert_eq!(
            body["groups"][4],
            json!({
                "name": "autoscaling",
                "versions": [{"groupVersion": "autoscaling/v2", "version": "v2"}, {"groupVersion": "autoscaling/v1", "version": "v1"}],
                "preferredVersion": {"groupVersion": "autoscaling/v2", "version": "v2"},
            })
        );
        let group = builtin().group("apps").unwrap();
        assert_eq!(
            (&group["kind"], &group["apiVersion"]),
            (&json!("APIGroup"), &json!("v1"))
        );
        assert!(builtin().group("nope.io").is_none() && builtin().group("").is_none());
        assert!(builtin().resources("apps", "v2").is_none());
        assert_eq!(
            builtin().core_versions("192.0.2.10:6443"),
            json!({
                "kind": "APIVersions", "versions": ["v1"],
                "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": "192.0.2.10:6443"}],
            })
        );
    }

    #[test]
    fn aggregated_form() {
        let body = builtin().aggregated(false, Form::V2);
        assert_eq!(body["apiVersion"], "apidiscovery.k8s.io/v2");
        let apps = &body["items"][0];
        assert_eq!(apps["metadata"], json!({"name": "apps"}));
        assert_eq!(apps["versions"][0]["freshness"], "Current");
        assert_eq!(
            apps["versions"][0]["resources"][2],
            json!({
                "resource": "deployments", "responseKind": {"group": "", "version": "", "kind": "Deployment"},
                "scope": "Namespaced", "singularResource": "deployment",
                "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
                "shortNames": ["deploy"], "categories": ["all"],
                "subresources": [
                    {"subresource": "scale", "responseKind": {"group": "autoscaling", "version": "v1", "kind": "Scale"}, "verbs": ["get", "patch", "update"]},
                    {"subresource": "status", "responseKind": {"group": "", "version": "", "kind": "Deployment"}, "verbs": ["get", "patch", "update"]},
                ],
            })
        );
        let core = builtin().aggregated(true, Form::V2Beta1);
        assert_eq!(core["apiVersion"], "apidiscovery.k8s.io/v2beta1");
        assert_eq!(core["items"].as_array().unwrap().len(), 1);
        assert_eq!(core["items"][0]["metadata"], json!({}));
    }

    #[test]
    fn custom_resources_come_after_the_built_in_groups() {
        let widgets = ResourceInfo::new(Resource::namespaced(
            "example.com",
            "v1",
            "widgets",
            "Widget",
        ));
        let old = ResourceInfo::new(Resource::namespaced(
            "example.com",
            "v1beta1",
            "widgets",
            "Widget",
        ));
        let catalog = Catalog::new(resources::builtin().iter().chain([&old, &widgets]));
        assert_eq!(catalog.groups().last(), Some("example.com"));
        assert_eq!(
            catalog.versions("example.com").collect::<Vec<_>>(),
            ["v1", "v1beta1"]
        );
        assert!(catalog.resources("example.com", "v1").is_some());
    }
}
