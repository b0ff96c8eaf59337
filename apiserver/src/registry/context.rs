//! What a request carries through the registry.

use bytes::Bytes;
use orlop_api::resources::ResourceInfo;
use orlop_core::auth::UserInfo;

/// Who asks, and what they are to be told beside the answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Context {
    /// Who.
    pub(crate) user: UserInfo,
    /// Who owns written fields when the request does not say: the name of the client program.
    pub(crate) default_manager: String,
    /// What was wrong with the body's form, found when it was parsed: fields that stand twice.
    pub(crate) duplicates: Vec<String>,
    /// The body's JSON, for messages that name fields in its order; empty where it was in another form.
    pub(crate) body: Bytes,
    /// Warnings for the client.
    pub(crate) warnings: Vec<String>,
}

impl Context {
    /// A request of a user.
    pub(crate) fn of(user: UserInfo, default_manager: &str) -> Self {
        Self {
            user,
            default_manager: default_manager.to_owned(),
            ..Self::default()
        }
    }

    /// Adds a warning once.
    pub(crate) fn warn(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.warnings.contains(&text) {
            self.warnings.push(text);
        }
    }

    /// The field manager: the one that was asked for, or the client's name.
    pub(crate) fn manager<'a>(&'a self, asked: &'a str) -> &'a str {
        if !asked.is_empty() {
            asked
        } else if self.default_manager.is_empty() {
            "unknown"
        } else {
            &self.default_manager
        }
    }
}

/// Where a request points to.
#[derive(Clone, Debug)]
pub(crate) struct At {
    /// The resource as it was addressed.
    pub(crate) info: &'static ResourceInfo,
    /// The namespace; empty for the cluster, and for a collection over all namespaces.
    pub(crate) namespace: String,
    /// The object's name; empty for the collection.
    pub(crate) name: String,
    /// The subresource; empty for none.
    pub(crate) subresource: String,
}

impl At {
    /// The subresource, if there is one.
    pub(crate) fn sub(&self) -> Option<&str> {
        Some(self.subresource.as_str()).filter(|sub| !sub.is_empty())
    }
}
