//! The row of a pod: what the states of its containers come down to.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Row;
use super::cells::{Context, NONE, time};
use super::duration;
use crate::doc;

pub(super) fn row(cx: &Context<'_>) -> Row {
    let phase = cx.text(&["status", "phase"]);
    let summary = Summary::of(cx);
    let restarts = match summary.last_restart {
        Some(at) if summary.restarts != 0 => {
            format!(
                "{} ({} ago)",
                summary.restarts,
                duration::since(Some(at), cx.now)
            )
        }
        _ => summary.restarts.to_string(),
    };
    let first = doc::list(cx.at(&["status"]), "podIPs").first();
    let ip = first.map_or_else(|| cx.text(&["status", "podIP"]), |ip| doc::text(ip, "ip"));
    let cells = vec![
        cx.name(),
        format!("{}/{}", summary.ready, summary.containers).into(),
        summary.status.into(),
        restarts.into(),
        cx.age(),
        if ip.is_empty() { NONE } else { ip }.into(),
        cx.text_or(&["spec", "nodeName"], NONE).into(),
        cx.text_or(&["status", "nominatedNodeName"], NONE).into(),
        readiness_gates(cx).into(),
    ];
    let conditions = match phase {
        "Succeeded" => vec![completed(phase, "The pod has completed successfully.")],
        "Failed" => vec![completed(phase, "The pod failed.")],
        _ => Vec::new(),
    };
    Row { cells, conditions }
}

fn completed(reason: &str, message: &str) -> Value {
    json!({ "type": "Completed", "status": "True", "reason": reason, "message": message })
}

/// How many of the pod's readiness gates are open.
fn readiness_gates(cx: &Context<'_>) -> String {
    let gates = doc::list(cx.at(&["spec"]), "readinessGates");
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let open = gates
        .iter()
        .filter(|gate| condition(cx, doc::text(gate, "conditionType")) == Some("True"));
    format!("{}/{}", open.count(), gates.len())
}

/// The status of a condition of the pod.
fn condition<'a>(cx: &Context<'a>, ty: &str) -> Option<&'a str> {
    let conditions = doc::list(cx.at(&["status"]), "conditions");
    conditions
        .iter()
        .find(|c| doc::text(c, "type") == ty)
        .map(|c| doc::text(c, "status"))
}

struct Summary {
    status: String,
    ready: usize,
    containers: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

/// Restarts of some containers, and when the last of them was.
#[derive(Clone, Copy, Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, container: &Value) {
        self.count += doc::int(container, "restartCount").unwrap_or_default();
        let ended = doc::at(container, &["lastState", "terminated", "finishedAt"]);
        self.last = self.last.max(time(ended));
    }
}

impl Summary {
    fn of(cx: &Context<'_>) -> Self {
        let (spec, status) = (cx.at(&["spec"]), cx.at(&["status"]));
        let phase = doc::text(status, "phase");
        let own_reason = doc::text(status, "reason");
        let mut summary = Self {
            status: if own_reason.is_empty() {
                phase
            } else {
                own_reason
            }
            .to_owned(),
            ready: 0,
            containers: doc::list(spec, "containers").len(),
            restarts: 0,
            last_restart: None,
        };
        let gated = doc::list(status, "conditions").iter().any(|c| {
            doc::text(c, "type") == "PodScheduled" && doc::text(c, "reason") == "SchedulingGated"
        });
        if gated {
            "SchedulingGated".clone_into(&mut summary.status);
        }
        let inits = doc::list(spec, "initContainers");
        let is_sidecar = |init: &Value| doc::text(init, "restartPolicy") == "Always";
        summary.containers += inits.iter().filter(|init| is_sidecar(init)).count();

        let sidecars: Vec<&str> = inits
            .iter()
            .filter(|init| is_sidecar(init))
            .map(|init| doc::text(init, "name"))
            .collect();
        let (initializing, of_sidecars) = summary.initialize(status, inits.len(), &sidecars);
        if !initializing || condition(cx, "Initialized") == Some("True") {
            summary.run(cx, of_sidecars);
        }
        let ended = matches!(phase, "Failed" | "Succeeded");
        if cx.is_deleted() && own_reason == "NodeLost" {
            "Unknown".clone_into(&mut summary.status);
        } else if cx.is_deleted() && !ended {
            "Terminating".clone_into(&mut summary.status);
        }
        summary
    }

    /// Looks at the init containers up to the first that is not done. Says whether there is one, and the restarts of the
    /// sidecars among those it has looked at.
    fn initialize(&mut self, status: &Value, inits: usize, sidecars: &[&str]) -> (bool, Restarts) {
        let (mut all, mut of_sidecars) = (Restarts::default(), Restarts::default());
        let mut initializing = false;
        for (at, container) in doc::list(status, "initContainerStatuses")
            .iter()
            .enumerate()
        {
            all.add(container);
            let is_sidecar = sidecars.contains(&doc::text(container, "name"));
            if is_sidecar {
                of_sidecars.add(container);
            }
            let terminated = doc::at(container, &["state", "terminated"]);
            if !terminated.is_null() && doc::int(terminated, "exitCode").unwrap_or_default() == 0 {
                continue;
            }
            if is_sidecar && doc::flag(container, "started") {
                self.ready += usize::from(doc::flag(container, "ready"));
                continue;
            }
            let waiting = doc::text(doc::at(container, &["state", "waiting"]), "reason");
            self.status = if !terminated.is_null() {
                format!("Init:{}", ending(terminated))
            } else if !matches!(waiting, "" | "PodInitializing") {
                format!("Init:{waiting}")
            } else {
                format!("Init:{at}/{inits}")
            };
            initializing = true;
            break;
        }
        self.restarts = all.count;
        self.last_restart = all.last;
        (initializing, of_sidecars)
    }

    /// Looks at the containers of a pod whose initialization is over. Of the init containers only sidecars still count.
    fn run(&mut self, cx: &Context<'_>, mut restarts: Restarts) {
        let status = cx.at(&["status"]);
        let mut running = false;
        for container in doc::list(status, "containerStatuses").iter().rev() {
            restarts.add(container);
            let waiting = doc::text(doc::at(container, &["state", "waiting"]), "reason");
            let terminated = doc::at(container, &["state", "terminated"]);
            if !waiting.is_empty() {
                waiting.clone_into(&mut self.status);
            } else if !terminated.is_null() {
                self.status = ending(terminated);
            } else if doc::flag(container, "ready")
                && !doc::at(container, &["state", "running"]).is_null()
            {
                running = true;
                self.ready += 1;
            }
        }
        if self.status == "Completed" && running {
            let ready = condition(cx, "Ready") == Some("True");
            if ready { "Running" } else { "NotReady" }.clone_into(&mut self.status);
        }
        self.restarts = restarts.count;
        self.last_restart = restarts.last;
    }
}

/// Why a container ended: its reason, or else its signal or exit code.
fn ending(terminated: &Value) -> String {
    match (
        doc::text(terminated, "reason"),
        doc::int(terminated, "signal").unwrap_or_default(),
    ) {
        ("", 0) => format!(
            "ExitCode:{}",
            doc::int(terminated, "exitCode").unwrap_or_default()
        ),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}
