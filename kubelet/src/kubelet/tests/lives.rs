//! How pods begin and live.

use super::*;
use crate::parts::{ProbeFailure, ProbeState};

#[test]
fn a_pod_starts() {
    World::run(1, |world| async move {
        let (kubelet, _stop) = world.start();
        world
            .create(
                "web",
                json!({"containers": [{"name": "b", "resources": {"requests": {"cpu": "100m"}},
            "volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": true}]}, {"name": "a"}]}),
            )
            .await;
        world.sleep(1.0).await;
        let status = world.status("web");
        assert_eq!(status["phase"], "Running");
        assert_eq!(status["qosClass"], "Burstable");
        assert_eq!(status["hostIP"], "192.168.0.1");
        assert_eq!(status["podIPs"], json!([{"ip": status["podIP"]}]));
        assert!(status["podIP"].as_str().unwrap().starts_with("10.88."));
        assert_eq!(status["observedGeneration"], 1);
        assert!(status["startTime"].is_string());
        for kind in [
            "PodReadyToStartContainers",
            "Initialized",
            "Ready",
            "ContainersReady",
            "PodScheduled",
        ] {
            assert_eq!(world.condition("web", kind)["status"], "True", "{kind}");
        }
        let names: Vec<_> = status["containerStatuses"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["name"].clone())
            .collect();
        assert_eq!(names, ["a", "b"], "by name");
        let b = world.container("web", "b");
        assert_eq!(
            (&b["ready"], &b["started"], &b["restartCount"]),
            (&json!(true), &json!(true), &json!(0))
        );
        assert!(
            b["containerID"]
                .as_str()
                .unwrap()
                .starts_with("simulated://")
        );
        assert!(b["imageID"].as_str().unwrap().contains("@sha256:"));
        assert_eq!(b["image"], "example/app:1");
        assert_eq!(b["allocatedResources"], json!({"cpu": "100m"}));
        assert_eq!(
            b["volumeMounts"],
            json!([{"name": "v", "mountPath": "/v", "readOnly": true, "recursiveReadOnly": "Disabled"}])
        );
        assert_eq!(
            world.events("Created"),
            [
                (
                    "spec.containers{b}".to_owned(),
                    "Container created".to_owned()
                ),
                (
                    "spec.containers{a}".to_owned(),
                    "Container created".to_owned()
                )
            ]
        );
        assert_eq!(world.events("Started").len(), 2);
        assert_eq!(world.log(), ["start b", "start a"], "in the pod's order");
        let seen = kubelet.container("default", "web", "a").unwrap();
        assert_eq!(seen.containers.len(), 1);
        assert_eq!(
            seen.containers[0].mounts[0].container_path.to_str(),
            Some("/inside")
        );
        assert_eq!(
            seen.pod.status.as_ref().unwrap().phase.as_deref(),
            Some("Running")
        );
        assert_eq!(kubelet.pods().len(), 1);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &kubelet.metrics()).unwrap();
        assert!(
            text.contains("kubelet_started_containers_total{container_type=\"container\"} 2"),
            "{text}"
        );

        // At rest nothing is written.
        let writes = world.api.writes().len();
        world.sleep(600.0).await;
        assert_eq!(world.api.writes().len(), writes);
    });
}

#[test]
fn a_runtime_without_events_is_listed() {
    World::run(1, |world| async move {
        world.runtime.silent.store(true, Ordering::Release);
        let (_kubelet, _stop) = world.start();
        world.create("job", json!({"restartPolicy": "Never", "containers": [{"name": "c", "command": ["sleep", "5"]}]})).await;
        world.sleep(2.0).await;
        assert_eq!(world.status("job")["phase"], "Running");
        world.sleep(5.0).await;
        assert_eq!(world.status("job")["phase"], "Succeeded");
    });
}

