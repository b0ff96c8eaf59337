//! The main job: apply a manifest, see it rolled out, look at it from all sides.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::json;

use super::WEB;
use crate::support::{Kubectl, Server};

/// The lines of a table, as cells.
fn cells(table: &str) -> Vec<Vec<&str>> {
    table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect()
}

#[test]
fn the_server_says_what_it_is_and_has() {
    if !Kubectl::is_there("the_server_says_what_it_is_and_has") {
        return;
    }
    let server = Server::start(&[]);
    let kubectl = Kubectl::new(&server);
    let version = kubectl.json("version");
    assert_eq!(version["serverVersion"]["major"], "1");
    assert_eq!(version["serverVersion"]["minor"], "36");

    let resources = kubectl.ok("api-resources --no-headers");
    for line in [
        vec!["pods", "po", "v1", "true", "Pod"],
        vec!["deployments", "deploy", "apps/v1", "true", "Deployment"],
        vec!["nodes", "no", "v1", "false", "Node"],
        vec![
            "clusterroles",
            "rbac.authorization.k8s.io/v1",
            "false",
            "ClusterRole",
        ],
    ] {
        assert!(
            cells(&resources).contains(&line),
            "{line:?} is not in\n{resources}"
        );
    }
    assert!(
        kubectl
            .ok("api-versions")
            .lines()
            .any(|version| version == "apps/v1")
    );

    let explained = kubectl.ok("explain deployment.spec.strategy");
    assert!(
        explained.starts_with("GROUP:      apps\nKIND:       Deployment\nVERSION:    v1\n"),
        "{explained}"
    );
    assert!(
        explained.contains("FIELD: strategy <DeploymentStrategy>"),
        "{explained}"
    );
    assert!(
        explained.contains("  rollingUpdate\t<RollingUpdateDeployment>"),
        "{explained}"
    );
    assert!(
        kubectl
            .ok("explain pods --recursive")
            .contains("  spec\t<PodSpec>")
    );
    assert!(
        kubectl
            .fails("explain pods.spec.nothing")
            .contains("field \"nothing\" does not exist")
    );

    let nodes = kubectl.ok("get nodes --no-headers");
    assert_eq!(
        cells(&nodes).iter().map(|line| line[1]).collect::<Vec<_>>(),
        ["Ready"; 3]
    );
    assert!(
        kubectl.ok("describe node sim-0").contains("runs nothing"),
        "a simulated node says so"
    );
    assert!(kubectl.ok("cluster-info").contains(server.url()));
}

