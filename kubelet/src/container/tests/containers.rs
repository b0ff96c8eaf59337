//! Whole containers: their files, their last words, their targets.

use super::*;

#[test]
fn a_container_is_what_the_pod_says() {
    let sim = SimEnv::new(1);
    let world = World::new(&sim.env(), Some(Vec::new()));
    sim.block_on(async move {
        let wanted = pod_of(json!({
            "containers": [{
                "name": "c", "image": "a:1", "command": ["$(A)", "$$(A)"], "args": ["$(B)"], "workingDir": "/w",
                "env": [{"name": "A", "value": "a"}], "tty": true, "stdin": true, "stdinOnce": true,
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                "volumeDevices": [{"name": "d", "devicePath": "/dev/x"}],
                "lifecycle": {"stopSignal": "SIGUSR1", "preStop": {"exec": {"command": ["x"]}}},
                "ports": [{"containerPort": 80}],
            }],
            "terminationGracePeriodSeconds": 30, "subdomain": "s",
            "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["one", "two"]}],
        }));
        let device = ReadyVolume { path: "/dev/loop0".into(), read_only: true, ..ReadyVolume::default() };
        let volumes = PodVolumes { by_name: [("d".to_owned(), device)].into() };
        let ips = ["10.88.0.7".parse().unwrap(), "fd00::7".parse().unwrap()];
        let made = world.container_of(&wanted, &volumes, &ips).await.unwrap();
        assert_eq!((made.metadata.name.as_str(), made.metadata.attempt), ("c", 3));
        assert_eq!(made.image.image, "sha256:1");
        assert_eq!(made.image.user_specified, "a:1");
        assert_eq!(made.command, ["a", "$(A)"]);
        assert_eq!(made.args, ["$(B)"]);
        assert_eq!(made.working_dir, "/w");
        assert!(made.tty && made.stdin && made.stdin_once);
        assert_eq!(made.log_path, Some("c/3.log".into()));
        assert!(world.config.pod_log_dir("ns", "web", "1f0e").join("c").is_dir());
        assert_eq!(made.stop_signal, Signal::parse("SIGUSR1"));
        assert_eq!(made.labels[labels::CONTAINER_NAME], "c");
        assert_eq!(made.labels[labels::POD_UID], "1f0e");
        for (name, value) in [
            (labels::CONTAINER_RESTART_COUNT, "3"),
            (labels::CONTAINER_HASH, "4793064"),
            (labels::TERMINATION_MESSAGE_PATH, "/dev/termination-log"),
            (labels::TERMINATION_MESSAGE_POLICY, "File"),
            (labels::POD_TERMINATION_GRACE_PERIOD, "30"),
            (labels::PRE_STOP_HANDLER, r#"{"exec":{"command":["x"]}}"#),
            ("io.kubernetes.container.ports", r#"[{"containerPort":80}]"#),
        ] {
            assert_eq!(made.annotations[name], value, "{name}");
        }
        assert_eq!(made.devices.len(), 1);
        assert_eq!(made.devices[0].permissions, "r");
        let places: Vec<_> = made.mounts.iter().map(|own| own.container_path.to_str().unwrap()).collect();
        assert_eq!(places, ["/v", "/etc/hosts", "/dev/termination-log"]);
        let source = |at: usize| match &made.mounts[at].source {
            MountSource::Host(path) => path.clone(),
            MountSource::Image { .. } => panic!("an image"),
        };
        assert_eq!(
            fs::read_to_string(source(1)).unwrap(),
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n\
             10.88.0.7\tweb.s.ns.svc.cluster.local\tweb\nfd00::7\tweb.s.ns.svc.cluster.local\tweb\n\n\
             # Entries added by HostAliases.\n1.2.3.4\tone\ttwo\n"
        );
        let log = source(2);
        assert!(log.starts_with(world.config.pod_dir("1f0e").join("containers/c")));
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o666);
        let again = world.container_of(&wanted, &volumes, &ips).await.unwrap();
        assert_ne!(again.mounts[2], made.mounts[2], "each has a message of its own");
        world.shut().await;
    });
}

#[test]
fn hosts_are_the_hosts_own_in_its_network_or_the_pods() {
    let sim = SimEnv::new(1);
    let world = World::new(&sim.env(), Some(Vec::new()));
    sim.block_on(async move {
        let host = pod_of(json!({"containers": [{"name": "c"}], "hostNetwork": true}));
        let made = world.container(&host).await.unwrap();
        assert_eq!(made.mounts.len(), 1);
        assert_eq!(
            fs::read_to_string(world.config.pod_dir("1f0e").join("etc-hosts")).unwrap(),
            "# Kubernetes-managed hosts file (host network).\n127.0.0.1 localhost me\n"
        );
        let own =
            pod(json!({"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/etc/hosts"}]}));
        assert_eq!(world.container(&own).await.unwrap().mounts.len(), 1);
        let none = world
            .container_of(&pod(json!({"name": "c"})), &PodVolumes::default(), &[])
            .await;
        assert!(none.unwrap().mounts.is_empty());
        let device =
            pod(json!({"name": "c", "volumeDevices": [{"name": "d", "devicePath": "/dev/x"}]}));
        assert_eq!(
            world.refusal(&device).await,
            "cannot find volume \"d\" to map into container \"c\""
        );
        world.shut().await;
    });
}

