use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::*;
use crate::replicaset::ReplicaSetController;
use crate::testing::{World, condition, run};

fn controllers() -> Vec<Arc<dyn Controller>> {
    vec![
        Arc::new(ReplicaSetController::new()),
        Arc::new(DeploymentController::new()),
    ]
}

fn deployment(replicas: i32, image: &str) -> Value {
    json!({"metadata": {"name": "web"}, "spec": {"replicas": replicas, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
        "selector": {"matchLabels": {"app": "web"}},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}}}})
}

fn image(name: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": name}]}}}})
}

fn now(world: &World) -> Value {
    world.get(&DEPLOYMENTS, "web").unwrap()
}

/// As `kubectl rollout status` sees it.
fn rolled_out(world: &World) -> bool {
    let now = now(world);
    let (size, status) = (&now["spec"]["replicas"], &now["status"]);
    status["observedGeneration"] == now["metadata"]["generation"]
        && status["updatedReplicas"] == *size
        && status["replicas"] == *size
        && status["availableReplicas"] == *size
        && condition(&now, "Progressing")["reason"] == "NewReplicaSetAvailable"
}

fn set_of(world: &World, image: &str) -> Value {
    let sets = world.list(&REPLICA_SETS);
    sets.into_iter()
        .find(|set| set["spec"]["template"]["spec"]["containers"][0]["image"] == image)
        .unwrap()
}

#[test]
fn a_deployment_rolls_out() {
    run(controllers(), |world| async move {
        world.create(&DEPLOYMENTS, deployment(3, "nginx:1")).await;
        world.until("it is rolled out", rolled_out).await;
        let set = &world.list(&REPLICA_SETS)[0];
        let name = set["metadata"]["name"].as_str().unwrap();
        let hash = name.strip_prefix("web-").unwrap();
        assert_eq!(
            set["spec"]["selector"]["matchLabels"],
            json!({"app": "web", POD_TEMPLATE_HASH: hash})
        );
        assert_eq!(
            set["metadata"]["labels"],
            json!({"app": "web", POD_TEMPLATE_HASH: hash})
        );
        assert_eq!(
            set["metadata"]["annotations"],
            json!({REVISION: "1", DESIRED_REPLICAS: "3", MAX_REPLICAS: "4"})
        );
        let now = now(&world);
        assert_eq!(now["metadata"]["annotations"][REVISION], "1");
        let available = condition(&now, "Available");
        assert_eq!(
            (&available["status"], &available["reason"]),
            (&json!("True"), &json!("MinimumReplicasAvailable"))
        );
        assert_eq!(available["message"], "Deployment has minimum availability.");
        let message = format!("ReplicaSet \"{name}\" has successfully progressed.");
        assert_eq!(condition(&now, "Progressing")["message"], message);
        assert_eq!(
            world.events("web", "ScalingReplicaSet"),
            [format!("Scaled up replica set {name} from 0 to 3")]
        );
        assert!(now["status"]["unavailableReplicas"].is_null());
        world.stop().await;
    });
}

#[test]
fn an_update_keeps_enough_pods_and_can_be_undone() {
    run(controllers(), |world| async move {
        world.create(&DEPLOYMENTS, deployment(8, "nginx:1")).await;
        world.until("the first version", rolled_out).await;
        world.patch(&DEPLOYMENTS, "web", image("nginx:2")).await;
        let seen = Arc::new(parking_lot::Mutex::new((i64::MAX, 0)));
        let watch = seen.clone();
        world
            .until("the second version", move |world| {
                let status = &now(world)["status"];
                let mut seen = watch.lock();
                seen.0 = seen
                    .0
                    .min(status["availableReplicas"].as_i64().unwrap_or(0));
                seen.1 = seen.1.max(status["replicas"].as_i64().unwrap_or(0));
                rolled_out(world)
            })
            .await;
        let (fewest, most) = *seen.lock();
        assert!(fewest >= 6 && most <= 10, "{fewest} {most}");
        let (old, new) = (set_of(&world, "nginx:1"), set_of(&world, "nginx:2"));
        assert_eq!(
            (&old["spec"]["replicas"], &new["spec"]["replicas"]),
            (&json!(0), &json!(8))
        );
        assert_eq!(new["metadata"]["annotations"][REVISION], "2");
        // What `kubectl rollout undo` does.
        world.patch(&DEPLOYMENTS, "web", image("nginx:1")).await;
        world.until("the first version again", rolled_out).await;
        let again = set_of(&world, "nginx:1");
        assert_eq!(again["metadata"]["uid"], old["metadata"]["uid"]);
        assert_eq!(again["metadata"]["annotations"][REVISION], "3");
        assert_eq!(again["metadata"]["annotations"][REVISION_HISTORY], "1");
        assert_eq!(now(&world)["metadata"]["annotations"][REVISION], "3");
        assert_eq!(world.list(&REPLICA_SETS).len(), 2);
        world.stop().await;
    });
}

