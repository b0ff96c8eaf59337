use std::sync::Arc;

use orlop_core::client::{DeleteOptions, Operation};
use orlop_core::status::Status;
use serde_json::{Value, json};

use super::*;
use crate::testing::{World, condition, run};

fn controllers() -> Vec<Arc<dyn Controller>> {
    vec![Arc::new(ReplicaSetController::new())]
}

fn set(replicas: i32) -> Value {
    json!({"metadata": {"name": "web"}, "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}}}})
}

/// How many pods were ever made.
fn made(world: &World) -> usize {
    let writes = world.api.writes();
    writes
        .iter()
        .filter(|write| write.starts_with("create pods "))
        .count()
}

fn status(world: &World) -> Value {
    world.get(&REPLICA_SETS, "web").unwrap()["status"].clone()
}

#[test]
fn it_has_as_many_pods_as_it_asks_for() {
    run(controllers(), |world| async move {
        world.create(&REPLICA_SETS, set(12)).await;
        world
            .until("12 are available", |world| {
                status(world)["availableReplicas"] == 12
            })
            .await;
        assert_eq!(world.list(&PODS).len(), 12);
        assert_eq!(made(&world), 12, "a stale copy makes no second pod");
        assert_eq!(
            status(&world),
            json!({"replicas": 12, "fullyLabeledReplicas": 12, "readyReplicas": 12, "availableReplicas": 12,
                "terminatingReplicas": 0, "observedGeneration": 1})
        );
        let pod = &world.list(&PODS)[0];
        assert!(
            pod["metadata"]["name"]
                .as_str()
                .unwrap()
                .starts_with("web-")
        );
        let owner = &pod["metadata"]["ownerReferences"][0];
        assert_eq!(
            (
                &owner["kind"],
                &owner["controller"],
                &owner["blockOwnerDeletion"]
            ),
            (&json!("ReplicaSet"), &json!(true), &json!(true))
        );
        world
            .patch(&REPLICA_SETS, "web", json!({"spec": {"replicas": 3}}))
            .await;
        world
            .until("nine have gone", |world| world.list(&PODS).len() == 3)
            .await;
        world.sleep(2).await;
        assert_eq!(
            world.api.calls("delete", &PODS) - 9,
            9,
            "each once by us and once by its node"
        );
        assert_eq!(status(&world)["replicas"], 3);
        assert_eq!(
            world.events("web", "SuccessfulCreate").len(),
            10,
            "nine, and the rest combined"
        );
        world.stop().await;
    });
}

#[test]
fn pods_are_adopted_and_let_go() {
    run(controllers(), |world| async move {
        world.create(&PODS, json!({"metadata": {"name": "lost", "labels": {"app": "web"}}, "spec": {"containers": []}})).await;
        world.create(&PODS, json!({"metadata": {"name": "other", "labels": {"app": "db"}}, "spec": {"containers": []}})).await;
        world.create(&REPLICA_SETS, set(2)).await;
        world
            .until("two pods", |world| status(world)["readyReplicas"] == 2)
            .await;
        assert_eq!(world.list(&PODS).len(), 3);
        assert_eq!(
            world.get(&PODS, "lost").unwrap()["metadata"]["ownerReferences"][0]["name"],
            "web"
        );
        assert!(world.get(&PODS, "other").unwrap()["metadata"]["ownerReferences"].is_null());
        // No longer chosen: let go, and replaced.
        world
            .patch(
                &PODS,
                "lost",
                json!({"metadata": {"labels": {"app": "debug"}}}),
            )
            .await;
        world
            .until("it is let go", |world| world.list(&PODS).len() == 4)
            .await;
        assert_eq!(
            world.get(&PODS, "lost").unwrap()["metadata"]["ownerReferences"],
            json!([])
        );
        // An orphan that appears later is one too many.
        world.create(&PODS, json!({"metadata": {"name": "late", "labels": {"app": "web"}}, "spec": {"containers": []}})).await;
        world
            .until("there are two again", |world| world.list(&PODS).len() == 4)
            .await;
        world.stop().await;
    });
}

#[test]
fn a_pod_that_ends_or_goes_is_replaced() {
    run(controllers(), |world| async move {
        world.create(&REPLICA_SETS, set(2)).await;
        world
            .until("two pods", |world| status(world)["readyReplicas"] == 2)
            .await;
        let name = world.list(&PODS)[0]["metadata"]["name"]
            .as_str()
            .unwrap()
            .to_owned();
        let client = world.client();
        let pods = client.resource(&PODS).namespace("default");
        pods.patch_status(
            &name,
            orlop_core::client::Patch::Merge(json!({"status": {"phase": "Failed"}})),
        )
        .await
        .unwrap();
        world
            .until("a third was made", |world| world.list(&PODS).len() == 3)
            .await;
        pods.delete(&name, DeleteOptions::default()).await.unwrap();
        world.sleep(5).await;
        assert_eq!(world.list(&PODS).len(), 2);
        world.stop().await;
    });
}

#[test]
fn a_refusal_is_told_and_tried_again() {
    run(controllers(), |world| async move {
        world.api.refuse(9, |request| {
            let pod = request.target.resource == PODS
                && matches!(request.operation, Operation::Create(..));
            pod.then(|| Status::forbidden(&PODS, "", "exceeded quota: q"))
        });
        world.create(&REPLICA_SETS, set(50)).await;
        world
            .until("the failure is told", |world| {
                let set = world.get(&REPLICA_SETS, "web").unwrap();
                condition(&set, "ReplicaFailure")["reason"] == "FailedCreate"
            })
            .await;
        let set = world.get(&REPLICA_SETS, "web").unwrap();
        assert_eq!(
            condition(&set, "ReplicaFailure")["message"],
            "pods is forbidden: exceeded quota: q"
        );
        world
            .until("all are there", |world| {
                status(world)["readyReplicas"] == 50
            })
            .await;
        assert!(status(&world)["conditions"].is_null());
        assert_eq!(
            world.api.calls("create", &PODS) - 50, // bindings
            59,
            "one at a time while it is refused"
        );
        assert_eq!(
            world.events("web", "FailedCreate"),
            ["Error creating: pods is forbidden: exceeded quota: q"]
        );
        world.stop().await;
    });
}

#[test]
fn readiness_has_to_last() {
    run(controllers(), |world| async move {
        let mut slow = set(1);
        slow["spec"]["minReadySeconds"] = json!(30);
        world.create(&REPLICA_SETS, slow).await;
        world
            .until("it is ready", |world| status(world)["readyReplicas"] == 1)
            .await;
        assert!(status(&world)["availableReplicas"].is_null());
        world.sleep(25).await;
        assert!(status(&world)["availableReplicas"].is_null());
        world.sleep(10).await;
        assert_eq!(status(&world)["availableReplicas"], 1);
        world.stop().await;
    });
}
