use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use orlop_core::client::{Answer, ObjectList, Operation, Patch, Request};
use orlop_core::env::SimEnv;
use orlop_core::revision::Revision;
use parking_lot::Mutex;

use super::*;
use crate::authorization::PolicyRule;
use crate::names::*;

/// A server that keeps what it is given, and counts the writes.
#[derive(Default)]
struct Memory(Mutex<State>);

#[derive(Default)]
struct State {
    objects: BTreeMap<(String, String, String), Object>,
    revision: u64,
    writes: usize,
}

impl Memory {
    fn value(&self, resource: &Resource, namespace: &str, name: &str) -> Value {
        let key = (resource.qualified(), namespace.to_owned(), name.to_owned());
        self.0.lock().objects[&key]
            .value()
            .unwrap()
            .as_ref()
            .clone()
    }

    fn change(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) {
        let mut value = self.value(resource, namespace, name);
        change(&mut value);
        let key = (resource.qualified(), namespace.to_owned(), name.to_owned());
        self.0
            .lock()
            .objects
            .insert(key, Object::from_value(value).unwrap());
    }

    fn writes(&self) -> usize {
        std::mem::take(&mut self.0.lock().writes)
    }

    fn count(&self, resource: &Resource) -> usize {
        self.0
            .lock()
            .objects
            .keys()
            .filter(|(of, ..)| *of == resource.qualified())
            .count()
    }
}

#[async_trait]
impl Client for Memory {
    async fn call(&self, request: Request) -> Result<Answer, Status> {
        let Request { target, operation } = request;
        let resource = target.resource;
        let namespace = target.namespace.unwrap_or_default();
        let name = target.name.unwrap_or_default();
        let key = |name: &str| (resource.qualified(), namespace.clone(), name.to_owned());
        let mut state = self.0.lock();
        let store = |state: &mut State, name: &str, value: Value| {
            assert!(!name.is_empty());
            state.revision += 1;
            state.writes += 1;
            let object = Object::from_value(value)
                .unwrap()
                .with_revision(Revision(state.revision));
            state.objects.insert(key(name), object.clone());
            Ok(Answer::Object(object))
        };
        match operation {
            Operation::Get(_) => {
                let found = state.objects.get(&key(&name)).cloned();
                found
                    .map(Answer::Object)
                    .ok_or_else(|| Status::not_found(&resource, &name))
            }
            Operation::List(_) => {
                let items = state
                    .objects
                    .iter()
                    .filter(|((of, ..), _)| *of == resource.qualified());
                let items = items.map(|(_, object)| object.clone()).collect();
                Ok(Answer::List(ObjectList {
                    items,
                    ..ObjectList::default()
                }))
            }
            Operation::Create(value, options) => {
                assert_eq!(options.field_manager, MANAGER);
                let name = text_at(&value, "/metadata/name").to_owned();
                if state.objects.contains_key(&key(&name)) {
                    return Err(Status::already_exists(&resource, &name));
                }
                store(&mut state, &name, value)
            }
            Operation::Update(value, _) => store(&mut state, &name, value),
            Operation::Patch(Patch::Merge(patch), _) => {
                let mut value = state.objects[&key(&name)].value().unwrap().as_ref().clone();
                value["rules"] = patch["rules"].clone();
                store(&mut state, &name, value)
            }
            Operation::Delete(_) => {
                state.writes += 1;
                state.objects.remove(&key(&name));
                Ok(Answer::Status(Box::default()))
            }
            other => panic!("not used here: {other:?}"),
        }
    }
}

fn config() -> Config {
    Config {
        advertise: Some("192.0.2.10:6443".parse().unwrap()),
        servers: Vec::new(),
        service_range: "10.96.0.0/12".to_owned(),
        nodes_join_by_token: false,
        client_ca: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(),
    }
}

fn run_on(memory: &Arc<Memory>, config: Config) {
    let sim = SimEnv::new(1);
    let (env, memory) = (sim.env(), memory.clone());
    sim.block_on(async move { run(&*memory, &env, &config).await.unwrap() });
}

