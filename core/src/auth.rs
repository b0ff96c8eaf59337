//! Who asks, and whether they may: the [`Authenticator`] and [`Authorizer`] joints.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

/// Group of everybody who proved who they are.
pub const ALL_AUTHENTICATED: &str = "system:authenticated";
/// Group of those who did not.
pub const ALL_UNAUTHENTICATED: &str = "system:unauthenticated";
/// The user of those who did not.
pub const ANONYMOUS: &str = "system:anonymous";
/// Members may do everything.
pub const SYSTEM_MASTERS: &str = "system:masters";
/// Group of all service accounts.
pub const ALL_SERVICE_ACCOUNTS: &str = "system:serviceaccounts";

/// Who a request comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UserInfo {
    /// The name, unique among all active users.
    #[serde(rename = "username", skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// A unique value that outlives the name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// The groups that the user is in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// What else the authenticator knows.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// A user in groups.
    #[must_use]
    pub fn new<'a>(name: &str, groups: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            name: name.to_owned(),
            groups: groups.into_iter().map(str::to_owned).collect(),
            ..Self::default()
        }
    }

    /// The user of requests without credentials.
    #[must_use]
    pub fn anonymous() -> Self {
        Self::new(ANONYMOUS, [ALL_UNAUTHENTICATED])
    }

    /// A service account, with the groups that it is in by being one.
    #[must_use]
    pub fn service_account(namespace: &str, name: &str) -> Self {
        let own_namespace = format!("{ALL_SERVICE_ACCOUNTS}:{namespace}");
        Self::new(
            &format!("system:serviceaccount:{namespace}:{name}"),
            [ALL_SERVICE_ACCOUNTS, &own_namespace, ALL_AUTHENTICATED],
        )
    }

    /// Whether the user is in a group.
    #[must_use]
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }
}

/// What a request brings to prove who it comes from.
#[derive(Clone, Default)]
pub struct Credentials {
    /// The token of `Authorization: Bearer …`.
    pub bearer_token: Option<String>,
    /// The client's certificate chain (DER), leaf first, verified against the client CA by the listener.
    pub client_certificates: Vec<Vec<u8>>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("bearer_token", &self.bearer_token.as_ref().map(|_| "…"))
            .field("client_certificates", &self.client_certificates.len())
            .finish()
    }
}

/// Why credentials were refused. What the client sees is always `Unauthorized`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct AuthenticationError(pub String);

/// Finds out who a request comes from.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// The user, `None` when the credentials are not of the kind that this authenticator knows.
    ///
    /// # Errors
    /// When they are of that kind, but not valid. The next authenticator is still asked.
    async fn authenticate(
        &self,
        credentials: &Credentials,
    ) -> Result<Option<UserInfo>, AuthenticationError>;
}

/// What a request is about, for an [`Authorizer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A resource of the API.
    Resource {
        /// The API group.
        group: String,
        /// The version.
        version: String,
        /// The plural name.
        resource: String,
        /// The subresource; empty for none.
        subresource: String,
        /// The namespace; empty for the cluster.
        namespace: String,
        /// The object's name; empty for the collection.
        name: String,
    },
    /// A path that is no resource, such as `/version`.
    Path(String),
}

/// What somebody wants to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Who.
    pub user: UserInfo,
    /// The verb: `get list watch create update patch delete deletecollection` or one of a resource's own (`escalate`, `bind`, `impersonate`,
    /// `approve`, …); for paths the lower-case HTTP method.
    pub verb: String,
    /// On what.
    pub scope: Scope,
    /// The field selector of a list, watch or deletecollection, in its text form; empty for none. An authorizer may grant less than the
    /// whole collection by it: a node reads the pods that are bound to it.
    pub field_selector: String,
}

impl Attributes {
    /// A verb on a resource of any version: its collection when `name` is empty, the cluster's when `namespace` is.
    #[must_use]
    pub fn resource(
        user: &UserInfo,
        verb: &str,
        group: &str,
        resource: &str,
        namespace: &str,
        name: &str,
    ) -> Self {
        Self {
            user: user.clone(),
            verb: verb.to_owned(),
            scope: Scope::Resource {
                group: group.to_owned(),
                version: "*".to_owned(),
                resource: resource.to_owned(),
                subresource: String::new(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            },
            field_selector: String::new(),
        }
    }

    /// Whether the verb changes nothing.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        matches!(self.verb.as_str(), "get" | "list" | "watch")
    }
}

/// An authorizer's verdict, with its reason (empty for none).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// They may.
    Allow(String),
    /// They may not, whatever other authorizers say.
    Deny(String),
    /// Ask the next one; nobody's opinion means no.
    NoOpinion(String),
}

/// What a user may do to resources, as `SelfSubjectRulesReview` tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceRule {
    /// The verbs; `*` for all.
    pub verbs: Vec<String>,
    /// The API groups; `*` for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    /// The resources; `*` for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// The names; empty for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
}

/// What a user may do to paths.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NonResourceRule {
    /// The verbs; `*` for all.
    pub verbs: Vec<String>,
    /// The paths; a trailing `*` stands for the rest.
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    pub non_resource_urls: Vec<String>,
}

/// All that a user may do in a namespace, as far as an authorizer can tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// On resources.
    pub resource_rules: Vec<ResourceRule>,
    /// On paths.
    pub non_resource_rules: Vec<NonResourceRule>,
    /// Whether there may be more.
    pub incomplete: bool,
    /// What went wrong while they were gathered.
    pub error: String,
}

/// Says whether somebody may do something.
#[async_trait]
pub trait Authorizer: Send + Sync + 'static {
    /// The verdict.
    async fn authorize(&self, attributes: &Attributes) -> Decision;

    /// All that a user may do in a namespace. By default nothing is known.
    async fn rules(&self, user: &UserInfo, namespace: &str) -> Rules {
        let _ = (user, namespace);
        Rules {
            incomplete: true,
            ..Rules::default()
        }
    }
}
