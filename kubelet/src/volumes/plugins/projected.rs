//! `projected`: files from several sources in one volume.

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use k8s_openapi::api::core::v1::{
    PodSpec, ServiceAccountTokenProjection, Volume, VolumeProjection,
};

use super::super::atomic_writer::{Payload, Projection};
use super::super::error::VolumeError;
use super::super::plugin::{VolumePlugin, VolumeRequest};
use super::contents::{Contents, Keys, default_mode};
use crate::parts::ReadyVolume;
use crate::tokens::TokenRequest;

/// How long a token holds where nobody says; what the API puts into `expirationSeconds`.
const TOKEN_LIFETIME: i64 = 3600;

/// `projected`: ConfigMaps, Secrets, the downward API and tokens of the pod's service account, as files in memory. A later source
/// takes the place of an earlier one's file of the same path.
#[derive(Clone, Debug)]
pub struct Projected(pub Contents);

#[async_trait]
impl VolumePlugin for Projected {
    fn name(&self) -> &str {
        "kubernetes.io/projected"
    }

    fn handles(&self, volume: &Volume) -> bool {
        volume.projected.is_some()
    }

    async fn set_up(&self, request: &VolumeRequest<'_>) -> Result<ReadyVolume, VolumeError> {
        let Some(source) = &request.volume.projected else {
            let why = "the volume is no projected one".to_owned();
            return Err(VolumeError::Refused(why));
        };
        let mode = default_mode(source.default_mode);
        let parts = source.sources.iter().flatten();
        let parts = join_all(parts.map(|part| self.part(request, part, mode))).await;
        let mut payload = Payload::new();
        let mut errors = Vec::new();
        for part in parts {
            match part {
                Ok(part) => payload.extend(part),
                Err(error) => errors.push(error),
            }
        }
        let found = VolumeError::of_all(errors).map(|()| payload);
        self.0.show(request, found, true).await
    }
}

impl Projected {
    async fn part(
        &self,
        request: &VolumeRequest<'_>,
        source: &VolumeProjection,
        default_mode: u32,
    ) -> Result<Payload, VolumeError> {
        let namespace = request.namespace();
        if let Some(secret) = &source.secret {
            let keys = Keys {
                namespace,
                name: &secret.name,
                items: secret.items.as_deref(),
                optional: secret.optional == Some(true),
                default_mode,
            };
            self.0.secret(&keys).await
        } else if let Some(map) = &source.config_map {
            let keys = Keys {
                namespace,
                name: &map.name,
                items: map.items.as_deref(),
                optional: map.optional == Some(true),
                default_mode,
            };
            self.0.config_map(&keys).await
        } else if let Some(downward) = &source.downward_api {
            let items = downward.items.as_deref().unwrap_or_default();
            self.0.downward(request.pod, items, default_mode)
        } else if let Some(token) = &source.service_account_token {
            self.token(request, token, default_mode).await
        } else if let Some(bundle) = &source.cluster_trust_bundle {
            if bundle.optional != Some(true) {
                let why = "ClusterTrustBundle projection is not supported by this node".to_owned();
                return Err(VolumeError::Refused(why));
            }
            let file = Projection {
                data: Bytes::new(),
                mode: default_mode,
                user: None,
            };
            Ok([(bundle.path.clone(), file)].into())
        } else if source.pod_certificate.is_some() {
            let why = "PodCertificate projection is not supported by this node".to_owned();
            Err(VolumeError::Refused(why))
        } else {
            Ok(Payload::new())
        }
    }

    async fn token(
        &self,
        request: &VolumeRequest<'_>,
        source: &ServiceAccountTokenProjection,
        default_mode: u32,
    ) -> Result<Payload, VolumeError> {
        let pod = request.pod;
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let spec = pod.spec.as_ref();
        let account = spec.and_then(|spec| spec.service_account_name.clone());
        let wanted = TokenRequest {
            namespace: request.namespace().to_owned(),
            service_account: account
                .filter(|account| !account.is_empty())
                .unwrap_or_else(|| "default".to_owned()),
            audience: text(&source.audience),
            expiration_seconds: source.expiration_seconds.unwrap_or(TOKEN_LIFETIME),
            pod_name: text(&pod.metadata.name),
            pod_uid: text(&pod.metadata.uid),
        };
        let token = self.0.tokens.token(&wanted).await?;
        let user = spec.and_then(only_user);
        // Where it is known who will read it, nobody else can.
        let private = user.is_some() || request.fs_group().is_some();
        let file = Projection {
            data: Bytes::copy_from_slice(token.reveal().as_bytes()),
            mode: if private { 0o600 } else { default_mode },
            user,
        };
        Ok([(source.path.clone(), file)].into())
    }
}

/// The user that all containers of a pod run as, if it is one and is said.
fn only_user(spec: &PodSpec) -> Option<u32> {
    let whole = spec.security_context.as_ref();
    let whole = whole.and_then(|context| context.run_as_user);
    let containers = spec.init_containers.iter().flatten();
    let containers = containers
        .chain(&spec.containers)
        .map(|container| container.security_context.as_ref());
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    let mut users = containers
        .chain(ephemeral.map(|container| container.security_context.as_ref()))
        .map(|context| context.and_then(|context| context.run_as_user).or(whole));
    let first = users.next()??;
    users
        .all(|user| user == Some(first))
        .then(|| first.try_into().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_user_of_a_token_is_that_of_all_containers() {
        let user = |user: i64| json!({"name": "c", "securityContext": {"runAsUser": user}});
        let none = json!({"name": "c"});
        for (spec, expected) in [
            (json!({"containers": [user(1)]}), Some(1)),
            (json!({"containers": [user(1), user(1)]}), Some(1)),
            (json!({"containers": [user(1), user(2)]}), None),
            (json!({"containers": [user(1), none]}), None),
            (json!({"containers": [none]}), None),
            (
                json!({"containers": [user(1)], "initContainers": [user(2)]}),
                None,
            ),
            (
                json!({"containers": [user(1)], "ephemeralContainers": [none]}),
                None,
            ),
            (
                json!({"containers": [none, none], "securityContext": {"runAsUser": 7}}),
                Some(7),
            ),
            (
                json!({"containers": [user(1), none], "securityContext": {"runAsUser": 7}}),
                None,
            ),
        ] {
            let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
            assert_eq!(only_user(&pod.spec.unwrap()), expected, "{spec}");
        }
    }
}