#[test]
fn a_fresh_server_makes_its_objects_once() {
    let memory = Arc::new(Memory::default());
    run_on(&memory, config());
    assert!(memory.writes() > 150);
    run_on(&memory, config());
    assert_eq!(memory.writes(), 0, "nothing to do the second time");
    assert_eq!(memory.count(&NAMESPACES), 4);
    assert_eq!(memory.count(&ROLES), 7);
    assert_eq!(memory.count(&ROLE_BINDINGS), 7);
    assert_eq!(memory.count(&PRIORITY_LEVELS), 8);
    assert_eq!(memory.count(&FLOW_SCHEMAS), 13);
    assert_eq!(
        memory.value(&PRIORITY_CLASSES, "", "system-node-critical")["value"],
        2_000_001_000
    );
    let service = memory.value(&SERVICES, "default", "kubernetes");
    assert_eq!(service["spec"]["clusterIP"], "10.96.0.1");
    assert_eq!(
        memory.value(&ENDPOINTS, "default", "kubernetes")["subsets"][0]["addresses"],
        json!([{"ip": "192.0.2.10"}])
    );
    assert_eq!(
        memory.value(&SERVICE_CIDRS, "", "kubernetes")["status"]["conditions"][0]["type"],
        "Ready"
    );
    assert_eq!(
        memory.value(&IP_ADDRESSES, "", "10.96.0.1")["spec"]["parentRef"]["resource"],
        "services"
    );
    let tracking = memory.value(
        &CONFIG_MAPS,
        "kube-system",
        "kube-apiserver-legacy-service-account-token-tracking",
    );
    assert_eq!(tracking["data"], json!({"since": "2026-01-01"}));
}

#[test]
fn roles_are_what_upstream_has() {
    let memory = Arc::new(Memory::default());
    run_on(&memory, config());
    let reader = memory.value(
        &ROLES,
        "kube-system",
        "extension-apiserver-authentication-reader",
    );
    assert_eq!(
        reader["rules"],
        json!([{"apiGroups": [""], "resourceNames": ["extension-apiserver-authentication"], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}])
    );
    assert_eq!(
        memory.value(&CLUSTER_ROLES, "", "cluster-admin")["rules"],
        json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}, {"nonResourceURLs": ["*"], "verbs": ["*"]}])
    );
    let edit = memory.value(&CLUSTER_ROLES, "", "edit");
    assert_eq!(
        edit["metadata"],
        json!({
            "name": "edit",
            "resourceVersion": edit["metadata"]["resourceVersion"],
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults", "rbac.authorization.k8s.io/aggregate-to-admin": "true"},
            "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
        })
    );
    // Gathered through edit and view, which gather themselves.
    let rules: Vec<PolicyRule> =
        serde_json::from_value(memory.value(&CLUSTER_ROLES, "", "admin")["rules"].clone()).unwrap();
    for (verb, resource) in [
        ("create", "rolebindings"),
        ("create", "pods"),
        ("get", "configmaps"),
        ("list", "pods/log"),
    ] {
        let found = rules.iter().any(|rule| {
            rule.verbs.iter().any(|v| v == verb) && rule.resources.iter().any(|r| r == resource)
        });
        assert!(found, "{verb} {resource}");
    }
    let binding = memory.value(
        &CLUSTER_ROLE_BINDINGS,
        "",
        "system:controller:deployment-controller",
    );
    assert_eq!(
        binding["subjects"],
        json!([{"kind": "ServiceAccount", "name": "deployment-controller", "namespace": "kube-system"}])
    );
    assert_eq!(
        binding["roleRef"],
        json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:controller:deployment-controller"})
    );
    assert!(node_rules().len() > 15);
}

#[test]
fn every_line_of_the_data_is_understood() {
    let data = include_str!("../../data/rbac.txt");
    let lines = |starts: fn(&str) -> bool| {
        data.lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#') && starts(line))
            .count()
    };
    let policies = roles::policies();
    assert_eq!(policies.len(), lines(|line| !line.starts_with(' ')));
    let rules: usize = policies
        .iter()
        .map(|policy| match &policy.content {
            roles::Content::Rules(rules) => rules.len(),
            roles::Content::Binding(role, subjects) => {
                assert!(!role.name.is_empty());
                assert!(
                    !subjects.is_empty() || policy.name == "system:node",
                    "{}",
                    policy.name
                );
                0
            }
        })
        .sum();
    assert_eq!(rules, lines(|line| line.starts_with(' ')));
}

