//! Bootstrap tokens: short-lived secrets by which new nodes join.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use orlop_core::admission::ObjectReader;
use orlop_core::auth::{AuthenticationError, UserInfo};
use orlop_core::env::Env;
use serde_json::Value;

use super::static_token::sha256;
use super::{TokenAuthenticator, TokenUser};
use crate::names::{SECRETS, text_at};

const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
const GROUP_PREFIX: &str = "system:bootstrappers";

/// Accepts `<id>.<secret>` tokens that a Secret `kube-system/bootstrap-token-<id>` allows.
pub struct BootstrapTokens {
    reader: Arc<dyn ObjectReader>,
    env: Env,
    audiences: Vec<String>,
}

impl BootstrapTokens {
    /// Tokens that are good for the audiences.
    #[must_use]
    pub fn new(reader: Arc<dyn ObjectReader>, env: Env, audiences: &[String]) -> Self {
        Self {
            reader,
            env,
            audiences: audiences.to_vec(),
        }
    }
}

/// Id and secret of a token of the form `[a-z0-9]{6}.[a-z0-9]{16}`.
fn split(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    (id.len() == 6 && secret.len() == 16 && plain(id) && plain(secret)).then_some((id, secret))
}

fn data(secret: &Value, key: &str) -> Option<String> {
    let bytes = STANDARD
        .decode(secret.get("data")?.get(key)?.as_str()?)
        .ok()?;
    String::from_utf8(bytes).ok()
}

/// Groups of a token must be `system:bootstrappers:` and lower-case letters, digits, colons and dashes, ending in no punctuation.
fn is_bootstrap_group(group: &str) -> bool {
    let Some(rest) = group
        .strip_prefix(GROUP_PREFIX)
        .and_then(|rest| rest.strip_prefix(':'))
    else {
        return false;
    };
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    rest.len() <= 256
        && rest.bytes().all(|b| plain(b) || matches!(b, b':' | b'-'))
        && rest.bytes().last().is_some_and(plain)
}

#[async_trait]
impl TokenAuthenticator for BootstrapTokens {
    async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<TokenUser>, AuthenticationError> {
        let Some((id, given)) = split(token) else {
            return Ok(None);
        };
        let audiences = super::intersection(&self.audiences, audiences);
        if audiences.is_empty() && !self.audiences.is_empty() {
            return Ok(None);
        }
        let name = format!("bootstrap-token-{id}");
        let object = match self.reader.get(&SECRETS, "kube-system", &name).await {
            Ok(Some(object)) => object,
            Ok(None) => return Ok(None),
            Err(error) => return Err(AuthenticationError(error.message)),
        };
        let refuse = |why: &str| {
            tracing::debug!(secret = name, why, "bootstrap token refused");
            Ok(None)
        };
        if object.is_terminating() {
            return refuse("the secret is being deleted");
        }
        let Ok(secret) = object.value() else {
            return refuse("the secret cannot be read");
        };
        if text_at(&secret, "/type") != SECRET_TYPE {
            return refuse("the secret is of another type");
        }
        // Digests are compared, so that the time it takes says nothing about the secret.
        let expected = data(&secret, "token-secret").unwrap_or_default();
        if expected.is_empty() || sha256(&expected) != sha256(given) {
            return refuse("the token's secret does not match");
        }
        if data(&secret, "token-id").as_deref() != Some(id) {
            return refuse("the token's id does not match");
        }
        if let Some(expiration) = data(&secret, "expiration").filter(|text| !text.is_empty()) {
            let Ok(expiration) = expiration.parse::<Timestamp>() else {
                return refuse("the expiration cannot be read");
            };
            if expiration <= self.env.wall() {
                return refuse("the token has expired");
            }
        }
        if data(&secret, "usage-bootstrap-authentication").as_deref() != Some("true") {
            return refuse("the token is not for authentication");
        }
        let extra = data(&secret, "auth-extra-groups").unwrap_or_default();
        let mut groups: Vec<&str> = extra.split(',').filter(|group| !group.is_empty()).collect();
        if groups.iter().any(|group| !is_bootstrap_group(group)) {
            return refuse("a group has a bad name");
        }
        groups.push(GROUP_PREFIX);
        groups.sort_unstable();
        groups.dedup();
        let user = UserInfo::new(&format!("system:bootstrap:{id}"), groups);
        Ok(Some(TokenUser { user, audiences }))
    }
}

#[cfg(test)]
mod tests {
    use orlop_core::env::SimEnv;
    use serde_json::json;

    use super::*;
    use crate::testing::Objects;

    #[test]
    fn a_token_has_an_exact_form() {
        assert_eq!(
            split("abcdef.0123456789abcdef"),
            Some(("abcdef", "0123456789abcdef"))
        );
        for bad in [
            "",
            "abcdef",
            "abcde.0123456789abcdef",
            "ABCDEF.0123456789abcdef",
            "abcdef.0123456789abcde.",
        ] {
            assert_eq!(split(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_condition_counts() {
        let token = "abcdef.0123456789abcdef";
        let good = |change: &dyn Fn(&mut Value)| {
            let text = |text: &str| json!(STANDARD.encode(text));
            let mut secret = json!({
                "apiVersion": "v1", "kind": "Secret", "type": SECRET_TYPE,
                "metadata": {"name": "bootstrap-token-abcdef", "namespace": "kube-system"},
                "data": {
                    "token-id": text("abcdef"), "token-secret": text("0123456789abcdef"),
                    "usage-bootstrap-authentication": text("true"),
                    "expiration": text("2030-01-01T00:00:00Z"),
                    "auth-extra-groups": text("system:bootstrappers:kubeadm:default-node-token"),
                },
            });
            change(&mut secret);
            secret
        };
        let set = |key: &'static str, value: &'static str| {
            move |secret: &mut Value| secret["data"][key] = json!(STANDARD.encode(value))
        };
        let check = |secret: Value| {
            let sim = SimEnv::new(1);
            let env = sim.env();
            sim.block_on(async move {
                let reader = Objects::new([(SECRETS, secret)]);
                let tokens = BootstrapTokens::new(reader, env, &[]);
                tokens
                    .authenticate_token(token, &[])
                    .await
                    .unwrap()
                    .map(|found| found.user)
            })
        };
        let user = check(good(&|_| ())).unwrap();
        assert_eq!(user.name, "system:bootstrap:abcdef");
        assert_eq!(
            user.groups,
            [
                "system:bootstrappers",
                "system:bootstrappers:kubeadm:default-node-token"
            ]
        );
        assert!(
            check(good(&set("expiration", ""))).is_some(),
            "no expiration, no end"
        );
        for (what, bad) in [
            ("type", good(&|secret| secret["type"] = json!("Opaque"))),
            ("secret", good(&set("token-secret", "0123456789abcdeg"))),
            ("no secret", good(&set("token-secret", ""))),
            ("id", good(&set("token-id", "abcdeg"))),
            (
                "usage",
                good(&set("usage-bootstrap-authentication", "false")),
            ),
            ("expired", good(&set("expiration", "2020-01-01T00:00:00Z"))),
            ("bad expiration", good(&set("expiration", "soon"))),
            ("group", good(&set("auth-extra-groups", "system:masters"))),
            (
                "terminating",
                good(&|secret| {
                    secret["metadata"]["deletionTimestamp"] = json!("2020-01-01T00:00:00Z")
                }),
            ),
        ] {
            assert!(check(bad).is_none(), "{what}");
        }
    }
}
