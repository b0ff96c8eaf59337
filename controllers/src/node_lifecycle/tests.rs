use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::testing::{World, condition as condition_of, run};

fn controllers() -> Vec<Arc<dyn Controller>> {
    vec![
        Arc::new(NodeLifecycleController::new()),
        Arc::new(TaintEvictionController::new()),
    ]
}

async fn node(world: &World, name: &str) {
    let ready =
        json!([{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]);
    let node = json!({"metadata": {"name": name}, "status": {"conditions": ready}});
    world.client().resource(&NODES).create(&node).await.unwrap();
    let lease =
        json!({"metadata": {"name": name}, "spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}});
    world
        .client()
        .resource(&LEASES)
        .namespace(LEASE_NAMESPACE)
        .create(&lease)
        .await
        .unwrap();
}

async fn renew(world: &World, name: &str) {
    let now = world.env.wall().to_string();
    let patch = Patch::Merge(json!({"spec": {"renewTime": now}}));
    world
        .client()
        .resource(&LEASES)
        .namespace(LEASE_NAMESPACE)
        .patch(name, patch)
        .await
        .unwrap();
}

fn pod(name: &str, node: &str, seconds: i64) -> Value {
    json!({"metadata": {"name": name}, "spec": {"nodeName": node, "containers": [], "tolerations": [
        {"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}]}})
}

fn keys(world: &World, node: &str) -> Vec<String> {
    let node = world.get(&NODES, node).unwrap();
    let mut taints: Vec<String> = node["spec"]["taints"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|taint| {
            format!(
                "{}:{}",
                taint["key"]
                    .as_str()
                    .unwrap()
                    .trim_start_matches("node.kubernetes.io/"),
                taint["effect"].as_str().unwrap()
            )
        })
        .collect();
    taints.sort();
    taints
}

#[test]
fn a_node_that_falls_silent_loses_its_pods() {
    run(controllers(), |world| async move {
        node(&world, "good").await;
        node(&world, "bad").await;
        world.create(&PODS, pod("short", "bad", 20)).await;
        world.create(&PODS, pod("long", "bad", 3000)).await;
        world.create(&PODS, pod("safe", "good", 20)).await;
        for _ in 0..12 {
            world.sleep(10).await;
            renew(&world, "good").await;
        }
        let bad = world.get(&NODES, "bad").unwrap();
        let ready = condition_of(&bad, "Ready");
        assert_eq!(
            (&ready["status"], &ready["reason"]),
            (&json!("Unknown"), &json!("NodeStatusUnknown"))
        );
        assert_eq!(ready["message"], "Kubelet stopped posting node status.");
        assert_eq!(
            condition_of(&bad, "MemoryPressure")["reason"],
            "NodeStatusNeverUpdated"
        );
        assert_eq!(
            keys(&world, "bad"),
            ["unreachable:NoExecute", "unreachable:NoSchedule"]
        );
        assert!(keys(&world, "good").is_empty());
        assert!(
            world.get(&PODS, "short").is_none(),
            "it tolerates the taint for 20 s"
        );
        assert_eq!(
            condition_of(&world.get(&PODS, "long").unwrap(), "Ready")["status"],
            "False"
        );
        assert_eq!(
            condition_of(&world.get(&PODS, "safe").unwrap(), "Ready")["status"],
            "True"
        );
        assert_eq!(
            world.events("short", "TaintManagerEviction"),
            ["Marking for deletion Pod default/short"]
        );
        assert_eq!(
            world.events("bad", "NodeNotReady"),
            ["Node bad status is now: NodeNotReady"]
        );
        // It is heard of again.
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T01:00:00Z"}]}});
        world
            .client()
            .resource(&NODES)
            .patch_status("bad", Patch::Strategic(ready))
            .await
            .unwrap();
        renew(&world, "bad").await;
        world
            .until("the taints are gone", |world| keys(world, "bad").is_empty())
            .await;
        world
            .until("the long one may stay", |world| {
                !world.events("long", "TaintManagerEviction").is_empty()
            })
            .await;
        assert_eq!(
            world.events("long", "TaintManagerEviction"),
            ["Cancelling deletion of Pod default/long"]
        );
        world.stop().await;
    });
}

#[test]
fn when_no_node_is_heard_of_nothing_is_evicted() {
    run(controllers(), |world| async move {
        node(&world, "one").await;
        world.create(&PODS, pod("p", "one", 0)).await;
        world.sleep(120).await;
        assert_eq!(keys(&world, "one"), ["unreachable:NoSchedule"]);
        assert!(world.get(&PODS, "p").is_some());
        world.stop().await;
    });
}

#[test]
fn a_cordoned_node_is_tainted() {
    run(controllers(), |world| async move {
        node(&world, "one").await;
        world
            .client()
            .resource(&NODES)
            .patch(
                "one",
                Patch::Merge(json!({"spec": {"unschedulable": true, "taints": [
            {"key": "mine", "effect": "NoSchedule"}]}})),
            )
            .await
            .unwrap();
        world
            .until("it is tainted", |world| {
                keys(world, "one") == ["mine:NoSchedule", "unschedulable:NoSchedule"]
            })
            .await;
        world
            .client()
            .resource(&NODES)
            .patch(
                "one",
                Patch::Merge(json!({"spec": {"unschedulable": null}})),
            )
            .await
            .unwrap();
        world
            .until("it is not", |world| {
                keys(world, "one") == ["mine:NoSchedule"]
            })
            .await;
        world.stop().await;
    });
}

#[test]
fn a_new_node_has_a_minute_to_say_something() {
    run(controllers(), |world| async move {
        node(&world, "good").await;
        world
            .client()
            .resource(&NODES)
            .create(&json!({"metadata": {"name": "new"}}))
            .await
            .unwrap();
        world.create(&PODS, pod("p", "new", 0)).await;
        for second in (0..90).step_by(5) {
            world.sleep(5).await;
            renew(&world, "good").await;
            let ready = condition_of(&world.get(&NODES, "new").unwrap(), "Ready")["reason"].clone();
            if second < 50 {
                assert!(ready.is_null(), "{second}");
                assert_eq!(
                    condition_of(&world.get(&PODS, "p").unwrap(), "Ready")["status"],
                    "True"
                );
            } else if second > 70 {
                assert_eq!(ready, "NodeStatusNeverUpdated");
            }
        }
        assert!(world.get(&PODS, "p").is_none());
        world.stop().await;
    });
}
