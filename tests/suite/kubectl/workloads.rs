//! Changing what runs: scaling, rolling, marking, moving.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::WEB;
use crate::support::{Kubectl, Server};

const IMAGE: &str = "get deploy web -o jsonpath='{.spec.template.spec.containers[0].image}'";
const ROLLED_OUT: &str = "deployment \"web\" successfully rolled out\n";

fn applied(server: &Server) -> Kubectl<'_> {
    let kubectl = Kubectl::in_new(server, "shop");
    kubectl.file("web.yaml", WEB);
    kubectl.ok("apply -f web.yaml");
    rolled_out(&kubectl);
    kubectl
}

#[track_caller]
fn rolled_out(kubectl: &Kubectl<'_>) {
    let status = kubectl.ok("rollout status deployment/web --timeout 90s");
    assert!(status.ends_with(ROLLED_OUT), "{status}");
}

#[test]
fn deployments_roll_forward_and_back() {
    if !Kubectl::is_there("deployments_roll_forward_and_back") {
        return;
    }
    let server = Server::start(&[]);
    let kubectl = applied(&server);
    assert_eq!(
        kubectl.ok("scale deployment web --replicas 5"),
        "deployment.apps/web scaled\n"
    );
    kubectl.ok("wait --for=jsonpath='{.status.readyReplicas}'=5 deploy/web --timeout 90s");
    assert_eq!(
        kubectl.ok("scale deploy web --current-replicas=5 --replicas=3"),
        "deployment.apps/web scaled\n"
    );
    kubectl.refused(
        "scale deploy web --current-replicas=7 --replicas=1",
        "error: Expected replicas to be 7, was 3",
    );
    kubectl.until(
        "get deploy web -o jsonpath='{.status.replicas}'",
        |replicas| replicas == "3",
    );

    assert_eq!(
        kubectl.ok("set image deployment/web nginx=nginx:1.28"),
        "deployment.apps/web image updated\n"
    );
    rolled_out(&kubectl);
    assert_eq!(
        kubectl.ok("rollout history deployment/web"),
        "deployment.apps/web \nREVISION  CHANGE-CAUSE\n1         <none>\n2         <none>\n\n"
    );
    assert!(
        kubectl
            .ok("rollout history deployment/web --revision=1")
            .contains("Image:\tnginx:1.27")
    );
    assert_eq!(
        kubectl.ok("rollout undo deployment/web"),
        "deployment.apps/web rolled back\n"
    );
    rolled_out(&kubectl);
    assert_eq!(kubectl.ok(IMAGE), "nginx:1.27");
    assert_eq!(
        kubectl.ok("rollout history deployment/web"),
        "deployment.apps/web \nREVISION  CHANGE-CAUSE\n2         <none>\n3         <none>\n\n"
    );
    kubectl.ok("rollout undo deployment/web --to-revision=2");
    assert_eq!(kubectl.ok(IMAGE), "nginx:1.28");
    assert_eq!(
        kubectl.fails("rollout undo deployment/web --to-revision=9"),
        "error: unable to find specified revision 9 in history"
    );
    assert_eq!(
        kubectl.ok("rollout restart deployment/web"),
        "deployment.apps/web restarted\n"
    );
    rolled_out(&kubectl);

    // What is changed while paused is rolled out afterwards.
    assert_eq!(
        kubectl.ok("rollout pause deployment/web"),
        "deployment.apps/web paused\n"
    );
    kubectl.ok("set image deployment/web nginx=nginx:1.29");
    let replica_sets = |kubectl: &Kubectl<'_>| {
        kubectl.json("get replicasets")["items"]
            .as_array()
            .unwrap()
            .len()
    };
    let before = replica_sets(&kubectl);
    kubectl.until("get deploy web -o json", |text| {
        let deployment: serde_json::Value = serde_json::from_str(text).unwrap();
        deployment["status"]["observedGeneration"] == deployment["metadata"]["generation"]
    });
    assert_eq!(replica_sets(&kubectl), before);
    assert_eq!(
        kubectl.ok("rollout resume deployment/web"),
        "deployment.apps/web resumed\n"
    );
    rolled_out(&kubectl);
    assert_eq!(replica_sets(&kubectl), before + 1);
    let images = kubectl.ok("get pods -l app=web --field-selector status.phase=Running -o jsonpath='{.items[*].spec.containers[0].image}'");
    assert!(images.contains("nginx:1.29"), "{images}");
    assert!(kubectl.ok("get replicasets --no-headers").lines().count() >= 3);
    assert!(
        kubectl
            .ok("events --for deployment/web")
            .contains("ScalingReplicaSet")
    );
    assert!(kubectl.ok("get events").contains("deployment/web"));
}

