//! Deletes tokens that have expired.

use std::time::Duration;

use async_trait::async_trait;
use orlop_core::client::DeleteOptions;
use orlop_core::controller::{Action, Context, Controller, Interests, ReconcileError};
use orlop_core::object::ObjectKey;

use super::{Expiration, SECRETS, expiration, tokens};

/// Deletes bootstrap tokens when they expire.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenCleaner;

impl TokenCleaner {
    /// The controller.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

#[async_trait]
impl Controller for TokenCleaner {
    fn name(&self) -> &str {
        "token-cleaner-controller"
    }

    fn identity(&self) -> &str {
        "token-cleaner"
    }

    fn interests(&self) -> Interests {
        Interests::new().watches(tokens(), |_, notice| vec![notice.object().key()])
    }

    async fn reconcile(&self, ctx: &Context, key: &ObjectKey) -> Result<Action, ReconcileError> {
        let Some(object) = ctx.informer(tokens()).indexer().get(key) else {
            return Ok(Action::Done);
        };
        let now = ctx.env().wall();
        match expiration(&*object.value()?) {
            Expiration::Never => return Ok(Action::Done),
            Expiration::At(end) if end > now => {
                let wait = end.duration_since(now).unsigned_abs();
                return Ok(Action::RequeueAfter(wait.max(Duration::from_millis(1))));
            }
            Expiration::At(_) | Expiration::Unreadable => {}
        }
        let options = DeleteOptions {
            uid: Some(object.uid().to_owned()),
            revision: Some(object.revision()),
            ..DeleteOptions::default()
        };
        let secrets = ctx.client().resource(&SECRETS).namespace(&key.namespace);
        match secrets.delete(&key.name, options).await {
            Err(status) if !status.is_not_found() => Err(status.into()),
            _ => Ok(Action::Done),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;

    use super::*;
    use crate::testing::run;

    #[test]
    fn tokens_go_when_their_time_is_over() {
        run(vec![Arc::new(TokenCleaner::new())], |world| async move {
            let soon = world.env.wall() + Duration::from_secs(30);
            let token = |name: &str, expiration: Option<String>| {
                let mut data = json!({});
                if let Some(expiration) = expiration {
                    data["expiration"] = STANDARD.encode(expiration).into();
                }
                json!({"metadata": {"name": name, "namespace": "kube-system"}, "type": super::super::TYPE, "data": data})
            };
            let secrets = world.client();
            let secrets = secrets.resource(&SECRETS).namespace("kube-system");
            for token in [
                token("a", Some(soon.to_string())),
                token("b", None),
                token("c", Some("soon".to_owned())),
                token("d", Some("2001-01-01T00:00:00Z".to_owned())),
            ] {
                secrets.create(&token).await.unwrap();
            }
            let left = |world: &crate::testing::World| -> Vec<String> {
                let all = world.api.objects(&SECRETS);
                all.iter().map(|object| object.name().to_owned()).collect()
            };
            world
                .until("the expired are gone", |world| left(world) == ["a", "b"])
                .await;
            world.sleep(31).await;
            assert_eq!(left(&world), ["b"]);
            world.stop().await;
        });
    }
}
