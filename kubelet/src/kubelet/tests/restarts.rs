//! The agent, the runtime and the API go and come back.

use super::*;
use crate::parts::ProbeState;

#[test]
fn who_comes_next_adopts_what_runs() {
    World::run(1, |world| async move {
        let (_first, stop) = world.start();
        let ready = json!({"tcpSocket": {"port": 1}, "periodSeconds": 2});
        world
            .create(
                "web",
                json!({"containers": [{"name": "c", "readinessProbe": ready}]}),
            )
            .await;
        world
            .create(
                "old",
                json!({"terminationGracePeriodSeconds": 9, "containers": [{"name": "d",
            "lifecycle": {"preStop": {"exec": {"command": ["x"]}}}}]}),
            )
            .await;
        let done = world.create("done", json!({"restartPolicy": "Never", "containers": [{"name": "e", "command": ["true"]}]})).await;
        world.sleep(1.0).await;
        world.fakes.probe(
            "c",
            ProbeState {
                started: None,
                ready: Some(true),
                failed: None,
            },
        );
        world.sleep(1.0).await;
        assert_eq!(world.condition("web", "Ready")["status"], "True");
        let before = world.container("web", "c");
        stop.cancel();
        world.sleep(1.0).await;
        // Nobody looks: one is deleted by force, and the probes know nothing any more.
        world.delete("old", Some(0)).await;
        world.fakes.probes.lock().clear();
        world.fakes.watched.lock().clear();
        world.fakes.disk.lock().insert("stray".to_owned());
        world.sleep(10.0).await;
        world.log();
        let writes = world.api.writes().len();

        let (_second, _stop) = world.start();
        world.sleep(3.0).await;
        assert_eq!(
            world.log(),
            ["stop d 9"],
            "only what nobody wants is stopped, with its own grace"
        );
        assert_eq!(
            world.fakes.hooks_run.lock().last().unwrap(),
            "d",
            "and its hook, of which only its label knows"
        );
        assert_eq!(world.container("web", "c"), before);
        assert_eq!(
            world.condition("web", "Ready")["status"],
            "True",
            "not asked yet is not unready"
        );
        let new: Vec<String> = world.api.writes()[writes..]
            .iter()
            .filter(|write| !write.contains("events"))
            .cloned()
            .collect();
        assert!(new.is_empty(), "{new:?}");
        assert!(!world.fakes.disk.lock().contains("stray"), "left by nobody");
        assert_eq!(world.status("done")["phase"], "Succeeded");
        assert!(!world.fakes.disk.lock().contains(done.uid()));
        // A probe that goes on saying no is believed.
        world.sleep(10.0).await;
        assert_eq!(world.condition("web", "Ready")["status"], "False");
        assert_eq!(world.left().await, (2, 2), "web and done");
    });
}

#[test]
fn what_has_ended_is_left_as_it_was_told() {
    World::run(1, |world| async move {
        let (first, stop) = world.start();
        first.admit_by(Arc::new(|pod: &Pod| {
            let refused = || {
                (
                    "Evicted".to_owned(),
                    "The node had condition: [DiskPressure]. ".to_owned(),
                )
            };
            (spec::name(pod) != "bad").then_some(()).ok_or_else(refused)
        }));
        world
            .create("bad", json!({"containers": [{"name": "c"}]}))
            .await;
        world.create("done", json!({"restartPolicy": "Never", "containers": [{"name": "c", "command": ["true"]}]})).await;
        world.sleep(2.0).await;
        stop.cancel();
        world.sleep(1.0).await;
        // What the runtime kept of the one that is done is lost.
        for sandbox in world
            .runtime
            .inner
            .sandboxes(&SandboxFilter::default())
            .await
            .unwrap()
        {
            world
                .runtime
                .inner
                .remove_sandbox(&sandbox.id)
                .await
                .unwrap();
        }
        let before = (world.status("bad"), world.status("done"));
        let (second, _stop) = world.start();
        assert!(second.healthy().is_err(), "nothing is known yet");
        world.sleep(60.0).await;
        assert_eq!((world.status("bad"), world.status("done")), before);
        assert_eq!(second.healthy(), Ok(()));
    });
}

#[test]
fn a_woken_worker_says_nothing_before_it_has_looked() {
    World::run(1, |world| async move {
        let (_first, stop) = world.start();
        world
            .create("web", json!({"containers": [{"name": "c"}]}))
            .await;
        world.sleep(1.0).await;
        let before = world.status("web");
        stop.cancel();
        world.sleep(1.0).await;
        world.runtime.away.store(true, Ordering::Release);
        let (second, _stop) = world.start();
        for _ in 0..100 {
            second.waker().wake_all();
            world.sleep(0.1).await;
        }
        assert_eq!(world.status("web"), before);
        world.runtime.away.store(false, Ordering::Release);
        world.sleep(10.0).await;
        assert_eq!(world.status("web"), before);
    });
}

#[test]
fn nothing_is_ended_before_the_api_was_asked() {
    World::run(1, |world| async move {
        let (_first, stop) = world.start();
        world
            .create("web", json!({"containers": [{"name": "c"}]}))
            .await;
        world.sleep(1.0).await;
        stop.cancel();
        world.sleep(1.0).await;
        world.log();
        world.api.refuse(usize::MAX, |_| {
            Some(orlop_core::status::Status::unavailable("down"))
        });
        let (_second, _stop) = world.start();
        world.sleep(120.0).await;
        assert!(world.log().is_empty());
        assert_eq!(world.left().await, (1, 1));
    });
}

