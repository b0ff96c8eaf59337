//! Sandboxes: whose they are, what they are called, how they resolve names.

use super::*;

#[test]
fn a_sandbox_says_whose_it_is() {
    let sim = SimEnv::new(1);
    let world = World::new(&sim.env(), Some(Vec::new()));
    sim.block_on(async move {
        let wanted = pod_of(json!({
            "containers": [{"name": "c", "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}}, "ports": [
                {"containerPort": 80, "hostPort": 8080},
                {"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "10.0.0.9"},
                {"containerPort": 81},
            ]}],
            "securityContext": {"runAsUser": 7, "runAsGroup": 8, "fsGroup": 9, "supplementalGroups": [10],
                "sysctls": [{"name": "net.ipv4.ip_forward", "value": "1"}]},
            "overhead": {"cpu": "100m", "memory": "16Mi"},
            "hostname": "me", "subdomain": "sub",
        }));
        let made = world.configs.sandbox(&wanted, 2).await.unwrap();
        assert_eq!(made.metadata.to_string(), "ns/web (1f0e, attempt 2)");
        assert_eq!(made.hostname, "me");
        let logs = world.config.pod_logs_dir.join("ns_web_1f0e");
        assert!(logs.is_dir());
        assert_eq!(made.log_directory, Some(logs));
        let dns = made.dns.unwrap();
        assert_eq!(dns.servers, ["10.96.0.10"]);
        assert_eq!(dns.searches, ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "home"]);
        assert_eq!(dns.options, ["ndots:5"]);
        let ports: Vec<_> = made.ports.iter().map(|own| (own.protocol, own.container_port, own.host_port)).collect();
        assert_eq!(ports, [(Protocol::Tcp, 80, 8080), (Protocol::Udp, 53, 53)]);
        assert_eq!(made.ports[1].host_ip, Some("10.0.0.9".parse().unwrap()));
        let labels: Vec<_> = made.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(
            labels,
            [("app", "web"), (labels::POD_NAME, "web"), (labels::POD_NAMESPACE, "ns"), (labels::POD_UID, "1f0e")]
        );
        assert_eq!(made.annotations["note"], "x");
        assert_eq!(made.cgroup_parent, "/kubepods/pod1f0e");
        assert_eq!(made.sysctls["net.ipv4.ip_forward"], "1");
        let identity = &made.security.identity;
        assert_eq!((identity.user, identity.group), (Some(7), Some(8)));
        assert_eq!(identity.supplemental_groups, [9, 10]);
        assert_eq!(made.security.seccomp, SecurityProfile::RuntimeDefault);
        assert_eq!(made.security.namespaces.pid, NamespaceMode::Container);
        assert_eq!(made.resources.cpu_quota, Some(50_000));
        assert_eq!(made.resources.memory_limit, Some(64 << 20));
        assert_eq!(made.overhead.cpu_shares, Some(102));
        assert_eq!(made.overhead.memory_limit, Some(16 << 20));

        let host = pod_of(json!({
            "containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}],
            "hostNetwork": true, "hostPID": true, "hostIPC": true,
        }));
        let made = world.configs.sandbox(&host, 0).await.unwrap();
        assert_eq!(made.hostname, "");
        assert!(made.ports.is_empty());
        assert_eq!(made.dns.unwrap().servers, ["1.1.1.1"]);
        let namespaces = made.security.namespaces;
        let all = [namespaces.network, namespaces.pid, namespaces.ipc];
        assert_eq!(all, [NamespaceMode::Node; 3]);
        world.shut().await;
    });
}

