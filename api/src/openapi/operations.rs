//! The operations of a resource, as both versions of OpenAPI describe them.

use std::borrow::Cow;

use orlop_core::resource::{GroupVersionKind, Resource};

use crate::protobuf;
use crate::resources::{ResourceInfo, Verb};

/// Where a parameter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Path,
    Query,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parameter {
    pub(super) name: Cow<'static, str>,
    pub(super) place: Place,
    pub(super) ty: &'static str,
    pub(super) description: Cow<'static, str>,
}

/// What an answer carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Kind(GroupVersionKind),
    Text,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    None,
    /// An object of the operation's kind.
    Object,
    Patch,
    DeleteOptions,
}

#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) id: String,
    pub(super) action: &'static str,
    /// The kind that the operation is about.
    pub(super) kind: GroupVersionKind,
    pub(super) description: String,
    pub(super) parameters: Vec<Parameter>,
    pub(super) body: Body,
    pub(super) answer: Content,
    pub(super) codes: &'static [u16],
    /// Whether it answers a stream when it watches.
    pub(super) streams: bool,
}

/// A path and what can be done there.
#[derive(Clone, Debug)]
pub(super) struct Path {
    pub(super) path: String,
    pub(super) parameters: Vec<Parameter>,
    pub(super) operations: Vec<Operation>,
}

const STATUS: GroupVersionKind = GroupVersionKind::new("", "v1", "Status");

fn query(name: &'static str, ty: &'static str, description: &'static str) -> Parameter {
    Parameter {
        name: name.into(),
        place: Place::Query,
        ty,
        description: description.into(),
    }
}

fn in_path(name: &'static str, description: impl Into<Cow<'static, str>>) -> Parameter {
    Parameter {
        name: name.into(),
        place: Place::Path,
        ty: "string",
        description: description.into(),
    }
}

fn pretty() -> Parameter {
    query(
        "pretty",
        "string",
        "With `true`, the answer is indented for human readers.",
    )
}

fn dry_run() -> Parameter {
    query(
        "dryRun",
        "string",
        "With `All`, everything is done but storing the result.",
    )
}

fn writing() -> Vec<Parameter> {
    vec![
        dry_run(),
        query(
            "fieldManager",
            "string",
            "The name under which the changed fields are recorded, of at most 128 printable characters.",
        ),
        query(
            "fieldValidation",
            "string",
            "What happens to unknown and duplicate fields: `Ignore` drops them, `Warn` answers warnings as well, `Strict` refuses the request.",
        ),
    ]
}

fn selecting() -> Vec<Parameter> {
    vec![
        query(
            "allowWatchBookmarks",
            "boolean",
            "Asks a watch for events of type BOOKMARK, which carry nothing but a resource version.",
        ),
        query(
            "continue",
            "string",
            "The token of an earlier answer at which the list goes on.",
        ),
        query(
            "fieldSelector",
            "string",
            "Keeps the objects whose fields match.",
        ),
        query(
            "labelSelector",
            "string",
            "Keeps the objects whose labels match.",
        ),
        query(
            "limit",
            "integer",
            "At most so many objects are answered, and a token to go on with.",
        ),
        query(
            "resourceVersion",
            "string",
            "The version of the data that is asked for, as resourceVersionMatch says.",
        ),
        query(
            "resourceVersionMatch",
            "string",
            "How resourceVersion is meant: `Exact` or `NotOlderThan`.",
        ),
        query(
            "sendInitialEvents",
            "boolean",
            "Asks a watch to begin with all objects there are, and a bookmark after them.",
        ),
        query(
            "timeoutSeconds",
            "integer",
            "How long the request may last.",
        ),
    ]
}

fn watching() -> Parameter {
    query(
        "watch",
        "boolean",
        "Answers a stream of changes in place of a list.",
    )
}

fn deleting() -> Vec<Parameter> {
    vec![
        dry_run(),
        query(
            "gracePeriodSeconds",
            "integer",
            "How long the object may take to end. Zero deletes at once.",
        ),
        query(
            "ignoreStoreReadErrorWithClusterBreakingPotential",
            "boolean",
            "Deletes an object that can no longer be read from storage, without finalizers or preconditions.",
        ),
        query(
            "orphanDependents",
            "boolean",
            "Superseded by propagationPolicy: whether dependents are kept.",
        ),
        query(
            "propagationPolicy",
            "string",
            "What becomes of dependents: `Orphan`, `Background` or `Foreground`.",
        ),
    ]
}

