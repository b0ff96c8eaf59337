//! Which resources the API has, as it tells itself.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::try_join_all;
use http_body_util::{BodyExt, Limited};
use orlop::controllers::manager::Catalog;
use orlop::core::resource::Resource;
use orlop::core::status::Status;
use orlop::wire::remote::RemoteClient;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The longest answer that is read.
const MAX_ANSWER: usize = 16 << 20;

/// The API's discovery documents.
pub(super) struct Discovery(pub(super) Arc<RemoteClient>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Groups {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    preferred_version: Version,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    group_version: String,
}

#[derive(Deserialize)]
struct Resources {
    resources: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    kind: String,
    namespaced: bool,
    verbs: Vec<String>,
}

impl Entry {
    /// Whether objects of it can be listed, watched and deleted.
    fn is_whole(&self) -> bool {
        !self.name.contains('/')
            && ["list", "watch", "delete"]
                .iter()
                .all(|verb| self.verbs.iter().any(|known| known == verb))
    }

    fn resource(self, group_version: &str) -> Resource {
        let (group, version) = orlop::core::resource::split_api_version(group_version);
        let mut resource = Resource::namespaced("", "", "", "");
        resource.group = group.to_owned().into();
        resource.version = version.to_owned().into();
        resource.plural = self.name.into();
        resource.kind = self.kind.into();
        resource.namespaced = self.namespaced;
        resource
    }
}

impl Discovery {
    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Status> {
        let request = http::Request::get(path)
            .header("accept", "application/json")
            .body(Bytes::new())
            .map_err(Status::internal)?;
        let response = self.0.send(request).await.map_err(Status::internal)?;
        let status = response.status();
        if !status.is_success() {
            let code = status.as_u16();
            return Err(Status::internal(format!("discovery at {path}: {code}")));
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(Status::internal)?;
        serde_json::from_slice(&body.to_bytes()).map_err(Status::internal)
    }

    async fn of(&self, path: &str, group_version: &str) -> Result<Vec<Resource>, Status> {
        let found: Resources = self.get(path).await?;
        let whole = found.resources.into_iter().filter(Entry::is_whole);
        Ok(whole.map(|entry| entry.resource(group_version)).collect())
    }
}

#[async_trait]
impl Catalog for Discovery {
    async fn resources(&self) -> Result<Vec<Resource>, Status> {
        let groups: Groups = self.get("/apis").await?;
        let mut wanted = vec![("/api/v1".to_owned(), "v1".to_owned())];
        for group in groups.groups {
            let version = group.preferred_version.group_version;
            wanted.push((format!("/apis/{version}"), version));
        }
        let all = wanted.iter().map(|(path, version)| self.of(path, version));
        Ok(try_join_all(all).await?.concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_collected_is_listed_watched_and_deleted() {
        let text = r#"{"resources": [
            {"name": "pods", "kind": "Pod", "namespaced": true, "verbs": ["delete", "list", "watch", "get"]},
            {"name": "pods/status", "kind": "Pod", "namespaced": true, "verbs": ["delete", "list", "watch"]},
            {"name": "bindings", "kind": "Binding", "namespaced": true, "verbs": ["create"]}
        ]}"#;
        let resources: Resources = serde_json::from_str(text).unwrap();
        let whole: Vec<Resource> = resources
            .resources
            .into_iter()
            .filter(Entry::is_whole)
            .map(|entry| entry.resource("v1"))
            .collect();
        assert_eq!(whole, [Resource::namespaced("", "v1", "pods", "Pod")]);
    }
}
