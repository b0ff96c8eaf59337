use std::sync::Arc;

use orlop_core::client::{DeleteOptions, Propagation};
use orlop_core::object::Object;
use serde_json::{Value, json};

use super::*;
use crate::common::resources::{CONFIG_MAPS, DEPLOYMENTS, NODES, PODS, REPLICA_SETS};
use crate::deployment::DeploymentController;
use crate::manager::FixedCatalog;
use crate::replicaset::ReplicaSetController;
use crate::testing::{World, run};

fn collector() -> Arc<dyn Controller> {
    Arc::new(GarbageCollector::new(Arc::new(FixedCatalog::new([
        PODS,
        REPLICA_SETS,
        DEPLOYMENTS,
        CONFIG_MAPS,
        NODES,
    ]))))
}

fn map(name: &str, owners: &[&Object]) -> Value {
    let owners: Vec<_> = owners
        .iter()
        .map(|owner| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": owner.name(), "uid": owner.uid(), "blockOwnerDeletion": true}))
        .collect();
    json!({"metadata": {"name": name, "ownerReferences": owners}})
}

fn names(world: &World) -> Vec<String> {
    world
        .list(&CONFIG_MAPS)
        .iter()
        .map(|map| map["metadata"]["name"].as_str().unwrap().to_owned())
        .collect()
}

async fn delete(world: &World, resource: &Resource, name: &str, propagation: Propagation) {
    let options = DeleteOptions {
        propagation: Some(propagation),
        ..DeleteOptions::default()
    };
    world
        .client()
        .resource(resource)
        .namespace("default")
        .delete(name, options)
        .await
        .unwrap();
}

async fn family(world: &World) {
    let a = world.create(&CONFIG_MAPS, map("a", &[])).await;
    let b = world.create(&CONFIG_MAPS, map("b", &[&a])).await;
    world.create(&CONFIG_MAPS, map("c", &[&b])).await;
    let other = world.create(&CONFIG_MAPS, map("other", &[])).await;
    world
        .create(&CONFIG_MAPS, map("shared", &[&a, &other]))
        .await;
    world.sleep(1).await;
}

#[test]
fn in_the_background_dependents_go_after_their_owner() {
    run(vec![collector()], |world| async move {
        family(&world).await;
        delete(&world, &CONFIG_MAPS, "a", Propagation::Background).await;
        assert!(world.get(&CONFIG_MAPS, "a").is_none());
        world
            .until("those that have nobody are gone", |world| {
                names(world) == ["other", "shared"]
            })
            .await;
        world
            .until("the other has one owner left", |world| {
                let owners =
                    world.get(&CONFIG_MAPS, "shared").unwrap()["metadata"]["ownerReferences"]
                        .clone();
                owners.as_array().unwrap().len() == 1 && owners[0]["name"] == "other"
            })
            .await;
        world.stop().await;
    });
}

#[test]
fn in_the_foreground_dependents_go_first() {
    run(vec![collector()], |world| async move {
        family(&world).await;
        delete(&world, &CONFIG_MAPS, "a", Propagation::Foreground).await;
        assert!(world.get(&CONFIG_MAPS, "a").is_some());
        world
            .until("all are gone", |world| names(world) == ["other", "shared"])
            .await;
        let gone: Vec<String> = world
            .api
            .writes()
            .into_iter()
            .filter(|write| write.starts_with("remove configmaps"))
            .collect();
        assert_eq!(
            gone,
            ["c", "b", "a"].map(|name| format!("remove configmaps default/{name}"))
        );
        world.stop().await;
    });
}

#[test]
fn orphans_stay() {
    run(vec![collector()], |world| async move {
        family(&world).await;
        delete(&world, &CONFIG_MAPS, "a", Propagation::Orphan).await;
        world
            .until("it has gone alone", |world| {
                names(world) == ["b", "c", "other", "shared"]
            })
            .await;
        assert_eq!(
            world.get(&CONFIG_MAPS, "b").unwrap()["metadata"]["ownerReferences"],
            json!([])
        );
        world.sleep(120).await;
        assert_eq!(names(&world).len(), 4);
        world.stop().await;
    });
}

#[test]
fn an_owner_that_never_was_is_found_out() {
    run(vec![collector()], |world| async move {
        let ghost = json!({"metadata": {"name": "x", "ownerReferences": [
            {"apiVersion": "v1", "kind": "ConfigMap", "name": "ghost", "uid": "no-such-uid"}]}});
        world.create(&CONFIG_MAPS, ghost).await;
        // The name is there, but it is another object.
        let namesake = world.create(&CONFIG_MAPS, map("namesake", &[])).await;
        let impostor = json!({"metadata": {"name": "y", "ownerReferences": [
            {"apiVersion": "v1", "kind": "ConfigMap", "name": "namesake", "uid": "another-uid"}]}});
        world.create(&CONFIG_MAPS, impostor).await;
        world.create(&CONFIG_MAPS, map("z", &[&namesake])).await;
        // An owner of a kind that nobody knows is left alone: it may be there.
        let unknown = json!({"metadata": {"name": "w", "ownerReferences": [
            {"apiVersion": "example.com/v1", "kind": "Website", "name": "w", "uid": "w"}]}});
        world.create(&CONFIG_MAPS, unknown).await;
        world
            .until("they are gone", |world| {
                names(world) == ["namesake", "w", "z"]
            })
            .await;
        world.sleep(100).await;
        assert_eq!(names(&world).len(), 3);
        world.stop().await;
    });
}

#[test]
fn two_that_own_each_other_can_go_in_the_foreground() {
    run(vec![collector()], |world| async move {
        let a = world.create(&CONFIG_MAPS, map("a", &[])).await;
        let b = world.create(&CONFIG_MAPS, map("b", &[&a])).await;
        let owners = map("a", &[&b])["metadata"]["ownerReferences"].clone();
        world
            .patch(
                &CONFIG_MAPS,
                "a",
                json!({"metadata": {"ownerReferences": owners}}),
            )
            .await;
        world.sleep(1).await;
        delete(&world, &CONFIG_MAPS, "a", Propagation::Foreground).await;
        world
            .until("both are gone", |world| names(world).is_empty())
            .await;
        world.stop().await;
    });
}

#[test]
fn a_deployment_goes_with_all_that_it_made() {
    let controllers: Vec<Arc<dyn Controller>> = vec![
        collector(),
        Arc::new(ReplicaSetController::new()),
        Arc::new(DeploymentController::new()),
    ];
    run(controllers, |world| async move {
        for (n, propagation) in [Propagation::Background, Propagation::Foreground]
            .into_iter()
            .enumerate()
        {
            let name = format!("web{n}");
            world
                .create(
                    &DEPLOYMENTS,
                    json!({"metadata": {"name": name}, "spec": {"replicas": 3, "selector": {"matchLabels": {"app": name}},
                        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": []}}}}),
                )
                .await;
            world
                .until("it runs", |world| {
                    world.get(&DEPLOYMENTS, &name).unwrap()["status"]["availableReplicas"] == 3
                })
                .await;
            delete(&world, &DEPLOYMENTS, &name, propagation).await;
            world
                .until("nothing is left", |world| {
                    [&DEPLOYMENTS, &REPLICA_SETS, &PODS]
                        .iter()
                        .all(|resource| world.list(resource).is_empty())
                })
                .await;
        }
        world.stop().await;
    });
}
