//! Which path is what.

use http::{Method, Response};
use orlop_wire::body::Body;

use super::answer::{method_not_allowed, not_found_page};
use super::query::decode;

/// What a path names: a pod, and in most paths a container of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Of {
    pub(super) namespace: String,
    pub(super) pod: String,
    /// Empty if the path names none.
    pub(super) uid: String,
    /// Empty if the path names none.
    pub(super) container: String,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    Healthz(Option<&'a str>),
    Pods,
    RunningPods,
    Configz,
    Metrics,
    CadvisorMetrics,
    ResourceMetrics,
    ProbeMetrics,
    Summary,
    ContainerLogs(Of),
    Exec(Of),
    Attach(Of),
    Run(Of),
    PortForward(Of),
    Checkpoint(Of),
    /// An endpoint that is not served, and why.
    Disabled(&'static str),
}

/// Whether a path is another one or lies below it.
fn is_below(path: &str, top: &str) -> bool {
    path.strip_prefix(top)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The subresources of `nodes` of which one has to be allowed, the finest first.
pub(super) fn subresources(path: &str) -> &'static [&'static str] {
    for (top, subresources) in [
        ("/stats", &["stats"][..]),
        ("/metrics", &["metrics"]),
        ("/logs", &["log"]),
        ("/checkpoint", &["checkpoint"]),
        ("/pods", &["pods", "proxy"]),
        ("/runningpods", &["pods", "proxy"]),
        ("/healthz", &["healthz", "proxy"]),
        ("/configz", &["configz", "proxy"]),
    ] {
        if is_below(path, top) {
            return subresources;
        }
    }
    &["proxy"]
}

impl<'a> Route<'a> {
    /// What a request asks for.
    ///
    /// # Errors
    /// What to answer: no such path, or another method.
    pub(super) fn of(method: &Method, path: &'a str) -> Result<Self, Box<Response<Body>>> {
        let mut words = path.trim_start_matches('/').split('/');
        let first = words.next().unwrap_or_default();
        let mut rest: Vec<&str> = words.collect();
        if rest.last() == Some(&"") {
            rest.pop();
        }
        let missing = || Box::new(not_found_page());
        let word = |at: usize| decode(rest[at], false);
        // Namespace, pod, perhaps a uid, container.
        let container = || match rest.len() {
            3 => Ok(Of {
                namespace: word(0),
                pod: word(1),
                container: word(2),
                ..Of::default()
            }),
            4 => Ok(Of {
                namespace: word(0),
                pod: word(1),
                uid: word(2),
                container: word(3),
            }),
            _ => Err(missing()),
        };
        let route = match (first, rest.as_slice()) {
            ("healthz", []) => Self::Healthz(None),
            ("healthz", [check]) => Self::Healthz(Some(check)),
            ("pods", []) => Self::Pods,
            ("runningpods", []) => Self::RunningPods,
            ("configz", []) => Self::Configz,
            ("metrics", []) => Self::Metrics,
            ("metrics", ["cadvisor"]) => Self::CadvisorMetrics,
            ("metrics", ["resource"]) => Self::ResourceMetrics,
            ("metrics", ["probes"]) => Self::ProbeMetrics,
            ("stats", ["summary"]) => Self::Summary,
            ("containerLogs", [_, _, _]) => Self::ContainerLogs(container()?),
            ("exec", _) => Self::Exec(container()?),
            ("attach", _) => Self::Attach(container()?),
            ("run", _) => Self::Run(container()?),
            ("checkpoint", [_, _, _]) => Self::Checkpoint(container()?),
            ("portForward", [_, _] | [_, _, _]) => Self::PortForward(Of {
                namespace: word(0),
                pod: word(1),
                uid: if rest.len() > 2 {
                    word(2)
                } else {
                    String::new()
                },
                container: String::new(),
            }),
            ("logs", _) => Self::Disabled("logs endpoint is disabled."),
            ("debug", ["pprof", ..]) => Self::Disabled("profiling endpoint is disabled."),
            ("debug", ["flags", ..]) => Self::Disabled("flags endpoint is disabled."),
            _ => return Err(missing()),
        };
        let allowed = match &route {
            Self::Exec(_) | Self::Attach(_) | Self::PortForward(_) => "GET, POST",
            Self::Run(_) | Self::Checkpoint(_) => "POST",
            Self::Disabled(_) => return Ok(route),
            _ => "GET",
        };
        if allowed.split(", ").any(|allowed| allowed == method) {
            Ok(route)
        } else {
            Err(Box::new(method_not_allowed(allowed)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_understood() {
        let of = |namespace: &str, pod: &str, uid: &str, container: &str| Of {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            uid: uid.to_owned(),
            container: container.to_owned(),
        };
        for (method, path, route) in [
            (Method::GET, "/healthz", Route::Healthz(None)),
            (Method::GET, "/healthz/ping", Route::Healthz(Some("ping"))),
            (Method::GET, "/pods", Route::Pods),
            (Method::GET, "/runningpods/", Route::RunningPods),
            (Method::GET, "/metrics/resource", Route::ResourceMetrics),
            (Method::GET, "/stats/summary", Route::Summary),
            (
                Method::GET,
                "/containerLogs/a/b/c",
                Route::ContainerLogs(of("a", "b", "", "c")),
            ),
            (
                Method::POST,
                "/exec/a/b/c",
                Route::Exec(of("a", "b", "", "c")),
            ),
            (
                Method::GET,
                "/exec/a/b/u/c",
                Route::Exec(of("a", "b", "u", "c")),
            ),
            (
                Method::POST,
                "/portForward/a/b",
                Route::PortForward(of("a", "b", "", "")),
            ),
            (
                Method::GET,
                "/portForward/a/b/u",
                Route::PortForward(of("a", "b", "u", "")),
            ),
            (
                Method::GET,
                "/logs/x/y",
                Route::Disabled("logs endpoint is disabled."),
            ),
        ] {
            assert_eq!(Route::of(&method, path).unwrap(), route, "{path}");
        }
        for (method, path, code) in [
            (Method::POST, "/pods", 405),
            (Method::GET, "/run/a/b/c", 405),
            (Method::DELETE, "/exec/a/b/c", 405),
            (Method::GET, "/", 404),
            (Method::GET, "/nothing", 404),
            (Method::GET, "/exec/a/b", 404),
            (Method::GET, "/containerLogs/a/b/c/d", 404),
        ] {
            let refusal = Route::of(&method, path).unwrap_err();
            assert_eq!(refusal.status(), code, "{path}");
        }
    }

    #[test]
    fn paths_have_subresources() {
        for (path, expected) in [
            ("/stats/summary", &["stats"][..]),
            ("/statsandmore", &["proxy"]),
            ("/metrics", &["metrics"]),
            ("/logs/", &["log"]),
            ("/pods", &["pods", "proxy"]),
            ("/runningpods/", &["pods", "proxy"]),
            ("/healthz/syncloop", &["healthz", "proxy"]),
            ("/configz", &["configz", "proxy"]),
            ("/exec/a/b/c", &["proxy"]),
            ("/containerLogs/a/b/c", &["proxy"]),
        ] {
            assert_eq!(subresources(path), expected, "{path}");
        }
    }
}
