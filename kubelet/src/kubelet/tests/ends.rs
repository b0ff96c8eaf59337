//! How pods end.

use super::*;

#[test]
fn a_pod_is_deleted_with_its_hooks_and_its_grace() {
    World::run(1, |world| async move {
        let (kubelet, _stop) = world.start();
        let hook = json!({"preStop": {"exec": {"command": ["x"]}}});
        world
            .create(
                "web",
                json!({"terminationGracePeriodSeconds": 20, "initContainers": [
            {"name": "s1", "restartPolicy": "Always"}, {"name": "s2", "restartPolicy": "Always"}],
            "containers": [{"name": "c", "lifecycle": hook}, {"name": "d"}]}),
            )
            .await;
        world.sleep(1.0).await;
        world
            .fakes
            .hooks
            .lock()
            .insert("c".to_owned(), (Duration::from_secs(5), false));
        world.runtime.stubborn.lock().insert("d".to_owned());
        world.log();
        world.delete("web", Some(20)).await;
        world.sleep(1.0).await;
        assert_eq!(*world.fakes.hooks_run.lock(), ["c"]);
        assert_eq!(
            world.log(),
            ["stop d 20"],
            "c's hook runs, the sidecars wait"
        );
        assert_eq!(
            world.condition("web", "Ready")["status"],
            "True",
            "it serves until it is stopped"
        );
        world.sleep(5.0).await;
        assert_eq!(world.log(), ["stop c 15"], "what the hook left");
        assert!(world.pod("web").is_some());
        world.sleep(15.0).await;
        assert_eq!(
            world.log(),
            ["stop s2 2", "stop s1 2"],
            "the last sidecar first, with the least grace"
        );
        assert!(world.pod("web").is_none());
        assert_eq!(world.left().await, (0, 0));
        assert!(world.fakes.disk.lock().is_empty());
        assert!(kubelet.pods().is_empty());
        let writes = world.api.writes();
        assert!(
            writes.last().unwrap().starts_with("remove pods"),
            "{writes:?}"
        );
        assert!(world.events("Killing").contains(&(
            "spec.containers{c}".to_owned(),
            "Stopping container c".to_owned()
        )));
        assert_eq!(world.events("Killing").len(), 4);
    });
}

#[test]
fn a_hook_that_takes_too_long_leaves_two_seconds() {
    World::run(1, |world| async move {
        let (_kubelet, _stop) = world.start();
        let hook = json!({"preStop": {"exec": {"command": ["x"]}}});
        world.create("web", json!({"terminationGracePeriodSeconds": 10, "containers": [{"name": "c", "lifecycle": hook}]})).await;
        world.sleep(1.0).await;
        world
            .fakes
            .hooks
            .lock()
            .insert("c".to_owned(), (Duration::from_secs(60), false));
        world.log();
        world.delete("web", Some(10)).await;
        world.sleep(9.0).await;
        assert!(world.log().is_empty());
        world.sleep(2.0).await;
        assert_eq!(world.log(), ["stop c 2"]);
        assert!(world.pod("web").is_none());
    });
}

#[test]
fn a_second_deletion_cuts_the_grace() {
    World::run(1, |world| async move {
        let (_kubelet, _stop) = world.start();
        world
            .create("web", json!({"containers": [{"name": "c"}]}))
            .await;
        world.sleep(1.0).await;
        world.runtime.stubborn.lock().insert("c".to_owned());
        world.log();
        world.delete("web", Some(60)).await;
        world.sleep(5.0).await;
        // By force: the API forgets it at once, what runs is killed.
        world.delete("web", Some(0)).await;
        world.sleep(3.0).await;
        assert!(world.pod("web").is_none());
        let log = world.log();
        assert_eq!(log[0], "stop c 60");
        world.sleep(60.0).await;
        assert_eq!(world.left().await, (0, 0));
        assert!(world.fakes.disk.lock().is_empty());
    });
}

#[test]
fn a_pod_can_be_deleted_while_it_starts() {
    World::run(1, |world| async move {
        let (_kubelet, _stop) = world.start();
        world.runtime.inner.forbid_image("example/none:1");
        world
            .create(
                "web",
                json!({"containers": [{"name": "c", "image": "example/none:1"}]}),
            )
            .await;
        *world.fakes.mount_failures.lock() = 1000;
        world
            .create("sick", json!({"containers": [{"name": "c"}]}))
            .await;
        world.sleep(1.0).await;
        world.delete("web", Some(30)).await;
        world.delete("sick", Some(30)).await;
        world.sleep(1.0).await;
        assert!(world.pod("web").is_none() && world.pod("sick").is_none());
        assert_eq!(world.left().await, (0, 0));
    });
}