#[test]
fn init_containers_run_in_order_and_sidecars_stay() {
    World::run(1, |world| async move {
        let (_kubelet, _stop) = world.start();
        world.create("web", json!({"initContainers": [
            {"name": "one", "command": ["sleep", "3"]},
            {"name": "proxy", "restartPolicy": "Always", "startupProbe": {"tcpSocket": {"port": 1}}},
            {"name": "two", "command": ["sleep", "3"]}],
            "containers": [{"name": "web"}]})).await;
        world.sleep(1.0).await;
        assert_eq!(world.log(), ["start one"]);
        assert_eq!(world.status("web")["phase"], "Pending");
        assert_eq!(
            world.container("web", "web")["state"],
            json!({"waiting": {"reason": "PodInitializing"}})
        );
        assert_eq!(
            world.condition("web", "Initialized")["reason"],
            "ContainersNotInitialized"
        );
        assert_eq!(
            world.condition("web", "Initialized")["message"],
            "containers with incomplete status: [one proxy two]"
        );
        world.sleep(3.0).await;
        assert_eq!(
            world.log(),
            ["start proxy"],
            "two waits until the proxy has started up"
        );
        world.sleep(10.0).await;
        assert!(world.log().is_empty());
        world.fakes.probe(
            "proxy",
            ProbeState {
                started: Some(true),
                ready: None,
                failed: None,
            },
        );
        world.sleep(1.0).await;
        assert_eq!(world.log(), ["start two"]);
        world.sleep(3.0).await;
        assert_eq!(world.log(), ["start web"]);
        assert_eq!(world.status("web")["phase"], "Running");
        assert_eq!(world.condition("web", "Initialized")["status"], "True");
        assert_eq!(
            world.container("web", "one")["state"]["terminated"]["reason"],
            "Completed"
        );
        assert_eq!(world.container("web", "one")["ready"], true);
        let order: Vec<_> = world.status("web")["initContainerStatuses"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["name"].clone())
            .collect();
        assert_eq!(order, ["one", "proxy", "two"], "in the pod's order");

        // A sidecar whose liveness probe fails is restarted; the pod goes on.
        world.fakes.probe(
            "proxy",
            ProbeState {
                started: Some(true),
                ready: None,
                failed: Some(ProbeFailure::Liveness),
            },
        );
        world.sleep(0.5).await;
        world.fakes.probe(
            "proxy",
            ProbeState {
                started: Some(true),
                ready: None,
                failed: None,
            },
        );
        world.sleep(0.5).await;
        let log = world.log();
        assert_eq!(&log[..2], ["stop proxy 30", "start proxy"]);
        assert!(
            world
                .events("Killing")
                .iter()
                .any(|(at, what)| at == "spec.initContainers{proxy}"
                    && what == "Init container proxy failed liveness probe")
        );
        assert_eq!(world.status("web")["phase"], "Running");
    });
}

#[test]
fn a_container_that_keeps_ending_waits_longer_and_longer() {
    World::run(1, |world| async move {
        let (_kubelet, _stop) = world.start();
        let pod = world
            .create(
                "bad",
                json!({"containers": [{"name": "c", "command": ["false"]}]}),
            )
            .await;
        world.sleep(0.5).await;
        let status = world.container("bad", "c");
        assert_eq!(status["state"]["waiting"]["reason"], "CrashLoopBackOff");
        assert_eq!(
            status["state"]["waiting"]["message"],
            format!(
                "back-off 10s restarting failed container=c pod=bad_default({})",
                pod.uid()
            )
        );
        assert_eq!(status["lastState"]["terminated"]["exitCode"], 1);
        assert_eq!(status["lastState"]["terminated"]["reason"], "Error");
        assert_eq!(
            status["lastState"]["terminated"]["message"],
            "c says good bye"
        );
        assert_eq!(status["restartCount"], 1, "the first end costs nothing");
        assert_eq!(world.status("bad")["phase"], "Running");
        assert_eq!(
            world.condition("bad", "Ready")["reason"],
            "ContainersNotReady"
        );
        assert_eq!(
            world.condition("bad", "Ready")["message"],
            "containers with unready status: [c]"
        );
        let about = (
            "spec.containers{c}".to_owned(),
            format!(
                "Back-off restarting failed container c in pod bad_default({})",
                pod.uid()
            ),
        );
        assert_eq!(world.events("BackOff"), [about]);
        for (waits, restarts) in [
            (10.0, 2),
            (20.0, 3),
            (40.0, 4),
            (80.0, 5),
            (160.0, 6),
            (300.0, 7),
            (300.0, 8),
        ] {
            world.sleep(waits - 1.0).await;
            assert_eq!(
                world.container("bad", "c")["restartCount"],
                restarts - 1,
                "{waits}"
            );
            world.sleep(1.0).await;
            assert_eq!(
                world.container("bad", "c")["restartCount"],
                restarts,
                "{waits}"
            );
        }
        let message = world.container("bad", "c")["state"]["waiting"]["message"].clone();
        assert!(
            message.as_str().unwrap().starts_with("back-off 5m0s "),
            "{message}"
        );
        assert_eq!(
            world.left().await,
            (1, 1),
            "only the newest is kept to be looked at"
        );
    });
}

