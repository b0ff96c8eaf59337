//! What goes on in containers: `exec`, `attach`, `run` and port-forward, and what the runtime itself is asked.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{Request, Response, Uri};
use k8s_openapi::api::core::v1::Pod;
use orlop_core::runtime::{
    AttachRequest, ContainerFilter, ContainerId, ContainerState, ExecRequest, Labels, Process,
    Runtime, RuntimeError, SandboxFilter, SandboxState,
};
use orlop_wire::body::Body;
use orlop_wire::stream::mux::Options;
use orlop_wire::stream::{port_forward as forward, remote_command};
use serde_json::json;

use super::answer::{internal_error, json, text};
use super::container_logs::has_container;
use super::query::{first, is_set, pairs};
use super::routes::Of;
use super::{KubeletServer, ServerParts};
use crate::blocking::blocking;
use crate::labels;

fn uid_of(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

fn find_pod(parts: &ServerParts, of: &Of) -> Result<Arc<Pod>, Box<Response<Body>>> {
    let pod = parts.pods.find(&of.namespace, &of.pod);
    pod.ok_or_else(|| Box::new(text(404, "pod does not exist")))
}

/// The container of a pod that runs.
async fn find_container(
    parts: &ServerParts,
    of: &Of,
    pod: &Pod,
) -> Result<ContainerId, Box<Response<Body>>> {
    let none = || {
        let why = format!("container not found (\"{}\")\n", of.container);
        Box::new(text(500, why))
    };
    if !of.uid.is_empty() && of.uid != uid_of(pod) {
        return Err(none());
    }
    let filter = ContainerFilter {
        state: Some(ContainerState::Running),
        labels: Labels::from([
            (labels::POD_UID.to_owned(), uid_of(pod).to_owned()),
            (labels::CONTAINER_NAME.to_owned(), of.container.clone()),
        ]),
        ..ContainerFilter::default()
    };
    let running = parts.runtime.containers(&filter).await;
    let running = running.map_err(|error| Box::new(internal_error(error)))?;
    running
        .into_iter()
        .next_back()
        .map(|container| container.id)
        .ok_or_else(none)
}

/// Which streams a client wants.
fn wanted(query: &[(String, String)]) -> Result<remote_command::Streams, Box<Response<Body>>> {
    let tty = is_set(query, "tty");
    let streams = remote_command::Streams {
        stdin: is_set(query, "input"),
        stdout: is_set(query, "output"),
        // A terminal has one output.
        stderr: is_set(query, "error") && !tty,
        tty,
    };
    if streams.stdin || streams.stdout || streams.stderr {
        Ok(streams)
    } else {
        Err(Box::new(text(
            400,
            "you must specify at least 1 of stdin, stdout, stderr",
        )))
    }
}

fn stream_options(parts: &ServerParts) -> Options {
    Options::default().idle_timeout(parts.config.streaming_connection_idle_timeout)
}

/// Agrees with a client and joins it to what `start` starts.
fn join<F>(
    server: &KubeletServer,
    mut request: Request<Body>,
    streams: remote_command::Streams,
    failure: &'static str,
    start: impl FnOnce() -> F + Send + 'static,
) -> Response<Body>
where
    F: Future<Output = Result<Process, RuntimeError>> + Send + 'static,
{
    let (response, session) = match remote_command::accept(&mut request, streams) {
        Ok(accepted) => accepted,
        Err(refusal) => return *refusal,
    };
    let (options, env) = (stream_options(&server.parts), server.parts.env.clone());
    server
        .tasks
        .spawn_until_cancelled("remote command", async move {
            if let Err(error) = session.serve(start, failure, options, &env).await {
                tracing::debug!(%error, "a client did not begin");
            }
        });
    response
}

pub(super) async fn exec(
    server: &KubeletServer,
    of: &Of,
    request: Request<Body>,
) -> Response<Body> {
    let query = pairs(request.uri());
    let prepared = async {
        let streams = wanted(&query)?;
        let pod = find_pod(&server.parts, of)?;
        let id = find_container(&server.parts, of, &pod).await?;
        let command = query.iter().filter(|(name, _)| name == "command");
        let command = ExecRequest {
            command: command.map(|(_, value)| value.clone()).collect(),
            tty: streams.tty,
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
        };
        Ok::<_, Box<Response<Body>>>((streams, id, command))
    };
    let (streams, id, command) = match prepared.await {
        Ok(prepared) => prepared,
        Err(refusal) => return *refusal,
    };
    let runtime = server.parts.runtime.clone();
    let start = move || async move { runtime.exec(&id, &command).await };
    join(
        server,
        request,
        streams,
        "error executing command in container",
        start,
    )
}

/// Whether a container was made with a terminal, which cannot be changed afterwards.
fn has_terminal(pod: &Pod, container: &str) -> bool {
    let Some(spec) = &pod.spec else {
        return false;
    };
    let regular = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .find(|one| one.name == container)
        .and_then(|one| one.tty);
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    let ephemeral = { ephemeral }
        .find(|one| one.name == container)
        .and_then(|one| one.tty);
    regular.or(ephemeral).unwrap_or_default()
}

/// What a client is told that was attached to a container: no exit code, for that stands in the pod's status, and it is no failure of
/// the attachment. A container may also be gone by the time that its streams have ended.
fn end_of_attachment(end: Result<i32, RuntimeError>) -> Result<i32, RuntimeError> {
    match end {
        Ok(_) | Err(RuntimeError::NotFound { .. }) => Ok(0),
        broken => broken,
    }
}

pub(super) async fn attach(
    server: &KubeletServer,
    of: &Of,
    request: Request<Body>,
) -> Response<Body> {
    let query = pairs(request.uri());
    let prepared = async {
        let streams = wanted(&query)?;
        let pod = find_pod(&server.parts, of)?;
        let id = find_container(&server.parts, of, &pod).await?;
        Ok::<_, Box<Response<Body>>>((streams, has_terminal(&pod, &of.container), id))
    };
    let (streams, tty, id) = match prepared.await {
        Ok(prepared) => prepared,
        Err(refusal) => return *refusal,
    };
    let wanted = AttachRequest {
        stdin: streams.stdin,
        stdout: streams.stdout,
        stderr: streams.stderr && !tty,
        tty,
    };
    let runtime = server.parts.runtime.clone();
    let start = move || async move {
        let process = runtime.attach(&id, &wanted).await?;
        let exit = process.exit;
        Ok(Process {
            exit: Box::pin(async move { end_of_attachment(exit.await) }),
            ..process
        })
    };
    join(
        server,
        request,
        streams,
        "error attaching to container",
        start,
    )
}

/// Runs a command to its end and answers with all that it wrote.
pub(super) async fn run(parts: &ServerParts, of: &Of, uri: &Uri) -> Response<Body> {
    let found = async {
        let pod = find_pod(parts, of)?;
        find_container(parts, of, &pod).await
    };
    let id = match found.await {
        Ok(id) => id,
        Err(refusal) => return *refusal,
    };
    let query = pairs(uri);
    let command: Vec<String> = first(&query, "cmd")
        .unwrap_or_default()
        .split(' ')
        .map(str::to_owned)
        .collect();
    match parts.runtime.exec_sync(&id, &command).await {
        Ok(output) => {
            let mut all = output.stdout;
            all.extend_from_slice(&output.stderr);
            if output.code != 0 {
                let code = output.code;
                let all = String::from_utf8_lossy(&all);
                return internal_error(format_args!(
                    "command '{}' exited with {code}: {all}",
                    command.join(" ")
                ));
            }
            let mut response = Response::new(Body::from(all));
            let kind = http::HeaderValue::from_static("application/json");
            response
                .headers_mut()
                .insert(http::header::CONTENT_TYPE, kind);
            response
        }
        Err(error) => internal_error(error),
    }
}

pub(super) async fn port_forward(
    server: &KubeletServer,
    of: &Of,
    mut request: Request<Body>,
) -> Response<Body> {
    let parts = &server.parts;
    let pod = match find_pod(parts, of) {
        Ok(pod) => pod,
        Err(refusal) => return *refusal,
    };
    let uid = uid_of(&pod);
    if !of.uid.is_empty() && of.uid != uid {
        return text(404, "pod not found");
    }
    let filter = SandboxFilter {
        state: Some(SandboxState::Ready),
        labels: Labels::from([(labels::POD_UID.to_owned(), uid.to_owned())]),
        ..SandboxFilter::default()
    };
    let sandbox = match parts.runtime.sandboxes(&filter).await {
        Ok(all) => all.into_iter().next_back(),
        Err(error) => return internal_error(error),
    };
    let Some(sandbox) = sandbox else {
        let why = format!("pod not found (\"{}_{}\")\n", of.pod, of.namespace);
        return text(500, why);
    };
    let (response, session) = match forward::accept(&mut request) {
        Ok(accepted) => accepted,
        Err(refusal) => return *refusal,
    };
    let runtime = parts.runtime.clone();
    let connect = move |port| {
        let (runtime, sandbox) = (runtime.clone(), sandbox.id.clone());
        async move { runtime.port_forward(&sandbox, port).await }
    };
    let name = format!("pod {}, uid {uid}", of.pod);
    let (options, env) = (stream_options(parts), parts.env.clone());
    server
        .tasks
        .spawn_until_cancelled("port-forward", async move {
            if let Err(error) = session.serve(connect, &name, options, &env).await {
                tracing::debug!(%error, "a client did not begin");
            }
        });
    response
}

/// The pods that the runtime has, whether the API knows them or not.
pub(super) async fn running_pods(runtime: &dyn Runtime) -> Response<Body> {
    let filter = ContainerFilter {
        state: Some(ContainerState::Running),
        ..ContainerFilter::default()
    };
    let containers = match runtime.containers(&filter).await {
        Ok(containers) => containers,
        Err(error) => return internal_error(error),
    };
    let mut pods = BTreeMap::new();
    for container in containers {
        let label = |name: &str| container.labels.get(name).cloned().unwrap_or_default();
        let key = (
            label(labels::POD_NAMESPACE),
            label(labels::POD_NAME),
            label(labels::POD_UID),
        );
        let one = json!({
            "name": label(labels::CONTAINER_NAME),
            "image": container.image.image,
            "resources": {},
        });
        let of_pod: &mut Vec<_> = pods.entry(key).or_default();
        of_pod.push(one);
    }
    let items: Vec<_> = pods
        .into_iter()
        .map(|((namespace, name, uid), containers)| {
            json!({
                "metadata": {"namespace": namespace, "name": name, "uid": uid},
                "spec": {"containers": containers},
                "status": {},
            })
        })
        .collect();
    json(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

/// Writes a container's state into a file and says where that is.
pub(super) async fn checkpoint(parts: &ServerParts, of: &Of) -> Response<Body> {
    let pod = match find_pod(parts, of) {
        Ok(pod) => pod,
        Err(refusal) => return *refusal,
    };
    let name = &of.container;
    if !has_container(&pod, name) {
        return text(404, format!("container {name} does not exist"));
    }
    let id = match find_container(parts, of, &pod).await {
        Ok(id) => id,
        Err(refusal) => return *refusal,
    };
    let directory = parts.config.root_dir.join("checkpoints");
    let file = directory.join(format!(
        "checkpoint-{}_{}-{name}-{}.tar",
        of.pod,
        of.namespace,
        parts.env.wall().strftime("%Y-%m-%dT%H:%M:%SZ")
    ));
    let failed = |error: &dyn std::fmt::Display| {
        internal_error(format_args!(
            "checkpointing of {}/{}/{name} failed ({error})",
            of.namespace, of.pod
        ))
    };
    if let Err(error) = blocking(move || std::fs::create_dir_all(directory)).await {
        return failed(&error);
    }
    match parts.runtime.checkpoint_container(&id, &file).await {
        Ok(()) => json(&json!({"items": [file]})),
        Err(error) => failed(&error),
    }
}
