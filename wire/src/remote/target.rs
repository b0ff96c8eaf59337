//! What a request looks like over HTTP: method, URL, body.

use http::Method;
use orlop_core::client::{
    DeleteOptions, FieldValidation, Freshness, ListOptions, Operation, Patch, Request, Target,
    WatchOptions, WriteOptions,
};
use orlop_core::status::Status;
use serde_json::{Value, json};

/// A request, ready to be sent any number of times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) method: Method,
    /// Path and query, behind the server's URL.
    pub(super) path: String,
    pub(super) content_type: Option<&'static str>,
    pub(super) body: Vec<u8>,
    /// What kubectl calls this, for messages.
    pub(super) verb: &'static str,
    pub(super) expect: Expect,
}

/// What form of answer an operation has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    Object,
    List,
    Watch,
    /// An object, a list or a status.
    Any,
}

/// Puts a request of the client into HTTP. `manager` owns the fields of an apply that does not say who does.
pub(super) fn call(request: &Request, manager: &str) -> Result<Call, Status> {
    let target = &request.target;
    let mut query = Query::default();
    let json = Some("application/json");
    let (method, verb, expect, content_type, body) = match &request.operation {
        Operation::Get(freshness) => {
            match freshness {
                Freshness::Consistent => {}
                Freshness::Any => query.add("resourceVersion", "0"),
                Freshness::NotOlderThan(revision) | Freshness::Exact(revision) => {
                    query.add("resourceVersion", revision)
                }
            }
            (Method::GET, "get", Expect::Object, None, Vec::new())
        }
        Operation::List(options) => {
            list(&mut query, options, target);
            (Method::GET, "list", Expect::List, None, Vec::new())
        }
        Operation::Watch(options) => {
            watch(&mut query, options, target);
            (Method::GET, "watch", Expect::Watch, None, Vec::new())
        }
        Operation::Create(object, options) => {
            write(&mut query, options);
            // A subresource such as a binding answers with a status.
            let expect = if target.subresource.is_some() {
                Expect::Any
            } else {
                Expect::Object
            };
            (Method::POST, "post", expect, json, bytes(object)?)
        }
        Operation::Update(object, options) => {
            write(&mut query, options);
            (Method::PUT, "put", Expect::Object, json, bytes(object)?)
        }
        Operation::Patch(patch, options) => {
            write(&mut query, options);
            if matches!(patch, Patch::Apply(_)) && options.field_manager.is_empty() {
                query.add("fieldManager", manager);
            }
            if options.force {
                query.add("force", "true");
            }
            (
                Method::PATCH,
                "patch",
                Expect::Object,
                Some(patch.content_type()),
                bytes(patch.document())?,
            )
        }
        Operation::Delete(options) => (
            Method::DELETE,
            "delete",
            Expect::Any,
            json,
            bytes(&delete_options(options))?,
        ),
        Operation::DeleteCollection(options, which) => {
            list(&mut query, which, target);
            (
                Method::DELETE,
                "delete",
                Expect::Any,
                json,
                bytes(&delete_options(options))?,
            )
        }
        _ => {
            return Err(Status::bad_request(
                "the operation is not known to this client",
            ));
        }
    };
    let collection = matches!(
        request.operation,
        Operation::List(_) | Operation::Watch(_) | Operation::DeleteCollection(..)
    );
    Ok(Call {
        method,
        path: path(target, collection)? + &query.finish(),
        content_type,
        body,
        verb,
        expect,
    })
}

fn bytes(value: &Value) -> Result<Vec<u8>, Status> {
    serde_json::to_vec(value)
        .map_err(|error| Status::bad_request(format!("cannot be written as JSON: {error}")))
}