#[test]
fn probes_decide() {
    World::run(1, |world| async move {
        let (_kubelet, _stop) = world.start();
        let probe = json!({"tcpSocket": {"port": 80}, "terminationGracePeriodSeconds": 7});
        world.create("web", json!({"containers": [{"name": "c", "livenessProbe": probe, "readinessProbe": {"tcpSocket": {"port": 80}}}]})).await;
        world.sleep(1.0).await;
        assert_eq!(world.status("web")["phase"], "Running");
        assert_eq!(world.condition("web", "Ready")["status"], "False");
        let well = ProbeState {
            started: None,
            ready: Some(true),
            failed: None,
        };
        world.fakes.probe("c", well);
        world.sleep(0.1).await;
        assert_eq!(world.condition("web", "Ready")["status"], "True", "at once");
        let since = world.condition("web", "Ready")["lastTransitionTime"].clone();
        world.sleep(5.0).await;
        world.fakes.probe(
            "c",
            ProbeState {
                ready: Some(false),
                ..well
            },
        );
        world.sleep(0.1).await;
        assert_eq!(
            world.condition("web", "Ready")["status"],
            "False",
            "at once"
        );
        assert_ne!(world.condition("web", "Ready")["lastTransitionTime"], since);
        world.log();
        world.fakes.probe(
            "c",
            ProbeState {
                failed: Some(ProbeFailure::Liveness),
                ..well
            },
        );
        world.sleep(0.1).await;
        world.fakes.probe("c", well);
        world.sleep(1.0).await;
        assert_eq!(world.log()[0], "stop c 7", "the probe's own grace");
        assert!(world.events("Killing").contains(&(
            "spec.containers{c}".to_owned(),
            "Container c failed liveness probe, will be restarted".to_owned()
        )));
        world.sleep(20.0).await;
        assert!(
            world.container("web", "c")["restartCount"]
                .as_i64()
                .unwrap()
                >= 1
        );
        assert_eq!(
            world.container("web", "c")["lastState"]["terminated"]["exitCode"],
            143
        );
    });
}

#[test]
fn readiness_gates_are_waited_for() {
    World::run(1, |world| async move {
        let (_kubelet, _stop) = world.start();
        world.create("web", json!({"readinessGates": [{"conditionType": "example.com/lb"}], "containers": [{"name": "c"}]})).await;
        world.sleep(1.0).await;
        assert_eq!(world.condition("web", "ContainersReady")["status"], "True");
        assert_eq!(
            world.condition("web", "Ready")["reason"],
            "ReadinessGatesNotReady"
        );
        assert_eq!(
            world.condition("web", "Ready")["message"],
            "corresponding condition of pod readiness gate \"example.com/lb\" does not exist."
        );
        let patch =
            json!({"status": {"conditions": [{"type": "example.com/lb", "status": "True"}]}});
        let client = world.api.client();
        client
            .resource(&PODS)
            .namespace("default")
            .patch_status("web", orlop_core::client::Patch::Strategic(patch))
            .await
            .unwrap();
        world.sleep(0.5).await;
        assert_eq!(world.condition("web", "Ready")["status"], "True");
        assert_eq!(
            world.condition("web", "example.com/lb")["status"],
            "True",
            "others' conditions stay"
        );
    });
}

