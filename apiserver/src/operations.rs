//! One door for all requests: who came over HTTP and who calls in process are authorised here, and sent on to the registry.

use orlop_api::resources::Verb;
use orlop_core::auth::{Attributes, Decision, Scope};
use orlop_core::client::{Operation, Patch, WriteOptions};
use orlop_core::field::{FieldError, Path};
use orlop_core::object::Object;
use orlop_core::resource::GroupVersionKind;
use orlop_core::selector::field;
use orlop_core::status::Status;
use serde_json::Value;

use crate::Server;
use crate::authorization::forbidden;
use crate::connect::is_connection;
use crate::registry::{At, Context, ListPage, Registry, RegistryWatch, meta, track_unstored};
use crate::reviews;

/// The body of `serviceaccounts/token`.
const TOKEN_REQUEST: GroupVersionKind =
    GroupVersionKind::new("authentication.k8s.io", "v1", "TokenRequest");

/// What came of a request.
pub(crate) enum Outcome {
    /// An object of the addressed resource, in its stored form.
    Object {
        /// It.
        object: Object,
        /// Whether it was made just now.
        created: bool,
    },
    /// A document that is not kept: a review, a scale, a token.
    Document {
        /// It.
        document: Value,
        /// Whether the answer is "created".
        created: bool,
    },
    /// A page of a collection, in stored form.
    List(ListPage),
    /// A watch, in stored form.
    Watch(Box<RegistryWatch>),
    /// No object to show.
    Status(Box<Status>),
}

/// The verb of an operation, for authorisation.
pub(crate) fn verb(operation: &Operation) -> &'static str {
    match operation {
        Operation::Get(_) => "get",
        Operation::List(_) => "list",
        Operation::Watch(_) => "watch",
        Operation::Create(..) => "create",
        Operation::Update(..) => "update",
        Operation::Patch(..) => "patch",
        Operation::Delete(_) => "delete",
        Operation::DeleteCollection(..) => "deletecollection",
        _ => "get",
    }
}

fn resource_verb(operation: &Operation) -> Verb {
    match operation {
        Operation::List(_) => Verb::List,
        Operation::Watch(_) => Verb::Watch,
        Operation::Create(..) => Verb::Create,
        Operation::Update(..) => Verb::Update,
        Operation::Patch(..) => Verb::Patch,
        Operation::Delete(_) => Verb::Delete,
        Operation::DeleteCollection(..) => Verb::DeleteCollection,
        _ => Verb::Get,
    }
}

/// The object that a selector of a collection names, if it names one: who may see that object may ask for it so.
pub(crate) fn selected_name(field_selector: &str) -> String {
    let selector = field::Selector::parse(field_selector).ok();
    selector
        .as_ref()
        .and_then(|selector| selector.exact("metadata.name"))
        .unwrap_or_default()
        .to_owned()
}

fn field_selector(operation: &Operation) -> String {
    match operation {
        Operation::List(options) | Operation::DeleteCollection(_, options) => {
            options.field_selector.clone()
        }
        Operation::Watch(options) => options.field_selector.clone(),
        _ => String::new(),
    }
}

impl Server {
    /// Asks the authorizer; the refusal is what the client sees.
    pub(crate) async fn authorize(&self, attributes: &Attributes) -> Result<(), Status> {
        match self.authorizer.authorize(attributes).await {
            Decision::Allow(_) => Ok(()),
            Decision::Deny(reason) | Decision::NoOpinion(reason) => {
                Err(forbidden(attributes, &reason))
            }
        }
    }

    /// Whether the user may do this operation here.
    pub(crate) async fn authorize_operation(
        &self,
        cx: &Context,
        at: &At,
        operation: &Operation,
    ) -> Result<(), Status> {
        self.authorize_verb(cx, at, verb(operation), field_selector(operation))
            .await
    }

    async fn authorize_verb(
        &self,
        cx: &Context,
        at: &At,
        verb: &str,
        field_selector: String,
    ) -> Result<(), Status> {
        let resource = &at.info.resource;
        let attributes = Attributes {
            user: cx.user.clone(),
            verb: verb.to_owned(),
            scope: Scope::Resource {
                group: resource.group.to_string(),
                version: resource.version.to_string(),
                resource: resource.plural.to_string(),
                subresource: at.subresource.clone(),
                namespace: at.namespace.clone(),
                name: if at.name.is_empty() {
                    selected_name(&field_selector)
                } else {
                    at.name.clone()
                },
            },
            field_selector,
        };
        self.authorize(&attributes).await
    }