#[test]
fn a_job_comes_to_its_end() {
    World::run(1, |world| async move {
        let (_kubelet, _stop) = world.start();
        let pod = |policy: &str, command: Value| json!({"restartPolicy": policy, "containers": [{"name": "c", "command": command}]});
        world
            .create("good", pod("Never", json!(["sleep", "3"])))
            .await;
        world.create("bad", pod("Never", json!(["false"]))).await;
        world
            .create("again", pod("OnFailure", json!(["false"])))
            .await;
        let mut init = pod("Never", json!(["serve"]));
        init["initContainers"] = json!([{"name": "i", "command": ["false"]}]);
        world.create("init", init).await;
        let mut side = pod("Never", json!(["sleep", "3"]));
        side["initContainers"] = json!([{"name": "s", "restartPolicy": "Always"}]);
        world.create("side", side).await;
        world.sleep(5.0).await;
        let status = world.status("good");
        assert_eq!(status["phase"], "Succeeded");
        assert_eq!(world.condition("good", "Ready")["reason"], "PodCompleted");
        assert_eq!(
            world.condition("good", "Initialized")["reason"],
            "PodCompleted"
        );
        assert_eq!(
            world.condition("good", "PodReadyToStartContainers")["status"],
            "False"
        );
        let ended = &world.container("good", "c")["state"]["terminated"];
        assert_eq!(
            (&ended["exitCode"], &ended["reason"]),
            (&json!(0), &json!("Completed"))
        );
        assert_eq!(world.status("bad")["phase"], "Failed");
        assert_eq!(world.condition("bad", "Ready")["reason"], "PodFailed");
        assert_eq!(world.status("again")["phase"], "Running");
        assert_eq!(
            world.container("again", "c")["state"]["waiting"]["reason"],
            "CrashLoopBackOff"
        );
        assert_eq!(world.status("init")["phase"], "Failed");
        assert_eq!(
            world.container("init", "c")["state"]["waiting"]["reason"],
            "PodInitializing"
        );
        assert_eq!(
            world.container("init", "i")["state"]["terminated"]["exitCode"],
            1
        );
        assert_eq!(
            world.status("side")["phase"],
            "Succeeded",
            "a sidecar does not keep it alive"
        );
        assert!(
            !world.fakes.disk.lock().contains(
                world.pod("good").unwrap()["metadata"]["uid"]
                    .as_str()
                    .unwrap()
            )
        );
        // Its containers are kept until it is deleted, so that they can be looked at.
        let writes = world.api.writes().len();
        world.sleep(300.0).await;
        assert_eq!(
            world.api.writes()[writes..]
                .iter()
                .filter(|write| !write.contains("again") && !write.contains("events"))
                .count(),
            0
        );
        world.delete("good", None).await;
        world.sleep(1.0).await;
        assert!(world.pod("good").is_none());
        for name in ["bad", "again", "init", "side"] {
            world.delete(name, Some(1)).await;
        }
        world.sleep(5.0).await;
        assert_eq!(world.left().await, (0, 0));
    });
}

#[test]
fn a_pod_past_its_deadline_fails() {
    World::run(1, |world| async move {
        let (_kubelet, _stop) = world.start();
        world.create("slow", json!({"activeDeadlineSeconds": 30, "terminationGracePeriodSeconds": 5, "containers": [{"name": "c"}]})).await;
        world.runtime.stubborn.lock().insert("c".to_owned());
        world.sleep(29.0).await;
        assert_eq!(world.status("slow")["phase"], "Running");
        world.sleep(3.0).await;
        assert_eq!(
            world.status("slow")["phase"],
            "Running",
            "as long as it may run"
        );
        assert_eq!(world.condition("slow", "Ready")["status"], "False");
        world.sleep(4.0).await;
        let status = world.status("slow");
        assert_eq!(
            (&status["phase"], &status["reason"]),
            (&json!("Failed"), &json!("DeadlineExceeded"))
        );
        assert_eq!(
            status["message"],
            "Pod was active on the node longer than the specified deadline"
        );
        assert_eq!(
            world.container("slow", "c")["state"]["terminated"]["exitCode"],
            137
        );
        assert_eq!(world.events("DeadlineExceeded").len(), 1);
    });
}

#[test]
fn an_evicted_pod_fails() {
    World::run(1, |world| async move {
        let (kubelet, _stop) = world.start();
        let pod = world
            .create("hungry", json!({"containers": [{"name": "c"}]}))
            .await;
        world.sleep(1.0).await;
        world.log();
        assert!(kubelet.evict(
            pod.uid(),
            "Evicted",
            "The node was low on resource: memory. "
        ));
        assert!(!kubelet.evict(pod.uid(), "Evicted", "again"));
        world.sleep(1.0).await;
        assert_eq!(world.log(), ["stop c 2"]);
        let status = world.status("hungry");
        assert_eq!(
            (&status["phase"], &status["reason"]),
            (&json!("Failed"), &json!("Evicted"))
        );
        assert_eq!(status["message"], "The node was low on resource: memory. ");
        let condition = world.condition("hungry", "DisruptionTarget");
        assert_eq!(
            (&condition["status"], &condition["reason"]),
            (&json!("True"), &json!("TerminationByKubelet"))
        );
        assert!(!kubelet.evict("nobody", "Evicted", ""));
    });
}
