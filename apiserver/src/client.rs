//! The in-process client: a call into the server, with an identity, past the socket and the bytes but past nothing else.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use orlop_api::resources::{self, ResourceInfo};
use orlop_core::auth::UserInfo;
use orlop_core::client::{Answer, Client, ObjectList, Request, WatchEvent};
use orlop_core::object::Object;
use orlop_core::status::{Status, reason};

use crate::Server;
use crate::operations::Outcome;
use crate::registry::{At, Context, from_storage};

/// A [`Client`] that calls the API server it was made by.
#[derive(Clone)]
pub struct LocalClient {
    server: Arc<Server>,
    user: UserInfo,
    /// What it calls itself: who owns the fields that it writes.
    name: Arc<str>,
}

impl std::fmt::Debug for LocalClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalClient")
            .field("user", &self.user.name)
            .finish_non_exhaustive()
    }
}

impl LocalClient {
    pub(crate) fn new(server: Arc<Server>, user: UserInfo, name: &str) -> Self {
        Self {
            server,
            user,
            name: name.into(),
        }
    }
}

#[async_trait]
impl Client for LocalClient {
    async fn call(&self, request: Request) -> Result<Answer, Status> {
        let target = request.target;
        let found = resources::find(
            &target.resource.group,
            &target.resource.version,
            &target.resource.plural,
        );
        let Some(info) = found else {
            return Err(Status::failure(
                404,
                reason::NOT_FOUND,
                "the server could not find the requested resource",
            ));
        };
        let at = At {
            info,
            namespace: target.namespace.unwrap_or_default(),
            name: target.name.unwrap_or_default(),
            subresource: target.subresource.unwrap_or_default(),
        };
        let mut cx = Context::of(self.user.clone(), &self.name);
        self.server
            .authorize_operation(&cx, &at, &request.operation)
            .await?;
        let outcome = self.server.perform(&mut cx, &at, request.operation).await?;
        for warning in &cx.warnings {
            tracing::debug!(user = %self.user.name, resource = %info.resource.plural, %warning, "the API server warns");
        }
        answer(info, outcome)
    }
}

/// An object as its resource shows it: itself, unless it is stored as another kind.
pub(crate) fn view(info: &ResourceInfo, object: &Object) -> Result<Object, Status> {
    if info.stored_as.is_none() {
        return Ok(object.clone());
    }
    let value = object.value().map_err(Status::internal)?;
    Object::from_value(from_storage(info, (*value).clone())).map_err(Status::internal)
}

/// A change as its resource shows it.
pub(crate) fn view_event(info: &ResourceInfo, event: WatchEvent) -> Result<WatchEvent, Status> {
    if info.stored_as.is_none() {
        return Ok(event);
    }
    Ok(match event {
        WatchEvent::Added(object) => WatchEvent::Added(view(info, &object)?),
        WatchEvent::Modified(object) => WatchEvent::Modified(view(info, &object)?),
        WatchEvent::Deleted(object) => WatchEvent::Deleted(view(info, &object)?),
        bookmark @ WatchEvent::Bookmark { .. } => bookmark,
    })
}

fn answer(info: &'static ResourceInfo, outcome: Outcome) -> Result<Answer, Status> {
    Ok(match outcome {
        Outcome::Object { object, .. } => Answer::Object(view(info, &object)?),
        Outcome::Document { document, .. } => {
            let mut document = document;
            if document.get("metadata").is_none() {
                document["metadata"] = serde_json::json!({});
            }
            Answer::Object(Object::from_value(document).map_err(Status::internal)?)
        }
        Outcome::List(page) => Answer::List(ObjectList {
            items: page
                .items
                .iter()
                .map(|object| view(info, object))
                .collect::<Result<_, _>>()?,
            revision: page.revision,
            continue_token: page.continue_token,
            remaining: page.remaining,
        }),
        Outcome::Watch(watch) => {
            Answer::Watch(Box::pin(watch.map(move |item| view_event(info, item?))))
        }
        Outcome::Status(status) => Answer::Status(status),
    })
}