/// All paths of one resource.
pub(super) fn paths(info: &ResourceInfo) -> Vec<Path> {
    let r = &info.resource;
    let mut paths = Vec::new();
    let kind = r.gvk();
    let collection = url(r, r.namespaced);
    let list_kind = GroupVersionKind {
        kind: info.list_kind.clone(),
        ..kind.clone()
    };
    let namespace = r
        .namespaced
        .then(|| in_path("namespace", "The namespace of the objects."));

    let mut operations = Vec::new();
    if info.allows(Verb::List) {
        let mut parameters = selecting();
        parameters.push(watching());
        operations.push(Operation {
            description: format!("Lists or watches objects of kind {}.", r.kind),
            parameters,
            answer: Content::Kind(list_kind.clone()),
            streams: true,
            ..operation("get", "list", name(r, "list", "", ""), &kind)
        });
    }
    if info.allows(Verb::Create) {
        operations.push(Operation {
            description: format!("Creates an object of kind {}.", r.kind),
            parameters: writing(),
            body: Body::Object,
            codes: &[200, 201, 202],
            ..operation("post", "post", name(r, "create", "", ""), &kind)
        });
    }
    if info.allows(Verb::DeleteCollection) {
        let mut parameters = selecting();
        parameters.retain(|p| p.name != "allowWatchBookmarks");
        parameters.extend(deleting());
        operations.push(Operation {
            description: format!("Deletes all objects of kind {} that are selected.", r.kind),
            parameters,
            body: Body::DeleteOptions,
            answer: Content::Kind(STATUS),
            ..operation(
                "delete",
                "deletecollection",
                name(r, "delete", "Collection", ""),
                &kind,
            )
        });
    }
    if !operations.is_empty() {
        let parameters = namespace.iter().cloned().chain([pretty()]).collect();
        paths.push(Path {
            path: collection.clone(),
            parameters,
            operations,
        });
    }

    let of_object = || -> Vec<Parameter> {
        let name = in_path(
            "name",
            format!("The name of the object of kind {}.", r.kind),
        );
        [name]
            .into_iter()
            .chain(namespace.clone())
            .chain([pretty()])
            .collect()
    };
    let operations = object_operations(info);
    if !operations.is_empty() {
        paths.push(Path {
            path: format!("{collection}/{{name}}"),
            parameters: of_object(),
            operations,
        });
    }
    if r.namespaced && info.allows(Verb::List) {
        let mut parameters = selecting();
        parameters.extend([pretty(), watching()]);
        paths.push(Path {
            path: url(r, false),
            parameters,
            operations: vec![Operation {
                description: format!(
                    "Lists or watches objects of kind {} in all namespaces.",
                    r.kind
                ),
                answer: Content::Kind(list_kind),
                streams: true,
                ..operation("get", "list", all_namespaces(r), &kind)
            }],
        });
    }
    for sub in &info.subresources {
        let path = format!("{collection}/{{name}}/{}", sub.name);
        let options = sub.kind.kind.ends_with("Options");
        let operations = if options {
            connections(r, &sub.name, &sub.kind, &sub.verbs)
        } else {
            subresource_operations(r, &sub.name, &sub.kind, &sub.verbs)
        };
        paths.push(Path {
            path: path.clone(),
            parameters: of_object(),
            operations: operations.clone(),
        });
        if sub.name == "proxy" {
            let mut parameters = of_object();
            parameters.push(in_path("path", "The path at the object that is asked."));
            let operations = operations
                .into_iter()
                .map(|op| Operation {
                    id: format!("{}WithPath", op.id),
                    ..op
                })
                .collect();
            paths.push(Path {
                path: format!("{path}/{{path}}"),
                parameters,
                operations,
            });
        }
    }
    paths
}

fn operation(
    method: &'static str,
    action: &'static str,
    id: String,
    kind: &GroupVersionKind,
) -> Operation {
    Operation {
        method,
        id,
        action,
        kind: kind.clone(),
        description: String::new(),
        parameters: Vec::new(),
        body: Body::None,
        answer: Content::Kind(kind.clone()),
        codes: &[200],
        streams: false,
    }
}

fn object_operations(info: &ResourceInfo) -> Vec<Operation> {
    let r = &info.resource;
    let kind = r.gvk();
    let mut operations = changes(r, "", &kind, &info.verbs);
    if info.allows(Verb::Delete) {
        operations.push(Operation {
            description: format!("Deletes an object of kind {}.", r.kind),
            parameters: deleting(),
            body: Body::DeleteOptions,
            answer: Content::Kind(STATUS),
            codes: &[200, 202],
            ..operation("delete", "delete", name(r, "delete", "", ""), &kind)
        });
    }
    operations
}

