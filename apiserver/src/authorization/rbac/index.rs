//! Roles and bindings, compiled: from a subject to what it is granted.

use std::collections::HashMap;
use std::sync::Arc;

use orlop_core::admission::ObjectReader;
use orlop_core::auth::{Attributes, UserInfo};
use orlop_core::field::quote;
use orlop_core::object::Object;
use orlop_core::resource::Resource;
use orlop_core::revision::Revision;
use serde::{Deserialize, Deserializer, Serialize};

use super::rules::PolicyRule;
use crate::names::{CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, RBAC, ROLE_BINDINGS, ROLES};

/// Whom a binding grants something to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Subject {
    /// `User`, `Group` or `ServiceAccount`.
    pub kind: String,
    /// The API group of the kind; empty for service accounts.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_group: String,
    /// The name.
    pub name: String,
    /// The namespace of a service account.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
}

/// The role that a binding grants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RoleRef {
    /// Always `rbac.authorization.k8s.io`.
    pub api_group: String,
    /// `Role` or `ClusterRole`.
    pub kind: String,
    /// The name.
    pub name: String,
}

/// What a role says, decoded once for all who ask.
#[derive(Default, Deserialize)]
#[serde(default)]
struct RoleView {
    #[serde(deserialize_with = "shared")]
    rules: Arc<[PolicyRule]>,
}

