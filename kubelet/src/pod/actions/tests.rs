use jiff::Timestamp;
use orlop_core::runtime::{
    Container as Seen, ContainerMetadata, Exit, ImageId, ImageSpec, Namespaces, Sandbox,
    SandboxMetadata, SandboxState, Signal,
};
use serde_json::{Value, json};

use super::*;
use crate::labels;

fn pod(spec: Value) -> Pod {
    let mut spec = spec;
    for list in ["containers", "initContainers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            container["image"] = json!("i");
        }
    }
    serde_json::from_value(
        json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec}),
    )
    .unwrap()
}

/// A sandbox, and containers by words: `NAME running`, `NAME 0`, `NAME created`, `NAME unknown`, `NAME changed`.
fn seen(pod: &Pod, ready: bool, words: &[&str]) -> Observed {
    let at = |seconds: usize| Timestamp::from_second(1_000 + seconds as i64).unwrap();
    let sandbox = Sandbox {
        id: SandboxId::new("s"),
        metadata: SandboxMetadata::default(),
        state: if ready {
            SandboxState::Ready
        } else {
            SandboxState::NotReady
        },
        created: at(0),
        addresses: vec!["10.0.0.1".parse().unwrap()],
        namespaces: Namespaces::default(),
        labels: labels_of(&[]),
        annotations: labels_of(&[]),
        handler: String::new(),
    };
    let containers = words.iter().enumerate().map(|(index, words)| {
        let (name, how) = words.split_once(' ').unwrap();
        let (_, own) = spec::find(pod, name).unwrap();
        let state = match how {
            "running" | "changed" => ContainerState::Running,
            "created" => ContainerState::Created,
            "unknown" => ContainerState::Unknown,
            _ => ContainerState::Exited,
        };
        let hash = if how == "changed" {
            "other".to_owned()
        } else {
            spec::container_hash(&own)
        };
        Seen {
            id: ContainerId::new(format!("{name}-id")),
            sandbox: SandboxId::new("s"),
            metadata: ContainerMetadata {
                name: name.to_owned(),
                attempt: 0,
            },
            state,
            created: at(index),
            started: None,
            finished: None,
            exit: how.parse().ok().map(|code| Exit {
                code,
                reason: String::new(),
                message: String::new(),
            }),
            image: ImageSpec::default(),
            image_ref: String::new(),
            image_id: ImageId::new(""),
            labels: labels_of(&[]),
            annotations: labels_of(&[(labels::CONTAINER_HASH, &hash)]),
            mounts: Vec::new(),
            log_path: None,
            resources: None,
            user: None,
            stop_signal: Signal::default(),
        }
    });
    Observed::sorted(vec![sandbox], containers.collect())
}

