//! [`FakeApi`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

use super::patch;
use crate::client::{
    Answer, Client, DeleteOptions, Freshness, ListOptions, ObjectList, ObjectWatch, Operation,
    Propagation, Request, WatchEvent, WatchOptions,
};
use crate::env::Env;
use crate::object::{Object, ObjectKey};
use crate::resource::Resource;
use crate::revision::Revision;
use crate::selector::{field, label};
use crate::status::{Status, StatusCause, StatusDetails, reason};

/// A resource by group and plural: versions are not told apart.
type Kind = (String, String);
type Rule = Arc<dyn Fn(&Request) -> Option<Status> + Send + Sync>;

/// An API in memory; see the [module](super). Clones share it.
///
/// ```
/// use orlop_core::env::SimEnv;
/// use orlop_core::resource::Resource;
/// use orlop_core::testing::FakeApi;
/// use serde_json::json;
/// const MAPS: Resource = Resource::namespaced("", "v1", "configmaps", "ConfigMap");
/// let sim = SimEnv::new(1);
/// let api = FakeApi::new(sim.env());
/// sim.block_on(async move {
///     let maps = api.client();
///     let made = maps.resource(&MAPS).namespace("a").create(&json!({"metadata": {"generateName": "m-"}})).await.unwrap();
///     assert!(made.name().starts_with("m-") && !made.uid().is_empty());
/// });
/// ```
#[derive(Clone)]
pub struct FakeApi {
    inner: Arc<Inner>,
}

struct Inner {
    env: Env,
    state: Mutex<State>,
    /// Tells the watches that something happened.
    changed: Notify,
}

#[derive(Default)]
struct State {
    revision: u64,
    resources: BTreeMap<Kind, Resource>,
    objects: BTreeMap<Kind, BTreeMap<ObjectKey, Object>>,
    log: Vec<Entry>,
    /// The first revision that a watch can still begin after.
    oldest: u64,
    /// How often all watches were cut.
    cuts: u64,
    rules: Vec<(usize, Rule)>,
    calls: BTreeMap<(&'static str, Kind), usize>,
    writes: Vec<String>,
}

#[derive(Clone)]
struct Entry {
    kind: Kind,
    /// How the object was; `None` if it was not there.
    old: Option<Object>,
    /// How it is, or for a deletion how it last was, at the deletion's revision.
    new: Object,
    deleted: bool,
}

impl fmt::Debug for FakeApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.inner.state.lock();
        write!(
            f,
            "FakeApi(revision {}, {} kinds)",
            state.revision,
            state.objects.len()
        )
    }
}

fn kind_of(resource: &Resource) -> Kind {
    (resource.group.to_string(), resource.plural.to_string())
}

fn verb(operation: &Operation) -> &'static str {
    match operation {
        Operation::Get(_) => "get",
        Operation::List(_) => "list",
        Operation::Watch(_) => "watch",
        Operation::Create(..) => "create",
        Operation::Update(..) => "update",
        Operation::Patch(..) => "patch",
        Operation::Delete(_) => "delete",
        Operation::DeleteCollection(..) => "deletecollection",
    }
}

impl FakeApi {
    /// An API without objects.
    #[must_use]
    pub fn new(env: Env) -> Self {
        let state = State {
            revision: 1,
            ..State::default()
        };
        Self {
            inner: Arc::new(Inner {
                env,
                state: Mutex::new(state),
                changed: Notify::new(),
            }),
        }
    }

    /// A client of it.
    #[must_use]
    pub fn client(&self) -> Arc<dyn Client> {
        Arc::new(self.clone())
    }

    /// All objects of a resource, as they are.
    #[must_use]
    pub fn objects(&self, resource: &Resource) -> Vec<Object> {
        let state = self.inner.state.lock();
        state
            .objects
            .get(&kind_of(resource))
            .into_iter()
            .flat_map(|objects| objects.values().cloned())
            .collect()
    }

    /// One object, as it is.
    #[must_use]
    pub fn object(&self, resource: &Resource, namespace: &str, name: &str) -> Option<Object> {
        let state = self.inner.state.lock();
        state
            .objects
            .get(&kind_of(resource))
            .and_then(|objects| objects.get(&ObjectKey::new(namespace, name)))
            .cloned()
    }