/// Reading, replacing and patching of an object or of a part of it.
fn changes(r: &Resource, sub: &str, kind: &GroupVersionKind, verbs: &[Verb]) -> Vec<Operation> {
    let what = if sub.is_empty() {
        format!("an object of kind {}", r.kind)
    } else {
        format!("{sub} of an object of kind {}", r.kind)
    };
    let mut operations = Vec::new();
    if verbs.contains(&Verb::Get) {
        operations.push(Operation {
            description: format!("Reads {what}."),
            ..operation("get", "get", name(r, "read", "", sub), kind)
        });
    }
    if verbs.contains(&Verb::Update) {
        operations.push(Operation {
            description: format!("Replaces {what}."),
            parameters: writing(),
            body: Body::Object,
            codes: &[200, 201],
            ..operation("put", "put", name(r, "replace", "", sub), kind)
        });
    }
    if verbs.contains(&Verb::Patch) {
        let mut parameters = writing();
        parameters.push(query(
            "force",
            "boolean",
            "Takes over fields that others manage. For apply patches only.",
        ));
        operations.push(Operation {
            description: format!("Changes parts of {what}."),
            parameters,
            body: Body::Patch,
            codes: &[200, 201],
            ..operation("patch", "patch", name(r, "patch", "", sub), kind)
        });
    }
    operations
}

fn subresource_operations(
    r: &Resource,
    sub: &str,
    kind: &GroupVersionKind,
    verbs: &[Verb],
) -> Vec<Operation> {
    let mut operations = changes(r, sub, kind, verbs);
    if verbs.contains(&Verb::Create) {
        operations.push(Operation {
            description: format!("Creates {sub} of an object of kind {}.", r.kind),
            parameters: writing(),
            body: Body::Object,
            codes: &[200, 201, 202],
            ..operation("post", "post", name(r, "create", "", sub), kind)
        });
    }
    if sub == "log" {
        for operation in &mut operations {
            operation.answer = Content::Text;
            operation.parameters = options(&GroupVersionKind::new("", "v1", "PodLogOptions"));
        }
    }
    operations
}

/// Streams and proxies: the options are query parameters, and the answer is whatever comes.
fn connections(r: &Resource, sub: &str, kind: &GroupVersionKind, verbs: &[Verb]) -> Vec<Operation> {
    let methods: &[(&str, &str)] = if verbs.contains(&Verb::Delete) {
        &[
            ("get", "Get"),
            ("put", "Put"),
            ("post", "Post"),
            ("delete", "Delete"),
            ("options", "Options"),
            ("head", "Head"),
            ("patch", "Patch"),
        ]
    } else {
        &[("get", "Get"), ("post", "Post")]
    };
    methods
        .iter()
        .map(|(method, word)| Operation {
            description: format!(
                "Connects {} requests to {sub} of an object of kind {}.",
                word.to_uppercase(),
                r.kind
            ),
            parameters: options(kind),
            answer: Content::Text,
            ..operation(method, "connect", name(r, "connect", word, sub), kind)
        })
        .collect()
}

/// The fields of an options kind, as query parameters.
fn options(kind: &GroupVersionKind) -> Vec<Parameter> {
    protobuf::scalar_fields(kind)
        .map(|(name, ty)| Parameter {
            name: name.into(),
            place: Place::Query,
            ty,
            description: format!("The field {name} of {}.", kind.kind).into(),
        })
        .collect()
}

fn url(r: &Resource, in_namespace: bool) -> String {
    r.path(in_namespace.then_some("{namespace}"))
}

/// `rbac.authorization.k8s.io` → `RbacAuthorization`.
pub(super) fn group_name(group: &str) -> String {
    if group.is_empty() {
        return "Core".to_owned();
    }
    group
        .trim_end_matches(".k8s.io")
        .split('.')
        .map(pascal)
        .collect()
}

fn pascal(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(chars).collect()
    })
}

fn name(r: &Resource, verb: &str, middle: &str, sub: &str) -> String {
    let scope = if r.namespaced { "Namespaced" } else { "" };
    let (group, version) = (group_name(&r.group), pascal(&r.version));
    format!(
        "{verb}{group}{version}{middle}{scope}{}{}",
        r.kind,
        pascal(sub)
    )
}

fn all_namespaces(r: &Resource) -> String {
    format!(
        "list{}{}{}ForAllNamespaces",
        group_name(&r.group),
        pascal(&r.version),
        r.kind
    )
}

/// The tag of a group and version: `rbacAuthorization_v1`.
pub(super) fn tag(group: &str, version: &str) -> String {
    let name = group_name(group);
    let mut chars = name.chars();
    let name: String = chars.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(chars).collect()
    });
    format!("{name}_{version}")
}