fn shared<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<[PolicyRule]>, D::Error> {
    Ok(Option::<Vec<PolicyRule>>::deserialize(deserializer)?
        .unwrap_or_default()
        .into())
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct BindingView {
    role_ref: RoleRef,
    subjects: Option<Vec<Subject>>,
}

/// The rules of a role; none for what cannot be read as a role.
pub(super) fn rules_of(object: &Object) -> Arc<[PolicyRule]> {
    object
        .decode::<RoleView>()
        .map(|role| role.rules.clone())
        .unwrap_or_default()
}

/// What one binding grants.
pub(super) struct Grant {
    /// `ClusterRoleBinding "x" of ClusterRole "y"`.
    source: String,
    subjects: Vec<(Who, String)>,
    /// The rules, or why there are none.
    pub(super) rules: Result<Arc<[PolicyRule]>, String>,
}

/// A subject as it is compared with a user.
enum Who {
    User(String),
    Group(String),
    Nobody,
}

impl Grant {
    /// The first subject that the user is, as messages show it.
    fn subject(&self, user: &UserInfo) -> &str {
        let applies = |(who, _): &&(Who, String)| match who {
            Who::User(name) => *name == user.name,
            Who::Group(name) => user.in_group(name),
            Who::Nobody => false,
        };
        self.subjects
            .iter()
            .find(applies)
            .map(|(_, text)| text.as_str())
            .unwrap_or_default()
    }
}

/// The bindings of one namespace, or of the cluster, in the order of their names.
#[derive(Default)]
struct Bindings {
    grants: Vec<Grant>,
    users: HashMap<String, Vec<usize>>,
    groups: HashMap<String, Vec<usize>>,
}

impl Bindings {
    fn push(&mut self, grant: Grant) {
        let at = self.grants.len();
        for (who, _) in &grant.subjects {
            let places = match who {
                Who::User(name) => self.users.entry(name.clone()).or_default(),
                Who::Group(name) => self.groups.entry(name.clone()).or_default(),
                Who::Nobody => continue,
            };
            if places.last() != Some(&at) {
                places.push(at);
            }
        }
        self.grants.push(grant);
    }

    /// The lists of places that concern a user: the user's own, and one a group.
    fn places<'a>(&'a self, user: &'a UserInfo) -> impl Iterator<Item = &'a [usize]> {
        let own = self.users.get(&user.name).into_iter();
        own.chain(
            user.groups
                .iter()
                .filter_map(|group| self.groups.get(group)),
        )
        .map(Vec::as_slice)
    }

    /// The first grant that allows a request. Nothing is allocated.
    fn allowing(&self, attributes: &Attributes) -> Option<&Grant> {
        let mut best = usize::MAX;
        for places in self.places(&attributes.user) {
            for &at in places.iter().take_while(|at| **at < best) {
                let rules = self.grants[at].rules.as_deref().unwrap_or_default();
                if rules.iter().any(|rule| rule.allows(attributes)) {
                    best = at;
                    break;
                }
            }
        }
        self.grants.get(best)
    }

    /// All grants that concern a user, in order.
    fn concerning(&self, user: &UserInfo) -> impl Iterator<Item = &Grant> {
        let mut all: Vec<usize> = self.places(user).flatten().copied().collect();
        all.sort_unstable();
        all.dedup();
        all.into_iter().map(|at| &self.grants[at])
    }
}

/// All roles and bindings at some point in time.
#[derive(Default)]
pub(super) struct Index {
    versions: Option<[Revision; 4]>,
    cluster: Bindings,
    namespaces: HashMap<String, Bindings>,
    /// What could not be listed.
    errors: Vec<String>,
}

const SOURCES: [Resource; 4] = [CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES];

impl Index {
    /// Whether nothing has changed since it was made.
    pub(super) fn is_current(&self, reader: &dyn ObjectReader) -> bool {
        self.versions.is_some_and(|known| {
            SOURCES
                .iter()
                .zip(known)
                .all(|(source, known)| reader.last_change(source) == known)
        })
    }

    pub(super) async fn build(reader: &dyn ObjectReader) -> Self {
        // Taken before the lists are: a change in between makes the index stale, not wrong for good.
        let versions = SOURCES.map(|source| reader.last_change(&source));
        let mut index = Self::default();
        let mut lists = Vec::with_capacity(SOURCES.len());
        for source in &SOURCES {
            lists.push(reader.list(source, "").await.unwrap_or_else(|error| {
                index.errors.push(error.to_string());
                Vec::new()
            }));
        }
        // A list that failed is tried again by the next request.
        index.versions = index.errors.is_empty().then_some(versions);
        let [cluster_bindings, cluster_roles, bindings, roles] = lists.as_slice() else {
            return index;
        };
        let mut known: HashMap<(&str, &str), Arc<[PolicyRule]>> = HashMap::new();
        for role in cluster_roles.iter().chain(roles) {
            known.insert((role.namespace(), role.name()), rules_of(role));
        }
        let grant = |kind: &str, name: String, namespace: &str, object: &Object| {
            let view = object.decode::<BindingView>().unwrap_or_default();
            let RoleRef {
                kind: role_kind,
                name: role,
                ..
            } = &view.role_ref;
            let rules = match role_kind.as_str() {
                "ClusterRole" => known.get(&("", role.as_str())),
                "Role" if !namespace.is_empty() => known.get(&(namespace, role.as_str())),
                _ => None,
            };
            let rules = match (rules, role_kind.as_str()) {
                (Some(rules), _) => Ok(rules.clone()),
                (None, "ClusterRole" | "Role") => Err(format!(
                    "{}.{RBAC} {} not found",
                    role_kind.to_lowercase(),
                    quote(role)
                )),
                (None, other) => Err(format!("unsupported role reference kind: {}", quote(other))),
            };
            let source = format!("{kind} {} of {role_kind} {}", quote(&name), quote(role));
            let subjects = view.subjects.as_deref().unwrap_or_default();
            Grant {
                source,
                subjects: subjects
                    .iter()
                    .map(|subject| who(subject, namespace))
                    .collect(),
                rules,
            }
        };
        for object in cluster_bindings {
            index.cluster.push(grant(
                "ClusterRoleBinding",
                object.name().to_owned(),
                "",
                object,
            ));
        }
        for object in bindings {
            let namespace = object.namespace();
            let name = format!("{}/{namespace}", object.name());
            let grant = grant("RoleBinding", name, namespace, object);
            match index.namespaces.get_mut(namespace) {
                Some(bindings) => bindings.push(grant),
                None => index
                    .namespaces
                    .entry(namespace.to_owned())
                    .or_default()
                    .push(grant),
            }
        }
        index
    }

    fn places(&self, namespace: &str) -> impl Iterator<Item = &Bindings> {
        let local = if namespace.is_empty() {
            None
        } else {
            self.namespaces.get(namespace)
        };
        std::iter::once(&self.cluster).chain(local)
    }

    /// What allows a request (binding, role and subject, as a reason shows them), or what went wrong while it was looked for.
    pub(super) fn allows(
        &self,
        attributes: &Attributes,
        namespace: &str,
    ) -> Result<String, Vec<String>> {
        if let Some(grant) = self
            .places(namespace)
            .find_map(|bindings| bindings.allowing(attributes))
        {
            return Ok(format!(
                "{} to {}",
                grant.source,
                grant.subject(&attributes.user)
            ));
        }
        let mut errors = self.errors.clone();
        self.visit(&attributes.user, namespace, |grant| {
            errors.extend(grant.rules.as_ref().err().cloned())
        });
        Err(errors)
    }

    /// Shows every grant that concerns a user: the cluster's, then the namespace's, each in the order of their names.
    pub(super) fn visit(&self, user: &UserInfo, namespace: &str, mut see: impl FnMut(&Grant)) {
        for bindings in self.places(namespace) {
            bindings.concerning(user).for_each(&mut see);
        }
    }
}

/// A subject of a binding in a namespace: how it is compared, and how messages show it.
fn who(subject: &Subject, namespace: &str) -> (Who, String) {
    let Subject { kind, name, .. } = subject;
    match kind.as_str() {
        "User" => (Who::User(name.clone()), format!("User {}", quote(name))),
        "Group" => (Who::Group(name.clone()), format!("Group {}", quote(name))),
        "ServiceAccount" => {
            let namespace = if subject.namespace.is_empty() {
                namespace
            } else {
                &subject.namespace
            };
            let text = format!("ServiceAccount {}", quote(&format!("{name}/{namespace}")));
            // A cluster binding has no namespace to default to.
            let user = (!namespace.is_empty())
                .then(|| format!("system:serviceaccount:{namespace}:{name}"));
            (user.map_or(Who::Nobody, Who::User), text)
        }
        other => (Who::Nobody, format!("{other} {}", quote(name))),
    }
}
