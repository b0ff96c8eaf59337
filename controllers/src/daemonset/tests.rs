//! The controller among nodes that come, go and change.

use std::sync::Arc;

use orlop_core::client::DeleteOptions;
use serde_json::{Value, json};

use super::history::image_of;
use super::*;
use crate::testing::{World as Lab, run_after};

fn node(name: &str) -> (Resource, Value) {
    let node =
        json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}, "spec": {}});
    (NODES, node)
}

fn set(strategy: Value) -> Value {
    json!({
        "metadata": {"name": "agent"},
        "spec": {
            "selector": {"matchLabels": {"app": "agent"}},
            "updateStrategy": strategy,
            "template": {"metadata": {"labels": {"app": "agent"}}, "spec": {"containers": [{"name": "c", "image": "agent:1"}]}},
        },
    })
}

/// The images of the pods by the nodes that they are for.
fn images(lab: &Lab) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pod in lab.api.objects(&PODS) {
        let decoded = pod.decode::<Pod>().unwrap();
        // The lab binds pods to one node whatever they ask for: what they ask for counts.
        let terms = &pod.value().unwrap()["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
        let node = terms["nodeSelectorTerms"][0]["matchFields"][0]["values"][0].as_str();
        let image = decoded.spec.as_ref().unwrap().containers[0].image.clone();
        if !pods::is_terminating(&decoded) {
            let of = all.entry(node.unwrap_or_default().to_owned()).or_default();
            of.push(image.unwrap_or_default());
        }
    }
    all
}

/// Every one of these nodes has one pod of an image.
fn all_have(lab: &Lab, nodes: &[&str], image: &str) -> bool {
    let images = images(lab);
    images.len() == nodes.len()
        && nodes
            .iter()
            .all(|node| images.get(*node).is_some_and(|on| on == &[image]))
}

fn controller() -> Vec<Arc<dyn Controller>> {
    vec![Arc::new(DaemonSetController::new())]
}

#[test]
fn a_node_that_comes_gets_a_pod_and_one_that_goes_loses_it() {
    run_after(vec![node("node-1")], controller(), |lab| async move {
        lab.create(&DAEMON_SETS, set(json!({}))).await;
        lab.until("it runs", |lab| {
            let set = lab.get(&DAEMON_SETS, "agent").unwrap();
            all_have(lab, &["node-1"], "agent:1") && set["status"]["numberAvailable"] == 1
        })
        .await;
        let status = lab.get(&DAEMON_SETS, "agent").unwrap()["status"].clone();
        assert_eq!(status["desiredNumberScheduled"], 1);
        assert_eq!(status["updatedNumberScheduled"], 1);
        assert_eq!(status["numberMisscheduled"], 0);
        assert_eq!(lab.events("agent", "SuccessfulCreate").len(), 1);
        // A taint that is not tolerated drives it away.
        let taint = json!({"spec": {"taints": [{"key": "x", "effect": "NoExecute"}]}});
        lab.patch(&NODES, "node-1", taint).await;
        lab.until("it is gone", |lab| images(lab).is_empty()).await;
        lab.until("none is wanted", |lab| {
            lab.get(&DAEMON_SETS, "agent").unwrap()["status"]["desiredNumberScheduled"] == 0
        })
        .await;
        lab.patch(&NODES, "node-1", json!({"spec": {"taints": null}}))
            .await;
        lab.until("it is back", |lab| all_have(lab, &["node-1"], "agent:1"))
            .await;
        lab.stop().await;
    });
}

#[test]
fn an_update_replaces_pods_and_keeps_its_history() {
    run_after(vec![node("node-1")], controller(), |lab| async move {
        lab.create(&DAEMON_SETS, set(json!({"type": "RollingUpdate"})))
            .await;
        lab.until("it runs", |lab| {
            lab.get(&DAEMON_SETS, "agent").unwrap()["status"]["numberAvailable"] == 1
        })
        .await;
        let image = |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
        lab.patch(&DAEMON_SETS, "agent", image("agent:2")).await;
        lab.until("it is updated", |lab| all_have(lab, &["node-1"], "agent:2"))
            .await;
        let history = |lab: &Lab| -> Vec<(i64, String)> {
            let mut all: Vec<(i64, String)> = lab
                .list(&REVISIONS)
                .iter()
                .map(|revision| {
                    (
                        revision["revision"].as_i64().unwrap(),
                        image_of(revision).to_owned(),
                    )
                })
                .collect();
            all.sort();
            all
        };
        assert_eq!(
            history(&lab),
            [(1, "agent:1".to_owned()), (2, "agent:2".to_owned())]
        );
        // Back again: the old version is the newest, and no third one is made.
        lab.patch(&DAEMON_SETS, "agent", image("agent:1")).await;
        lab.until("it is as before", |lab| {
            all_have(lab, &["node-1"], "agent:1")
        })
        .await;
        assert_eq!(
            history(&lab),
            [(2, "agent:2".to_owned()), (3, "agent:1".to_owned())]
        );
        // No more versions than wanted.
        let limit = json!({"spec": {"revisionHistoryLimit": 0}});
        lab.patch(&DAEMON_SETS, "agent", limit).await;
        lab.until("the old one is gone", |lab| history(lab).len() == 1)
            .await;
        lab.stop().await;
    });
}

