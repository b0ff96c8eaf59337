//! The built-in priority levels and flow schemas of API priority and fairness.

use futures::future::try_join_all;
use orlop_core::object::Object;
use orlop_core::resource::Resource;
use orlop_core::status::Status;
use serde_json::{Value, json};

use super::{Server, copy};
use crate::names::{FLOW_SCHEMAS, PRIORITY_LEVELS};

const AUTOUPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
/// Without these two nothing works; their specs are always the built-in ones.
const MANDATORY: [&str; 2] = ["exempt", "catch-all"];

/// A priority level that limits: name, shares, the part in per cent that others may borrow, and queues with their hand size (zero for
/// refusing at once).
const LIMITED: [(&str, i64, i64, i64, i64); 7] = [
    ("catch-all", 5, 0, 0, 0),
    ("global-default", 20, 50, 128, 6),
    ("leader-election", 10, 0, 16, 4),
    ("node-high", 40, 25, 64, 6),
    ("system", 30, 33, 64, 6),
    ("workload-high", 40, 50, 128, 6),
    ("workload-low", 100, 90, 128, 6),
];
const QUEUE_LENGTH: i64 = 50;

fn priority_levels() -> Vec<(&'static str, Value)> {
    let exempt =
        json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
    let limited = LIMITED
        .iter()
        .map(|&(name, shares, lendable, queues, hand)| {
            let response = if queues == 0 {
                json!({"type": "Reject"})
            } else {
                let queuing =
                    json!({"queues": queues, "handSize": hand, "queueLengthLimit": QUEUE_LENGTH});
                json!({"type": "Queue", "queuing": queuing})
            };
            let limited = json!({
                "nominalConcurrencyShares": shares,
                "lendablePercent": lendable,
                "limitResponse": response,
            });
            (name, json!({"type": "Limited", "limited": limited}))
        });
    std::iter::once(("exempt", exempt)).chain(limited).collect()
}

fn users(names: &[&str]) -> Vec<Value> {
    names
        .iter()
        .map(|name| json!({"kind": "User", "user": {"name": name}}))
        .collect()
}

fn groups(names: &[&str]) -> Vec<Value> {
    names
        .iter()
        .map(|name| json!({"kind": "Group", "group": {"name": name}}))
        .collect()
}

fn accounts(names: &[&str]) -> Vec<Value> {
    let account = |name: &&str| json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": name}});
    names.iter().map(account).collect()
}

fn resources(verbs: &[&str], groups: &[&str], resources: &[&str], cluster: bool) -> Value {
    let mut rule =
        json!({"verbs": verbs, "apiGroups": groups, "resources": resources, "namespaces": ["*"]});
    if cluster {
        rule["clusterScope"] = json!(true);
    }
    rule
}

/// Everything that the subjects do.
fn all_of(subjects: Vec<Value>) -> Value {
    json!({
        "subjects": subjects,
        "resourceRules": [resources(&["*"], &["*"], &["*"], true)],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    })
}

fn some_of(subjects: Vec<Value>, rules: &[Value]) -> Value {
    json!({"subjects": subjects, "resourceRules": rules})
}