/// The path of a target. That of a collection leaves a name out: it becomes a field selector.
fn path(target: &Target, collection: bool) -> Result<String, Status> {
    let resource = &target.resource;
    let mut path = String::from(if resource.group.is_empty() {
        "/api"
    } else {
        "/apis"
    });
    let mut segment = |text: &str, what: &str| -> Result<(), Status> {
        path.push('/');
        path.push_str(&segment(text, what)?);
        Ok(())
    };
    if !resource.group.is_empty() {
        segment(&resource.group, "group")?;
    }
    segment(&resource.version, "version")?;
    if let Some(namespace) = target
        .namespace
        .as_deref()
        .filter(|name| resource.namespaced && !name.is_empty())
    {
        segment("namespaces", "")?;
        segment(namespace, "namespace")?;
    }
    segment(&resource.plural, "resource")?;
    if let Some(name) = target.name.as_deref().filter(|_| !collection) {
        segment(name, "resource name")?;
    }
    if let Some(subresource) = &target.subresource {
        for part in subresource.split('/') {
            segment(part, "subresource")?;
        }
    }
    Ok(path)
}

/// One segment of a path. What would lead elsewhere is refused, as client-go does.
fn segment(text: &str, what: &str) -> Result<String, Status> {
    let why = match text {
        "" => "may not be empty".to_owned(),
        "." | ".." => format!("may not be '{text}'"),
        _ => match text.chars().find(|c| matches!(c, '/' | '%')) {
            Some(c) => format!("may not contain '{c}'"),
            None => {
                let plain = |byte: u8| is_unreserved(byte) || b"$&+=:@".contains(&byte);
                return Ok(percent_encode(text, plain, false));
            }
        },
    };
    Err(Status::bad_request(format!(
        "invalid {what} \"{text}\": [{why}]"
    )))
}

fn list(query: &mut Query, options: &ListOptions, target: &Target) {
    selectors(
        query,
        &options.label_selector,
        &options.field_selector,
        target,
    );
    if options.limit > 0 {
        query.add("limit", options.limit);
    }
    if !options.continue_token.is_empty() {
        // The token says which revision; both at once are refused.
        query.add("continue", &options.continue_token);
        return;
    }
    match options.freshness {
        Freshness::Consistent => {}
        Freshness::Any => query.add("resourceVersion", "0"),
        Freshness::NotOlderThan(revision) => {
            query.add("resourceVersion", revision);
            query.add("resourceVersionMatch", "NotOlderThan");
        }
        Freshness::Exact(revision) => {
            query.add("resourceVersion", revision);
            query.add("resourceVersionMatch", "Exact");
        }
    }
}

fn watch(query: &mut Query, options: &WatchOptions, target: &Target) {
    selectors(
        query,
        &options.label_selector,
        &options.field_selector,
        target,
    );
    query.add("watch", "true");
    if let Some(revision) = options.from {
        query.add("resourceVersion", revision);
    }
    // A streaming list ends with a bookmark, so it cannot be had without.
    if options.bookmarks || options.initial_events {
        query.add("allowWatchBookmarks", "true");
    }
    if options.initial_events {
        query.add("sendInitialEvents", "true");
        query.add("resourceVersionMatch", "NotOlderThan");
    }
    if options.timeout_seconds > 0 {
        query.add("timeoutSeconds", options.timeout_seconds);
    }
}

fn selectors(query: &mut Query, labels: &str, fields: &str, target: &Target) {
    if !labels.is_empty() {
        query.add("labelSelector", labels);
    }
    let name = target
        .name
        .as_ref()
        .map(|name| format!("metadata.name={name}"));
    match (name, fields) {
        (None, "") => {}
        (None, fields) => query.add("fieldSelector", fields),
        (Some(name), "") => query.add("fieldSelector", name),
        (Some(name), fields) => query.add("fieldSelector", format!("{name},{fields}")),
    }
}

fn write(query: &mut Query, options: &WriteOptions) {
    if options.dry_run {
        query.add("dryRun", "All");
    }
    if !options.field_manager.is_empty() {
        query.add("fieldManager", &options.field_manager);
    }
    match options.field_validation {
        FieldValidation::Warn => {}
        FieldValidation::Ignore => query.add("fieldValidation", "Ignore"),
        FieldValidation::Strict => query.add("fieldValidation", "Strict"),
    }
}

