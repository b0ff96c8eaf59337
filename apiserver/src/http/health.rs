//! `/healthz`, `/livez` and `/readyz`, whole and check by check.

use http::{Response, StatusCode};
use orlop_wire::body::Body;

use super::query::Query;
use super::respond;
use crate::Server;

/// One check and what it found.
struct Check {
    name: &'static str,
    outcome: Result<(), String>,
}

async fn checks(server: &Server, endpoint: &str) -> Vec<Check> {
    let mut checks = vec![
        Check {
            name: "ping",
            outcome: Ok(()),
        },
        Check {
            name: "log",
            outcome: Ok(()),
        },
    ];
    let store = server
        .registry
        .store
        .healthy()
        .await
        .map_err(|error| error.to_string());
    if endpoint != "livez" {
        checks.push(Check {
            name: "store",
            outcome: store,
        });
    }
    if endpoint == "readyz" {
        let shown = !server.registry.caches.applied().is_zero();
        let outcome = if shown {
            Ok(())
        } else {
            Err("the cache has not been filled".to_owned())
        };
        checks.push(Check {
            name: "informer-sync",
            outcome,
        });
    }
    let started = server.is_bootstrapped();
    let outcome = if started {
        Ok(())
    } else {
        Err("not finished".to_owned())
    };
    checks.push(Check {
        name: "poststarthook/rbac/bootstrap-roles",
        outcome,
    });
    if endpoint == "readyz" {
        let outcome = if server.is_stopping() {
            Err("process is shutting down".to_owned())
        } else {
            Ok(())
        };
        checks.push(Check {
            name: "shutdown",
            outcome,
        });
    }
    checks
}

/// Answers a health endpoint.
pub(super) async fn answer(server: &Server, segments: &[&str], query: &Query) -> Response<Body> {
    let endpoint = segments.first().copied().unwrap_or_default();
    let mut checks = checks(server, endpoint).await;
    if let Some(name) = segments
        .get(1..)
        .filter(|rest| !rest.is_empty())
        .map(|rest| rest.join("/"))
    {
        let Some(check) = checks.iter().find(|check| check.name == name) else {
            return respond::page_not_found();
        };
        return match &check.outcome {
            Ok(()) => respond::text(StatusCode::OK, "ok"),
            Err(why) => respond::text(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("internal server error: {why}\n"),
            ),
        };
    }
    let excluded = query.all("exclude");
    let unknown: Vec<&String> = excluded
        .iter()
        .filter(|name| !checks.iter().any(|check| check.name == name.as_str()))
        .collect();
    let mut lines = String::new();
    let mut failed = Vec::new();
    for check in &mut checks {
        if excluded.iter().any(|name| name == check.name) {
            lines.push_str(&format!("[+]{} excluded: ok\n", check.name));
            continue;
        }
        match &check.outcome {
            Ok(()) => lines.push_str(&format!("[+]{} ok\n", check.name)),
            Err(_) => {
                lines.push_str(&format!("[-]{} failed: reason withheld\n", check.name));
                failed.push(check.name);
            }
        }
    }
    if !unknown.is_empty() {
        let names: Vec<String> = unknown.iter().map(|name| format!("\"{name}\"")).collect();
        lines.push_str(&format!(
            "warn: some health checks cannot be excluded: no matches for {}\n",
            names.join(",")
        ));
    }
    if failed.is_empty() {
        if query.has("verbose") {
            return respond::text(StatusCode::OK, format!("{lines}{endpoint} check passed\n"));
        }
        return respond::text(StatusCode::OK, "ok");
    }
    respond::text(
        StatusCode::INTERNAL_SERVER_ERROR,
        format!("{lines}{endpoint} check failed\n"),
    )
}