    /// Does what an authorised request asks for.
    pub(crate) async fn perform(
        &self,
        cx: &mut Context,
        at: &At,
        operation: Operation,
    ) -> Result<Outcome, Status> {
        self.check_verb(at, resource_verb(&operation))?;
        check_options(&operation)?;
        if let Some(sub) = at.sub()
            && let Some(outcome) = self.perform_subresource(cx, at, sub, &operation).await?
        {
            return Ok(outcome);
        }
        if !at.info.is_stored() {
            return self.perform_unstored(cx, at, operation).await;
        }
        let registry = &self.registry;
        match operation {
            Operation::Get(freshness) => {
                let object = registry.get(at, freshness).await?;
                Ok(Outcome::Object {
                    object,
                    created: false,
                })
            }
            Operation::List(options) => registry.list(at, &options).await.map(Outcome::List),
            Operation::Watch(options) => registry
                .watch(at, &options)
                .await
                .map(Box::new)
                .map(Outcome::Watch),
            Operation::Create(body, options) => {
                let object = registry.create(cx, at, body, &options).await?;
                Ok(Outcome::Object {
                    object,
                    created: true,
                })
            }
            Operation::Update(body, options) => {
                let written = registry.update(cx, at, body, &options).await?;
                Ok(Outcome::Object {
                    object: written.object,
                    created: written.created,
                })
            }
            Operation::Patch(patch, options) => {
                if matches!(patch, Patch::Apply(_)) && at.subresource.is_empty() {
                    self.authorize_apply(cx, at).await?;
                }
                let written = registry.patch(cx, at, &patch, &options).await?;
                Ok(Outcome::Object {
                    object: written.object,
                    created: written.created,
                })
            }
            Operation::Delete(options) => match registry.delete(cx, at, &options).await?.answer(at)
            {
                Ok(object) => Ok(Outcome::Object {
                    object,
                    created: false,
                }),
                Err(status) => Ok(Outcome::Status(status)),
            },
            Operation::DeleteCollection(options, which) => registry
                .delete_collection(cx, at, &options, &which)
                .await
                .map(Outcome::List),
            _ => Err(Status::method_not_allowed()),
        }
    }

    /// Applying what is not there makes it, which is another permission.
    async fn authorize_apply(&self, cx: &Context, at: &At) -> Result<(), Status> {
        if self
            .registry
            .current(at.info, &at.namespace, &at.name)
            .await?
            .is_some()
        {
            return Ok(());
        }
        self.authorize_verb(cx, at, "create", String::new()).await
    }

    /// Refuses what the resource does not offer.
    pub(crate) fn check_verb(&self, at: &At, verb: Verb) -> Result<(), Status> {
        let allowed = match at.sub() {
            Some(sub) => at
                .info
                .subresource(sub)
                .is_some_and(|sub| sub.verbs.contains(&verb)),
            None => {
                let collection = matches!(
                    verb,
                    Verb::List | Verb::Watch | Verb::Create | Verb::DeleteCollection
                );
                let placed = !at.info.resource.namespaced
                    || !at.namespace.is_empty()
                    || matches!(verb, Verb::List | Verb::Watch);
                let named = collection == at.name.is_empty() || verb == Verb::Watch;
                at.info.allows(verb) && placed && named
            }
        };
        if allowed {
            Ok(())
        } else {
            Err(Status::method_not_allowed())
        }
    }

    /// Subresources that are more than a part of the object.
    async fn perform_subresource(
        &self,
        cx: &mut Context,
        at: &At,
        sub: &str,
        operation: &Operation,
    ) -> Result<Option<Outcome>, Status> {
        let registry = &self.registry;
        let document = |object: Object, created: bool| {
            let document = object.value().map_err(Status::internal)?;
            Ok(Some(Outcome::Document {
                document: (*document).clone(),
                created,
            }))
        };
        let status = |status: Status| Ok(Some(Outcome::Status(Box::new(status))));
        match (at.info.resource.plural.as_ref(), sub, operation) {
            (_, "scale", Operation::Get(_)) => document(registry.get_scale(at).await?, false),
            (_, "scale", Operation::Update(body, options)) => document(
                registry.update_scale(cx, at, body.clone(), options).await?,
                false,
            ),
            (_, "scale", Operation::Patch(patch, options)) => {
                document(registry.patch_scale(cx, at, patch, options).await?, false)
            }
            ("pods", "binding", Operation::Create(body, options)) => {
                status(registry.bind(cx, at, body.clone(), options).await?)
            }
            ("pods", "eviction", Operation::Create(body, options)) => {
                status(registry.evict(cx, at, body.clone(), options).await?)
            }
            ("serviceaccounts", "token", Operation::Create(body, options)) => {
                let mut body =
                    Registry::decode(cx, &TOKEN_REQUEST, body.clone(), options.field_validation)?;
                self.track(cx, &TOKEN_REQUEST, sub, &mut body, options);
                let Some(issuer) = &registry.tokens else {
                    return Err(Status::not_found(&at.info.resource, &at.name));
                };
                let body = registry.admit_posted(cx, at, body, options.dry_run).await?;
                let issued = issuer.issue(&at.namespace, &at.name, body).await?;
                issued
                    .warnings
                    .into_iter()
                    .for_each(|warning| cx.warn(warning));
                Ok(Some(Outcome::Document {
                    document: issued.body,
                    created: true,
                }))
            }
            // There is nothing to give back but a stream of bytes, which is for clients that speak HTTP.
            (_, sub, _) if is_connection(sub) => Err(Status::method_not_allowed()),
            _ => Ok(None),
        }
    }