fn delete_options(options: &DeleteOptions) -> Value {
    let mut body = json!({"kind": "DeleteOptions", "apiVersion": "v1"});
    if let Some(seconds) = options.grace_period_seconds {
        body["gracePeriodSeconds"] = seconds.into();
    }
    if let Some(uid) = &options.uid {
        body["preconditions"]["uid"] = uid.as_str().into();
    }
    if let Some(revision) = options.revision {
        body["preconditions"]["resourceVersion"] = revision.to_string().into();
    }
    if let Some(propagation) = options.propagation {
        body["propagationPolicy"] = propagation.as_str().into();
    }
    if options.dry_run {
        body["dryRun"] = json!(["All"]);
    }
    body
}

/// A query, its parameters in the order of their names: so does Go.
#[derive(Default)]
struct Query(std::collections::BTreeMap<&'static str, String>);

impl Query {
    fn add(&mut self, name: &'static str, value: impl ToString) {
        self.0.insert(name, value.to_string());
    }

    fn finish(self) -> String {
        let parts = self
            .0
            .into_iter()
            .map(|(name, value)| format!("{name}={}", percent_encode(&value, is_unreserved, true)));
        let query = parts.collect::<Vec<_>>().join("&");
        if query.is_empty() {
            query
        } else {
            format!("?{query}")
        }
    }
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte)
}

fn percent_encode(text: &str, plain: impl Fn(u8) -> bool, plus_for_space: bool) -> String {
    text.bytes()
        .fold(String::with_capacity(text.len()), |mut out, byte| {
            if plain(byte) {
                out.push(char::from(byte));
            } else if byte == b' ' && plus_for_space {
                out.push('+');
            } else {
                out.push_str(&format!("%{byte:02X}"));
            }
            out
        })
}

#[cfg(test)]
mod tests {
    use orlop_core::client::Propagation;
    use orlop_core::resource::Resource;
    use orlop_core::revision::Revision;

    use super::*;

    const PODS: Resource = Resource::namespaced("", "v1", "pods", "Pod");
    const ROLES: Resource = Resource::cluster(
        "rbac.authorization.k8s.io",
        "v1",
        "clusterroles",
        "ClusterRole",
    );

    fn target(resource: &Resource, namespace: &str, name: &str, subresource: &str) -> Target {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Target {
            resource: resource.clone(),
            namespace: some(namespace),
            name: some(name),
            subresource: some(subresource),
        }
    }

    fn sent(target: Target, operation: Operation) -> String {
        let call = call(&Request { target, operation }, "orlop").unwrap();
        format!(
            "{} {} {}",
            call.method,
            call.path,
            String::from_utf8(call.body).unwrap()
        )
        .trim_end()
        .to_owned()
    }