#[test]
fn on_delete_waits_for_somebody_to_delete() {
    run_after(vec![node("node-1")], controller(), |lab| async move {
        lab.create(&DAEMON_SETS, set(json!({"type": "OnDelete"})))
            .await;
        lab.until("it runs", |lab| all_have(lab, &["node-1"], "agent:1"))
            .await;
        let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "agent:2"}]}}}});
        lab.patch(&DAEMON_SETS, "agent", image).await;
        lab.sleep(20).await;
        assert!(all_have(&lab, &["node-1"], "agent:1"));
        let name = lab.api.objects(&PODS)[0].name().to_owned();
        let client = lab.client();
        let pods = client.resource(&PODS).namespace("default");
        pods.delete(&name, DeleteOptions::default()).await.unwrap();
        lab.until("it is new", |lab| all_have(lab, &["node-1"], "agent:2"))
            .await;
        lab.stop().await;
    });
}

#[test]
fn failed_pods_are_replaced_with_growing_waits() {
    run_after(vec![node("node-1")], controller(), |lab| async move {
        lab.create(&DAEMON_SETS, set(json!({}))).await;
        for _ in 0..3 {
            lab.until("it runs", |lab| all_have(lab, &["node-1"], "agent:1"))
                .await;
            lab.sleep(2).await;
            let name = lab.api.objects(&PODS)[0].name().to_owned();
            let client = lab.client();
            let pods = client.resource(&PODS).namespace("default");
            let failed = orlop_core::client::Patch::Merge(json!({"status": {"phase": "Failed"}}));
            pods.patch_status(&name, failed).await.unwrap();
            lab.until("it is replaced", |lab| lab.get(&PODS, &name).is_none())
                .await;
        }
        assert!(!lab.events("agent", "FailedDaemonPod").is_empty());
        lab.stop().await;
    });
}

fn pod(name: &str, hash: &str, ready: bool) -> Arc<Pod> {
    let ready = if ready { "True" } else { "False" };
    let pod = json!({
        "metadata": {"name": name, "uid": name, "labels": {HASH: hash}},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]},
    });
    Arc::new(serde_json::from_value(pod).unwrap())
}

#[test]
fn an_update_takes_no_more_than_it_may() {
    let now = Timestamp::UNIX_EPOCH;
    let names = |pods: &[Arc<Pod>]| -> Vec<String> {
        pods.iter()
            .map(|pod| pod.metadata.name.clone().unwrap())
            .collect()
    };
    let nodes: BTreeMap<&str, Vec<Arc<Pod>>> = [
        ("a", vec![pod("a1", "old", true)]),
        ("b", vec![pod("b1", "old", true)]),
        ("c", vec![pod("c1", "new", true)]),
        ("d", vec![pod("d1", "old", false)]),
    ]
    .into();
    let rolling = |unavailable, surge| update::Limits { unavailable, surge };
    // One is down anyhow, and goes first.
    let step = update::step(&nodes, "new", rolling(1, 0), 0, now);
    assert_eq!(names(&step.delete), ["d1"]);
    let step = update::step(&nodes, "new", rolling(2, 0), 0, now);
    assert_eq!(names(&step.delete), ["d1", "a1"]);
    // With a surge, the new one comes first and the old one goes when the new one is available.
    let step = update::step(&nodes, "new", rolling(0, 1), 0, now);
    assert!(step.delete.is_empty());
    assert_eq!(step.create, ["d", "a"]);
    let both: BTreeMap<&str, Vec<Arc<Pod>>> = [
        ("a", vec![pod("a1", "old", true), pod("a2", "new", true)]),
        ("b", vec![pod("b1", "old", true), pod("b2", "new", false)]),
        ("e", vec![pod("e1", "old", true)]),
    ]
    .into();
    let step = update::step(&both, "new", rolling(0, 1), 0, now);
    assert_eq!(names(&step.delete), ["a1"]);
    assert!(step.create.is_empty());
}

#[test]
fn limits_are_counted_up() {
    let limits = |strategy: Value, desired| {
        update::limits(&serde_json::from_value(set(strategy)).unwrap(), desired)
    };
    let rolling = |unavailable, surge| Some(update::Limits { unavailable, surge });
    assert_eq!(limits(json!({"type": "OnDelete"}), 10), None);
    assert_eq!(limits(json!({}), 10), rolling(1, 0));
    let strategy = |unavailable: &str, surge: &str| json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge}});
    assert_eq!(limits(strategy("25%", "0"), 10), rolling(3, 0));
    assert_eq!(limits(strategy("0", "15%"), 10), rolling(0, 2));
}
