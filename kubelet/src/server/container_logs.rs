//! `/containerLogs`.

use futures::TryStreamExt;
use futures::future::BoxFuture;
use http::{HeaderValue, Response, Uri, header};
use http_body::Frame;
use http_body_util::StreamBody;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use orlop_core::env::Env;
use orlop_core::runtime::{ContainerId, ContainerState};
use orlop_wire::body::Body;

use super::ServerParts;
use super::answer::text;
use super::query::{first, pairs};
use super::routes::Of;
use crate::logs::{self, LogOptions, Output};

/// Reads `PodLogOptions` out of a query, and whether the container before this one is meant.
///
/// # Errors
/// A code and the message to answer.
fn options(
    query: &[(String, String)],
    env: &Env,
) -> Result<(LogOptions, bool), (u16, &'static str)> {
    const UNREADABLE: (u16, &str) = (400, r#"{"message": "Unable to decode query."}"#);
    const INVALID: (u16, &str) = (422, r#"{"message": "Invalid request."}"#);
    let given = |name: &str| first(query, name).filter(|value| !value.is_empty());
    let flag = |name: &str| match first(query, name) {
        None | Some("false" | "0") => Ok(false),
        Some("" | "true" | "1") => Ok(true),
        Some(_) => Err(UNREADABLE),
    };
    let number = |name: &str| match given(name) {
        None => Ok(None),
        Some(value) => value.parse::<i64>().map(Some).map_err(|_| UNREADABLE),
    };
    let at_least = |value: Option<i64>, least: i64| match value {
        Some(value) if value < least => Err(INVALID),
        value => Ok(value.and_then(|value| u64::try_from(value).ok())),
    };
    // The old name of it, which knows "all".
    let tail = match given("tail") {
        Some("all") => None,
        Some(tail) => Some(tail.parse().map_err(|_| UNREADABLE)?),
        None => number("tailLines")?,
    };
    let since_seconds = at_least(number("sinceSeconds")?, 1)?;
    let since_time = match given("sinceTime") {
        None => None,
        Some(time) => Some(time.parse::<Timestamp>().map_err(|_| UNREADABLE)?),
    };
    let since = match (since_seconds, since_time) {
        (Some(_), Some(_)) => return Err(INVALID),
        (Some(seconds), None) => {
            let before = SignedDuration::from_secs(seconds.try_into().unwrap_or(i64::MAX));
            Some(env.wall().saturating_sub(before).unwrap_or(Timestamp::MIN))
        }
        (None, time) => time,
    };
    let output = match given("stream") {
        None | Some("All") => None,
        Some("Stdout") => Some(Output::Stdout),
        Some("Stderr") => Some(Output::Stderr),
        Some(_) => return Err(INVALID),
    };
    if output.is_some() && tail.is_some() {
        return Err(INVALID);
    }
    let options = LogOptions {
        follow: flag("follow")?,
        since,
        timestamps: flag("timestamps")?,
        tail: at_least(tail, 0)?,
        limit_bytes: at_least(number("limitBytes")?, 1)?,
        output,
    };
    Ok((options, flag("previous")?))
}

/// The status of a container, of whichever list it stands in.
fn status_of<'a>(status: Option<&'a PodStatus>, name: &str) -> Option<&'a ContainerStatus> {
    let status = status?;
    [
        &status.container_statuses,
        &status.init_container_statuses,
        &status.ephemeral_container_statuses,
    ]
    .into_iter()
    .flatten()
    .flatten()
    .find(|status| status.name == name)
}

pub(super) fn has_container(pod: &Pod, name: &str) -> bool {
    let Some(spec) = &pod.spec else {
        return false;
    };
    let init = spec.init_containers.iter().flatten();
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    spec.containers
        .iter()
        .chain(init)
        .any(|one| one.name == name)
        || { ephemeral }.any(|one| one.name == name)
}

/// The id behind `containerd://`.
fn bare(id: &str) -> ContainerId {
    ContainerId::new(id.split_once("://").map_or(id, |(_, id)| id))
}

/// Which of the containers that had a name has the log that is meant.
///
/// # Errors
/// Why there is no log.
pub(super) fn container_with_log(
    pod: &Pod,
    container: &str,
    previous: bool,
) -> Result<ContainerId, String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let what = format!("container \"{container}\" in pod \"{name}\"");
    let status = status_of(pod.status.as_ref(), container)
        .ok_or_else(|| format!("{what} is not available"))?;
    let ended = |state: Option<&k8s_openapi::api::core::v1::ContainerState>| {
        let terminated = state?.terminated.as_ref()?;
        Some(terminated.container_id.clone().unwrap_or_default())
    };
    let last = ended(status.last_state.as_ref());
    let had_log = || last.as_deref().filter(|id| !id.is_empty());
    if previous {
        return had_log()
            .map(bare)
            .ok_or_else(|| format!("previous terminated {what} not found"));
    }
    let is_over = || format!("{what} is terminated");
    let state = status.state.as_ref();
    if state.is_some_and(|state| state.running.is_some()) {
        return Ok(bare(status.container_id.as_deref().unwrap_or_default()));
    }
    if let Some(id) = ended(state) {
        // One that could not even be made has no id; the one before may have a log.
        let id = Some(id.as_str()).filter(|id| !id.is_empty());
        return id.or_else(had_log).map(bare).ok_or_else(is_over);
    }
    if last.is_some() {
        return had_log().map(bare).ok_or_else(is_over);
    }
    let waiting = state.and_then(|state| state.waiting.as_ref());
    Err(match waiting.map(|waiting| waiting.reason.as_deref()) {
        Some(Some("ErrImagePull")) => {
            format!("{what} is waiting to start: image can't be pulled")
        }
        Some(Some("ImagePullBackOff")) => {
            format!("{what} is waiting to start: trying and failing to pull image")
        }
        Some(reason) => format!("{what} is waiting to start: {}", reason.unwrap_or_default()),
        None => format!("{what} is waiting to start - no logs yet"),
    })
}

pub(super) async fn serve(parts: &ServerParts, of: &Of, uri: &Uri) -> Response<Body> {
    let (options, previous) = match options(&pairs(uri), &parts.env) {
        Ok(options) => options,
        Err((code, message)) => return text(code, message),
    };
    let Some(pod) = parts.pods.find(&of.namespace, &of.pod) else {
        return text(404, format!("pod \"{}\" does not exist", of.pod));
    };
    if !has_container(&pod, &of.container) {
        return text(
            404,
            format!(
                "container \"{}\" not found in pod \"{}\"",
                of.container, of.pod
            ),
        );
    }
    let id = match container_with_log(&pod, &of.container, previous) {
        Ok(id) => id,
        Err(why) => return text(400, why),
    };
    let path = match parts.runtime.container(&id).await {
        Ok(container) => container.log_path,
        Err(error) => {
            tracing::debug!(%id, %error, "no log");
            None
        }
    };
    let Some(path) = path else {
        return text(400, format!("unable to retrieve container logs for {id}"));
    };
    let runtime = parts.runtime.clone();
    let alive = move || -> BoxFuture<'static, bool> {
        let (runtime, id) = (runtime.clone(), id.clone());
        Box::pin(async move {
            let container = runtime.container(&id).await;
            container.is_ok_and(|container| container.state == ContainerState::Running)
        })
    };
    match logs::read(path, &options, alive, &parts.env).await {
        Ok(log) => {
            let mut response = Response::new(Body::new(StreamBody::new(log.map_ok(Frame::data))));
            let kind = HeaderValue::from_static("text/plain");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        Err(error) => text(400, error.to_string()),
    }
}
