//! Signs what everybody may know of the cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use orlop_core::controller::{Action, Context, Controller, Interests, ReconcileError};
use orlop_core::informer::Scope;
use orlop_core::object::ObjectKey;
use ring::hmac;
use serde_json::{Value, json};

use super::{Expiration, expiration, tokens, usable};
use crate::common::resources::CONFIG_MAPS;

const NAMESPACE: &str = "kube-public";
const NAME: &str = "cluster-info";
/// What is signed.
const KUBECONFIG: &str = "kubeconfig";
/// Before a token's id: its signature.
const SIGNATURE: &str = "jws-kubeconfig-";

/// Keeps the signatures of `kube-public/cluster-info`, one for each token that may be used for signing.
#[derive(Clone, Copy, Debug, Default)]
pub struct BootstrapSigner;

impl BootstrapSigner {
    /// The controller.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

fn cluster_info() -> Scope {
    Scope {
        namespace: NAMESPACE.to_owned(),
        field_selector: format!("metadata.name={NAME}"),
        ..Scope::all(&CONFIG_MAPS)
    }
}

/// A JSON web signature (HS256) of a text, without the text.
fn detached_signature(text: &str, id: &str, secret: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(json!({"alg": "HS256", "kid": id}).to_string());
    let payload = URL_SAFE_NO_PAD.encode(text);
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, format!("{header}.{payload}").as_bytes());
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(tag))
}

#[async_trait]
impl Controller for BootstrapSigner {
    fn name(&self) -> &str {
        "bootstrap-signer-controller"
    }

    fn identity(&self) -> &str {
        "bootstrap-signer"
    }

    fn interests(&self) -> Interests {
        let one = || vec![ObjectKey::new(NAMESPACE, NAME)];
        Interests::new()
            .watches(cluster_info(), move |_, _| one())
            .watches(tokens(), move |_, _| one())
    }

    async fn reconcile(&self, ctx: &Context, key: &ObjectKey) -> Result<Action, ReconcileError> {
        let Some(object) = ctx.informer(cluster_info()).indexer().get(key) else {
            return Ok(Action::Done);
        };
        let map = object.value()?;
        let Some(text) = map["data"][KUBECONFIG].as_str() else {
            return Ok(Action::Done);
        };
        let now = ctx.env().wall();
        let mut wanted: BTreeMap<String, String> = BTreeMap::new();
        let mut next: Option<Duration> = None;
        for token in ctx.informer(tokens()).indexer().list() {
            let Some((id, secret)) = usable(&token, "signing", now) else {
                continue;
            };
            if let Expiration::At(end) = expiration(&*token.value()?) {
                let wait = end.duration_since(now).unsigned_abs();
                next = Some(next.map_or(wait, |known| known.min(wait)));
            }
            let signature = detached_signature(text, &id, &secret);
            wanted.insert(format!("{SIGNATURE}{id}"), signature);
        }
        let is_signature = |key: &str| key.starts_with(SIGNATURE);
        let known: BTreeMap<String, String> = map["data"]
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(key, _)| is_signature(key))
            .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect();
        if known != wanted {
            let mut map = (*map).clone();
            if let Some(data) = map["data"].as_object_mut() {
                data.retain(|key, _| !is_signature(key));
                data.extend(
                    wanted
                        .into_iter()
                        .map(|(key, value)| (key, Value::from(value))),
                );
            }
            let maps = ctx.client().resource(&CONFIG_MAPS).namespace(NAMESPACE);
            maps.update(&map).await?;
        }
        Ok(match next {
            Some(wait) => Action::RequeueAfter(wait.max(Duration::from_millis(1))),
            None => Action::Done,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use base64::engine::general_purpose::STANDARD;

    use super::super::{SECRETS, TYPE};
    use super::*;
    use crate::testing::{World, run};

    #[test]
    fn a_signature_is_the_one_that_kubeadm_expects() {
        // By `openssl dgst -sha256 -hmac secret` over header and payload.
        assert_eq!(
            detached_signature("payload", "joshua", "my voice is my passcode"),
            "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..eeKgyWv81WPZulH43SX4JufLpaCPIm3jTW6HgVd3UZ4"
        );
    }

    #[test]
    fn each_token_signs_while_it_is_good() {
        run(vec![Arc::new(BootstrapSigner::new())], |world| async move {
            let client = world.client();
            let maps = client.resource(&CONFIG_MAPS).namespace(NAMESPACE);
            let map = json!({"metadata": {"name": NAME}, "data": {KUBECONFIG: "text", "jws-kubeconfig-old": "x"}});
            maps.create(&map).await.unwrap();
            let secrets = client.resource(&SECRETS).namespace("kube-system");
            let soon = (world.env.wall() + Duration::from_secs(30)).to_string();
            for (id, usage, expiration) in [
                ("aaaaaa", "true", &soon[..]),
                ("bbbbbb", "true", ""),
                ("cccccc", "false", ""),
            ] {
                let data = json!({
                    "token-id": STANDARD.encode(id), "token-secret": STANDARD.encode("0123456789abcdef"),
                    "usage-bootstrap-signing": STANDARD.encode(usage), "expiration": STANDARD.encode(expiration),
                });
                let secret = json!({"metadata": {"name": format!("bootstrap-token-{id}")}, "type": TYPE, "data": data});
                secrets.create(&secret).await.unwrap();
            }
            let signed = |world: &World| -> Vec<String> {
                let map = world.api.object(&CONFIG_MAPS, NAMESPACE, NAME).unwrap();
                let keys = map.value().unwrap();
                let keys = keys["data"].as_object().unwrap().keys();
                keys.filter_map(|key| key.strip_prefix(SIGNATURE).map(str::to_owned))
                    .collect()
            };
            world
                .until("both sign", |world| signed(world) == ["aaaaaa", "bbbbbb"])
                .await;
            let map = world.api.object(&CONFIG_MAPS, NAMESPACE, NAME).unwrap();
            assert_eq!(
                map.value().unwrap()["data"]["jws-kubeconfig-bbbbbb"],
                detached_signature("text", "bbbbbb", "0123456789abcdef")
            );
            world.sleep(31).await;
            assert_eq!(signed(&world), ["bbbbbb"]);
            world.stop().await;
        });
    }
}
