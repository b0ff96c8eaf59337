use serde_json::{Value, json};

use super::*;

fn pod(spec: Value) -> Pod {
    serde_json::from_value(
        json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec}),
    )
    .unwrap()
}

/// Statuses by words: `NAME running`, `NAME 0` (ended), `NAME waiting`, `NAME again 1` (waits after it ended), `NAME started`.
fn statuses(words: &[&str]) -> Vec<ContainerStatus> {
    let of = |words: &&str| {
        let mut words = words.split(' ');
        let (name, how, code) = (words.next().unwrap(), words.next().unwrap(), words.next());
        let ended = |code: &str| json!({"terminated": {"exitCode": code.parse::<i32>().unwrap()}});
        let (state, last) = match how {
            "running" | "started" => (json!({"running": {}}), json!({})),
            "waiting" => (json!({"waiting": {}}), json!({})),
            "again" => (json!({"waiting": {}}), ended(code.unwrap())),
            code => (ended(code), json!({})),
        };
        serde_json::from_value(json!({"name": name, "image": "", "imageID": "", "ready": how == "started", "restartCount": 0,
            "started": how == "started", "state": state, "lastState": last})).unwrap()
    };
    words.iter().map(of).collect()
}

fn input<'a>(pod: &'a Pod, seen: &'a Observed, old: &'a PodStatus, terminating: bool) -> Input<'a> {
    static NOTHING: std::sync::LazyLock<(
        BTreeMap<String, Waiting>,
        BTreeMap<ContainerId, String>,
    )> = std::sync::LazyLock::new(Default::default);
    Input {
        pod,
        seen,
        old,
        waiting: &NOTHING.0,
        messages: &NOTHING.1,
        probe: &|_| ProbeState::default(),
        runtime: "containerd",
        recursive_read_only: false,
        host_ips: &[],
        terminating,
        verdict: None,
        now: Timestamp::from_second(1_767_225_600).unwrap(),
    }
}

