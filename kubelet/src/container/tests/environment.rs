//! Variables, and where they come from.

use super::*;

#[test]
fn variables_come_from_everywhere() {
    const MAPS: Resource = Resource::namespaced("", "v1", "configmaps", "ConfigMap");
    const SECRETS: Resource = Resource::namespaced("", "v1", "secrets", "Secret");
    let sim = SimEnv::new(1);
    let world = World::new(&sim.env(), Some(Vec::new()));
    sim.block_on(async move {
        let meta = |name: &str| json!({"name": name, "namespace": "ns"});
        let data = json!({"colour": "green", "shape": "round", "b=d": "x"});
        world.make(MAPS, json!({"metadata": meta("m"), "data": data})).await;
        let data = json!({"key": "c2VjcmV0", "colour": "cmVk"});
        world.make(SECRETS, json!({"metadata": meta("s"), "data": data})).await;
        let wanted = pod(json!({
            "name": "c",
            "envFrom": [
                {"configMapRef": {"name": "m"}},
                {"secretRef": {"name": "s"}, "prefix": "S_"},
                {"configMapRef": {"name": "missing", "optional": true}},
                {"secretRef": {"name": "missing", "optional": true}},
            ],
            "env": [
                {"name": "plain", "value": "1"},
                {"name": "refers", "value": "$(plain)/$(S_key)/$(nothing)/$$(plain)"},
                {"name": "early", "value": "$(late)"},
                {"name": "late", "value": "2"},
                {"name": "empty"},
                {"name": "shape", "value": "square"},
                {"name": "ip", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "host", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
                {"name": "app", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                {"name": "cpus", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                {"name": "map", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "colour"}}},
                {"name": "secret", "valueFrom": {"secretKeyRef": {"name": "s", "key": "key"}}},
                {"name": "no", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "no", "optional": true}}},
                {"name": "nor", "valueFrom": {"secretKeyRef": {"name": "no", "key": "no", "optional": true}}},
            ],
        }));
        let made = world.container(&wanted).await.unwrap();
        assert_eq!(
            env(&made),
            pairs(&[
                ("S_colour", "red"),
                ("S_key", "secret"),
                ("app", "web"),
                ("colour", "green"),
                ("cpus", "4"),
                ("early", "$(late)"),
                ("empty", ""),
                ("host", "10.0.0.9"),
                ("ip", "10.88.0.7"),
                ("late", "2"),
                ("map", "green"),
                ("plain", "1"),
                ("refers", "1/secret/$(nothing)/$(plain)"),
                ("secret", "secret"),
                ("shape", "square"),
            ])
        );
        world.group.env().sleep(std::time::Duration::from_secs(1)).await;
        let events = world.api.objects(&EVENTS);
        assert_eq!(
            events[0].value().unwrap()["message"],
            "Keys [b=d] from the EnvFrom configMap ns/m were skipped since they are considered invalid environment variable names."
        );
        for (source, message) in [
            (json!({"env": [{"name": "a", "valueFrom": {"configMapKeyRef": {"name": "x", "key": "k"}}}]}), "configmap \"x\" not found"),
            (json!({"env": [{"name": "a", "valueFrom": {"secretKeyRef": {"name": "x", "key": "k"}}}]}), "secret \"x\" not found"),
            (json!({"env": [{"name": "a", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}}]}), "couldn't find key k in ConfigMap ns/m"),
            (json!({"env": [{"name": "a", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}), "couldn't find key k in Secret ns/s"),
            (json!({"envFrom": [{"configMapRef": {"name": "x"}}]}), "configmap \"x\" not found"),
            (json!({"envFrom": [{"secretRef": {"name": "x"}}]}), "secret \"x\" not found"),
            (json!({"env": [{"name": "a", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}]}), "unsupported fieldPath: spec.x"),
        ] {
            let mut container = source;
            container["name"] = json!("c");
            assert_eq!(world.refusal(&pod(container)).await, message);
        }
        world.shut().await;
    });
}

