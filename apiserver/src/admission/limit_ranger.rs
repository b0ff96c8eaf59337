//! Limit ranges: defaults for what containers ask for, and bounds to what pods and claims get.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use orlop_core::admission::{AdmissionOperation, AdmissionPlugin, AdmissionRequest, ObjectReader};
use orlop_core::quantity::Quantity;
use orlop_core::status::Status;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Context, map_at};
use crate::names::{LIMIT_RANGES, list_at, text_field};

/// Fills in what containers leave out and refuses what is out of bounds.
pub struct LimitRanger {
    reader: Arc<dyn ObjectReader>,
}

type Amounts = BTreeMap<String, Quantity>;

#[derive(Default, Deserialize)]
#[serde(default)]
struct View {
    spec: Spec,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    limits: Vec<Limit>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Limit {
    r#type: String,
    min: Option<Amounts>,
    max: Option<Amounts>,
    default: Option<Amounts>,
    default_request: Option<Amounts>,
    max_limit_request_ratio: Option<Amounts>,
}

impl LimitRanger {
    pub(super) fn new(context: &Context) -> Self {
        Self {
            reader: context.reader.clone(),
        }
    }

    async fn limits(&self, request: &AdmissionRequest) -> Result<Vec<Arc<View>>, Status> {
        let ranges = self.reader.list(&LIMIT_RANGES, &request.namespace).await;
        let ranges = ranges.map_err(|error| {
            tracing::debug!(%error, "limit ranges could not be listed");
            let (operation, plural) = (request.operation.as_str(), &request.resource.plural);
            request.forbidden(&format!(
                "unable to {operation} {plural} at this time because there was an error enforcing limit ranges"
            ))
        })?;
        ranges
            .iter()
            .map(|range| range.decode::<View>().map_err(Status::internal))
            .collect()
    }
}

/// Whether the plug-in has something to say. What is being deleted may do without.
fn concerns(request: &AdmissionRequest) -> bool {
    let update = request.operation == AdmissionOperation::Update;
    let is_pod = request.resource.group.is_empty() && request.resource.plural == "pods";
    let concerned = if is_pod {
        // The containers of a pod change by a resize alone.
        if update {
            request.subresource == "resize"
        } else {
            request.subresource.is_empty()
        }
    } else {
        request.is("", "persistentvolumeclaims")
    };
    concerned
        && !(update
            && request
                .old_object
                .pointer("/metadata/deletionTimestamp")
                .is_some_and(Value::is_string))
}

fn amounts(value: Option<&Value>) -> Amounts {
    value
        .and_then(|value| Amounts::deserialize(value).ok())
        .unwrap_or_default()
}

fn asked(container: &Value) -> (Amounts, Amounts) {
    (
        amounts(container.pointer("/resources/requests")),
        amounts(container.pointer("/resources/limits")),
    )
}

/// Fills in one of a container's lists; says which resources were missing.
fn fill(container: &mut Value, list: &str, defaults: &Amounts) -> Vec<String> {
    let mut set = Vec::new();
    if defaults.is_empty() {
        return set;
    }
    let Some(known) = map_at(container, &["resources", list]) else {
        return set;
    };
    for (name, amount) in defaults {
        if !known.contains_key(name) {
            known.insert(name.clone(), json!(amount));
            set.push(name.clone());
        }
    }
    set
}

/// Fills in a pod's containers from one limit range, and notes down in an annotation what was filled in.
fn default_pod(range: &View, pod: &mut Value) {
    let (mut requests, mut limits) = (Amounts::new(), Amounts::new());
    for limit in range
        .spec
        .limits
        .iter()
        .filter(|limit| limit.r#type == "Container")
    {
        requests.extend(limit.default_request.clone().unwrap_or_default());
        limits.extend(limit.default.clone().unwrap_or_default());
    }
    let mut notes = Vec::new();
    for (kind, what) in [
        ("containers", "container"),
        ("initContainers", "init container"),
    ] {
        let containers = pod
            .pointer_mut(&format!("/spec/{kind}"))
            .and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let set_limits = fill(container, "limits", &limits);
            let set_requests = fill(container, "requests", &requests);
            let name = text_field(container, "name");
            for (set, list) in [(set_requests, "request"), (set_limits, "limit")] {
                if !set.is_empty() {
                    notes.push(format!("{} {list} for {what} {name}", set.join(", ")));
                }
            }
        }
    }
    if !notes.is_empty()
        && let Some(annotations) = map_at(pod, &["metadata", "annotations"])
    {
        let note = format!("LimitRanger plugin set: {}", notes.join("; "));
        annotations.insert("kubernetes.io/limit-ranger".to_owned(), json!(note));
    }
}

/// The amounts of two lists together.
fn add(into: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        *into.entry(name.clone()).or_default() += amount;
    }
}

/// The greater amounts of two lists.
fn raise(into: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let known = into.entry(name.clone()).or_default();
        if *amount > *known {
            *known = amount.clone();
        }
    }
}

