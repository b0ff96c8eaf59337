//! Who may pull from which registry, as secrets and Docker's files say it.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;

/// Credentials that cannot be read. Nothing of them is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// The text is not JSON of the right form.
    #[error("the credentials are not JSON of the expected form")]
    Json,
    /// `auth` is not what it is to be.
    #[error("unable to parse auth field, must be formatted as base64(username:password)")]
    Auth,
}

/// A user and a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub username: String,
    /// The password.
    pub password: String,
}

/// Shows nothing that is secret.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// Credentials by the registry that they are for, as the file names it.
pub(super) type ByRegistry = Vec<(String, Credentials)>;

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    auths: Auths,
}

type Auths = BTreeMap<String, Entry>;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    username: Option<String>,
    password: Option<String>,
    auth: Option<String>,
}

/// A file as `docker login` writes it now: `{"auths": {"registry": {…}}}`.
pub(super) fn config_json(bytes: &[u8]) -> Result<ByRegistry, CredentialError> {
    let file: File = serde_json::from_slice(bytes).map_err(|_| CredentialError::Json)?;
    read(file.auths)
}

/// A file as it once was: `{"registry": {…}}`.
pub(super) fn config(bytes: &[u8]) -> Result<ByRegistry, CredentialError> {
    read(serde_json::from_slice(bytes).map_err(|_| CredentialError::Json)?)
}

/// Those of a secret; none of a secret of another type.
pub(super) fn of_secret(secret: &Secret) -> Result<ByRegistry, CredentialError> {
    let data = |key: &str| {
        Some(secret.data.as_ref()?.get(key)?.0.as_slice()).filter(|data| !data.is_empty())
    };
    match secret.type_.as_deref() {
        Some("kubernetes.io/dockerconfigjson") => {
            data(".dockerconfigjson").map_or(Ok(Vec::new()), config_json)
        }
        Some("kubernetes.io/dockercfg") => data(".dockercfg").map_or(Ok(Vec::new()), config),
        _ => Ok(Vec::new()),
    }
}

fn read(auths: Auths) -> Result<ByRegistry, CredentialError> {
    auths
        .into_iter()
        .map(|(registry, entry)| {
            let (username, password) = match entry.auth.filter(|auth| !auth.trim().is_empty()) {
                Some(auth) => decode(auth.trim())?,
                None => (
                    entry.username.unwrap_or_default(),
                    entry.password.unwrap_or_default(),
                ),
            };
            Ok((registry, Credentials { username, password }))
        })
        .collect()
}

/// User and password out of basic authentication's base64, padded or not.
fn decode(auth: &str) -> Result<(String, String), CredentialError> {
    let engine = if auth.ends_with('=') {
        STANDARD
    } else {
        STANDARD_NO_PAD
    };
    let bytes = engine.decode(auth).or_else(|_| STANDARD.decode(auth));
    let text = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let text = text.ok_or(CredentialError::Auth)?;
    let (username, password) = text.split_once(':').ok_or(CredentialError::Auth)?;
    Ok((username.to_owned(), password.to_owned()))
}