#[test]
fn a_runtime_that_is_away_changes_nothing() {
    for silent in [false, true] {
        World::run(1, move |world| async move {
            world.runtime.silent.store(silent, Ordering::Release);
            let (kubelet, _stop) = world.start();
            world
                .create("web", json!({"containers": [{"name": "c"}]}))
                .await;
            world
                .create(
                    "loop",
                    json!({"containers": [{"name": "c", "command": ["false"]}]}),
                )
                .await;
            world.sleep(3.0).await;
            let before = world.status("web");
            let looping = world.container("loop", "c")["restartCount"]
                .as_i64()
                .unwrap();
            world.runtime.away.store(true, Ordering::Release);
            world
                .create("new", json!({"containers": [{"name": "c"}]}))
                .await;
            world.delete("loop", Some(1)).await;
            world.sleep(300.0).await;
            assert_eq!(world.status("web"), before);
            assert_eq!(world.status("new")["phase"], "Pending");
            let why = kubelet.healthy().unwrap_err();
            assert!(why.ends_with("ago; threshold is 3m0s"), "{why}");
            assert!(
                world.pod("loop").is_some(),
                "nobody knows whether it still runs"
            );
            assert_eq!(world.container("loop", "c")["restartCount"], looping);
            world.runtime.away.store(false, Ordering::Release);
            world.sleep(3.0).await;
            assert_eq!(world.status("web"), before, "and was not restarted");
            assert_eq!(world.status("new")["phase"], "Running");
            assert!(world.pod("loop").is_none());
        });
    }
}

#[test]
fn an_api_that_is_away_learns_all_when_it_is_back() {
    World::run(1, |world| async move {
        let (_kubelet, _stop) = world.start();
        world.create("job", json!({"restartPolicy": "Never", "containers": [{"name": "c", "command": ["sleep", "10"]}]})).await;
        world.sleep(1.0).await;
        world.api.refuse(40, |request| {
            let pods = request.target.resource.plural == "pods";
            pods.then(|| orlop_core::status::Status::unavailable("down"))
        });
        world.sleep(60.0).await;
        // However long it was away.
        world.sleep(600.0).await;
        assert_eq!(world.status("job")["phase"], "Succeeded");
    });
}

#[test]
fn a_name_is_given_on_when_it_is_free() {
    World::run(1, |world| async move {
        let (_kubelet, _stop) = world.start();
        world
            .create(
                "web",
                json!({"terminationGracePeriodSeconds": 10, "containers": [{"name": "c"}]}),
            )
            .await;
        world.sleep(1.0).await;
        world.runtime.stubborn.lock().insert("c".to_owned());
        world.delete("web", Some(0)).await;
        let second = world
            .create("web", json!({"containers": [{"name": "c"}]}))
            .await;
        world.sleep(5.0).await;
        assert_eq!(
            world.status("web")["phase"],
            "Pending",
            "the old one still ends"
        );
        world.sleep(10.0).await;
        assert_eq!(world.status("web")["phase"], "Running");
        assert_eq!(world.pod("web").unwrap()["metadata"]["uid"], second.uid());
        assert_eq!(world.left().await, (1, 1));
    });
}

#[test]
fn static_pods_have_mirrors() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_path_buf();
    World::run(1, |mut world| async move {
        world.config.static_pod_path = Some(path.clone());
        world.config.file_check_frequency = Duration::from_secs(2);
        let manifest = "apiVersion: v1\nkind: Pod\nmetadata: {name: etcd}\nspec:\n  containers:\n  - {name: c, image: example/etcd:1}\n";
        std::fs::write(path.join("etcd.yaml"), manifest).unwrap();
        let (kubelet, _stop) = world.start();
        world.sleep(1.0).await;
        assert_eq!(world.log(), ["start c"], "it runs without the API");
        assert!(
            world.pod("etcd-n1").is_none(),
            "without a Node there is no owner"
        );
        let client = world.api.client();
        let node = client
            .resource(&NODES)
            .create(&json!({"metadata": {"name": "n1"}}))
            .await
            .unwrap();
        world.sleep(6.0).await;
        let mirror = world.pod("etcd-n1").unwrap();
        let metadata = &mirror["metadata"];
        assert_eq!(
            metadata["annotations"][crate::pod::CONFIG_MIRROR],
            metadata["annotations"][crate::pod::CONFIG_HASH]
        );
        assert_eq!(metadata["annotations"][crate::pod::CONFIG_SOURCE], "file");
        assert_eq!(metadata["ownerReferences"][0]["uid"], node.uid());
        assert_eq!(metadata["ownerReferences"][0]["kind"], "Node");
        assert_eq!(mirror["status"]["phase"], "Running");
        let uid = metadata["uid"].as_str().unwrap().to_owned();
        assert!(kubelet.find_pod("default", "etcd-n1", Some(&uid)).is_some());
        assert_eq!(kubelet.pods().len(), 1);

        // Deleted in the API, it is shown again; what runs goes on.
        world.delete("etcd-n1", Some(30)).await;
        world.sleep(3.0).await;
        let again = world.pod("etcd-n1").unwrap();
        assert_ne!(again["metadata"]["uid"], uid.as_str());
        assert_eq!(again["status"]["phase"], "Running");
        assert!(world.log().is_empty());

        // Another manifest is another pod.
        std::fs::write(path.join("etcd.yaml"), manifest.replace("etcd:1", "etcd:2")).unwrap();
        world.sleep(8.0).await;
        assert_eq!(world.log(), ["stop c 30", "start c"]);
        assert_eq!(world.container("etcd-n1", "c")["image"], "example/etcd:2");
        assert_eq!(kubelet.pods().len(), 1);

        std::fs::remove_file(path.join("etcd.yaml")).unwrap();
        world.sleep(10.0).await;
        assert!(world.pod("etcd-n1").is_none());
        assert_eq!(world.left().await, (0, 0));
        assert!(kubelet.pods().is_empty());
    });
}
