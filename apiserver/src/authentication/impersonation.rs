//! Impersonation: a user who may do so acts as another one.

use std::collections::BTreeMap;

use http::HeaderMap;
use orlop_core::auth::{
    ALL_AUTHENTICATED, ALL_SERVICE_ACCOUNTS, ALL_UNAUTHENTICATED, ANONYMOUS, Attributes,
    Authorizer, Decision, Scope, UserInfo,
};
use orlop_core::status::Status;

use crate::authorization::forbidden;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
const AUTHENTICATION: &str = "authentication.k8s.io";

/// Why a user cannot act as another one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImpersonationError {
    /// The headers make no sense. Kubernetes answers with code 500 and the plain text `Internal Server Error: "<request URI>": <this>`.
    #[error("{0}")]
    Malformed(String),
    /// The user may not act as that user, group, uid or with that extra.
    #[error("{0}")]
    Forbidden(Box<Status>),
}

/// Whether a header is one of impersonation; they are taken off before anything else looks at the request.
#[must_use]
pub fn is_impersonation_header(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    [USER, GROUP, UID].contains(&lower.as_str()) || lower.starts_with(EXTRA)
}

/// One thing that is asked for.
enum Wish<'a> {
    User(&'a str),
    ServiceAccount { namespace: &'a str, name: &'a str },
    Group(&'a str),
    Extra { key: &'a str, value: &'a str },
    Uid(&'a str),
}

impl Wish<'_> {
    /// How the error about a missing user shows it.
    fn describe(&self) -> String {
        let show = |kind: &str, name: &str, version: &str, field: &str| {
            format!("{{{kind}  {name}  {version}  {field}}}")
        };
        match self {
            Self::User(name) => show("User", name, "", ""),
            Self::ServiceAccount { namespace, name } => {
                format!("{{ServiceAccount {namespace} {name}    }}")
            }
            Self::Group(name) => show("Group", name, "", ""),
            Self::Extra { key, value } => show("UserExtra", value, "authentication.k8s.io/v1", key),
            Self::Uid(uid) => show("UID", uid, "authentication.k8s.io/v1", ""),
        }
    }

    /// The question to the authorizer.
    fn attributes(&self, user: &UserInfo) -> Attributes {
        let (group, resource, subresource, namespace, name) = match *self {
            Self::User(name) => ("", "users", "", "", name),
            Self::ServiceAccount { namespace, name } => {
                ("", "serviceaccounts", "", namespace, name)
            }
            Self::Group(name) => ("", "groups", "", "", name),
            Self::Extra { key, value } => (AUTHENTICATION, "userextras", key, "", value),
            Self::Uid(uid) => (AUTHENTICATION, "uids", "", "", uid),
        };
        Attributes {
            user: user.clone(),
            verb: "impersonate".to_owned(),
            scope: Scope::Resource {
                group: group.to_owned(),
                version: "v1".to_owned(),
                resource: resource.to_owned(),
                subresource: subresource.to_owned(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            },
            field_selector: String::new(),
        }
    }
}

/// Namespace and name of the service account that a user name stands for.
fn split_service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user
        .strip_prefix("system:serviceaccount:")?
        .split_once(':')?;
    let fits = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
    };
    (fits(namespace) && !namespace.contains('.') && fits(name)).then_some((namespace, name))
}

/// The key in the name of an extra's header: percent-decoded, in lower case.
fn extra_key(encoded: &str) -> String {
    let bytes = encoded.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes
            .get(at + 1..at + 3)
            .and_then(|hex| std::str::from_utf8(hex).ok());
        match hex
            .and_then(|hex| u8::from_str_radix(hex, 16).ok())
            .filter(|_| bytes[at] == b'%')
        {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).to_lowercase()
}

/// Who a request of a user with these headers acts as; `None` without impersonation.
///
/// # Errors
/// When the headers make no sense or the user may not do so.
pub async fn impersonate(
    user: &UserInfo,
    headers: &HeaderMap,
    authorizer: &dyn Authorizer,
) -> Result<Option<UserInfo>, ImpersonationError> {
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    let (as_user, as_uid) = (text(USER), text(UID));
    let groups: Vec<&str> = headers
        .get_all(GROUP)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        if let (Some(key), Ok(value)) = (name.as_str().strip_prefix(EXTRA), value.to_str()) {
            extra
                .entry(extra_key(key))
                .or_default()
                .push(value.to_owned());
        }
    }

    let account = split_service_account(as_user);
    let mut wishes = Vec::new();
    if let Some((namespace, name)) = account {
        wishes.push(Wish::ServiceAccount { namespace, name });
    } else if !as_user.is_empty() {
        wishes.push(Wish::User(as_user));
    }
    wishes.extend(groups.iter().map(|group| Wish::Group(group)));
    wishes.extend(
        extra
            .iter()
            .flat_map(|(key, values)| values.iter().map(move |value| Wish::Extra { key, value })),
    );
    if !as_uid.is_empty() {
        wishes.push(Wish::Uid(as_uid));
    }
    if wishes.is_empty() {
        return Ok(None);
    }
    if as_user.is_empty() {
        let wished: Vec<String> = wishes.iter().map(Wish::describe).collect();
        let message = format!(
            "requested [{}] without impersonating a user",
            wished.join(" ")
        );
        return Err(ImpersonationError::Malformed(message));
    }
    for wish in &wishes {
        let attributes = wish.attributes(user);
        if let Decision::Deny(reason) | Decision::NoOpinion(reason) =
            authorizer.authorize(&attributes).await
        {
            return Err(ImpersonationError::Forbidden(Box::new(forbidden(
                &attributes,
                &reason,
            ))));
        }
    }

    let mut groups: Vec<String> = groups.into_iter().map(str::to_owned).collect();
    if let (true, Some((namespace, _))) = (groups.is_empty(), account) {
        groups = vec![
            ALL_SERVICE_ACCOUNTS.to_owned(),
            format!("{ALL_SERVICE_ACCOUNTS}:{namespace}"),
        ];
    }
    let known = groups
        .iter()
        .any(|group| group == ALL_AUTHENTICATED || group == ALL_UNAUTHENTICATED);
    if !known {
        let all = if as_user == ANONYMOUS {
            ALL_UNAUTHENTICATED
        } else {
            ALL_AUTHENTICATED
        };
        groups.push(all.to_owned());
    }
    Ok(Some(UserInfo {
        name: as_user.to_owned(),
        uid: as_uid.to_owned(),
        groups,
        extra,
    }))
}
