//! Selectors: how Kubernetes names the objects that something is about.
//!
//! | kind | text | where |
//! |---|---|---|
//! | [`label::Selector`] | `app=web,tier in (a,b),!canary` | lists, watches, and everything that owns or routes to pods |
//! | [`field::Selector`] | `metadata.name=web-0,status.phase!=Failed` | lists and watches |
//! | [`node::NodeSelector`] | none, it is only written as a document | node affinity |

pub mod field;
pub mod label;
pub mod node;
pub mod syntax;

/// Text or a document that is not a selector. The messages are Kubernetes' own, for the API's answers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SelectorError {
    message: String,
}

impl SelectorError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
        }
    }
}