#[test]
fn scaling_alone_is_no_new_version() {
    run(controllers(), |world| async move {
        world.create(&DEPLOYMENTS, deployment(2, "nginx:1")).await;
        world.until("two", rolled_out).await;
        world
            .patch(&DEPLOYMENTS, "web", json!({"spec": {"replicas": 5}}))
            .await;
        world.until("five", rolled_out).await;
        world
            .patch(&DEPLOYMENTS, "web", json!({"spec": {"replicas": 1}}))
            .await;
        world
            .until("one", |world| {
                rolled_out(world) && world.list(&PODS).len() == 1
            })
            .await;
        let set = &world.list(&REPLICA_SETS)[0];
        let name = set["metadata"]["name"].as_str().unwrap();
        assert_eq!(set["metadata"]["annotations"][REVISION], "1");
        assert_eq!(
            world.events("web", "ScalingReplicaSet")[1..],
            [
                format!("Scaled up replica set {name} from 2 to 5"),
                format!("Scaled down replica set {name} from 5 to 1")
            ]
        );
        world.stop().await;
    });
}

#[test]
fn recreate_never_has_two_versions() {
    run(controllers(), |world| async move {
        let mut first = deployment(3, "nginx:1");
        first["spec"]["strategy"] = json!({"type": "Recreate"});
        world.create(&DEPLOYMENTS, first).await;
        world.until("the first version", rolled_out).await;
        world.patch(&DEPLOYMENTS, "web", image("nginx:2")).await;
        world
            .until("the second version", |world| {
                let pods = world.list(&PODS);
                let images: std::collections::BTreeSet<&str> = pods
                    .iter()
                    .map(|pod| pod["spec"]["containers"][0]["image"].as_str().unwrap())
                    .collect();
                assert!(images.len() <= 1, "{images:?}");
                rolled_out(world)
            })
            .await;
        world.stop().await;
    });
}

#[test]
fn a_paused_deployment_is_scaled_but_not_rolled_out() {
    run(controllers(), |world| async move {
        world.create(&DEPLOYMENTS, deployment(2, "nginx:1")).await;
        world.until("the first version", rolled_out).await;
        world
            .patch(&DEPLOYMENTS, "web", json!({"spec": {"paused": true}}))
            .await;
        world
            .until("it says so", |world| {
                condition(&now(world), "Progressing")["reason"] == "DeploymentPaused"
            })
            .await;
        world.patch(&DEPLOYMENTS, "web", image("nginx:2")).await;
        world
            .patch(&DEPLOYMENTS, "web", json!({"spec": {"replicas": 3}}))
            .await;
        world
            .until("three", |world| {
                now(world)["status"]["availableReplicas"] == 3
            })
            .await;
        assert_eq!(world.list(&REPLICA_SETS).len(), 1);
        world
            .patch(&DEPLOYMENTS, "web", json!({"spec": {"paused": null}}))
            .await;
        world.until("the second version", rolled_out).await;
        assert_eq!(set_of(&world, "nginx:2")["spec"]["replicas"], 3);
        world.stop().await;
    });
}

#[test]
fn a_rollout_that_is_stuck_says_so_and_gets_on_when_it_can() {
    run(controllers(), |world| async move {
        let mut slow = deployment(2, "nginx:1");
        slow["spec"]["progressDeadlineSeconds"] = json!(10);
        world.create(&DEPLOYMENTS, slow).await;
        world.until("the first version", rolled_out).await;
        world.healthy.store(false, Ordering::Relaxed);
        world.patch(&DEPLOYMENTS, "web", image("nginx:2")).await;
        world
            .until("it says so", |world| {
                condition(&now(world), "Progressing")["reason"] == "ProgressDeadlineExceeded"
            })
            .await;
        let progressing = condition(&now(&world), "Progressing").clone();
        let name = set_of(&world, "nginx:2")["metadata"]["name"]
            .as_str()
            .unwrap()
            .to_owned();
        assert_eq!(progressing["status"], "False");
        assert_eq!(
            progressing["message"],
            format!("ReplicaSet \"{name}\" has timed out progressing.")
        );
        assert_eq!(
            now(&world)["status"]["availableReplicas"],
            2,
            "the old version goes on"
        );
        world.healthy.store(true, Ordering::Relaxed);
        world.until("the second version", rolled_out).await;
        world.stop().await;
    });
}