    /// Resources that are answered, not kept.
    async fn perform_unstored(
        &self,
        cx: &mut Context,
        at: &At,
        operation: Operation,
    ) -> Result<Outcome, Status> {
        let resource = &at.info.resource;
        match (resource.group.as_ref(), resource.plural.as_ref(), operation) {
            ("", "bindings", Operation::Create(body, options)) => {
                let pods = orlop_api::resources::find("", "v1", "pods")
                    .ok_or_else(Status::method_not_allowed)?;
                let name = body
                    .pointer("/metadata/name")
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned();
                let at = At {
                    info: pods,
                    name,
                    subresource: "binding".to_owned(),
                    namespace: at.namespace.clone(),
                };
                let status = self.registry.bind(cx, &at, body, &options).await?;
                Ok(Outcome::Status(Box::new(status)))
            }
            ("", "componentstatuses", Operation::List(_)) => {
                let page = ListPage {
                    items: vec![self.component_status().await?],
                    ..ListPage::default()
                };
                Ok(Outcome::List(page))
            }
            ("", "componentstatuses", Operation::Get(_)) => {
                let object = self.component_status().await?;
                if object.name() == at.name {
                    Ok(Outcome::Object {
                        object,
                        created: false,
                    })
                } else {
                    Err(Status::not_found(resource, &at.name))
                }
            }
            (_, _, Operation::Create(body, options)) => {
                let mut body =
                    Registry::decode(cx, &resource.gvk(), body, options.field_validation)?;
                self.track(cx, &resource.gvk(), "", &mut body, &options);
                let document = self.review(cx, at, body, &options).await?;
                Ok(Outcome::Document {
                    document,
                    created: true,
                })
            }
            _ => Err(Status::method_not_allowed()),
        }
    }

    /// Notes who sent a document that is not kept, as in one that is.
    fn track(
        &self,
        cx: &Context,
        kind: &GroupVersionKind,
        sub: &str,
        body: &mut Value,
        options: &WriteOptions,
    ) {
        let now = meta::time(self.env.wall());
        track_unstored(kind, sub, body, cx.manager(&options.field_manager), &now);
    }

    /// Answers a review.
    async fn review(
        &self,
        cx: &Context,
        at: &At,
        body: Value,
        _: &WriteOptions,
    ) -> Result<Value, Status> {
        let (user, authorizer) = (&cx.user, self.authorizer.as_ref());
        match at.info.resource.kind.as_ref() {
            "SelfSubjectReview" => reviews::self_subject_review(user, &self.env),
            "TokenReview" => match &self.authentication {
                Some(authentication) => reviews::token_review(body, authentication).await,
                None => Err(Status::method_not_allowed()),
            },
            "SubjectAccessReview" => reviews::subject_access_review(body, authorizer).await,
            "LocalSubjectAccessReview" => {
                reviews::local_subject_access_review(body, &at.namespace, authorizer).await
            }
            "SelfSubjectAccessReview" => {
                reviews::self_subject_access_review(body, user, authorizer).await
            }
            "SelfSubjectRulesReview" => {
                reviews::self_subject_rules_review(&body, user, authorizer).await
            }
            _ => Err(Status::method_not_allowed()),
        }
    }

    async fn component_status(&self) -> Result<Object, Status> {
        let (status, message, error) = match self.registry.store.healthy().await {
            Ok(()) => ("True", "ok".to_owned(), None),
            Err(error) => ("False", String::new(), Some(error.to_string())),
        };
        let mut condition =
            serde_json::json!({"type": "Healthy", "status": status, "message": message});
        if let Some(error) = error {
            condition["error"] = error.into();
        }
        Object::from_value(serde_json::json!({
            "apiVersion": "v1", "kind": "ComponentStatus", "metadata": {"name": "etcd-0"}, "conditions": [condition],
        }))
        .map_err(Status::internal)
    }
}

/// Checks options as Kubernetes checks the object that they are there.
fn check_options(operation: &Operation) -> Result<(), Status> {
    let (kind, options, patch): (&str, &WriteOptions, Option<&Patch>) = match operation {
        Operation::Create(_, options) => ("CreateOptions", options, None),
        Operation::Update(_, options) => ("UpdateOptions", options, None),
        Operation::Patch(patch, options) => ("PatchOptions", options, Some(patch)),
        _ => return Ok(()),
    };
    let path = Path::new("fieldManager");
    let mut errors = Vec::new();
    match patch {
        Some(Patch::Apply(_)) if options.field_manager.is_empty() => {
            errors.push(FieldError::required(&path, "is required for apply patch"));
        }
        Some(Patch::Apply(_)) | None => {}
        Some(_) if options.force => {
            errors.push(FieldError::forbidden(
                &Path::new("force"),
                "may not be specified for non-apply patch",
            ));
        }
        Some(_) => {}
    }
    if options.field_manager.len() > 128 {
        errors.push(FieldError::too_long(&path, 128));
    }
    if let Some(bad) = options.field_manager.chars().position(char::is_control) {
        let why = format!("should not contain non-printable characters, character {bad} is one");
        errors.push(FieldError::invalid(
            &path,
            options.field_manager.clone(),
            why,
        ));
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(Status::invalid("meta.k8s.io", kind, "", &errors))
    }
}