/// What a whole pod asks for: all containers together, or more while it starts; what is asked for the pod itself counts before that.
fn pod_amounts(pod: &Value, list: &str) -> Amounts {
    let of = |container: &Value| amounts(container.pointer(&format!("/resources/{list}")));
    let mut total = Amounts::new();
    for container in list_at(pod, "/spec/containers") {
        add(&mut total, &of(container));
    }
    let (mut sidecars, mut starting) = (Amounts::new(), Amounts::new());
    for container in list_at(pod, "/spec/initContainers") {
        let mut own = of(container);
        if text_field(container, "restartPolicy") == "Always" {
            add(&mut total, &own);
            add(&mut sidecars, &own);
            raise(&mut starting, &sidecars);
        } else {
            add(&mut own, &sidecars);
            raise(&mut starting, &own);
        }
    }
    raise(&mut total, &starting);
    total.extend(amounts(pod.pointer(&format!("/spec/resources/{list}"))));
    total
}

/// Checks amounts against one limit; collects what is wrong.
fn check(limit: &Limit, requests: &Amounts, limits: &Amounts, errors: &mut Vec<String>) {
    let kind = &limit.r#type;
    for (name, min) in limit.min.iter().flatten() {
        let bound = format!("minimum {name} usage per {kind} is {min}");
        match (requests.get(name), limits.get(name)) {
            (None, _) => errors.push(format!("{bound}.  No request is specified")),
            (Some(request), _) if request < min => {
                errors.push(format!("{bound}, but request is {request}"))
            }
            (_, Some(own)) if own < min => errors.push(format!("{bound}, but limit is {own}")),
            _ => {}
        }
    }
    for (name, max) in limit.max.iter().flatten() {
        let bound = format!("maximum {name} usage per {kind} is {max}");
        match (requests.get(name), limits.get(name)) {
            (_, None) => errors.push(format!("{bound}.  No limit is specified")),
            (_, Some(own)) if own > max => errors.push(format!("{bound}, but limit is {own}")),
            (Some(request), _) if request > max => {
                errors.push(format!("{bound}, but request is {request}"))
            }
            _ => {}
        }
    }
    for (name, ratio) in limit.max_limit_request_ratio.iter().flatten() {
        let bound = format!("{name} max limit to request ratio per {kind} is {ratio}");
        let some = |amounts: &Amounts| {
            amounts
                .get(name)
                .filter(|amount| !amount.is_zero())
                .cloned()
        };
        match (some(requests), some(limits)) {
            (None, _) => errors.push(format!(
                "{bound}, but no request is specified or request is 0"
            )),
            (_, None) => errors.push(format!("{bound}, but no limit is specified or limit is 0")),
            (Some(request), Some(own)) => {
                let observed = own.approximate() / request.approximate();
                if observed > ratio.approximate() {
                    errors.push(format!("{bound}, but provided ratio is {observed:.6}"));
                }
            }
        }
    }
}

fn check_claim(limit: &Limit, requests: &Amounts, errors: &mut Vec<String>) {
    let bounds = Limit {
        r#type: limit.r#type.clone(),
        min: limit.min.clone(),
        ..Limit::default()
    };
    check(&bounds, requests, &Amounts::new(), errors);
    for (name, max) in limit.max.iter().flatten() {
        let bound = format!("maximum {name} usage per {} is {max}", limit.r#type);
        match requests.get(name) {
            None => errors.push(format!("{bound}.  No request is specified")),
            Some(request) if request > max => {
                errors.push(format!("{bound}, but request is {request}"))
            }
            Some(_) => {}
        }
    }
}

#[async_trait]
impl AdmissionPlugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn handles(&self, operation: AdmissionOperation) -> bool {
        matches!(
            operation,
            AdmissionOperation::Create | AdmissionOperation::Update
        )
    }

    async fn admit(&self, request: &mut AdmissionRequest) -> Result<(), Status> {
        if !concerns(request) || request.resource.plural != "pods" {
            return Ok(());
        }
        for range in self.limits(request).await? {
            default_pod(&range, &mut request.object);
        }
        Ok(())
    }

    async fn validate(&self, request: &AdmissionRequest) -> Result<(), Status> {
        if !concerns(request) {
            return Ok(());
        }
        let is_pod = request.resource.plural == "pods";
        for range in self.limits(request).await? {
            let mut errors = Vec::new();
            for limit in &range.spec.limits {
                match limit.r#type.as_str() {
                    "Container" if is_pod => {
                        for kind in ["/spec/containers", "/spec/initContainers"] {
                            for container in list_at(&request.object, kind) {
                                let (requests, limits) = asked(container);
                                check(limit, &requests, &limits, &mut errors);
                            }
                        }
                    }
                    "Pod" if is_pod => {
                        let requests = pod_amounts(&request.object, "requests");
                        let limits = pod_amounts(&request.object, "limits");
                        check(limit, &requests, &limits, &mut errors);
                    }
                    "PersistentVolumeClaim" if !is_pod => {
                        check_claim(
                            limit,
                            &amounts(request.object.pointer("/spec/resources/requests")),
                            &mut errors,
                        );
                    }
                    _ => {}
                }
            }
            let mut said: Vec<&String> = Vec::new();
            for error in &errors {
                if !said.contains(&error) {
                    said.push(error);
                }
            }
            match said.as_slice() {
                [] => {}
                [one] => return Err(request.forbidden(one)),
                many => {
                    let all: Vec<&str> = many.iter().map(|text| text.as_str()).collect();
                    return Err(request.forbidden(&format!("[{}]", all.join(", "))));
                }
            }
        }
        Ok(())
    }
}