    /// Every resource that somebody has asked about, with how many objects it has.
    #[must_use]
    pub fn resources(&self) -> Vec<(Resource, usize)> {
        let state = self.inner.state.lock();
        let count = |kind: &Kind| state.objects.get(kind).map_or(0, BTreeMap::len);
        state
            .resources
            .iter()
            .map(|(kind, resource)| (resource.clone(), count(kind)))
            .collect()
    }

    /// How often a verb (`get`, `list`, …) was asked for on a resource.
    #[must_use]
    pub fn calls(&self, verb: &'static str, resource: &Resource) -> usize {
        self.inner
            .state
            .lock()
            .calls
            .get(&(verb, kind_of(resource)))
            .copied()
            .unwrap_or(0)
    }

    /// Every write that took effect, as `verb resource[/subresource] namespace/name`, in order.
    #[must_use]
    pub fn writes(&self) -> Vec<String> {
        self.inner.state.lock().writes.clone()
    }

    /// The newest revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        Revision(self.inner.state.lock().revision)
    }

    /// Refuses the next `times` requests for which `rule` gives a status. Later rules are asked first.
    pub fn refuse(
        &self,
        times: usize,
        rule: impl Fn(&Request) -> Option<Status> + Send + Sync + 'static,
    ) {
        self.inner.state.lock().rules.push((times, Arc::new(rule)));
    }

    /// Ends all watches that are open, as a lost connection would.
    pub fn cut_watches(&self) {
        self.inner.state.lock().cuts += 1;
        self.inner.changed.notify_waiters();
    }

    /// Forgets history: a watch from a revision of the past is answered with `Expired`.
    pub fn compact(&self) {
        let mut state = self.inner.state.lock();
        state.log.clear();
        state.oldest = state.revision;
    }

    fn refusal(&self, request: &Request) -> Option<Status> {
        let mut state = self.inner.state.lock();
        for (times, rule) in state.rules.iter_mut().rev() {
            if *times > 0
                && let Some(status) = rule(request)
            {
                *times -= 1;
                return Some(status);
            }
        }
        None
    }

    fn watch(&self, request: &Request, options: &WatchOptions) -> Result<Answer, Status> {
        let filter = Filter::new(request, &options.label_selector, &options.field_selector)?;
        let state = self.inner.state.lock();
        let mut first = Vec::new();
        let begin = match options
            .from
            .filter(|from| !from.is_zero() && !options.initial_events)
        {
            Some(from) if from.0 < state.oldest => {
                let message = format!("too old resource version: {from} ({})", state.oldest);
                return Err(Status::expired(message));
            }
            Some(from) => from.0,
            None => {
                let objects = state
                    .objects
                    .get(&filter.kind)
                    .into_iter()
                    .flat_map(BTreeMap::values);
                first.extend(
                    objects
                        .filter(|object| filter.takes(object))
                        .cloned()
                        .map(WatchEvent::Added),
                );
                if options.initial_events {
                    let revision = Revision(state.revision);
                    first.push(WatchEvent::Bookmark {
                        revision,
                        initial_events_end: true,
                    });
                }
                state.revision
            }
        };
        let cursor = Cursor {
            inner: self.inner.clone(),
            filter,
            seen: begin,
            cuts: state.cuts,
            first: first.into_iter().collect(),
            ended: false,
        };
        drop(state);
        let stream: ObjectWatch = Box::pin(futures::stream::unfold(cursor, Cursor::next));
        Ok(Answer::Watch(stream))
    }
}

/// Which objects a list or a watch is about.
struct Filter {
    kind: Kind,
    namespace: Option<String>,
    labels: label::Selector,
    fields: field::Selector,
}

impl Filter {
    fn new(request: &Request, labels: &str, fields: &str) -> Result<Self, Status> {
        let bad = |error: crate::selector::SelectorError| Status::bad_request(error.to_string());
        Ok(Self {
            kind: kind_of(&request.target.resource),
            namespace: request.target.namespace.clone(),
            labels: label::Selector::parse(labels).map_err(bad)?,
            fields: field::Selector::parse(fields).map_err(bad)?,
        })
    }

    fn takes(&self, object: &Object) -> bool {
        let Ok(value) = object.value() else {
            return false;
        };
        self.namespace
            .as_deref()
            .is_none_or(|namespace| namespace == object.namespace())
            && self.labels.matches(&object.metadata().labels)
            && self.fields.matches(|path| {
                value
                    .pointer(&format!("/{}", path.replace('.', "/")))
                    .and_then(Value::as_str)
            })
    }
}