#[test]
fn history_is_kept_up_to_its_limit() {
    run(controllers(), |world| async move {
        let mut short = deployment(1, "nginx:0");
        short["spec"]["revisionHistoryLimit"] = json!(2);
        world.create(&DEPLOYMENTS, short).await;
        for version in 1..5 {
            world.until("rolled out", rolled_out).await;
            world
                .patch(&DEPLOYMENTS, "web", image(&format!("nginx:{version}")))
                .await;
            world.sleep(1).await;
        }
        world
            .until("three are left", |world| {
                rolled_out(world) && world.list(&REPLICA_SETS).len() == 3
            })
            .await;
        let mut revisions: Vec<String> = world
            .list(&REPLICA_SETS)
            .iter()
            .map(|set| set["metadata"]["annotations"][REVISION].to_string())
            .collect();
        revisions.sort();
        assert_eq!(revisions, ["\"3\"", "\"4\"", "\"5\""]);
        world.stop().await;
    });
}

#[test]
fn a_name_that_is_taken_leads_to_another_hash() {
    run(controllers(), |world| async move {
        let body = deployment(1, "nginx:1");
        let template = serde_json::from_value(body["spec"]["template"].clone()).unwrap();
        let taken = format!("web-{}", template_hash(&template, None));
        let stranger = json!({"metadata": {"name": taken}, "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "else"}},
            "template": {"metadata": {"labels": {"app": "else"}}, "spec": {"containers": []}}}});
        world.create(&REPLICA_SETS, stranger).await;
        world.create(&DEPLOYMENTS, body).await;
        world.until("it is rolled out", rolled_out).await;
        assert_eq!(now(&world)["status"]["collisionCount"], 1);
        world.stop().await;
    });
}

#[test]
fn a_change_of_size_in_the_middle_of_a_rollout_is_shared() {
    run(controllers(), |world| async move {
        world.create(&DEPLOYMENTS, deployment(10, "nginx:1")).await;
        world.until("the first version", rolled_out).await;
        world.healthy.store(false, Ordering::Relaxed);
        world.patch(&DEPLOYMENTS, "web", image("nginx:2")).await;
        // Three more, of which five are new: 8 old, 5 new.
        world
            .until("it is stuck", |world| {
                set_of_size(world, "nginx:1") == 8 && set_of_size(world, "nginx:2") == 5
            })
            .await;
        world
            .patch(&DEPLOYMENTS, "web", json!({"spec": {"replicas": 20}}))
            .await;
        world
            .until("it is shared", |world| {
                set_of_size(world, "nginx:1") + set_of_size(world, "nginx:2") == 25
            })
            .await;
        assert_eq!(set_of_size(&world, "nginx:1"), 15);
        world.stop().await;
    });
}

fn set_of_size(world: &World, image: &str) -> i64 {
    let sets = world.list(&REPLICA_SETS);
    let set = sets
        .iter()
        .find(|set| set["spec"]["template"]["spec"]["containers"][0]["image"] == image);
    set.map_or(0, |set| set["spec"]["replicas"].as_i64().unwrap())
}

/// Connections break and requests fail; what was asked for comes about all the same, with no pod too many.
#[test]
fn it_heals() {
    run(controllers(), |world| async move {
        let tormentor = world.clone();
        world.group.spawn_until_cancelled("tormentor", async move {
            for _ in 0..20 {
                tormentor
                    .env
                    .sleep(std::time::Duration::from_millis(
                        tormentor.env.random_below(900),
                    ))
                    .await;
                tormentor.api.cut_watches();
                if tormentor.env.random_below(3) == 0 {
                    tormentor.api.compact();
                }
                let env = tormentor.env.clone();
                tormentor.api.refuse(4, move |request| {
                    // What the test itself asks for is let through.
                    let own = request.target.resource == DEPLOYMENTS
                        && request.target.subresource.is_none();
                    (!own && env.random_below(4) == 0)
                        .then(|| orlop_core::status::Status::unavailable("no"))
                });
            }
        });
        world.create(&DEPLOYMENTS, deployment(6, "nginx:1")).await;
        world.sleep(5).await;
        world.patch(&DEPLOYMENTS, "web", image("nginx:2")).await;
        for _ in 0..10 {
            world.sleep(30).await;
            if rolled_out(&world) {
                break;
            }
        }
        assert!(rolled_out(&world), "{:#?}", world.api.writes());
        world.sleep(60).await;
        assert_eq!(world.list(&PODS).len(), 6);
        world.stop().await;
    });
}

#[test]
fn the_same_seed_gives_the_same_writes() {
    let writes = || {
        let log = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let kept = log.clone();
        run(controllers(), |world| async move {
            world.create(&DEPLOYMENTS, deployment(5, "nginx:1")).await;
            world.until("the first version", rolled_out).await;
            world.patch(&DEPLOYMENTS, "web", image("nginx:2")).await;
            world.until("the second version", rolled_out).await;
            *kept.lock() = world.api.writes();
            world.stop().await;
        });
        let log = log.lock();
        log.clone()
    };
    let first = writes();
    assert!(first.len() > 50);
    assert_eq!(first, writes());
}