#[test]
fn what_a_container_said_is_found() {
    let sim = SimEnv::new(1);
    let world = World::new(&sim.env(), Some(Vec::new()));
    sim.block_on(async move {
        let (file, log) = (
            world.root.path().join("message"),
            world.root.path().join("0.log"),
        );
        fs::write(&log, "t stdout F from the log\n").unwrap();
        let ended = |code: i32, reason: &str| orlop_core::runtime::Container {
            id: ContainerId::new("1"),
            sandbox: SandboxId::new("2"),
            metadata: ContainerMetadata::default(),
            state: ContainerState::Exited,
            created: world.group.env().wall(),
            started: None,
            finished: None,
            exit: Some(Exit {
                code,
                reason: reason.to_owned(),
                message: String::new(),
            }),
            image: ImageSpec::default(),
            image_ref: String::new(),
            image_id: ImageId::new("3"),
            labels: Labels::new(),
            annotations: Labels::new(),
            mounts: vec![Mount::host(&file, "/dev/termination-log")],
            log_path: Some(log.clone()),
            resources: None,
            user: None,
            stop_signal: Signal::default(),
        };
        let pod = pod(json!({"name": "c"}));
        for (said, path, policy, code, reason, expected) in [
            (
                Some("done"),
                "/dev/termination-log",
                "File",
                0,
                "Completed",
                "done",
            ),
            (
                Some("done"),
                "dev/termination-log",
                "File",
                0,
                "Completed",
                "done",
            ),
            (Some("done"), "", "File", 1, "Error", ""),
            (Some("done"), "/other", "File", 1, "Error", ""),
            (None, "/dev/termination-log", "File", 1, "Error", ""),
            (
                None,
                "/dev/termination-log",
                "FallbackToLogsOnError",
                1,
                "Error",
                "from the log\n",
            ),
            (
                Some(""),
                "/dev/termination-log",
                "FallbackToLogsOnError",
                1,
                "Error",
                "from the log\n",
            ),
            (
                Some("done"),
                "/dev/termination-log",
                "FallbackToLogsOnError",
                1,
                "Error",
                "done",
            ),
            (
                None,
                "/dev/termination-log",
                "FallbackToLogsOnError",
                0,
                "Completed",
                "",
            ),
            (
                None,
                "/dev/termination-log",
                "FallbackToLogsOnError",
                1,
                "ContainerCannotRun",
                "",
            ),
        ] {
            match said {
                Some(text) => fs::write(&file, text).unwrap(),
                None => drop(fs::remove_file(&file)),
            }
            let container = Container {
                termination_message_path: Some(path.to_owned()),
                termination_message_policy: Some(policy.to_owned()),
                ..Container::default()
            };
            let message = world
                .configs
                .termination_message(&pod, &container, &ended(code, reason))
                .await;
            assert_eq!(message, expected, "{said:?} {path} {policy} {code}");
        }
        world.shut().await;
    });
}

#[test]
fn an_ephemeral_container_sees_its_target() {
    let pod = pod(json!({"name": "c"}));
    let target = ContainerId::new("t");
    let container = &pod.spec.as_ref().unwrap().containers[0];
    let none = UserNamespace::Host;
    let made = super::security::of_container(
        &pod,
        container,
        &image(None),
        Some(&target),
        none,
        Path::new("/"),
    );
    let namespaces = made.unwrap().namespaces;
    assert_eq!(
        (namespaces.pid, namespaces.target),
        (NamespaceMode::Target, Some(target))
    );
}

#[test]
fn this_machine_has_facts() {
    let facts = NodeFacts::of_machine(None);
    assert!(facts.memory > 0);
    assert!(!facts.cgroup_v2);
    let sizes: BTreeSet<String> = facts.page_sizes;
    assert!(sizes.iter().all(|size| size.ends_with('B')));
}
