//! `EncryptionConfiguration` of `apiserver.config.k8s.io/v1`.

use std::fmt;

use orlop_core::field::{FieldError, Path};
use serde_json::Value;
use zeroize::Zeroizing;

use super::parse;

/// Why a configuration cannot be used. No message shows a secret.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// It does not say what it is.
    #[error("Object '{0}' is missing")]
    Missing(&'static str),
    /// It is something else.
    #[error(
        "no kind {kind:?} is registered for version {version:?}: want EncryptionConfiguration of apiserver.config.k8s.io/v1"
    )]
    Kind {
        /// Its kind.
        kind: String,
        /// Its version.
        version: String,
    },
    /// A value has the wrong type.
    #[error("{path}: {wanted} is wanted")]
    Type {
        /// Where.
        path: Path,
        /// What should be there.
        wanted: &'static str,
    },
    /// It has fields that nobody knows.
    #[error("strict decoding error: {}", list_unknown(.0))]
    Unknown(Vec<String>),
    /// It makes no sense.
    #[error("{}", list(.0))]
    Invalid(Vec<FieldError>),
    /// A rule can never be used.
    #[error("resource {resource:?} is masked by earlier rule {by:?}")]
    Masked {
        /// What the rule is for.
        resource: String,
        /// The earlier rule.
        by: String,
    },
}

fn list_unknown(fields: &[String]) -> String {
    let quoted: Vec<_> = fields
        .iter()
        .map(|field| format!("unknown field {field:?}"))
        .collect();
    quoted.join(", ")
}

/// One by itself, several in brackets and none twice, as Kubernetes lists errors.
fn list(errors: &[FieldError]) -> String {
    let mut texts: Vec<String> = Vec::with_capacity(errors.len());
    for error in errors {
        let text = error.to_string();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    match texts.as_slice() {
        [one] => one.clone(),
        _ => format!("[{}]", texts.join(", ")),
    }
}

/// Which resources are encrypted, and with which keys.
///
/// Its `Debug` shows names of keys and no secrets; secrets are wiped from memory when it is dropped.
#[derive(Clone, Default)]
pub struct EncryptionConfiguration {
    pub(super) rules: Vec<Rule>,
}

/// What is said for some resources.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) resources: Vec<GroupResource>,
    pub(super) providers: Vec<Provider>,
}

/// A resource as the configuration names it: `secrets`, `deployments.apps`, `*.`, `*.apps`, `*.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GroupResource {
    pub(super) group: String,
    pub(super) resource: String,
}

impl GroupResource {
    /// The resource is what stands before the first dot.
    pub(super) fn parse(text: &str) -> Self {
        let (resource, group) = text.split_once('.').unwrap_or((text, ""));
        Self {
            group: group.to_owned(),
            resource: resource.to_owned(),
        }
    }

    fn new(group: &str, resource: &str) -> Self {
        Self {
            group: group.to_owned(),
            resource: resource.to_owned(),
        }
    }

    pub(super) fn is_everything(&self) -> bool {
        self.group == "*" && self.resource == "*"
    }
}

impl fmt::Display for GroupResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.group.as_str(), self.resource.as_str()) {
            ("", "*") => f.write_str("*."),
            ("", resource) => f.write_str(resource),
            (group, resource) => write!(f, "{resource}.{group}"),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) enum Provider {
    Keys(Algorithm, Vec<Key>),
    Identity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    AesGcm,
    AesCbc,
    Secretbox,
}

impl Algorithm {
    /// What the field of the configuration is called.
    pub(super) const fn field(self) -> &'static str {
        match self {
            Self::AesGcm => "aesgcm",
            Self::AesCbc => "aescbc",
            Self::Secretbox => "secretbox",
        }
    }

    /// How long its keys may be.
    pub(super) const fn key_lengths(self) -> &'static [usize] {
        match self {
            Self::AesGcm | Self::AesCbc => &[16, 24, 32],
            Self::Secretbox => &[32],
        }
    }
}

#[derive(Clone)]
pub(super) struct Key {
    pub(super) name: String,
    pub(super) secret: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?})", self.name)
    }
}

impl fmt::Debug for EncryptionConfiguration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.rules).finish()
    }
}

impl EncryptionConfiguration {
    /// A configuration that encrypts nothing. A store with it refuses to hand out what is encrypted.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Reads a configuration, strictly, and checks it by Kubernetes' rules.
    ///
    /// # Errors
    /// See [`ConfigError`]. A provider `kms` is refused: keys are in the configuration itself.
    pub fn from_json(document: &Value) -> Result<Self, ConfigError> {
        let rules = parse::rules(document)?;
        let mut known: Vec<GroupResource> = Vec::new();
        for resource in rules.iter().flat_map(|rule| &rule.resources) {
            let group = GroupResource::new(&resource.group, "*");
            for wider in [group, GroupResource::new("*", "*")] {
                if known.contains(&wider) {
                    return Err(ConfigError::Masked {
                        resource: resource.to_string(),
                        by: wider.to_string(),
                    });
                }
            }
            known.push(resource.clone());
        }
        Ok(Self { rules })
    }

    /// Whether there is a rule at all.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.rules.is_empty()
    }
}
