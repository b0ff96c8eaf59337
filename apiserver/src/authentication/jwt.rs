//! JSON web tokens, as far as service accounts need them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize};

use super::keys::{KeyError, SigningKey, VerifyingKey};

/// An object that a token speaks of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Reference {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) uid: String,
}

/// The claims that only Kubernetes knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Private {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) namespace: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) node: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pod: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) secret: Option<Reference>,
    pub(super) serviceaccount: Reference,
    /// After this, the token is used longer than was asked for.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "optional_date"
    )]
    pub(super) warnafter: Option<i64>,
}

/// What a token says. Dates are seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Claims {
    #[serde(
        deserialize_with = "one_or_many",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub(super) aud: Vec<String>,
    #[serde(
        deserialize_with = "optional_date",
        skip_serializing_if = "Option::is_none"
    )]
    pub(super) exp: Option<i64>,
    #[serde(
        deserialize_with = "optional_date",
        skip_serializing_if = "Option::is_none"
    )]
    pub(super) iat: Option<i64>,
    pub(super) iss: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) jti: String,
    #[serde(rename = "kubernetes.io")]
    pub(super) private: Private,
    #[serde(
        deserialize_with = "optional_date",
        skip_serializing_if = "Option::is_none"
    )]
    pub(super) nbf: Option<i64>,
    pub(super) sub: String,
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Either::deserialize(deserializer)? {
        Either::One(one) => vec![one],
        Either::Many(many) => many,
    })
}

/// A date may be written with a fraction.
fn optional_date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let date: Option<f64> = Option::deserialize(deserializer)?;
    // Casting cuts the fraction and saturates.
    Ok(date.map(|date| date as i64))
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    kid: String,
}

/// A token that was taken apart but not believed yet.
pub(super) struct Unverified<'a> {
    header: Header,
    signed: &'a str,
    signature: Vec<u8>,
    claims: Claims,
}

impl<'a> Unverified<'a> {
    /// Takes a token apart; `None` when it has not the form of one.
    pub(super) fn parse(token: &'a str) -> Option<Self> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        Some(Self {
            header: serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?,
            claims: serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?,
            signature: URL_SAFE_NO_PAD.decode(signature).ok()?,
            signed,
        })
    }

    /// Who claims to have issued it.
    pub(super) fn issuer(&self) -> &str {
        &self.claims.iss
    }

    /// The claims, if one of the keys signed them: the one that the token names, or any where it names none that is known.
    pub(super) fn verify(self, keys: &[VerifyingKey]) -> Option<Claims> {
        let named: Vec<&VerifyingKey> = keys
            .iter()
            .filter(|key| key.id() == self.header.kid)
            .collect();
        let candidates = if named.is_empty() {
            keys.iter().collect()
        } else {
            named
        };
        candidates
            .into_iter()
            // A key is used with its own algorithm only, whatever the header says.
            .filter(|key| key.algorithm() == self.header.alg)
            .any(|key| key.verifies(self.signed.as_bytes(), &self.signature))
            .then_some(self.claims)
    }
}

/// Signs claims: the token.
pub(super) fn sign(key: &SigningKey, claims: &Claims) -> Result<String, KeyError> {
    let verifying = key.verifying_key();
    let header = Header {
        alg: verifying.algorithm().to_owned(),
        kid: verifying.id().to_owned(),
    };
    let encode = |part: serde_json::Result<Vec<u8>>| part.map(|json| URL_SAFE_NO_PAD.encode(json));
    let header = encode(serde_json::to_vec(&header)).map_err(|_| KeyError::Signing)?;
    let payload = encode(serde_json::to_vec(claims)).map_err(|_| KeyError::Signing)?;
    let signed = format!("{header}.{payload}");
    let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes())?);
    Ok(format!("{signed}.{signature}"))
}