#[test]
fn what_cannot_be_started_says_why() {
    World::run(1, |world| async move {
        let (_kubelet, _stop) = world.start();
        world.runtime.inner.forbid_image("example/none:1");
        world
            .create(
                "a",
                json!({"containers": [{"name": "c", "image": "example/none:1"}, {"name": "d"}]}),
            )
            .await;
        world
            .create(
                "b",
                json!({"containers": [{"name": "c", "command": ["unconfigured"]}]}),
            )
            .await;
        world
            .create(
                "c",
                json!({"containers": [{"name": "c", "workingDir": "/refused"}]}),
            )
            .await;
        world
            .fakes
            .hooks
            .lock()
            .insert("hooked".to_owned(), (Duration::ZERO, true));
        let hook = json!({"postStart": {"exec": {"command": ["x"]}}});
        world
            .create(
                "d",
                json!({"containers": [{"name": "hooked", "lifecycle": hook}]}),
            )
            .await;
        world.sleep(1.0).await;
        let waiting = |pod: &str, name: &str| {
            world.container(pod, name)["state"]["waiting"]["reason"].clone()
        };
        assert_eq!(waiting("a", "c"), "ErrImagePull");
        assert!(
            !world.container("a", "d")["state"]["running"].is_null(),
            "one does not block the other"
        );
        assert_eq!(world.status("a")["phase"], "Pending");
        assert_eq!(waiting("b", "c"), "CreateContainerConfigError");
        assert_eq!(waiting("c", "c"), "CreateContainerError");
        assert!(world.events("Failed").contains(&(
            "spec.containers{c}".to_owned(),
            "Error: configmap \"x\" not found".to_owned()
        )));
        assert!(world.events("Failed").contains(&(
            "spec.containers{c}".to_owned(),
            "Error: ErrImagePull".to_owned()
        )));
        assert!(world.events("Failed").contains(&(
            "spec.containers{c}".to_owned(),
            "Error: no such directory".to_owned()
        )));
        assert_eq!(
            world.events("FailedPostStartHook")[0].1,
            "PostStartHook failed"
        );
        assert!(
            ["PostStartHookError", "CrashLoopBackOff"]
                .iter()
                .any(|reason| waiting("d", "hooked") == *reason)
        );
    });
}

#[test]
fn volumes_are_tried_again() {
    World::run(1, |world| async move {
        *world.fakes.mount_failures.lock() = 2;
        let (_kubelet, _stop) = world.start();
        world
            .create("web", json!({"containers": [{"name": "c"}]}))
            .await;
        world.sleep(0.5).await;
        assert_eq!(
            world.container("web", "c")["state"]["waiting"]["reason"],
            "ContainerCreating"
        );
        assert_eq!(world.events("FailedMount")[0].1, "no such ConfigMap");
        world.sleep(4.0).await;
        assert_eq!(world.status("web")["phase"], "Running");
    });
}

#[test]
fn a_sandbox_that_dies_is_made_anew() {
    World::run(1, |world| async move {
        let (_kubelet, _stop) = world.start();
        world.create("web", json!({"initContainers": [{"name": "i", "command": ["true"]}], "containers": [{"name": "c"}]})).await;
        world.sleep(1.0).await;
        let sandboxes = world
            .runtime
            .inner
            .sandboxes(&SandboxFilter::default())
            .await
            .unwrap();
        let before = world.status("web")["podIP"].clone();
        world.log();
        world
            .runtime
            .inner
            .stop_sandbox(&sandboxes[0].id)
            .await
            .unwrap();
        world.sleep(2.0).await;
        assert_eq!(
            world.events("SandboxChanged")[0].1,
            "Pod sandbox changed, it will be killed and re-created."
        );
        assert_eq!(world.log(), ["start i", "start c"]);
        assert_eq!(world.status("web")["phase"], "Running");
        assert_eq!(world.container("web", "c")["restartCount"], 1);
        assert_eq!(
            world.container("web", "c")["lastState"]["terminated"]["exitCode"],
            137
        );
        let after = world.status("web");
        assert_ne!(after["podIP"], before);
        assert_eq!(
            after["podIPs"],
            json!([{"ip": after["podIP"]}]),
            "the old address is gone"
        );
    });
}

#[test]
fn another_image_makes_another_container() {
    World::run(1, |world| async move {
        let (_kubelet, _stop) = world.start();
        world
            .create("web", json!({"containers": [{"name": "c"}, {"name": "d"}]}))
            .await;
        world.sleep(1.0).await;
        world.log();
        let patch = json!([{"op": "replace", "path": "/spec/containers/0/image", "value": "example/app:2"},
            {"op": "add", "path": "/spec/ephemeralContainers", "value": [{"name": "debug", "image": "example/debug:1", "targetContainerName": "d"}]}]);
        let client = world.api.client();
        client
            .resource(&PODS)
            .namespace("default")
            .patch("web", orlop_core::client::Patch::Json(patch))
            .await
            .unwrap();
        world.sleep(1.0).await;
        assert_eq!(world.log(), ["stop c 30", "start debug", "start c"]);
        assert_eq!(world.container("web", "c")["image"], "example/app:2");
        assert_eq!(world.container("web", "d")["restartCount"], 0);
        assert!(!world.container("web", "debug")["state"]["running"].is_null());
        assert!(world.events("Killing").contains(&(
            "spec.containers{c}".to_owned(),
            "Container c definition changed, will be restarted".to_owned()
        )));
    });
}