#[test]
fn services_are_variables() {
    let api = service(
        "default",
        "kubernetes",
        "10.96.0.1",
        json!([{"name": "https", "port": 443, "protocol": "TCP"}]),
    );
    let dns = service(
        "ns",
        "kube-dns",
        "fd00::a",
        json!([{"port": 53, "protocol": "UDP"}, {"name": "tcp-dns", "port": 53}]),
    );
    let headless = service("ns", "db", "None", json!([{"port": 1}]));
    let of_api = [
        ("KUBERNETES_PORT", "tcp://10.96.0.1:443"),
        ("KUBERNETES_PORT_443_TCP", "tcp://10.96.0.1:443"),
        ("KUBERNETES_PORT_443_TCP_ADDR", "10.96.0.1"),
        ("KUBERNETES_PORT_443_TCP_PORT", "443"),
        ("KUBERNETES_PORT_443_TCP_PROTO", "tcp"),
        ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
        ("KUBERNETES_SERVICE_PORT", "443"),
        ("KUBERNETES_SERVICE_PORT_HTTPS", "443"),
    ];
    let of_dns = [
        ("KUBE_DNS_PORT", "udp://[fd00::a]:53"),
        ("KUBE_DNS_PORT_53_TCP", "tcp://[fd00::a]:53"),
        ("KUBE_DNS_PORT_53_TCP_ADDR", "fd00::a"),
        ("KUBE_DNS_PORT_53_TCP_PORT", "53"),
        ("KUBE_DNS_PORT_53_TCP_PROTO", "tcp"),
        ("KUBE_DNS_PORT_53_UDP", "udp://[fd00::a]:53"),
        ("KUBE_DNS_PORT_53_UDP_ADDR", "fd00::a"),
        ("KUBE_DNS_PORT_53_UDP_PORT", "53"),
        ("KUBE_DNS_PORT_53_UDP_PROTO", "udp"),
        ("KUBE_DNS_SERVICE_HOST", "fd00::a"),
        ("KUBE_DNS_SERVICE_PORT", "53"),
        ("KUBE_DNS_SERVICE_PORT_TCP_DNS", "53"),
    ];
    let sim = SimEnv::new(1);
    let world = World::new(&sim.env(), Some(vec![api, dns, headless]));
    sim.block_on(async move {
        let container =
            json!({"name": "c", "env": [{"name": "at", "value": "$(KUBERNETES_SERVICE_HOST)"}]});
        let linked = world.container(&pod(container.clone())).await.unwrap();
        let mut all = pairs(&of_api);
        all.extend(pairs(&of_dns));
        all.push(("at".to_owned(), "10.96.0.1".to_owned()));
        assert_eq!(env(&linked), all);
        let alone = pod_of(json!({"containers": [container], "enableServiceLinks": false}));
        let alone = world.container(&alone).await.unwrap();
        let mut all = pairs(&of_api);
        all.push(("at".to_owned(), "10.96.0.1".to_owned()));
        assert_eq!(env(&alone), all);
        world.shut().await;
    });
    let world = World::new(&sim.env(), None);
    sim.block_on(async move {
        assert_eq!(
            world.refusal(&pod(json!({"name": "c"}))).await,
            "services have not yet been read at least once, cannot construct envvars"
        );
        let mut fixed = Pod::clone(&pod(json!({"name": "c"})));
        fixed.metadata.annotations =
            Some([("kubernetes.io/config.source".into(), "file".into())].into());
        assert!(world.container(&Arc::new(fixed)).await.is_ok());
        world.shut().await;
    });
}

#[test]
fn a_variable_comes_out_of_a_file() {
    let sim = SimEnv::new(1);
    let world = World::new(&sim.env(), Some(Vec::new()));
    sim.block_on(async move {
        let volume = world.root.path().join("volume");
        fs::create_dir(&volume).unwrap();
        fs::write(volume.join("env"), "A='one'\n").unwrap();
        fs::write(world.root.path().join("secret"), "A='stolen'\n").unwrap();
        std::os::unix::fs::symlink("../secret", volume.join("link")).unwrap();
        let ready = ReadyVolume { path: volume, ..ReadyVolume::default() };
        let volumes = PodVolumes { by_name: [("v".to_owned(), ready)].into() };
        let own = |path: &str, key: &str, optional: bool| {
            let reference = json!({"volumeName": "v", "path": path, "key": key, "optional": optional});
            pod(json!({"name": "c", "env": [{"name": "a", "valueFrom": {"fileKeyRef": reference}}]}))
        };
        let made = |pod: Arc<Pod>| {
            let (world, volumes) = (&world, &volumes);
            async move { world.container_of(&pod, volumes, &[]).await }
        };
        assert_eq!(env(&made(own("env", "A", false)).await.unwrap()), pairs(&[("a", "one")]));
        for (path, key) in [("env", "B"), ("none", "A")] {
            assert!(env(&made(own(path, key, true)).await.unwrap()).is_empty());
            assert!(made(own(path, key, false)).await.is_err());
        }
        for path in ["link", "../secret", "/etc/passwd", "."] {
            assert!(made(own(path, "A", true)).await.is_err(), "{path}");
        }
        world.shut().await;
    });
}