#[test]
fn a_manifest_is_applied_and_rolled_out() {
    if !Kubectl::is_there("a_manifest_is_applied_and_rolled_out") {
        return;
    }
    let server = Server::start(&[]);
    for (namespace, how, again) in [
        (
            "shop",
            "apply",
            "deployment.apps/web unchanged\nservice/web unchanged\n",
        ),
        (
            "side",
            "apply --server-side",
            "deployment.apps/web serverside-applied\nservice/web serverside-applied\n",
        ),
    ] {
        let kubectl = Kubectl::in_new(&server, namespace);
        kubectl.file("web.yaml", WEB);
        let first = kubectl.ok(&format!("{how} -f web.yaml"));
        assert!(
            first.contains("deployment.apps/web ") && first.contains("service/web "),
            "{first}"
        );
        let status = kubectl.ok("rollout status deployment/web --timeout 90s");
        assert!(
            status.ends_with("deployment \"web\" successfully rolled out\n"),
            "{status}"
        );

        let before = kubectl.json("get deployment web");
        assert_eq!(kubectl.ok(&format!("{how} -f web.yaml")), again);
        let after = kubectl.json("get deployment web");
        assert_eq!(
            before["metadata"]["resourceVersion"], after["metadata"]["resourceVersion"],
            "{how}"
        );
        assert_eq!(after["metadata"]["generation"], 1);
        assert_eq!(after["status"]["readyReplicas"], 3);
    }
    let managed = Kubectl::new(&server).json("get deployment web -n side --show-managed-fields");
    let managers = managed["metadata"]["managedFields"].as_array().unwrap();
    let applied = managers
        .iter()
        .find(|entry| entry["operation"] == "Apply")
        .unwrap();
    assert_eq!(applied["manager"], "kubectl");
    assert_eq!(applied["fieldsV1"]["f:spec"]["f:replicas"], json!({}));

    // The same, in every form that kubectl shows.
    let kubectl = Kubectl::new(&server);
    let table = kubectl.ok("get deployments -n shop");
    assert_eq!(
        cells(&table)[0],
        ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]
    );
    assert_eq!(cells(&table)[1][..4], ["web", "3/3", "3", "3"]);
    let wide = kubectl.ok("get pods -n shop -o wide");
    assert_eq!(
        cells(&wide)[0][..8],
        [
            "NAME",
            "READY",
            "STATUS",
            "RESTARTS",
            "AGE",
            "IP",
            "NODE",
            "NOMINATED"
        ]
    );
    assert_eq!(cells(&wide).len(), 4);
    for pod in &cells(&wide)[1..] {
        assert_eq!(pod[1..4], ["1/1", "Running", "0"]);
        assert!(
            pod[5].starts_with("10.244.") && pod[6].starts_with("sim-"),
            "{pod:?}"
        );
    }
    assert_eq!(cells(&kubectl.ok("get pods -A --no-headers")).len(), 6);
    assert_eq!(
        kubectl.ok("get deployment,service -n shop -o name"),
        "deployment.apps/web\nservice/web\n"
    );
    assert_eq!(
        kubectl
            .ok("get deploy web -n shop -o jsonpath='{.spec.template.spec.containers[0].image}'"),
        "nginx:1.27"
    );
    assert!(
        kubectl
            .ok("get service web -n shop -o yaml")
            .contains("\n    targetPort: http\n")
    );
    assert_eq!(
        kubectl.ok("get deploy -n shop -l app=web -o custom-columns=N:.metadata.name,R:.spec.replicas --no-headers").trim(),
        "web   3"
    );
    let all = kubectl.ok("get all -n shop");
    for kind in [
        "pod/web-",
        "service/web ",
        "deployment.apps/web ",
        "replicaset.apps/web-",
    ] {
        assert!(all.contains(kind), "{kind} is not in\n{all}");
    }
    let endpoints = kubectl.json("get endpointslices -n shop -l kubernetes.io/service-name=web");
    assert_eq!(
        endpoints["items"][0]["endpoints"].as_array().unwrap().len(),
        3
    );
    assert_eq!(endpoints["items"][0]["ports"][0]["port"], 80);

    let described = kubectl.ok("describe deployment web -n shop");
    for line in [
        "Replicas:               3 desired | 3 updated | 3 total | 3 available | 0 unavailable",
        "StrategyType:           RollingUpdate",
        "  Available      True    MinimumReplicasAvailable",
        "  Progressing    True    NewReplicaSetAvailable",
    ] {
        assert!(
            described.lines().any(|other| other == line),
            "{line:?} is not in\n{described}"
        );
    }
    assert!(described.contains("ScalingReplicaSet"), "{described}");
    let pod = cells(&wide)[1][0].to_owned();
    let described = kubectl.ok(&format!("describe pod {pod} -n shop"));
    assert!(
        described.contains("Controlled By:  ReplicaSet/web-"),
        "{described}"
    );
    assert!(
        described.contains(&format!("Successfully assigned shop/{pod} to sim-")),
        "{described}"
    );
    assert!(
        kubectl
            .ok("describe service web -n shop")
            .contains("Endpoints:                10.244.")
    );
}

#[test]
fn get_watches() {
    if !Kubectl::is_there("get_watches") {
        return;
    }
    let server = Server::start(&["--without", "scheduler,nodes"]);
    let kubectl = Kubectl::new(&server);
    kubectl.ok("create configmap first");
    let mut watching = kubectl
        .command("get configmaps -w --output-watch-events --no-headers")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let mut next = |event: &str, name: &str| {
        // The root certificate's map may come at any time.
        let line = lines
            .find(|line| !line.contains("kube-root-ca.crt"))
            .unwrap();
        assert_eq!(
            line.split_whitespace().collect::<Vec<_>>()[..2],
            [event, name],
            "{line}"
        );
    };
    next("ADDED", "first");
    kubectl.ok("create configmap second");
    next("ADDED", "second");
    kubectl.ok("label configmap first a=b");
    next("MODIFIED", "first");
    kubectl.ok("delete configmap second");
    next("DELETED", "second");
    watching.kill().unwrap();
    watching.wait().unwrap();
}