struct Cursor {
    inner: Arc<Inner>,
    filter: Filter,
    seen: u64,
    cuts: u64,
    first: std::collections::VecDeque<WatchEvent>,
    ended: bool,
}

impl Cursor {
    async fn next(mut self) -> Option<(Result<WatchEvent, Status>, Self)> {
        let inner = self.inner.clone();
        loop {
            if self.ended {
                return None;
            }
            if let Some(event) = self.first.pop_front() {
                return Some((Ok(event), self));
            }
            // From here on no change is missed. (No `tokio::sync::watch`: it wakes in a random order.)
            let mut changed = std::pin::pin!(inner.changed.notified());
            changed.as_mut().enable();
            {
                let state = self.inner.state.lock();
                if state.cuts != self.cuts {
                    return None;
                }
                if self.seen < state.oldest {
                    let status =
                        Status::expired(format!("too old resource version: {}", self.seen));
                    drop(state);
                    self.ended = true;
                    return Some((Err(status), self));
                }
                let from = state
                    .log
                    .partition_point(|entry| entry.new.revision().0 <= self.seen);
                for entry in &state.log[from..] {
                    self.seen = entry.new.revision().0;
                    if entry.kind == self.filter.kind
                        && let Some(event) = self.filter.event(entry)
                    {
                        self.first.push_back(event);
                    }
                }
            }
            if self.first.is_empty() {
                changed.await;
            }
        }
    }
}

impl Filter {
    fn event(&self, entry: &Entry) -> Option<WatchEvent> {
        let before = entry.old.as_ref().is_some_and(|old| self.takes(old));
        let after = !entry.deleted && self.takes(&entry.new);
        match (before, after) {
            (false, true) => Some(WatchEvent::Added(entry.new.clone())),
            (true, true) => Some(WatchEvent::Modified(entry.new.clone())),
            (true, false) => Some(WatchEvent::Deleted(match &entry.old {
                Some(old) if !entry.deleted => old.with_revision(entry.new.revision()),
                _ => entry.new.clone(),
            })),
            (false, false) => None,
        }
    }
}

#[async_trait]
impl Client for FakeApi {
    async fn call(&self, request: Request) -> Result<Answer, Status> {
        let kind = kind_of(&request.target.resource);
        {
            let mut state = self.inner.state.lock();
            *state
                .calls
                .entry((verb(&request.operation), kind.clone()))
                .or_default() += 1;
            state
                .resources
                .entry(kind)
                .or_insert_with(|| request.target.resource.clone());
        }
        if let Some(status) = self.refusal(&request) {
            return Err(status);
        }
        if let Operation::Watch(options) = &request.operation {
            return self.watch(&request, options);
        }
        let mut state = self.inner.state.lock();
        let before = state.log.len();
        let answer = Transaction {
            env: &self.inner.env,
            state: &mut state,
        }
        .answer(&request);
        let changed = state.log.len() != before;
        drop(state);
        if changed {
            self.inner.changed.notify_waiters();
        }
        answer
    }
}

/// One request at work.
struct Transaction<'a> {
    env: &'a Env,
    state: &'a mut State,
}