    #[test]
    fn urls_are_those_of_kubernetes() {
        let pods = || target(&PODS, "default", "", "");
        let pod = || target(&PODS, "default", "web", "");
        let body = || json!({"kind": "Pod"});
        assert_eq!(
            sent(pod(), Operation::Get(Freshness::Consistent)),
            "GET /api/v1/namespaces/default/pods/web"
        );
        assert_eq!(
            sent(pod(), Operation::Get(Freshness::Any)),
            "GET /api/v1/namespaces/default/pods/web?resourceVersion=0"
        );
        assert_eq!(
            sent(
                target(&ROLES, "", "system:node", ""),
                Operation::Get(Freshness::Consistent)
            ),
            "GET /apis/rbac.authorization.k8s.io/v1/clusterroles/system:node"
        );
        let options = ListOptions {
            label_selector: "app in (a, b),x!=y".to_owned(),
            field_selector: "spec.nodeName=n".to_owned(),
            limit: 500,
            freshness: Freshness::Exact(Revision(7)),
            ..ListOptions::default()
        };
        assert_eq!(
            sent(target(&PODS, "", "", ""), Operation::List(options.clone())),
            "GET /api/v1/pods?fieldSelector=spec.nodeName%3Dn&labelSelector=app+in+%28a%2C+b%29%2Cx%21%3Dy&limit=500\
             &resourceVersion=7&resourceVersionMatch=Exact"
        );
        let next = ListOptions {
            continue_token: "a+/=".to_owned(),
            ..options
        };
        assert!(sent(pods(), Operation::List(next)).ends_with(
            "?continue=a%2B%2F%3D&fieldSelector=spec.nodeName%3Dn\
             &labelSelector=app+in+%28a%2C+b%29%2Cx%21%3Dy&limit=500"
        ));
        let watch = WatchOptions {
            from: Some(Revision(9)),
            bookmarks: true,
            timeout_seconds: 300,
            ..WatchOptions::default()
        };
        assert_eq!(
            sent(pods(), Operation::Watch(watch)),
            "GET /api/v1/namespaces/default/pods?allowWatchBookmarks=true&resourceVersion=9&timeoutSeconds=300&watch=true"
        );
        let watch = WatchOptions {
            initial_events: true,
            ..WatchOptions::default()
        };
        assert_eq!(
            sent(pod(), Operation::Watch(watch)),
            "GET /api/v1/namespaces/default/pods?allowWatchBookmarks=true&fieldSelector=metadata.name%3Dweb\
             &resourceVersionMatch=NotOlderThan&sendInitialEvents=true&watch=true"
        );
        let write = WriteOptions {
            dry_run: true,
            field_manager: "me".to_owned(),
            field_validation: FieldValidation::Strict,
            force: true,
        };
        assert_eq!(
            sent(pods(), Operation::Create(body(), write.clone())),
            "POST /api/v1/namespaces/default/pods?dryRun=All&fieldManager=me&fieldValidation=Strict {\"kind\":\"Pod\"}"
        );
        assert_eq!(
            sent(
                target(&PODS, "default", "web", "status"),
                Operation::Update(body(), WriteOptions::default())
            ),
            "PUT /api/v1/namespaces/default/pods/web/status {\"kind\":\"Pod\"}"
        );
        let apply = Request {
            target: pod(),
            operation: Operation::Patch(Patch::Apply(body()), write),
        };
        let apply = call(&apply, "orlop").unwrap();
        assert_eq!(apply.content_type, Some("application/apply-patch+yaml"));
        assert!(
            apply
                .path
                .ends_with("?dryRun=All&fieldManager=me&fieldValidation=Strict&force=true")
        );
        assert!(
            sent(
                pod(),
                Operation::Patch(Patch::Apply(body()), WriteOptions::default())
            )
            .starts_with("PATCH /api/v1/namespaces/default/pods/web?fieldManager=orlop ")
        );
        let delete = DeleteOptions {
            dry_run: true,
            grace_period_seconds: Some(0),
            propagation: Some(Propagation::Foreground),
            uid: Some("u".to_owned()),
            revision: Some(Revision(3)),
        };
        assert_eq!(
            sent(pod(), Operation::Delete(delete)),
            "DELETE /api/v1/namespaces/default/pods/web {\"apiVersion\":\"v1\",\"dryRun\":[\"All\"],\
             \"gracePeriodSeconds\":0,\"kind\":\"DeleteOptions\",\"preconditions\":{\"resourceVersion\":\"3\",\"uid\":\"u\"},\
             \"propagationPolicy\":\"Foreground\"}"
        );
        let all = ListOptions {
            label_selector: "a=b".to_owned(),
            ..ListOptions::default()
        };
        assert_eq!(
            sent(
                pods(),
                Operation::DeleteCollection(DeleteOptions::default(), all)
            ),
            "DELETE /api/v1/namespaces/default/pods?labelSelector=a%3Db {\"apiVersion\":\"v1\",\"kind\":\"DeleteOptions\"}"
        );
    }

    #[test]
    fn a_name_leads_nowhere_else() {
        for name in ["..", ".", "a/b", "a%2fb"] {
            let get = Request {
                target: target(&PODS, "default", name, ""),
                operation: Operation::Get(Freshness::Any),
            };
            assert_eq!(call(&get, "").unwrap_err().code, 400, "{name}");
        }
        let odd = sent(
            target(&PODS, "a?b", "x#y z", ""),
            Operation::Get(Freshness::Consistent),
        );
        assert_eq!(odd, "GET /api/v1/namespaces/a%3Fb/pods/x%23y%20z");
    }
}
