//! Real nodes: containerd, CNI, nftables and the real kubectl. Each test has a cluster of its own, in network namespaces of its own.

mod fewer;
mod host;
mod join;
mod network;
mod restart;
mod streams;
mod trouble;

use serde_json::{Value, json};

use crate::support::IMAGE;

/// A pod of the test image that runs a shell command.
fn pod(name: &str, script: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": IMAGE, "command": ["sh", "-c", script]}],
        },
    })
}

/// A Deployment of web servers. The page of each is its own name.
fn web(name: &str, replicas: u32) -> Value {
    let script = "hostname > /www/index.html; exec httpd -f -p 8080 -h /www";
    let mut template = pod(name, script);
    let object = template.as_object_mut().unwrap();
    object.remove("apiVersion");
    object.remove("kind");
    let probe = json!({"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1});
    template["spec"]["containers"][0]["readinessProbe"] = probe;
    template["metadata"].as_object_mut().unwrap().remove("name");
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template},
    })
}

/// A Service of those web servers.
fn service(name: &str, spec: Value) -> Value {
    let mut whole = json!({"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]});
    for (field, value) in spec.as_object().unwrap() {
        whole[field] = value.clone();
    }
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": whole})
}
