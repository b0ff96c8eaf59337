//! The ConfigMap with the certificate by which pods know the API server.

use async_trait::async_trait;
use orlop_core::controller::{Action, Context, Controller, Interests, ReconcileError};
use orlop_core::informer::Scope;
use orlop_core::object::ObjectKey;
use serde_json::json;

use crate::common;
use crate::common::resources::{CONFIG_MAPS, NAMESPACES};

/// The name of the ConfigMap.
pub const CONFIG_MAP: &str = "kube-root-ca.crt";
const KEY: &str = "ca.crt";
const DESCRIPTION: &str = "The certificate authority of the API server's in-cluster addresses. It is meant for nothing else.";

/// Keeps `kube-root-ca.crt` in every namespace as it should be.
#[derive(Debug)]
pub struct RootCaPublisher {
    pem: String,
}

impl RootCaPublisher {
    /// The controller, for a certificate in PEM form.
    #[must_use]
    pub fn new(pem: impl Into<String>) -> Self {
        Self { pem: pem.into() }
    }
}

fn published() -> Scope {
    Scope {
        field_selector: format!("metadata.name={CONFIG_MAP}"),
        ..Scope::all(&CONFIG_MAPS)
    }
}

#[async_trait]
impl Controller for RootCaPublisher {
    fn name(&self) -> &str {
        "root-ca-certificate-publisher-controller"
    }

    fn identity(&self) -> &str {
        "root-ca-cert-publisher"
    }

    fn interests(&self) -> Interests {
        Interests::new()
            .for_each(NAMESPACES)
            .watches(published(), |_, notice| {
                vec![ObjectKey::new("", notice.object().namespace())]
            })
    }

    async fn reconcile(&self, ctx: &Context, key: &ObjectKey) -> Result<Action, ReconcileError> {
        let Some(namespace) = ctx
            .store(&NAMESPACES)
            .get(key)
            .filter(|namespace| !namespace.is_terminating())
        else {
            return Ok(Action::Done);
        };
        let known = ctx
            .informer(published())
            .indexer()
            .get(&ObjectKey::new(namespace.name(), CONFIG_MAP));
        let maps = ctx
            .client()
            .resource(&CONFIG_MAPS)
            .namespace(namespace.name());
        let data = json!({KEY: self.pem});
        let written = match known {
            None => {
                let metadata = json!({"name": CONFIG_MAP, "annotations": {"kubernetes.io/description": DESCRIPTION}});
                maps.create(&json!({"metadata": metadata, "data": data}))
                    .await
            }
            Some(known) => {
                let mut map = (*known.value()?).clone();
                if map["data"] == data {
                    return Ok(Action::Done);
                }
                map["data"] = data;
                maps.update(&map).await
            }
        };
        match written {
            Ok(_) => Ok(Action::Done),
            Err(status) if status.is_already_exists() || common::namespace_is_going(&status) => {
                Ok(Action::Done)
            }
            Err(status) => Err(status.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testing::run;

    #[test]
    fn it_is_published_and_kept() {
        run(
            vec![Arc::new(RootCaPublisher::new("PEM"))],
            |world| async move {
                world
                    .client()
                    .resource(&NAMESPACES)
                    .create(&json!({"metadata": {"name": "default"}}))
                    .await
                    .unwrap();
                world
                    .until("it is there", |world| {
                        world.get(&CONFIG_MAPS, CONFIG_MAP).is_some()
                    })
                    .await;
                world
                    .patch(
                        &CONFIG_MAPS,
                        CONFIG_MAP,
                        json!({"data": {KEY: "forged", "more": "x"}}),
                    )
                    .await;
                world
                    .until("it is as before", |world| {
                        world.get(&CONFIG_MAPS, CONFIG_MAP).unwrap()["data"] == json!({KEY: "PEM"})
                    })
                    .await;
                world.stop().await;
            },
        );
    }
}