fn labels_of(pairs: &[(&str, &str)]) -> orlop_core::runtime::Labels {
    let pairs = pairs.iter();
    pairs
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

/// What is to be done, in words.
fn words(pod: &Pod, actions: &Actions) -> String {
    let mut words = Vec::new();
    if actions.kill_pod {
        words.push("kill-pod".to_owned());
    }
    words.extend(
        actions
            .kill
            .iter()
            .map(|kill| format!("kill:{}", kill.name)),
    );
    if actions.create_sandbox {
        words.push(format!("sandbox:{}", actions.attempt));
    }
    let ephemeral = spec::ephemeral_containers(pod);
    for (list, all) in [
        (&actions.ephemeral, ephemeral.as_slice()),
        (&actions.init, spec::init_containers(pod)),
        (&actions.regular, spec::containers(pod)),
    ] {
        words.extend(list.iter().map(|at| all[*at].name.clone()));
    }
    words.join(" ")
}

#[test]
fn what_is_to_be_done() {
    let two = |policy: &str| {
        pod(json!({"restartPolicy": policy, "containers": [{"name": "a"}, {"name": "b"}]}))
    };
    let init = |policy: &str| {
        pod(
            json!({"restartPolicy": policy, "initContainers": [{"name": "i"}, {"name": "j"}], "containers": [{"name": "a"}]}),
        )
    };
    let side = |policy: &str| {
        pod(
            json!({"restartPolicy": policy, "initContainers": [{"name": "s", "restartPolicy": "Always"}, {"name": "j"},
            {"name": "t", "restartPolicy": "Always", "startupProbe": {"tcpSocket": {"port": 1}}}], "containers": [{"name": "a"}]}),
        )
    };
    type Case<'a> = (&'a str, Pod, bool, &'a [&'a str], &'a str);
    let cases: Vec<Case<'_>> = vec![
        (
            "all runs",
            two("Always"),
            true,
            &["a running", "b running"],
            "",
        ),
        ("one is missing", two("Always"), true, &["a running"], "b"),
        (
            "one ended well, always",
            two("Always"),
            true,
            &["a running", "b 0"],
            "b",
        ),
        (
            "one ended well, on failure",
            two("OnFailure"),
            true,
            &["a running", "b 0"],
            "",
        ),
        (
            "one failed, on failure",
            two("OnFailure"),
            true,
            &["a running", "b 1"],
            "b",
        ),
        (
            "one failed, never",
            two("Never"),
            true,
            &["a running", "b 1"],
            "",
        ),
        (
            "both ended, never",
            two("Never"),
            true,
            &["a 0", "b 1"],
            "kill-pod",
        ),
        (
            "never started",
            two("Never"),
            true,
            &["a created", "b running"],
            "a",
        ),
        (
            "unknown",
            two("Always"),
            true,
            &["a unknown", "b running"],
            "kill:a a",
        ),
        (
            "another image",
            two("Never"),
            true,
            &["a changed", "b running"],
            "kill:a a",
        ),
        (
            "dead sandbox",
            two("Always"),
            false,
            &["a 137", "b 137"],
            "kill-pod sandbox:1 a b",
        ),
        (
            "dead sandbox, nothing ran",
            two("Never"),
            false,
            &[],
            "kill-pod sandbox:1 a b",
        ),
        (
            "dead sandbox, never",
            two("Never"),
            false,
            &["a 137"],
            "kill-pod",
        ),
        (
            "dead sandbox, one is done",
            two("OnFailure"),
            false,
            &["a 0", "b 137"],
            "kill-pod sandbox:1 b",
        ),
        (
            "dead sandbox, all are done",
            two("OnFailure"),
            false,
            &["a 0", "b 0"],
            "kill-pod",
        ),
        (
            "dead sandbox, init",
            init("Always"),
            false,
            &["i 0", "j 0", "a 137"],
            "kill-pod sandbox:1 i",
        ),
        ("first init", init("Always"), true, &[], "i"),
        ("init runs", init("Always"), true, &["i running"], ""),
        ("init done", init("Always"), true, &["i 0"], "j"),
        ("init failed", init("Always"), true, &["i 1"], "i"),
        (
            "init failed, never",
            init("Never"),
            true,
            &["i 1"],
            "kill-pod",
        ),
        ("init not started", init("Never"), true, &["i created"], "i"),
        (
            "init unknown",
            init("Always"),
            true,
            &["i unknown"],
            "kill:i i",
        ),
        ("all init done", init("Always"), true, &["i 0", "j 0"], "a"),
        ("init forgotten", init("Always"), true, &["j 0"], "a"),
        (
            "init forgotten, running",
            init("Always"),
            true,
            &["a running"],
            "",
        ),
        (
            "running after init",
            init("Always"),
            true,
            &["i 0", "j 0", "a running"],
            "",
        ),
        (
            "main ended after init",
            init("Always"),
            true,
            &["j 0", "a 1"],
            "a",
        ),
        ("first sidecar", side("Always"), true, &[], "s"),
        ("sidecar runs", side("Always"), true, &["s running"], "j"),
        ("sidecar ended early", side("Always"), true, &["s 1"], "s"),
        (
            "sidecar ended, init runs",
            side("Never"),
            true,
            &["s 0", "j running"],
            "s",
        ),
        (
            "init done, sidecar runs",
            side("Always"),
            true,
            &["s running", "j 0"],
            "t",
        ),
        (
            "last has not started up",
            side("Always"),
            true,
            &["s running", "j 0", "t running"],
            "",
        ),
        (
            "sidecar ended",
            side("Always"),
            true,
            &["s 0", "j 0", "t running", "a running"],
            "s",
        ),
        (
            "sidecar forgotten",
            side("Always"),
            true,
            &["t running", "a running"],
            "s",
        ),
        (
            "sidecar changed",
            side("Always"),
            true,
            &["s changed", "t running", "a running"],
            "kill:s s",
        ),
        (
            "main ended, never",
            side("Never"),
            true,
            &["s running", "j 0", "t running", "a 0"],
            "",
        ),
    ];
    for (name, pod, ready, there, expected) in cases {
        let seen = seen(&pod, ready, there);
        let actions = decide(&pod, &seen, &|_| ProbeState {
            started: Some(false),
            ..ProbeState::default()
        });
        assert_eq!(words(&pod, &actions), expected, "{name}");
    }
    // Once the last sidecar has started up and the only container has ended for good, all goes.
    let pod = side("Never");
    let seen = seen(&pod, true, &["s running", "j 0", "t running", "a 0"]);
    let actions = decide(&pod, &seen, &|_| ProbeState {
        started: Some(true),
        ..ProbeState::default()
    });
    assert_eq!(words(&pod, &actions), "kill-pod");
}

#[test]
fn a_pod_without_a_sandbox_begins() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let actions = decide(&pod, &Observed::default(), &|_| ProbeState::default());
    assert_eq!(words(&pod, &actions), "kill-pod sandbox:0 a");
}

#[test]
fn probes_end_containers() {
    for (policy, failed, message, expected) in [
        (
            "Always",
            ProbeFailure::Liveness,
            "Container a failed liveness probe, will be restarted",
            "kill:a a",
        ),
        (
            "Always",
            ProbeFailure::Startup,
            "Container a failed startup probe, will be restarted",
            "kill:a a",
        ),
        (
            "Never",
            ProbeFailure::Liveness,
            "Container a failed liveness probe",
            "kill-pod kill:a",
        ),
    ] {
        let pod = pod(json!({"restartPolicy": policy, "containers": [{"name": "a"}]}));
        let seen = seen(&pod, true, &["a running"]);
        let actions = decide(&pod, &seen, &|_| ProbeState {
            failed: Some(failed),
            ..ProbeState::default()
        });
        assert_eq!(words(&pod, &actions), expected);
        assert_eq!(actions.kill[0].message, message);
        assert_eq!(actions.kill[0].probe, Some(failed));
    }
}

#[test]
fn a_container_has_a_policy_of_its_own() {
    let rules = json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]);
    let pod = pod(json!({"restartPolicy": "Never", "containers": [
        {"name": "a", "restartPolicy": "Never", "restartPolicyRules": rules}, {"name": "b", "restartPolicy": "Always"}]}));
    for (there, expected) in [(["a 42", "b 0"], "a b"), (["a 1", "b running"], "")] {
        let seen = seen(&pod, true, &there);
        let actions = decide(&pod, &seen, &|_| ProbeState::default());
        assert_eq!(words(&pod, &actions), expected);
    }
}