#[test]
fn phases() {
    let two = |policy: &str| {
        pod(json!({"restartPolicy": policy, "containers": [{"name": "a"}, {"name": "b"}]}))
    };
    let init = |policy: &str| {
        pod(
            json!({"restartPolicy": policy, "containers": [{"name": "a"}],
            "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]}),
        )
    };
    type Case<'a> = (Pod, bool, &'a [&'a str], &'a [&'a str], &'a str);
    let cases: Vec<Case<'_>> = vec![
        (two("Always"), false, &[], &[], "Pending"),
        (
            two("Always"),
            false,
            &[],
            &["a waiting", "b waiting"],
            "Pending",
        ),
        (
            two("Always"),
            false,
            &[],
            &["a running", "b running"],
            "Running",
        ),
        (
            two("Always"),
            false,
            &[],
            &["a running", "b waiting"],
            "Pending",
        ),
        (two("Always"), false, &[], &["a running"], "Pending"),
        (two("Always"), false, &[], &["a running", "b 1"], "Running"),
        (two("Always"), false, &[], &["a 0", "b 0"], "Running"),
        (two("Always"), true, &[], &["a 0", "b 0"], "Succeeded"),
        (two("Always"), true, &[], &["a 0", "b 1"], "Failed"),
        (
            two("Always"),
            false,
            &[],
            &["a again 1", "b again 0"],
            "Running",
        ),
        (two("OnFailure"), false, &[], &["a 0", "b 0"], "Succeeded"),
        (two("OnFailure"), false, &[], &["a 0", "b 1"], "Running"),
        (two("Never"), false, &[], &["a 0", "b 0"], "Succeeded"),
        (two("Never"), false, &[], &["a 0", "b 1"], "Failed"),
        (two("Never"), false, &[], &["a running", "b 1"], "Running"),
        (
            init("Always"),
            false,
            &["i running", "s waiting"],
            &["a waiting"],
            "Pending",
        ),
        (
            init("Always"),
            false,
            &["i 1", "s waiting"],
            &["a waiting"],
            "Pending",
        ),
        (
            init("Never"),
            false,
            &["i 1", "s waiting"],
            &["a waiting"],
            "Failed",
        ),
        (
            init("Always"),
            false,
            &["i 0", "s running"],
            &["a waiting"],
            "Pending",
        ),
        (
            init("Always"),
            false,
            &["i 0", "s started"],
            &["a running"],
            "Running",
        ),
        (init("Never"), false, &["i 0", "s 0"], &["a 0"], "Succeeded"),
        (
            init("Always"),
            false,
            &["i 0", "s again 1"],
            &["a running"],
            "Running",
        ),
    ];
    let (seen, old) = (Observed::default(), PodStatus::default());
    for (pod, terminating, inits, regular, expected) in cases {
        let input = input(&pod, &seen, &old, terminating);
        let phase = phase::of(&input, &statuses(inits), &statuses(regular));
        assert_eq!(
            phase,
            expected,
            "{:?} {inits:?} {regular:?}",
            spec::restart_policy(&pod)
        );
    }
}

#[test]
fn conditions_and_when_they_changed() {
    let pod = pod(json!({"containers": [{"name": "a"}, {"name": "b"}]}));
    let seen = Observed::default();
    let old: PodStatus = serde_json::from_value(json!({"conditions": [
        {"type": "Ready", "status": "False", "lastTransitionTime": "2025-01-01T00:00:00Z"},
        {"type": "PodScheduled", "status": "False", "lastTransitionTime": "2025-01-01T00:00:00Z"}]})).unwrap();
    let input = input(&pod, &seen, &old, false);
    let all = conditions::all(&input, &[], &statuses(&["b running"]), Some("Pending"));
    let of = |kind: &str| serde_json::to_value(condition(&all, kind).unwrap()).unwrap();
    assert_eq!(
        of("Ready"),
        json!({"type": "Ready", "status": "False", "reason": "ContainersNotReady",
        "message": "containers with unknown status: [a], containers with unready status: [b]", "lastTransitionTime": "2025-01-01T00:00:00Z"})
    );
    assert_eq!(
        of("PodScheduled"),
        json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"})
    );
    assert_eq!(of("PodReadyToStartContainers")["status"], "False");
    assert_eq!(of("Initialized")["status"], "True");
    let kinds: Vec<_> = all.iter().map(|one| one.type_.as_str()).collect();
    assert_eq!(
        kinds,
        [
            "PodReadyToStartContainers",
            "Initialized",
            "Ready",
            "ContainersReady",
            "PodScheduled"
        ]
    );
}

#[test]
fn what_nobody_saw_end_is_told_so() {
    let pod = pod(
        json!({"initContainers": [{"name": "i"}, {"name": "j"}], "containers": [{"name": "a"}]}),
    );
    let now = Timestamp::from_second(1_767_225_600).unwrap();
    let status = |inits: &[&str], regular: &[&str]| {
        let mut status = PodStatus {
            phase: Some("Pending".to_owned()),
            init_container_statuses: Some(statuses(inits)),
            container_statuses: Some(statuses(regular)),
            ..PodStatus::default()
        };
        conclude(&pod, &mut status, now);
        let how = |all: &Option<Vec<ContainerStatus>>| -> Vec<bool> {
            let ended = |one: &ContainerStatus| one.state.as_ref().unwrap().terminated.is_some();
            all.as_ref().unwrap().iter().map(ended).collect()
        };
        assert_eq!(status.phase.as_deref(), Some("Failed"));
        (
            how(&status.init_container_statuses),
            how(&status.container_statuses),
        )
    };
    assert_eq!(
        status(&["i running", "j waiting"], &["a waiting"]),
        (vec![true, false], vec![false])
    );
    assert_eq!(
        status(&["i 0", "j 0"], &["a waiting"]),
        (vec![true, true], vec![true])
    );
    assert_eq!(
        status(&["i waiting", "j waiting"], &["a running"]),
        (vec![true, false], vec![true])
    );
}

#[test]
fn classes_of_service() {
    let class = |spec: Value| qos::class(&pod(spec));
    let amounts = |cpu: &str, memory: &str| json!({"cpu": cpu, "memory": memory});
    assert_eq!(class(json!({"containers": [{"name": "a"}]})), "BestEffort");
    assert_eq!(
        class(json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}]})),
        "Burstable"
    );
    let full = json!({"limits": amounts("1", "1Gi"), "requests": amounts("1000m", "1024Mi")});
    assert_eq!(
        class(json!({"containers": [{"name": "a", "resources": full}]})),
        "Guaranteed"
    );
    assert_eq!(
        class(json!({"containers": [{"name": "a", "resources": full}, {"name": "b"}]})),
        "Burstable"
    );
    assert_eq!(
        class(
            json!({"initContainers": [{"name": "i"}], "containers": [{"name": "a", "resources": full}]})
        ),
        "Burstable"
    );
    let less = json!({"limits": amounts("1", "1Gi"), "requests": amounts("500m", "1Gi")});
    assert_eq!(
        class(json!({"containers": [{"name": "a", "resources": less}]})),
        "Burstable"
    );
    assert_eq!(
        class(json!({"resources": full, "containers": [{"name": "a"}]})),
        "Guaranteed"
    );
    assert_eq!(
        class(json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": "0"}}}]})),
        "BestEffort"
    );
}

#[test]
fn an_address_outlives_its_sandbox() {
    use orlop_core::runtime::{Namespaces, Sandbox, SandboxId, SandboxMetadata, SandboxState};
    let pod = pod(json!({"restartPolicy": "Never", "containers": [{"name": "a"}]}));
    let old: PodStatus =
        serde_json::from_value(json!({"podIP": "10.0.0.7", "podIPs": [{"ip": "10.0.0.7"}]}))
            .unwrap();
    let ip = |sandboxes: Vec<Sandbox>| {
        let seen = Observed::sorted(sandboxes, Vec::new());
        let status = generate(&input(&pod, &seen, &old, true));
        assert_eq!(
            status.pod_ips.iter().flatten().next().map(|ip| &ip.ip),
            status.pod_ip.as_ref()
        );
        status.pod_ip
    };
    assert_eq!(ip(Vec::new()).as_deref(), Some("10.0.0.7"));
    let mut sandbox = Sandbox {
        id: SandboxId::new("s"),
        metadata: SandboxMetadata::default(),
        state: SandboxState::NotReady,
        created: Timestamp::UNIX_EPOCH,
        addresses: Vec::new(),
        namespaces: Namespaces::default(),
        labels: BTreeMap::default(),
        annotations: BTreeMap::default(),
        handler: String::new(),
    };
    assert_eq!(ip(vec![sandbox.clone()]).as_deref(), Some("10.0.0.7"));
    // One that can be run in and has none has none.
    sandbox.state = SandboxState::Ready;
    assert_eq!(ip(vec![sandbox.clone()]), None);
    sandbox.addresses = vec!["10.0.0.8".parse().unwrap()];
    assert_eq!(ip(vec![sandbox]).as_deref(), Some("10.0.0.8"));
}