#[test]
fn a_sandbox_that_the_node_cannot_make_is_refused() {
    const CLASSES: Resource =
        Resource::cluster("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass");
    let sim = SimEnv::new(1);
    let world = World::new(&sim.env(), Some(Vec::new()));
    sim.block_on(async move {
        world
            .make(
                CLASSES,
                json!({"metadata": {"name": "vm"}, "handler": "kata"}),
            )
            .await;
        let with = |more: Value| {
            let mut spec = json!({"containers": [{"name": "c"}]});
            spec.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            pod_of(spec)
        };
        let made = world
            .configs
            .sandbox(&with(json!({"runtimeClassName": "vm"})), 0)
            .await
            .unwrap();
        assert_eq!(made.handler, "kata");
        for (more, message) in [
            (
                json!({"runtimeClassName": "no"}),
                "failed to get sandbox runtime: runtimeclasses.node.k8s.io \"no\" not found",
            ),
            (
                json!({"hostUsers": false}),
                "RuntimeClass handler \"\" does not support user namespaces",
            ),
            (
                json!({"securityContext": {"supplementalGroupsPolicy": "Strict"}}),
                "SupplementalGroupsPolicy=Strict is not supported in this node",
            ),
            (
                json!({"hostname": "a.b"}),
                "pod Hostname \"a.b\" is not a valid DNS label",
            ),
        ] {
            let error = world.configs.sandbox(&with(more), 0).await.unwrap_err();
            assert_eq!(error.event, "FailedCreatePodSandBox");
            assert_eq!(error.message, message);
        }
        fs::remove_file(world.root.path().join("resolv.conf")).unwrap();
        let error = world
            .configs
            .sandbox(&with(json!({})), 0)
            .await
            .unwrap_err();
        assert!(
            error.message.contains("resolv.conf: No such file"),
            "{error}"
        );
        world.shut().await;
    });
}

#[test]
fn hosts_are_called_by_what_the_pod_says() {
    let long = "a".repeat(70);
    let fqdn = json!({"hostname": "h", "subdomain": "s", "setHostnameAsFQDN": true});
    for (spec, host, domain, kernel) in [
        (json!({}), "web", "", "web"),
        (json!({"hostname": "h"}), "h", "", "h"),
        (
            json!({"subdomain": "s"}),
            "web",
            "s.ns.svc.cluster.local",
            "web",
        ),
        (
            fqdn,
            "h",
            "s.ns.svc.cluster.local",
            "h.s.ns.svc.cluster.local",
        ),
        (json!({"setHostnameAsFQDN": true}), "web", "", "web"),
        (
            json!({"hostnameOverride": "other.example", "hostname": "h", "subdomain": "s"}),
            "other.example",
            "",
            "other.example",
        ),
    ] {
        let name = hostname(&pod_of(with_container(spec)), "cluster.local").unwrap();
        assert_eq!(
            (&*name.host, &*name.domain, &*name.kernel),
            (host, domain, kernel)
        );
    }
    let mut named = Pod::clone(&pod(json!({"name": "c"})));
    named.metadata.name = Some(format!("{}-{long}", "b".repeat(62)));
    assert_eq!(hostname(&named, "").unwrap().host, "b".repeat(62));
    let spec = json!({"hostname": "h", "subdomain": "s".repeat(60), "setHostnameAsFQDN": true});
    let error = hostname(&pod_of(with_container(spec)), "cluster.local").unwrap_err();
    assert!(
        error
            .starts_with("failed to construct FQDN from pod hostname and cluster domain, FQDN h.s")
    );
    assert!(
        error.ends_with("is too long (64 characters is the max, 83 characters requested)"),
        "{error}"
    );
}

