//! Deleting: what goes along, what stays, what waits.

use serde_json::{Value, json};

use super::WEB;
use crate::support::{Kubectl, Server};

fn count(kubectl: &Kubectl<'_>, what: &str) -> usize {
    kubectl.json(&format!("get {what}"))["items"]
        .as_array()
        .unwrap()
        .len()
}

#[test]
fn every_cascade_takes_what_it_should() {
    if !Kubectl::is_there("every_cascade_takes_what_it_should") {
        return;
    }
    let server = Server::start(&[]);
    let kubectl = Kubectl::in_new(&server, "shop");
    kubectl.file("web.yaml", WEB);
    kubectl.ok("apply -f web.yaml");
    kubectl.ok("rollout status deploy/web --timeout 90s");

    // Orphan: what it owned stays, and belongs to nobody.
    let deleted = kubectl.ok("delete deployment web --cascade=orphan");
    assert!(
        deleted.starts_with("deployment.apps \"web\" deleted"),
        "{deleted}"
    );
    let sets = kubectl.json("get replicasets");
    assert_eq!(sets["items"].as_array().unwrap().len(), 1);
    assert_eq!(sets["items"][0]["metadata"]["ownerReferences"], Value::Null);
    assert_eq!(count(&kubectl, "pods"), 3);
    // A deployment that comes again adopts it.
    kubectl.ok("apply -f web.yaml");
    kubectl.until(
        "get replicasets -o jsonpath='{.items[*].metadata.ownerReferences[*].kind}'",
        |kinds| kinds == "Deployment",
    );
    kubectl.ok("rollout status deploy/web --timeout 90s");
    assert_eq!(count(&kubectl, "replicasets"), 1);

    // Foreground: when the owner is gone, so is all the rest.
    kubectl.ok("delete deployment web --cascade=foreground --timeout 90s");
    assert_eq!(
        (count(&kubectl, "replicasets"), count(&kubectl, "pods")),
        (0, 0)
    );

    // Background: the owner goes at once, the rest follows.
    kubectl.ok("apply -f web.yaml");
    kubectl.ok("rollout status deploy/web --timeout 90s");
    kubectl.ok("delete deployment web --cascade=background");
    kubectl.until("get replicasets,pods -o name", str::is_empty);

    // A pod, gracefully and by force; and many by selector.
    kubectl.ok("run one --image=nginx");
    kubectl.ok("wait --for=condition=Ready pod/one --timeout 90s");
    kubectl.ok("delete pod one --timeout 90s");
    kubectl.ok("run two --image=nginx");
    kubectl.ok("delete pod two --grace-period=0 --force");
    for name in ["a", "b"] {
        kubectl.ok(&format!("create configmap {name}"));
        kubectl.ok(&format!("label configmap {name} kind=spare"));
    }
    kubectl.ok("delete configmap -l kind=spare");
    assert_eq!(count(&kubectl, "configmaps -l kind=spare"), 0);
    assert_eq!(kubectl.ok("delete pod never --ignore-not-found"), "");
    kubectl.refused(
        "delete pod never",
        "Error from server (NotFound): pods \"never\" not found",
    );
}

#[test]
fn a_namespace_takes_everything_with_it() {
    if !Kubectl::is_there("a_namespace_takes_everything_with_it") {
        return;
    }
    let server = Server::start(&[]);
    let kubectl = Kubectl::in_new(&server, "brief");
    kubectl.file("web.yaml", WEB);
    kubectl.ok("apply -f web.yaml");
    kubectl.ok("create job once --image=busybox -- true");
    kubectl.ok("create secret generic s --from-literal=a=b");
    kubectl.ok("create serviceaccount bot");
    kubectl.ok("create role r --verb=get --resource=pods");
    kubectl.ok("create ingress i --rule=a/b=web:80");
    kubectl.ok("rollout status deploy/web --timeout 90s");

    assert!(
        kubectl
            .ok("delete namespace brief --timeout 90s")
            .starts_with("namespace \"brief\" deleted")
    );
    kubectl.refused(
        "get namespace brief",
        "Error from server (NotFound): namespaces \"brief\" not found",
    );
    let kinds = kubectl.ok("api-resources --namespaced --verbs=list -o name");
    let kinds = kinds.lines().collect::<Vec<_>>().join(",");
    let left = kubectl.json(&format!("get {kinds} --all-namespaces"));
    let left: Vec<&Value> = left["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|item| item["metadata"]["namespace"] == "brief")
        .collect();
    assert_eq!(left, Vec::<&Value>::new());

    // The name is free again.
    kubectl.ok("create namespace brief");
    kubectl.until("get serviceaccounts -o name", |names| {
        names == "serviceaccount/default\n"
    });
    for kept in ["default", "kube-system", "kube-public"] {
        assert!(
            kubectl
                .fails(&format!("delete namespace {kept}"))
                .contains("this namespace may not be deleted")
        );
    }
}

#[test]
fn finalizers_hold_an_object() {
    if !Kubectl::is_there("finalizers_hold_an_object") {
        return;
    }
    let server = Server::start(&["--without", "scheduler,nodes"]);
    let kubectl = Kubectl::in_new(&server, "held");
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "m", "finalizers": ["example.com/hold"]},
    });
    assert!(
        kubectl
            .feed("create -f -", &map.to_string())
            .status
            .success()
    );
    kubectl.ok("delete configmap m --wait=false");
    let held = kubectl.json("get configmap m");
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(held["metadata"]["finalizers"], json!(["example.com/hold"]));
    // A namespace waits for what is held in it.
    kubectl.ok("delete namespace held --wait=false");
    kubectl.until("get namespace held -o jsonpath='{.status.conditions[?(@.type==\"NamespaceFinalizersRemaining\")].message}'", |message| {
        message == "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
    });
    kubectl.refused(
        "create configmap late",
        "error: failed to create configmap: configmaps \"late\" is forbidden: unable to create new content in namespace held because it is being terminated",
    );
    kubectl.ok("patch configmap m --type=merge -p '{\"metadata\":{\"finalizers\":null}}'");
    kubectl.ok("wait --for=delete namespace/held --timeout 90s");
    let gone = kubectl.fails("get configmap m");
    // kubectl looks for the namespace, too.
    assert_eq!(
        gone,
        "Error from server (NotFound): namespaces \"held\" not found"
    );
}