impl Transaction<'_> {
    fn answer(&mut self, request: &Request) -> Result<Answer, Status> {
        let target = &request.target;
        let resource = &target.resource;
        if resource.namespaced && target.namespace.is_none() && target.name.is_some() {
            return Err(Status::bad_request(
                "an empty namespace may not be set when a resource name is provided",
            ));
        }
        let key = ObjectKey::new(
            target.namespace.as_deref().unwrap_or(""),
            target.name.as_deref().unwrap_or(""),
        );
        let subresource = target.subresource.as_deref();
        match &request.operation {
            Operation::Get(_) => self.existing(resource, &key).map(Answer::Object),
            Operation::List(options) => self.list(request, options).map(Answer::List),
            Operation::Watch(_) => Err(Status::internal("a watch is not answered here")),
            Operation::Create(body, options) => match subresource {
                None => self
                    .create(resource, &key.namespace, body, options.dry_run)
                    .map(Answer::Object),
                Some("binding") => self.bind(resource, &key, body),
                Some("eviction") => self.delete(resource, &key, &DeleteOptions::default()),
                Some(other) => Err(Status::bad_request(format!("no subresource {other} here"))),
            },
            Operation::Update(body, options) => {
                let old = self.existing(resource, &key)?;
                self.write(
                    resource,
                    &old,
                    body.clone(),
                    subresource,
                    "update",
                    options.dry_run,
                )
                .map(Answer::Object)
            }
            Operation::Patch(patch, options) => {
                let old = self.existing(resource, &key)?;
                let mut body = (*old.value().map_err(Status::internal)?).clone();
                patch::apply(&mut body, patch)?;
                self.write(resource, &old, body, subresource, "patch", options.dry_run)
                    .map(Answer::Object)
            }
            Operation::Delete(options) => self.delete(resource, &key, options),
            Operation::DeleteCollection(options, which) => {
                for object in self.list(request, which)?.items {
                    self.delete(resource, &object.key(), options)?;
                }
                Ok(Answer::Status(Box::new(Status {
                    status: "Success".to_owned(),
                    ..Status::default()
                })))
            }
        }
    }

    fn existing(&self, resource: &Resource, key: &ObjectKey) -> Result<Object, Status> {
        let found = self
            .state
            .objects
            .get(&kind_of(resource))
            .and_then(|objects| objects.get(key));
        found
            .cloned()
            .ok_or_else(|| Status::not_found(resource, &key.name))
    }

    fn list(&self, request: &Request, options: &ListOptions) -> Result<ObjectList, Status> {
        let filter = Filter::new(request, &options.label_selector, &options.field_selector)?;
        if let Freshness::NotOlderThan(revision) = options.freshness
            && revision.0 > self.state.revision
        {
            let cause = StatusCause {
                reason: "ResourceVersionTooLarge".to_owned(),
                message: "Too large resource version".to_owned(),
                ..StatusCause::default()
            };
            let mut status = Status::timeout(
                format!(
                    "Too large resource version: {revision}, current: {}",
                    self.state.revision
                ),
                1,
            );
            status.details = Some(Box::new(StatusDetails {
                causes: vec![cause],
                ..StatusDetails::default()
            }));
            return Err(status);
        }
        let objects = self
            .state
            .objects
            .get(&filter.kind)
            .into_iter()
            .flat_map(BTreeMap::values);
        let after = options
            .continue_token
            .split_once('\n')
            .map(|(namespace, name)| ObjectKey::new(namespace, name));
        let mut items: Vec<Object> = objects
            .filter(|object| {
                after.as_ref().is_none_or(|after| object.key() > *after) && filter.takes(object)
            })
            .cloned()
            .collect();
        let mut page = ObjectList {
            revision: Revision(self.state.revision),
            ..ObjectList::default()
        };
        if options.limit > 0 && items.len() > options.limit {
            page.remaining = Some((items.len() - options.limit) as u64);
            items.truncate(options.limit);
            page.continue_token = items
                .last()
                .map(|last| format!("{}\n{}", last.namespace(), last.name()))
                .unwrap_or_default();
        }
        page.items = items;
        Ok(page)
    }

    fn create(
        &mut self,
        resource: &Resource,
        namespace: &str,
        body: &Value,
        dry_run: bool,
    ) -> Result<Object, Status> {
        let mut body = body.clone();
        let now = self.now();
        let uid = self.env.uuid();
        let metadata = metadata_of(&mut body)?;
        if metadata
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or("")
            .is_empty()
        {
            let prefix = metadata
                .get("generateName")
                .and_then(Value::as_str)
                .unwrap_or("")
                .to_owned();
            if prefix.is_empty() {
                return Err(Status::failure(
                    422,
                    reason::INVALID,
                    "name or generateName is required",
                ));
            }
            metadata.insert(
                "name".to_owned(),
                json!(format!("{prefix}{}", self.env.name_suffix(5))),
            );
        }
        let name = metadata["name"].as_str().unwrap_or_default().to_owned();
        if resource.namespaced {
            metadata.insert("namespace".to_owned(), json!(namespace));
            self.namespace_open(resource, namespace, &name)?;
        }
        metadata.remove("resourceVersion");
        metadata.remove("deletionTimestamp");
        metadata.insert("uid".to_owned(), json!(uid));
        metadata.insert("creationTimestamp".to_owned(), json!(now));
        let key = ObjectKey::new(if resource.namespaced { namespace } else { "" }, &name);
        if self.existing(resource, &key).is_ok() {
            return Err(Status::already_exists(resource, &name));
        }
        if body.get("spec").is_some() {
            body["metadata"]["generation"] = json!(1);
        }
        if let Value::Object(fields) = &mut body {
            fields
                .entry("apiVersion")
                .or_insert_with(|| json!(resource.api_version()));
            fields.entry("kind").or_insert_with(|| json!(resource.kind));
        }
        match (&*resource.group, &*resource.plural) {
            ("", "namespaces") => {
                if body["spec"]["finalizers"].is_null() {
                    body["spec"]["finalizers"] = json!(["kubernetes"]);
                }
                body["status"] = json!({"phase": "Active"});
            }
            ("", "pods") if body["status"]["phase"].is_null() => {
                body["status"]["phase"] = json!("Pending")
            }
            _ => {}
        }
        self.commit(resource, None, body, "create", dry_run)
    }

    /// Nothing is made in a namespace that is going.
    fn namespace_open(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<(), Status> {
        let kind = (String::new(), "namespaces".to_owned());
        let found = self
            .state
            .objects
            .get(&kind)
            .and_then(|all| all.get(&ObjectKey::new("", namespace)));
        if found.is_some_and(Object::is_terminating) {
            let why = format!(
                "unable to create new content in namespace {namespace} because it is being terminated"
            );
            let mut status = Status::forbidden(resource, name, &why);
            let cause = StatusCause {
                reason: "NamespaceTerminating".to_owned(),
                message: format!("namespace {namespace} is being terminated"),
                field: "metadata.namespace".to_owned(),
            };
            if let Some(details) = &mut status.details {
                details.causes.push(cause);
            }
            return Err(status);
        }
        Ok(())
    }

    fn write(
        &mut self,
        resource: &Resource,
        old: &Object,
        mut body: Value,
        subresource: Option<&str>,
        verb: &str,
        dry_run: bool,
    ) -> Result<Object, Status> {
        let before = old.value().map_err(Status::internal)?;
        let metadata = metadata_of(&mut body)?;
        let conflict = |why: &str| Status::conflict(resource, old.name(), why);
        let version = metadata.remove("resourceVersion");
        if let Some(version) = version
            .as_ref()
            .and_then(Value::as_str)
            .filter(|v| !v.is_empty())
            && version != old.revision().to_string()
        {
            return Err(conflict(
                "the object has been modified; please apply your changes to the latest version and try again",
            ));
        }
        if let Some(uid) = metadata
            .get("uid")
            .and_then(Value::as_str)
            .filter(|uid| !uid.is_empty())
            && uid != old.uid()
        {
            return Err(conflict(&format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                old.uid()
            )));
        }
        // What only the server writes.
        for field in [
            "uid",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "generation",
            "namespace",
        ] {
            match before["metadata"].get(field) {
                Some(value) => metadata.insert(field.to_owned(), value.clone()),
                None => metadata.remove(field),
            };
        }
        let keep = |body: &mut Value, field: &str| match before.get(field) {
            Some(value) => body[field] = value.clone(),
            None => {
                if let Some(fields) = body.as_object_mut() {
                    fields.remove(field);
                }
            }
        };
        match subresource {
            None if resource.group.is_empty() && resource.plural == "namespaces" => {
                keep(&mut body, "status");
                let finalizers = before["spec"]["finalizers"].clone();
                body["spec"]["finalizers"] = finalizers;
            }
            None if before.get("status").is_some() || has_status(resource) => {
                keep(&mut body, "status")
            }
            None => {}
            Some("status") => {
                let status = body.get("status").cloned();
                let metadata = body["metadata"].clone();
                body = (*before).clone();
                metadata_of(&mut body)?.remove("resourceVersion");
                for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
                    if let Some(value) = metadata
                        .get(field)
                        .filter(|_| field == "finalizers" || field == "annotations")
                    {
                        body["metadata"][field] = value.clone();
                    }
                }
                match status {
                    Some(status) => body["status"] = status,
                    None => keep(&mut body, "status"),
                }
            }
            Some("finalize") => {
                let finalizers = body["spec"]["finalizers"].clone();
                body = (*before).clone();
                metadata_of(&mut body)?.remove("resourceVersion");
                body["spec"]["finalizers"] = finalizers;
            }
            Some("scale") => {
                let replicas = body["spec"]["replicas"].clone();
                body = (*before).clone();
                metadata_of(&mut body)?.remove("resourceVersion");
                body["spec"]["replicas"] = replicas;
            }
            Some(other) => return Err(Status::bad_request(format!("no subresource {other} here"))),
        }
        if before.get("spec") != body.get("spec")
            && subresource != Some("finalize")
            && before["metadata"].get("generation").is_some()
        {
            let generation = before["metadata"]["generation"].as_i64().unwrap_or(0);
            body["metadata"]["generation"] = json!(generation + 1);
        }
        let verb = match subresource {
            Some(subresource) => format!("{verb}/{subresource}"),
            None => verb.to_owned(),
        };
        self.commit(resource, Some(old), body, &verb, dry_run)
    }

    fn bind(
        &mut self,
        resource: &Resource,
        key: &ObjectKey,
        body: &Value,
    ) -> Result<Answer, Status> {
        let old = self.existing(resource, key)?;
        let mut pod = (*old.value().map_err(Status::internal)?).clone();
        if let Some(node) = pod["spec"]["nodeName"]
            .as_str()
            .filter(|node| !node.is_empty())
        {
            let why = format!("pod {} is already assigned to node \"{node}\"", key.name);
            return Err(Status::conflict(resource, &key.name, &why));
        }
        metadata_of(&mut pod)?.remove("resourceVersion");
        pod["spec"]["nodeName"] = body["target"]["name"].clone();
        let scheduled =
            json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": self.now()});
        match pod["status"]["conditions"].as_array_mut() {
            Some(conditions) => {
                conditions.retain(|condition| condition["type"] != "PodScheduled");
                conditions.push(scheduled);
            }
            None => pod["status"]["conditions"] = json!([scheduled]),
        }
        self.commit(resource, Some(&old), pod, "bind", false)?;
        Ok(Answer::Status(Box::new(Status {
            status: "Success".to_owned(),
            code: 201,
            ..Status::default()
        })))
    }

    fn delete(
        &mut self,
        resource: &Resource,
        key: &ObjectKey,
        options: &DeleteOptions,
    ) -> Result<Answer, Status> {
        let old = self.existing(resource, key)?;
        if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != old.uid()) {
            let why = format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                old.uid()
            );
            return Err(Status::conflict(resource, &key.name, &why));
        }
        if let Some(revision) = options
            .revision
            .filter(|revision| *revision != old.revision())
        {
            let why = format!(
                "Precondition failed: ResourceVersion in precondition: {revision}, ResourceVersion in object meta: {}",
                old.revision()
            );
            return Err(Status::conflict(resource, &key.name, &why));
        }
        let mut body = (*old.value().map_err(Status::internal)?).clone();
        let now = self.now();
        let is_pod = resource.group.is_empty() && resource.plural == "pods";
        let is_namespace = resource.group.is_empty() && resource.plural == "namespaces";
        let running = is_pod
            && body["spec"]["nodeName"]
                .as_str()
                .is_some_and(|node| !node.is_empty())
            && !matches!(
                body["status"]["phase"].as_str(),
                Some("Succeeded" | "Failed")
            );
        let own_grace = body["spec"]["terminationGracePeriodSeconds"]
            .as_i64()
            .unwrap_or(30);
        let grace = if running {
            options.grace_period_seconds.unwrap_or(own_grace)
        } else {
            0
        };
        let metadata = metadata_of(&mut body)?;
        metadata.remove("resourceVersion");
        let mut finalizers: Vec<String> = old.metadata().finalizers.clone();
        if let Some(propagation) = options.propagation {
            finalizers.retain(|name| name != "orphan" && name != "foregroundDeletion");
            match propagation {
                Propagation::Orphan => finalizers.push("orphan".to_owned()),
                Propagation::Foreground => finalizers.push("foregroundDeletion".to_owned()),
                Propagation::Background => {}
            }
        }
        if finalizers.is_empty() {
            metadata.remove("finalizers");
        } else {
            metadata.insert("finalizers".to_owned(), json!(finalizers));
        }
        let stays = !finalizers.is_empty()
            || grace > 0
            || (is_namespace
                && body["spec"]["finalizers"]
                    .as_array()
                    .is_some_and(|f| !f.is_empty()));
        if !stays {
            self.remove(resource, &old, options.dry_run);
            return Ok(Answer::Object(old));
        }
        if !old.is_terminating() {
            let at = if grace > 0 { after(&now, grace) } else { now };
            let metadata = metadata_of(&mut body)?;
            metadata.insert("deletionTimestamp".to_owned(), json!(at));
            metadata.insert("deletionGracePeriodSeconds".to_owned(), json!(grace));
            if let Some(generation) = old.metadata().generation {
                metadata.insert("generation".to_owned(), json!(generation + 1));
            }
            if is_namespace {
                body["status"]["phase"] = json!("Terminating");
            }
        }
        self.commit(resource, Some(&old), body, "delete", options.dry_run)
            .map(Answer::Object)
    }

    /// Stores a new state; or removes the object if it was only waiting for its last finalizer.
    fn commit(
        &mut self,
        resource: &Resource,
        old: Option<&Object>,
        body: Value,
        verb: &str,
        dry_run: bool,
    ) -> Result<Object, Status> {
        let bad = |error: crate::object::ObjectError| Status::bad_request(error.to_string());
        let revision = Revision(self.state.revision + 1);
        let mut stored = body;
        metadata_of(&mut stored)?.remove("resourceVersion");
        let new = Object::from_value(stored).map_err(bad)?;
        if let Some(old) = old
            && old.stored_json() == new.stored_json()
        {
            return Ok(old.clone());
        }
        let new = new.with_revision(revision);
        if let Some(old) =
            old.filter(|_| new.is_terminating() && new.metadata().finalizers.is_empty())
        {
            let spec = new.value().map_err(Status::internal)?;
            let held = resource.plural == "namespaces"
                && spec["spec"]["finalizers"]
                    .as_array()
                    .is_some_and(|f| !f.is_empty());
            if !held && new.metadata().deletion_grace_period_seconds.unwrap_or(0) == 0 {
                self.remove(resource, old, dry_run);
                return Ok(new);
            }
        }
        if dry_run {
            return Ok(new);
        }
        self.state.revision = revision.0;
        self.state
            .writes
            .push(format!("{verb} {} {}", resource.qualified(), new.key()));
        let kind = kind_of(resource);
        self.state
            .objects
            .entry(kind.clone())
            .or_default()
            .insert(new.key(), new.clone());
        self.state.log.push(Entry {
            kind,
            old: old.cloned(),
            new: new.clone(),
            deleted: false,
        });
        Ok(new)
    }

    fn remove(&mut self, resource: &Resource, old: &Object, dry_run: bool) {
        if dry_run {
            return;
        }
        self.state.revision += 1;
        let kind = kind_of(resource);
        self.state
            .writes
            .push(format!("remove {} {}", resource.qualified(), old.key()));
        if let Some(objects) = self.state.objects.get_mut(&kind) {
            objects.remove(&old.key());
        }
        let new = old.with_revision(Revision(self.state.revision));
        self.state.log.push(Entry {
            kind,
            old: Some(old.clone()),
            new,
            deleted: true,
        });
    }

    fn now(&self) -> String {
        self.env.wall().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }
}

fn after(now: &str, seconds: i64) -> String {
    let moment = now.parse::<Timestamp>().unwrap_or(Timestamp::UNIX_EPOCH);
    let later = moment
        .checked_add(jiff::SignedDuration::from_secs(seconds))
        .unwrap_or(moment);
    later.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn metadata_of(body: &mut Value) -> Result<&mut Map<String, Value>, Status> {
    let fields = body
        .as_object_mut()
        .ok_or_else(|| Status::bad_request("an object is expected"))?;
    fields
        .entry("metadata")
        .or_insert_with(|| json!({}))
        .as_object_mut()
        .ok_or_else(|| Status::bad_request("metadata is not an object"))
}

/// The kinds whose `status` is written through its own door only.
fn has_status(resource: &Resource) -> bool {
    matches!(
        &*resource.group,
        "apps" | "batch" | "policy" | "autoscaling" | "networking.k8s.io"
    ) || matches!(
        &*resource.plural,
        "pods" | "nodes" | "services" | "replicationcontrollers" | "persistentvolumeclaims"
    )
}
