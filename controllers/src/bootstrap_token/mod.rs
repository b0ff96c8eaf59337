//! Bootstrap tokens: the short-lived Secrets by which machines join.
//!
//! [`TokenCleaner`] deletes those that have expired. [`BootstrapSigner`] signs the ConfigMap `kube-public/cluster-info`, which anybody may
//! read, with each of them: who knows a token can tell that the cluster is the one that gave it out.
//!
//! Neither is on by default, as in Kubernetes.

mod cleaner;
mod signer;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use orlop_core::informer::Scope;
use orlop_core::object::Object;
use orlop_core::resource::Resource;
use serde_json::Value;

pub use self::cleaner::TokenCleaner;
pub use self::signer::BootstrapSigner;

const SECRETS: Resource = Resource::namespaced("", "v1", "secrets", "Secret");
const TYPE: &str = "bootstrap.kubernetes.io/token";
const NAMESPACE: &str = "kube-system";

/// The Secrets of tokens.
fn tokens() -> Scope {
    Scope {
        namespace: NAMESPACE.to_owned(),
        field_selector: format!("type={TYPE}"),
        ..Scope::all(&SECRETS)
    }
}

/// A value of a Secret as text; empty without one.
fn data(secret: &Value, key: &str) -> String {
    secret["data"][key]
        .as_str()
        .and_then(|text| STANDARD.decode(text).ok())
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .unwrap_or_default()
}

/// Until when a token is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expiration {
    Never,
    At(Timestamp),
    /// It says something that is no time: it is good for nothing.
    Unreadable,
}

fn expiration(secret: &Value) -> Expiration {
    let text = data(secret, "expiration");
    if text.is_empty() {
        return Expiration::Never;
    }
    text.parse().map_or(Expiration::Unreadable, Expiration::At)
}

/// The id and the secret of a token, if it may be used so and has not expired.
fn usable(object: &Object, usage: &str, now: Timestamp) -> Option<(String, String)> {
    let secret = object.value().ok()?;
    if object.is_terminating() || secret["type"] != TYPE {
        return None;
    }
    match expiration(&secret) {
        Expiration::Never => {}
        Expiration::At(end) if end > now => {}
        _ => return None,
    }
    let (id, key) = (data(&secret, "token-id"), data(&secret, "token-secret"));
    let named = object.name().strip_prefix("bootstrap-token-") == Some(id.as_str());
    let allowed = data(&secret, &format!("usage-bootstrap-{usage}")) == "true";
    (named && allowed && !id.is_empty() && !key.is_empty()).then_some((id, key))
}
