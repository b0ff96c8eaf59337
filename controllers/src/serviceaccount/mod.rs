//! The `default` ServiceAccount that every namespace has.

use async_trait::async_trait;
use orlop_core::controller::{Action, Context, Controller, Interests, ReconcileError};
use orlop_core::informer::Notice;
use orlop_core::object::ObjectKey;
use serde_json::json;

use crate::common;
use crate::common::resources::{NAMESPACES, SERVICE_ACCOUNTS};

const DEFAULT: &str = "default";

/// Makes the `default` ServiceAccount in every namespace, and again when somebody deletes it.
#[derive(Debug, Default)]
pub struct ServiceAccountController(());

impl ServiceAccountController {
    /// The controller.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl Controller for ServiceAccountController {
    fn name(&self) -> &str {
        "serviceaccount-controller"
    }

    fn identity(&self) -> &str {
        "service-account-controller"
    }

    fn workers(&self) -> usize {
        1
    }

    fn interests(&self) -> Interests {
        Interests::new()
            .for_each(NAMESPACES)
            .watches(SERVICE_ACCOUNTS, |_, notice| match notice {
                Notice::Deleted { object, .. } if object.name() == DEFAULT => {
                    vec![ObjectKey::new("", object.namespace())]
                }
                _ => Vec::new(),
            })
    }

    async fn reconcile(&self, ctx: &Context, key: &ObjectKey) -> Result<Action, ReconcileError> {
        let Some(namespace) = ctx.store(&NAMESPACES).get(key) else {
            return Ok(Action::Done);
        };
        if namespace.is_terminating()
            || ctx
                .store(&SERVICE_ACCOUNTS)
                .get(&ObjectKey::new(namespace.name(), DEFAULT))
                .is_some()
        {
            return Ok(Action::Done);
        }
        let accounts = ctx
            .client()
            .resource(&SERVICE_ACCOUNTS)
            .namespace(namespace.name());
        match accounts
            .create(&json!({"metadata": {"name": DEFAULT}}))
            .await
        {
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

    use orlop_core::client::DeleteOptions;

    use super::*;
    use crate::testing::run;

    #[test]
    fn every_namespace_has_one() {
        run(
            vec![Arc::new(ServiceAccountController::new())],
            |world| async move {
                let client = world.client();
                client
                    .resource(&NAMESPACES)
                    .create(&json!({"metadata": {"name": "default"}}))
                    .await
                    .unwrap();
                world
                    .until("it is there", |world| {
                        world.get(&SERVICE_ACCOUNTS, "default").is_some()
                    })
                    .await;
                let accounts = client.resource(&SERVICE_ACCOUNTS).namespace("default");
                accounts
                    .delete("default", DeleteOptions::default())
                    .await
                    .unwrap();
                world
                    .until("it is there again", |world| {
                        world.get(&SERVICE_ACCOUNTS, "default").is_some()
                    })
                    .await;
                world.stop().await;
            },
        );
    }
}