fn flow_schemas() -> Vec<(&'static str, Value)> {
    const EVERYBODY: [&str; 2] = ["system:unauthenticated", "system:authenticated"];
    const MANAGER: &str = "system:kube-controller-manager";
    const SCHEDULER: &str = "system:kube-scheduler";
    let leases = || {
        resources(
            &["get", "create", "update"],
            &["coordination.k8s.io"],
            &["leases"],
            false,
        )
    };
    let endpoints = || resources(&["get", "create", "update"], &[""], &["endpoints"], false);
    let probes = json!({
        "subjects": groups(&EVERYBODY),
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}],
    });
    let of_components = || [users(&[MANAGER, SCHEDULER]), accounts(&["*"])].concat();
    let of_endpoints = [
        users(&[MANAGER]),
        accounts(&["endpoint-controller", "endpointslicemirroring-controller"]),
    ]
    .concat();
    let own_node = resources(&["*"], &[""], &["nodes", "nodes/status"], true);
    let own_lease = resources(&["*"], &["coordination.k8s.io"], &["leases"], false);
    let schemas = [
        (
            "exempt",
            "exempt",
            1,
            "",
            all_of(groups(&["system:masters"])),
        ),
        ("probes", "exempt", 2, "", probes),
        (
            "system-leader-election",
            "leader-election",
            100,
            "ByUser",
            some_of(of_components(), &[leases()]),
        ),
        (
            "endpoint-controller",
            "workload-high",
            150,
            "ByUser",
            some_of(of_endpoints, &[endpoints()]),
        ),
        (
            "workload-leader-election",
            "leader-election",
            200,
            "ByUser",
            some_of(accounts(&["*"]), &[leases()]),
        ),
        (
            "system-node-high",
            "node-high",
            400,
            "ByUser",
            some_of(groups(&["system:nodes"]), &[own_node, own_lease]),
        ),
        (
            "system-nodes",
            "system",
            500,
            "ByUser",
            all_of(groups(&["system:nodes"])),
        ),
        (
            "kube-controller-manager",
            "workload-high",
            800,
            "ByNamespace",
            all_of(users(&[MANAGER])),
        ),
        (
            "kube-scheduler",
            "workload-high",
            800,
            "ByNamespace",
            all_of(users(&[SCHEDULER])),
        ),
        (
            "kube-system-service-accounts",
            "workload-high",
            900,
            "ByNamespace",
            all_of(accounts(&["*"])),
        ),
        (
            "service-accounts",
            "workload-low",
            9000,
            "ByUser",
            all_of(groups(&["system:serviceaccounts"])),
        ),
        (
            "global-default",
            "global-default",
            9900,
            "ByUser",
            all_of(groups(&EVERYBODY)),
        ),
        (
            "catch-all",
            "catch-all",
            10000,
            "ByUser",
            all_of(groups(&EVERYBODY)),
        ),
    ];
    let spec =
        |(name, level, precedence, distinguisher, rule): (&'static str, &str, i64, &str, Value)| {
            let mut spec = json!({
                "priorityLevelConfiguration": {"name": level},
                "matchingPrecedence": precedence,
                "rules": [rule],
            });
            if !distinguisher.is_empty() {
                spec["distinguisherMethod"] = json!({"type": distinguisher});
            }
            (name, spec)
        };
    schemas.into_iter().map(spec).collect()
}

/// Whether everything that is wanted stands in what is there; defaults may have been added to it.
fn contains(known: &Value, wanted: &Value) -> bool {
    match (known, wanted) {
        (Value::Object(known), Value::Object(wanted)) => wanted.iter().all(|(field, value)| {
            known
                .get(field)
                .map_or_else(|| is_zero(value), |known| contains(known, value))
        }),
        (Value::Array(known), Value::Array(wanted)) => {
            known.len() == wanted.len()
                && known
                    .iter()
                    .zip(wanted)
                    .all(|(known, wanted)| contains(known, wanted))
        }
        _ => known == wanted,
    }
}

/// A field that is zero may be left out.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::Object(map) => map.values().all(is_zero),
        _ => false,
    }
}

/// Whether the server may bring an object's spec up to date: its annotation says so, or, without one, that nobody has changed it.
fn is_ours(object: &Object) -> bool {
    let metadata = object.metadata();
    match metadata.annotations.get(AUTOUPDATE).map(String::as_str) {
        Some("true") => true,
        Some("false") => false,
        _ => metadata.generation == Some(1),
    }
}

async fn keep(
    server: &Server<'_>,
    resource: &Resource,
    specs: Vec<(&'static str, Value)>,
) -> Result<(), Status> {
    let known = server.list(resource).await?;
    let known = &known;
    try_join_all(specs.into_iter().map(async |(name, spec)| {
        let Some(object) = known.iter().find(|object| object.name() == name) else {
            let object = json!({"metadata": {"name": name, "annotations": {AUTOUPDATE: "true"}}, "spec": spec});
            return server.make(resource, &object).await;
        };
        if !MANDATORY.contains(&name) && !is_ours(object) {
            return Ok(());
        }
        let mut changed = copy(object)?;
        if contains(&changed["spec"], &spec) {
            return Ok(());
        }
        changed["spec"] = spec;
        changed["metadata"]["annotations"][AUTOUPDATE] = json!("true");
        server.update(resource, &changed).await.map(|_| ())
    }))
    .await?;
    Ok(())
}

/// Makes the objects that are missing and brings those up to date that are still the server's own.
pub(super) async fn reconcile(server: &Server<'_>) -> Result<(), Status> {
    keep(server, &PRIORITY_LEVELS, priority_levels()).await?;
    keep(server, &FLOW_SCHEMAS, flow_schemas()).await
}