#[test]
fn names_are_resolved_by_the_pods_policy() {
    let dns: [IpAddr; 1] = ["10.96.0.10".parse().unwrap()];
    let ips: [IpAddr; 2] = ["10.0.0.9".parse().unwrap(), "fd00::9".parse().unwrap()];
    let text = "# c\nnameserver 1.1.1.1\nnameserver 1.0.0.1\nsearch x y.\nsearch a. b .\noptions ndots:2 rotate\n";
    let node = NodeDns {
        cluster_dns: &dns,
        cluster_domain: "cl",
        node_ips: &ips,
        resolv_conf: Some(text),
    };
    let of = |spec: Value, node: &NodeDns<'_>| of_pod(&pod_of(with_container(spec)), node).unwrap();
    let cluster = (
        vec!["10.96.0.10"],
        vec!["ns.svc.cl", "svc.cl", "cl", "a", "b", "."],
        vec!["ndots:5"],
    );
    let host = (
        vec!["1.1.1.1", "1.0.0.1"],
        vec!["a", "b", "."],
        vec!["ndots:2", "rotate"],
    );
    let more = json!({"nameservers": ["9.9.9.9", "1.1.1.1"], "searches": ["z", "a"],
        "options": [{"name": "ndots", "value": "1"}, {"name": "edns0"}, {"name": "rotate"}]});
    for (spec, expected) in [
        (json!({}), cluster.clone()),
        (json!({"dnsPolicy": "ClusterFirst"}), cluster.clone()),
        (
            json!({"dnsPolicy": "ClusterFirst", "hostNetwork": true}),
            host.clone(),
        ),
        (
            json!({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true}),
            cluster,
        ),
        (json!({"dnsPolicy": "Default"}), host),
        (
            json!({"dnsPolicy": "None", "dnsConfig": more.clone()}),
            (
                vec!["9.9.9.9", "1.1.1.1"],
                vec!["z", "a"],
                vec!["ndots:1", "edns0", "rotate"],
            ),
        ),
        (
            json!({"dnsPolicy": "Default", "dnsConfig": more}),
            (
                vec!["1.1.1.1", "1.0.0.1", "9.9.9.9"],
                vec!["a", "b", ".", "z"],
                vec!["ndots:1", "rotate", "edns0"],
            ),
        ),
    ] {
        let (config, warnings) = of(spec.clone(), &node);
        assert_eq!(
            (config.servers, config.searches, config.options),
            owned(expected),
            "{spec}"
        );
        assert_eq!(warnings, super::dns::Warnings::default());
    }
    let bare = NodeDns {
        cluster_dns: &[],
        resolv_conf: None,
        ..node
    };
    let (config, warnings) = of(json!({}), &bare);
    assert_eq!(config.servers, ["127.0.0.1", "::1"]);
    assert_eq!(config.searches, ["."]);
    let missing = "kubelet does not have ClusterDNS IP configured and cannot create Pod using \"ClusterFirst\" policy. Falling back to \"Default\" policy.";
    assert_eq!(warnings.node, [("MissingClusterDNS", missing.to_owned())]);
    assert_eq!(
        warnings.pod,
        [(
            "MissingClusterDNS",
            format!("pod: \"web_ns(1f0e)\". {missing}")
        )]
    );
    let many: Vec<String> = (0..40).map(|n| format!("d{n}")).collect();
    let spec = json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1", "2.2.2.2", "3.3.3.3", "4.4.4.4"], "searches": many}});
    let (config, warnings) = of(spec, &node);
    assert_eq!((config.servers.len(), config.searches.len()), (3, 32));
    let reasons: Vec<_> = warnings
        .pod
        .iter()
        .map(|(reason, message)| (*reason, message.split(',').next().unwrap()))
        .collect();
    assert_eq!(
        reasons,
        [
            ("DNSConfigForming", "Nameserver limits were exceeded"),
            ("DNSConfigForming", "Search Line limits were exceeded")
        ]
    );
    let broken = NodeDns {
        resolv_conf: Some("nameserver\n"),
        ..node
    };
    assert!(of_pod(&pod(json!({"name": "c"})), &broken).is_err());
}

fn owned(all: (Vec<&str>, Vec<&str>, Vec<&str>)) -> (Vec<String>, Vec<String>, Vec<String>) {
    let own = |list: Vec<&str>| list.into_iter().map(str::to_owned).collect();
    (own(all.0), own(all.1), own(all.2))
}
