//! What goes wrong with pods and nodes, and where it is said.

use std::process::Command;

use serde_json::{Value, json};

use super::{pod, service, web};
use crate::support::{Kubectl, Machine};

fn waiting(kubectl: &Kubectl<'_>, name: &str, wanted: &str) -> Value {
    let line = format!("get pod {name} -o json");
    let text = kubectl.until(&line, |out| {
        let pod: Value = serde_json::from_str(out).unwrap();
        let status = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        status["reason"] == wanted
    });
    serde_json::from_str(&text).unwrap()
}

fn events(kubectl: &Kubectl<'_>, name: &str) -> Vec<(String, String)> {
    let events = kubectl.json(&format!(
        "get events --field-selector involvedObject.name={name}"
    ));
    events["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| {
            let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
            (text("reason"), text("message"))
        })
        .collect()
}

#[test]
fn reasons_stand_where_kubernetes_puts_them() {
    let Some(machine) = Machine::start("reasons_stand_where_kubernetes_puts_them", 1, &[]) else {
        return;
    };
    let kubectl = machine.kubectl();
    let mut missing = pod("missing-image", "true");
    missing["spec"]["containers"][0]["image"] = json!("127.0.0.1:1/nothing:1");
    let mut never = pod("never", "true");
    never["spec"]["containers"][0]["image"] = json!("orlop.test/absent:1");
    never["spec"]["containers"][0]["imagePullPolicy"] = json!("Never");
    let mut command = pod("bad-command", "true");
    command["spec"]["containers"][0]["command"] = json!(["/no/such/program"]);
    let mut no_map = pod("no-map", "true");
    no_map["spec"]["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": "absent"}}]);
    let mut sub_path = pod("bad-sub-path", "true");
    sub_path["spec"]["volumes"] = json!([{"name": "v", "emptyDir": {}}]);
    sub_path["spec"]["initContainers"] = json!([{"name": "prepare", "image": crate::support::IMAGE, "command": ["sh", "-c", "ln -s / /v/out"],
        "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]);
    sub_path["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "v", "mountPath": "/v", "subPath": "out/etc"}]);
    let mut hungry = pod("hungry", "tail /dev/zero");
    hungry["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "16Mi"}});
    let mut lively = pod("lively", "sleep 1000");
    lively["spec"]["containers"][0]["livenessProbe"] =
        json!({"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1});
    let mut root = pod("not-root", "true");
    root["spec"]["securityContext"] = json!({"runAsNonRoot": true});
    for pod in [
        &missing, &never, &command, &no_map, &sub_path, &hungry, &lively, &root,
    ] {
        let name = pod["metadata"]["name"].as_str().unwrap();
        kubectl.file(&format!("{name}.json"), &pod.to_string());
        kubectl.ok(&format!("apply -f {name}.json"));
    }
    waiting(&kubectl, "missing-image", "ImagePullBackOff");
    assert!(
        events(&kubectl, "missing-image")
            .iter()
            .any(|(reason, _)| reason == "Pulling")
    );
    waiting(&kubectl, "never", "ErrImageNeverPull");
    kubectl.until("get pod bad-command -o json", |out| {
        let pod: Value = serde_json::from_str(out).unwrap();
        let status = &pod["status"]["containerStatuses"][0];
        ["state", "lastState"].iter().any(|state| {
            let ended = &status[*state]["terminated"];
            ended["reason"] == "StartError" && ended["exitCode"] == 128
        })
    });
    let pod = waiting(&kubectl, "no-map", "CreateContainerConfigError");
    let message = &pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"];
    assert_eq!(message, "configmap \"absent\" not found");
    waiting(&kubectl, "bad-sub-path", "CreateContainerConfigError");
    let pod = waiting(&kubectl, "not-root", "CreateContainerConfigError");
    let message = pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"]
        .as_str()
        .unwrap();
    assert!(
        message.contains("container has runAsNonRoot and image will run as root"),
        "{message}"
    );

    let pod = waiting(&kubectl, "hungry", "CrashLoopBackOff");
    let ended = &pod["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!(
        (&ended["reason"], &ended["exitCode"]),
        (&json!("OOMKilled"), &json!(137))
    );
    kubectl.until("get pod lively -o json", |out| {
        let pod: Value = serde_json::from_str(out).unwrap();
        pod["status"]["containerStatuses"][0]["restartCount"].as_u64() > Some(0)
    });
    let said = events(&kubectl, "lively");
    for (reason, part) in [
        ("Unhealthy", "Liveness probe failed"),
        ("Killing", "failed liveness probe"),
    ] {
        assert!(
            said.iter()
                .any(|(have, message)| have == reason && message.contains(part)),
            "{said:?}"
        );
    }
}

#[test]
fn a_pod_that_is_not_ready_gets_no_requests() {
    let Some(machine) = Machine::start("a_pod_that_is_not_ready_gets_no_requests", 1, &[]) else {
        return;
    };
    let kubectl = machine.kubectl();
    let mut deployment = web("web", 1);
    let probe = json!({"exec": {"command": ["test", "!", "-e", "/tmp/sick"]}, "periodSeconds": 1, "failureThreshold": 1});
    deployment["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] = probe;
    kubectl.file("web.json", &deployment.to_string());
    kubectl.file("service.json", &service("web", json!({})).to_string());
    kubectl.ok("apply -f web.json -f service.json");
    kubectl.ok("rollout status deployment/web --timeout=80s");
    let ready = "get endpointslices -l kubernetes.io/service-name=web -o jsonpath={.items[0].endpoints[0].conditions.ready}";
    kubectl.until(ready, |out| out == "true");
    kubectl.ok("exec deployment/web -- touch /tmp/sick");
    kubectl.until(ready, |out| out == "false");
    kubectl.ok("exec deployment/web -- rm /tmp/sick");
    kubectl.until(ready, |out| out == "true");
}

#[test]
fn a_node_that_is_cut_off_loses_its_pods() {
    let Some(machine) = Machine::start(
        "a_node_that_is_cut_off_loses_its_pods",
        1,
        &["--simulated-nodes", "1"],
    ) else {
        return;
    };
    let kubectl = machine.kubectl();
    // At first it is on the real node; it tolerates the loss of a node for one second, and may go to the simulated one.
    let mut mover = web("mover", 1);
    let tolerate = |key: &str| json!({"key": format!("node.kubernetes.io/{key}"), "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1});
    let spec = &mut mover["spec"]["template"]["spec"];
    spec["tolerations"] = json!([tolerate("unreachable"), tolerate("not-ready")]);
    spec["affinity"] = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 100, "preference": {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["node-1"]}]}},
    ]}});
    kubectl.file("mover.json", &mover.to_string());
    kubectl.ok("apply -f mover.json");
    kubectl.ok("rollout status deployment/mover --timeout=80s");
    let on = "get pods -l app=mover -o wide --no-headers";
    assert!(kubectl.ok(on).contains(" node-1 "));

    let cable = format!("orl{}n1", machine.id());
    let link = |state: &str| {
        let set = Command::new("ip")
            .args(["link", "set", &cable, state])
            .status();
        assert!(set.unwrap().success());
    };
    link("down");
    kubectl.until("get node node-1 --no-headers", |out| {
        out.contains("NotReady")
    });
    kubectl.until(on, |out| {
        out.lines()
            .any(|line| line.contains(" sim-0 ") && line.contains("Running"))
    });
    link("up");
    kubectl.until("get node node-1 --no-headers", |out| {
        out.contains(" Ready ")
    });
    // What was deleted meanwhile is ended there.
    kubectl.until(on, |out| {
        out.lines().count() == 1 && out.contains(" sim-0 ")
    });
}