#[test]
fn objects_are_changed_in_every_way() {
    if !Kubectl::is_there("objects_are_changed_in_every_way") {
        return;
    }
    let server = Server::start(&[]);
    let kubectl = applied(&server);
    assert_eq!(
        kubectl.ok("label deploy web tier=front"),
        "deployment.apps/web labeled\n"
    );
    kubectl.refused(
        "label deploy web tier=back",
        "error: 'tier' already has a value (front), and --overwrite is false",
    );
    kubectl.ok("label deploy web tier=back --overwrite");
    assert_eq!(
        kubectl.ok("annotate deploy web note='some words'"),
        "deployment.apps/web annotated\n"
    );
    kubectl.ok("patch deploy web -p '{\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"nginx\",\"env\":[{\"name\":\"A\",\"value\":\"b\"}]}]}}}}'");
    kubectl.ok("patch deploy web --type=merge -p '{\"metadata\":{\"labels\":{\"tier\":null}}}'");
    kubectl.ok("patch deploy web --type=json -p '[{\"op\":\"replace\",\"path\":\"/spec/replicas\",\"value\":4}]'");
    assert_eq!(
        kubectl.ok("patch deploy web -p '{\"spec\":{\"replicas\":4}}'"),
        "deployment.apps/web patched (no change)\n"
    );
    let deployment = kubectl.json("get deploy web");
    assert_eq!(deployment["metadata"]["labels"], json!({"app": "web"}));
    assert_eq!(deployment["metadata"]["annotations"]["note"], "some words");
    assert_eq!(deployment["spec"]["replicas"], 4);
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(
        (&container["image"], &container["env"]),
        (&json!("nginx:1.27"), &json!([{"name": "A", "value": "b"}]))
    );
    kubectl
        .ok("patch deploy web --subresource=scale --type=merge -p '{\"spec\":{\"replicas\":2}}'");
    kubectl.ok("set env deploy/web C=d");
    kubectl.ok("set resources deploy/web --limits=cpu=200m");

    let editor = kubectl.path().join("editor.sh");
    std::fs::write(
        &editor,
        "#!/bin/sh\nsed -i 's/replicas: 2/replicas: 1/' \"$1\"\n",
    )
    .unwrap();
    std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o700)).unwrap();
    let edited = kubectl
        .command("edit deploy web")
        .env("EDITOR", &editor)
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&edited.stdout),
        "deployment.apps/web edited\n"
    );
    assert_eq!(
        kubectl.ok("get deploy web -o jsonpath='{.spec.replicas}'"),
        "1"
    );

    kubectl.file("newer.yaml", &WEB.replace("1.27", "1.30"));
    let diff = kubectl.run("diff -f newer.yaml");
    assert_eq!(diff.status.code(), Some(1));
    let diff = String::from_utf8(diff.stdout).unwrap();
    assert!(
        diff.contains("-      - image: nginx:1.27\n")
            || diff.contains("-        image: nginx:1.27\n"),
        "{diff}"
    );
    assert!(
        diff.contains("image: nginx:1.30\n") && diff.contains("\n+  replicas: 3\n"),
        "{diff}"
    );
    assert_eq!(
        kubectl.ok("get deploy web -o jsonpath='{.spec.replicas}'"),
        "1",
        "diff changes nothing"
    );
    kubectl.ok("apply -f newer.yaml");
    assert_eq!(kubectl.ok("diff -f newer.yaml"), "");

    assert_eq!(
        kubectl.ok("wait --for=condition=Available deploy/web --timeout 90s"),
        "deployment.apps/web condition met\n"
    );
    assert_eq!(
        kubectl.ok("expose deploy web --name web2 --port 81 --target-port 80"),
        "service/web2 exposed\n"
    );
    assert_eq!(
        kubectl.ok("autoscale deploy web --min 2 --max 4 --cpu-percent 50"),
        "horizontalpodautoscaler.autoscaling/web autoscaled\n"
    );
    assert_eq!(
        kubectl.ok("get hpa web -o jsonpath='{.spec.maxReplicas}'"),
        "4"
    );
    assert_eq!(
        kubectl.ok("run once --image=busybox --restart=Never"),
        "pod/once created\n"
    );
    kubectl.ok("wait --for=jsonpath='{.status.phase}'=Succeeded pod/once --timeout 90s");
    let pod = kubectl.ok("get pod once --no-headers");
    assert_eq!(
        pod.split_whitespace().collect::<Vec<_>>()[..3],
        ["once", "0/1", "Completed"]
    );
    kubectl.ok("replace --force -f web.yaml");
    rolled_out(&kubectl);
}

#[test]
fn nodes_are_tainted_cordoned_and_drained() {
    if !Kubectl::is_there("nodes_are_tainted_cordoned_and_drained") {
        return;
    }
    let server = Server::start(&["--nodes", "2"]);
    let kubectl = applied(&server);
    assert_eq!(
        kubectl.ok("taint node sim-0 k=v:NoSchedule"),
        "node/sim-0 tainted\n"
    );
    assert_eq!(
        kubectl.ok("get node sim-0 -o jsonpath='{.spec.taints[0].key}'"),
        "k"
    );
    assert_eq!(
        kubectl.ok("taint node sim-0 k=v:NoSchedule-"),
        "node/sim-0 untainted\n"
    );
    assert_eq!(kubectl.ok("cordon sim-1"), "node/sim-1 cordoned\n");
    assert!(
        kubectl
            .ok("get node sim-1")
            .contains("Ready,SchedulingDisabled")
    );
    let drained = kubectl.ok("drain sim-1 --ignore-daemonsets --timeout 90s");
    assert!(drained.ends_with("node/sim-1 drained\n"), "{drained}");
    let left = kubectl.json("get pods -A --field-selector spec.nodeName=sim-1");
    assert_eq!(left["items"], json!([]));
    rolled_out(&kubectl);
    let here = kubectl.json("get pods --field-selector spec.nodeName=sim-0,status.phase=Running");
    assert_eq!(here["items"].as_array().unwrap().len(), 3);
    assert_eq!(kubectl.ok("uncordon sim-1"), "node/sim-1 uncordoned\n");
    // What nothing tolerates evicts.
    kubectl.ok("taint node sim-0 gone=now:NoExecute");
    kubectl.until(
        "get pods --field-selector spec.nodeName=sim-0 -o name",
        |names| names.is_empty(),
    );
    rolled_out(&kubectl);
}