#[test]
fn what_was_taken_away_comes_back_and_what_was_added_stays() {
    let memory = Arc::new(Memory::default());
    run_on(&memory, config());
    memory.writes();
    let whole = memory.value(&CLUSTER_ROLES, "", "system:discovery")["rules"].clone();
    let extra = json!({"apiGroups": ["x"], "resources": ["y"], "verbs": ["get"]});
    memory.change(&CLUSTER_ROLES, "", "system:discovery", |role| {
        role["rules"] = json!([extra])
    });
    memory.change(&CLUSTER_ROLE_BINDINGS, "", "system:basic-user", |binding| {
        binding["subjects"] = json!([])
    });
    memory.change(&CLUSTER_ROLE_BINDINGS, "", "system:discovery", |binding| {
        binding["roleRef"]["name"] = json!("other")
    });
    memory.change(&CLUSTER_ROLES, "", "system:basic-user", |role| {
        role["rules"] = Value::Null;
        role["metadata"]["annotations"] =
            json!({"rbac.authorization.kubernetes.io/autoupdate": "false"});
    });
    memory.change(&FLOW_SCHEMAS, "", "exempt", |schema| {
        schema["spec"]["matchingPrecedence"] = json!(7)
    });
    memory.change(&FLOW_SCHEMAS, "", "service-accounts", |schema| {
        schema["spec"]["matchingPrecedence"] = json!(7);
        schema["metadata"]["annotations"] = json!({"apf.kubernetes.io/autoupdate-spec": "false"});
    });
    run_on(
        &memory,
        Config {
            advertise: Some("192.0.2.11:443".parse().unwrap()),
            ..config()
        },
    );
    let rules = |value: Value| serde_json::from_value::<Vec<PolicyRule>>(value).unwrap();
    let now = rules(memory.value(&CLUSTER_ROLES, "", "system:discovery")["rules"].clone());
    assert_eq!(now[0], rules(json!([extra]))[0]);
    assert_eq!(crate::authorization::covers(&now, &rules(whole)), []);
    assert_eq!(
        memory.value(&CLUSTER_ROLE_BINDINGS, "", "system:basic-user")["subjects"][0]["name"],
        "system:authenticated"
    );
    assert_eq!(
        memory.value(&CLUSTER_ROLE_BINDINGS, "", "system:discovery")["roleRef"]["name"],
        "system:discovery"
    );
    assert_eq!(
        memory.value(&CLUSTER_ROLES, "", "system:basic-user")["rules"],
        Value::Null,
        "protected"
    );
    assert_eq!(
        memory.value(&FLOW_SCHEMAS, "", "exempt")["spec"]["matchingPrecedence"],
        1
    );
    assert_eq!(
        memory.value(&FLOW_SCHEMAS, "", "service-accounts")["spec"]["matchingPrecedence"],
        7,
        "protected"
    );
    assert_eq!(
        memory.value(&ENDPOINT_SLICES, "default", "kubernetes")["endpoints"][0]["addresses"],
        json!(["192.0.2.11"])
    );
}

#[test]
fn authorities_of_several_servers_are_kept() {
    let memory = Arc::new(Memory::default());
    run_on(&memory, config());
    let other = "-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----\n";
    run_on(
        &memory,
        Config {
            nodes_join_by_token: false,
            client_ca: other.to_owned(),
            ..config()
        },
    );
    let bundle = memory.value(
        &CONFIG_MAPS,
        "kube-system",
        "extension-apiserver-authentication",
    )["data"]["client-ca-file"]
        .clone();
    assert_eq!(bundle, json!(format!("{}{other}", config().client_ca)));
}

#[test]
fn a_range_has_a_first_address() {
    let first = |range: &str| first_service_ip(range).map(|ip| ip.to_string());
    assert_eq!(first("10.96.0.0/12").as_deref(), Some("10.96.0.1"));
    assert_eq!(first("10.0.5.7/24").as_deref(), Some("10.0.5.1"));
    assert_eq!(first("fd00::/108").as_deref(), Some("fd00::1"));
    for bad in ["", "10.0.0.0", "10.0.0.0/32", "x/8", "10.0.0.0/0x"] {
        assert_eq!(first(bad), None, "{bad}");
    }
}
