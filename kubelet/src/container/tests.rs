use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Container, Pod, Service};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use orlop_core::env::{Env, SimEnv, TaskGroup};
use orlop_core::events::EventBroadcaster;
use orlop_core::network::Protocol;
use orlop_core::resource::Resource;
use orlop_core::runtime::*;
use orlop_core::testing::{FakeApi, SimulatedRuntime};
use serde_json::{Value, json};

use super::dns::{NodeDns, of_pod};
use super::*;
use crate::config::KubeletConfig;
use crate::labels;
use crate::objects::ObjectCache;
use crate::parts::*;

const EVENTS: Resource = Resource::namespaced("", "v1", "events", "Event");

/// Volumes that mount what they are asked for from `/volumes`.
struct Plain;

#[async_trait]
impl Volumes for Plain {
    async fn set_up(&self, _: &Arc<Pod>) -> Result<PodVolumes, PartError> {
        Ok(PodVolumes::default())
    }
    async fn mounts(
        &self,
        _: &Pod,
        container: &Container,
        _: &PodVolumes,
        _: &[EnvVar],
    ) -> Result<Vec<Mount>, PartError> {
        let wanted = container.volume_mounts.iter().flatten();
        Ok(wanted
            .map(|own| Mount::host(format!("/volumes/{}", own.name), &own.mount_path))
            .collect())
    }
    async fn tear_down(&self, _: &str) -> Result<(), PartError> {
        Ok(())
    }
    async fn on_disk(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Cgroups of one name.
struct Named;

#[async_trait]
impl Cgroups for Named {
    async fn ensure(&self, _: &Pod) -> Result<String, PartError> {
        Ok("/kubepods/pod1f0e".to_owned())
    }
    async fn remove(&self, _: &str) -> Result<(), PartError> {
        Ok(())
    }
    async fn on_machine(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Services that are there, or not read yet.
struct Listed(Option<Vec<Arc<Service>>>);

impl Services for Listed {
    fn in_namespace(&self, namespace: &str) -> Option<Vec<Arc<Service>>> {
        let there = |own: &&Arc<Service>| own.metadata.namespace.as_deref() == Some(namespace);
        Some(self.0.as_ref()?.iter().filter(there).cloned().collect())
    }
}

fn service(namespace: &str, name: &str, address: &str, ports: Value) -> Arc<Service> {
    let service = json!({"metadata": {"name": name, "namespace": namespace},
        "spec": {"clusterIP": address, "ports": ports}});
    Arc::new(serde_json::from_value(service).unwrap())
}

struct World {
    api: FakeApi,
    group: TaskGroup,
    objects: ObjectCache,
    configs: ContainerConfigs,
    config: Arc<KubeletConfig>,
    root: tempfile::TempDir,
}

fn node() -> NodeFacts {
    NodeFacts {
        memory: 1000 << 20,
        cgroup_v2: false,
        counts_swap: false,
        page_sizes: ["2MB".to_owned()].into(),
        hosts_file: PathBuf::from("/etc/hosts"),
    }
}

impl World {
    fn new(env: &Env, services: Option<Vec<Arc<Service>>>) -> Self {
        let root = tempfile::tempdir().unwrap();
        let api = FakeApi::new(env.clone());
        let group = TaskGroup::new(env.clone());
        let recorder = EventBroadcaster::start(&group, api.client()).recorder("kubelet");
        let objects = ObjectCache::new(api.client(), env.clone(), &group.token());
        let mut config = KubeletConfig::new("node");
        config.root_dir = root.path().join("kubelet");
        config.pod_logs_dir = root.path().join("pods");
        config.node_ips = vec!["10.0.0.9".parse().unwrap()];
        config.cluster_dns = vec!["10.96.0.10".parse().unwrap()];
        config.resolv_conf = Some(root.path().join("resolv.conf"));
        fs::write(
            root.path().join("resolv.conf"),
            "nameserver 1.1.1.1\nsearch home.\n",
        )
        .unwrap();
        fs::write(root.path().join("hosts"), "127.0.0.1 localhost me\n").unwrap();
        let config = Arc::new(config);
        let configs = ContainerConfigs::new(ConfigSources {
            config: config.clone(),
            client: api.client(),
            runtime: Arc::new(SimulatedRuntime::new(env.clone())),
            objects: objects.clone(),
            services: Arc::new(Listed(services)),
            volumes: Arc::new(Plain),
            cgroups: Arc::new(Named),
            recorder,
            env: env.clone(),
            allocatable: Arc::new(|| [("cpu".to_owned(), Text("4".to_owned()))].into()),
            node: NodeFacts {
                hosts_file: root.path().join("hosts"),
                ..node()
            },
        });
        Self {
            api,
            group,
            objects,
            configs,
            config,
            root,
        }
    }

    async fn make(&self, resource: Resource, mut object: Value) {
        let (group, version) = (resource.group.to_string(), resource.version.to_string());
        let api_version = if group.is_empty() {
            version
        } else {
            format!("{group}/{version}")
        };
        object["apiVersion"] = json!(api_version);
        object["kind"] = json!(resource.kind);
        let client = self.api.client();
        let namespace = object["metadata"]["namespace"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let own = client.resource(&resource);
        let own = if namespace.is_empty() {
            own
        } else {
            own.namespace(&namespace)
        };
        own.create(&object).await.unwrap();
    }

    async fn container(&self, pod: &Arc<Pod>) -> Result<ContainerConfig, PartError> {
        self.container_of(pod, &PodVolumes::default(), &["10.88.0.7".parse().unwrap()])
            .await
    }

    async fn container_of(
        &self,
        pod: &Arc<Pod>,
        volumes: &PodVolumes,
        pod_ips: &[IpAddr],
    ) -> Result<ContainerConfig, PartError> {
        let request = ContainerRequest {
            pod,
            container: &pod.spec.as_ref().unwrap().containers[0],
            kind: ContainerKind::Regular,
            target: None,
            attempt: 3,
            pod_ips,
            image: &image(None),
            volumes,
        };
        self.configs.container(&request).await
    }

    async fn refusal(&self, pod: &Arc<Pod>) -> String {
        let error = self.container(pod).await.unwrap_err();
        assert_eq!(error.waiting.as_deref(), Some("CreateContainerConfigError"));
        assert_eq!(error.event, "Failed");
        error.message
    }

    async fn shut(self) {
        self.objects.shutdown().await;
        self.group.shutdown().await;
    }
}

fn image(user: Option<ImageUser>) -> Image {
    Image {
        id: ImageId::new("sha256:1"),
        tags: Vec::new(),
        digests: Vec::new(),
        size: 0,
        user,
        pinned: false,
    }
}

fn pod_of(spec: Value) -> Arc<Pod> {
    let pod = json!({
        "metadata": {"name": "web", "namespace": "ns", "uid": "1f0e", "labels": {"app": "web"},
            "annotations": {"note": "x"}},
        "spec": spec,
    });
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn pod(container: Value) -> Arc<Pod> {
    pod_of(json!({"containers": [container]}))
}

fn env(config: &ContainerConfig) -> Vec<(String, String)> {
    let text = |own: &EnvVar| {
        (
            own.name.clone(),
            String::from_utf8(own.value.to_vec()).unwrap(),
        )
    };
    config.env.iter().map(text).collect()
}

fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter()
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
        .collect()
}

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

fn with_container(mut spec: Value) -> Value {
    spec["containers"] = json!([{"name": "c"}]);
    spec
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

fn confined(spec: Value, user: Option<ImageUser>) -> Result<ContainerSecurity, String> {
    let pod = pod_of(spec);
    let container = &pod.spec.as_ref().unwrap().containers[0];
    let none = UserNamespace::Host;
    super::security::of_container(
        &pod,
        container,
        &image(user),
        None,
        none,
        Path::new("/root/seccomp"),
    )
}

#[test]
fn who_must_not_be_root_is_not() {
    let whose = "(pod: \"web_ns(1f0e)\", container: c)";
    let id = |id| Some(ImageUser::Id(id));
    let name = Some(ImageUser::Name("app".to_owned()));
    for (whole, own, user, expected) in [
        (json!({}), json!({}), None, Ok(Some(0))),
        (json!({}), json!({}), id(5), Ok(Some(5))),
        (json!({}), json!({}), name.clone(), Ok(None)),
        (
            json!({"runAsUser": 1}),
            json!({"runAsUser": 2}),
            None,
            Ok(Some(2)),
        ),
        (
            json!({"runAsUser": 1}),
            json!({}),
            name.clone(),
            Ok(Some(1)),
        ),
        (json!({"runAsNonRoot": true}), json!({}), id(5), Ok(Some(5))),
        (
            json!({"runAsNonRoot": true}),
            json!({"runAsNonRoot": false}),
            None,
            Ok(Some(0)),
        ),
        (
            json!({"runAsNonRoot": true}),
            json!({"runAsUser": 3}),
            None,
            Ok(Some(3)),
        ),
        (
            json!({"runAsNonRoot": true}),
            json!({}),
            None,
            Err("container has runAsNonRoot and image will run as root"),
        ),
        (
            json!({}),
            json!({"runAsNonRoot": true}),
            id(0),
            Err("container has runAsNonRoot and image will run as root"),
        ),
        (
            json!({"runAsUser": 0}),
            json!({"runAsNonRoot": true}),
            id(5),
            Err("container's runAsUser breaks non-root policy"),
        ),
        (
            json!({"runAsNonRoot": true}),
            json!({}),
            name,
            Err(
                "container has runAsNonRoot and image has non-numeric user (app), cannot verify user is non-root",
            ),
        ),
    ] {
        let spec = json!({"securityContext": whole, "containers": [{"name": "c", "securityContext": own}]});
        let made = confined(spec.clone(), user).map(|made| made.identity.user);
        assert_eq!(
            made,
            expected.map_err(|why| format!("{why} {whose}")),
            "{spec}"
        );
    }
}

#[test]
fn a_container_is_confined_as_it_says() {
    let plain = confined(json!({"containers": [{"name": "c"}]}), None).unwrap();
    assert_eq!(plain.seccomp, SecurityProfile::Unconfined);
    assert_eq!(plain.apparmor, SecurityProfile::RuntimeDefault);
    assert!(plain.masked_paths.iter().any(|path| path == "/proc/kcore"));
    assert!(plain.read_only_paths.iter().any(|path| path == "/proc/sys"));
    assert!(!plain.privileged && !plain.no_new_privileges && !plain.read_only_root);
    let full = confined(
        json!({
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}, "fsGroup": 4, "supplementalGroups": [5],
                "supplementalGroupsPolicy": "Strict", "runAsGroup": 6, "seLinuxOptions": {"level": "s0"}},
            "shareProcessNamespace": true,
            "containers": [{"name": "c", "securityContext": {
                "privileged": true, "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false,
                "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}, "procMount": "Unmasked",
                "seccompProfile": {"type": "Localhost", "localhostProfile": "a/b.json"},
                "appArmorProfile": {"type": "Localhost", "localhostProfile": "mine"},
                "seLinuxOptions": {"type": "t"},
            }}],
        }),
        None,
    )
    .unwrap();
    assert!(full.privileged && full.no_new_privileges && full.read_only_root);
    assert!(full.masked_paths.is_empty() && full.read_only_paths.is_empty());
    assert_eq!(full.capabilities.add, ["NET_ADMIN"]);
    assert_eq!(full.capabilities.drop, ["ALL"]);
    assert_eq!(
        full.seccomp,
        SecurityProfile::Localhost("/root/seccomp/a/b.json".to_owned())
    );
    assert_eq!(full.apparmor, SecurityProfile::Localhost("mine".to_owned()));
    assert_eq!(full.selinux.unwrap().kind, "t");
    assert_eq!(full.identity.supplemental_groups, [4, 5]);
    assert_eq!(
        full.identity.supplemental_groups_policy,
        SupplementalGroupsPolicy::Strict
    );
    assert_eq!(full.identity.group, Some(6));
    assert_eq!(full.namespaces.pid, NamespaceMode::Pod);
    for profile in [
        json!({"type": "Localhost"}),
        json!({"type": "Localhost", "localhostProfile": "../x"}),
    ] {
        let own =
            json!({"containers": [{"name": "c", "securityContext": {"seccompProfile": profile}}]});
        assert!(confined(own, None).is_err());
    }
}

#[test]
fn amounts_reach_the_kernel() {
    let config = KubeletConfig::new("node");
    let of = |spec: Value, config: &KubeletConfig, node: &NodeFacts| {
        let pod = pod_of(spec);
        container_resources(
            &pod,
            &pod.spec.as_ref().unwrap().containers[0],
            config,
            node,
        )
    };
    let own = |requests: Value, limits: Value| json!({"containers": [{"name": "c", "resources": {"requests": requests, "limits": limits}}]});
    for (spec, shares, quota, memory, score) in [
        (own(json!({}), json!({})), 2, None, None, 1000),
        (
            own(json!({"cpu": "100m", "memory": "100Mi"}), json!({})),
            102,
            None,
            None,
            900,
        ),
        (
            own(json!({}), json!({"cpu": "1"})),
            1024,
            Some(100_000),
            None,
            999,
        ),
        (
            own(
                json!({"cpu": "1", "memory": "1Gi"}),
                json!({"cpu": "1", "memory": "1Gi"}),
            ),
            1024,
            Some(100_000),
            Some(1 << 30),
            -997,
        ),
        (
            own(json!({"memory": "1Gi"}), json!({"memory": "2Gi"})),
            2,
            None,
            Some(2 << 30),
            3,
        ),
        (
            json!({"containers": [{"name": "c"}], "resources": {"limits": {"cpu": "2", "memory": "200Mi"}, "requests": {"memory": "200Mi"}}}),
            2048,
            Some(200_000),
            Some(200 << 20),
            800,
        ),
    ] {
        let made = of(spec.clone(), &config, &node());
        assert_eq!(made.cpu_shares, Some(shares), "{spec}");
        assert_eq!(made.cpu_quota, quota, "{spec}");
        assert_eq!(made.cpu_period, Some(100_000));
        assert_eq!(made.memory_limit, memory, "{spec}");
        assert_eq!(made.oom_score_adj, Some(score), "{spec}");
        assert_eq!(made.hugepages["2MB"], 0);
        assert!(made.unified.is_empty());
    }
    let mut careful = config.clone();
    careful.restrict_oom_score_adj = true;
    careful.cpu_cfs_quota = false;
    let both = json!({"cpu": "1", "memory": "64Mi", "hugepages-2Mi": "4Mi"});
    let newer = NodeFacts {
        cgroup_v2: true,
        counts_swap: true,
        ..node()
    };
    let made = of(own(both.clone(), both.clone()), &careful, &newer);
    assert_eq!(made.oom_score_adj, Some(0));
    assert_eq!((made.cpu_quota, made.cpu_period), (None, None));
    assert_eq!(made.hugepages["2MB"], 4 << 20);
    assert_eq!(made.unified["memory.oom.group"], "1");
    assert_eq!(made.unified["memory.swap.max"], "0");
    let older = NodeFacts {
        counts_swap: true,
        ..node()
    };
    assert_eq!(
        of(own(both.clone(), both), &config, &older).memory_swap_limit,
        Some(64 << 20)
    );
}

#[test]
fn who_is_killed_first_follows_importance() {
    let memory = 1000 << 20;
    let score = |spec: Value, annotation: Option<&str>| {
        let mut pod = Pod::clone(&pod_of(spec));
        if let Some(name) = annotation {
            pod.metadata.annotations = Some([(name.to_owned(), "file".to_owned())].into());
        }
        let spec = pod.spec.as_ref().unwrap();
        let first = spec
            .init_containers
            .iter()
            .flatten()
            .chain(&spec.containers)
            .next()
            .unwrap();
        oom_score_adj(&pod, first, memory)
    };
    let critical = json!({"containers": [{"name": "c"}], "priorityClassName": "system-node-critical", "priority": 2_000_001_000});
    assert_eq!(score(critical, None), -997);
    let named = json!({"containers": [{"name": "c"}], "priorityClassName": "system-node-critical"});
    assert_eq!(
        score(named.clone(), None),
        1000,
        "anybody could write the name"
    );
    assert_eq!(score(named, Some("kubernetes.io/config.source")), -997);
    let beside = json!({
        "initContainers": [{"name": "s", "restartPolicy": "Always", "resources": {"requests": {"memory": "10Mi"}}}],
        "containers": [{"name": "c", "resources": {"requests": {"memory": "500Mi"}}}],
    });
    assert_eq!(score(beside, None), 500, "no earlier than what it serves");
}

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