#[test]
fn a_pod_that_does_not_fit_is_refused() {
    World::run(1, |world| async move {
        let (kubelet, _stop) = world.start();
        kubelet.node().update(|facts| {
            let cpu = orlop_core::quantity::Quantity::parse("1").unwrap();
            facts.allocatable = Some([("cpu".to_owned(), cpu)].into());
        });
        let asks = |cpu: &str| json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]});
        world.create("a", asks("600m")).await;
        world.create("b", asks("600m")).await;
        world.sleep(1.0).await;
        let status = world.status("b");
        assert_eq!(
            (&status["phase"], &status["reason"]),
            (&json!("Failed"), &json!("OutOfcpu"))
        );
        assert_eq!(
            status["message"],
            "Pod was rejected: Node didn't have enough resource: cpu, requested: 600, used: 600, capacity: 1000"
        );
        assert_eq!(
            world.events("OutOfcpu")[0].1,
            "Node didn't have enough resource: cpu, requested: 600, used: 600, capacity: 1000"
        );
        assert_eq!(world.status("a")["phase"], "Running");
        // When the first is gone, there is room again.
        world.delete("a", None).await;
        world.delete("b", None).await;
        world.sleep(2.0).await;
        assert!(world.pod("a").is_none() && world.pod("b").is_none());
        world.create("c", asks("600m")).await;
        world.sleep(1.0).await;
        assert_eq!(world.status("c")["phase"], "Running");
    });
}

/// What two hundred pods at once leave behind: every write, in order, and the containers' ids.
fn two_hundred(seed: u64) -> (Vec<String>, Vec<String>) {
    let kept = Arc::new(Mutex::new((Vec::new(), Vec::new())));
    let out = kept.clone();
    World::run(seed, |mut world| async move {
        world.config.max_pods = 500;
        let (_kubelet, _stop) = world.start();
        for at in 0..200 {
            let command = if at % 3 == 0 {
                json!(["sleep", "2"])
            } else {
                json!(["serve"])
            };
            let policy = if at % 3 == 0 { "Never" } else { "Always" };
            world.create(&format!("p{at:03}"), json!({"restartPolicy": policy, "containers": [{"name": "c", "command": command}]})).await;
        }
        world.sleep(5.0).await;
        let mut ids = Vec::new();
        for at in 0..200 {
            let name = format!("p{at:03}");
            let phase = if at % 3 == 0 { "Succeeded" } else { "Running" };
            assert_eq!(world.status(&name)["phase"], phase, "{name}");
            ids.push(world.container(&name, "c")["containerID"].to_string());
        }
        *out.lock() = (world.api.writes(), ids);
    });
    let kept = kept.lock();
    kept.clone()
}

#[test]
fn two_hundred_pods_at_once_are_the_same_for_the_same_seed() {
    let (writes, ids) = two_hundred(7);
    let again = two_hundred(7);
    assert_eq!(writes, again.0);
    assert_eq!(ids, again.1);
    assert_ne!(ids, two_hundred(8).1, "the seed counts");
}

#[test]
fn others_may_refuse_a_pod() {
    World::run(1, |world| async move {
        let (kubelet, _stop) = world.start();
        kubelet.admit_by(Arc::new(|pod: &Pod| {
            let words = || {
                (
                    "Evicted".to_owned(),
                    "The node had condition: [DiskPressure]. ".to_owned(),
                )
            };
            (spec::name(pod) != "bad").then_some(()).ok_or_else(words)
        }));
        world
            .create("bad", json!({"containers": [{"name": "c"}]}))
            .await;
        world
            .create("good", json!({"containers": [{"name": "c"}]}))
            .await;
        world.sleep(1.0).await;
        assert_eq!(world.status("bad")["reason"], "Evicted");
        assert_eq!(
            world.status("bad")["message"],
            "Pod was rejected: The node had condition: [DiskPressure]. "
        );
        assert_eq!(world.status("good")["phase"], "Running");
    });
}
