//! The proxy on virtual time, with a backend that only remembers.

use std::sync::Arc;
use std::time::Duration;

use orlop_core::client::DeleteOptions;
use orlop_core::env::{Env, SimEnv, TaskGroup};
use orlop_core::object::ObjectKey;
use orlop_core::resource::Resource;
use orlop_core::testing::FakeApi;
use orlop_net_proxy::view::PortView;
use orlop_net_proxy::{Family, Proxy, ProxyConfig, RecordingBackend};
use serde_json::{Value, json};

const SERVICES: Resource = Resource::namespaced("", "v1", "services", "Service");
const SLICES: Resource =
    Resource::namespaced("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice");
const NODES: Resource = Resource::cluster("", "v1", "nodes", "Node");

struct World {
    env: Env,
    api: Arc<FakeApi>,
    backend: RecordingBackend,
    group: TaskGroup,
    health: Arc<orlop_net_proxy::ProxyHealth>,
    metrics: orlop_net_proxy::ProxyMetrics,
}

impl World {
    fn new(env: &Env) -> Self {
        let api = Arc::new(FakeApi::new(env.clone()));
        let mut config = ProxyConfig::new("here");
        (config.healthz_address, config.metrics_address) = (None, None);
        config.manage_sysctls = false;
        config.conntrack_program = "/nowhere/conntrack".to_owned();
        let backend = RecordingBackend::new();
        let mut proxy = Proxy::builder(api.client(), env.clone())
            .config(config)
            .backend(backend.clone())
            .build()
            .unwrap();
        let (health, metrics) = (proxy.health(), proxy.metrics());
        let group = TaskGroup::new(env.clone());
        let stop = group.token();
        let begin = env.clone();
        group.spawn("proxy", async move {
            // What is made before is there when the proxy begins.
            begin.sleep(Duration::from_secs(1)).await;
            proxy.run(&stop).await.unwrap();
        });
        Self {
            env: env.clone(),
            api,
            backend,
            group,
            health,
            metrics,
        }
    }

    async fn create(&self, resource: &Resource, object: Value) {
        let client = self.api.client();
        let namespace = if resource.namespaced { "ns" } else { "" };
        let requests = client.resource(resource).namespace(namespace);
        requests.create(&object).await.unwrap();
    }

    async fn patch(&self, resource: &Resource, name: &str, patch: Value) {
        let client = self.api.client();
        let namespace = if resource.namespaced { "ns" } else { "" };
        let patch = orlop_core::client::Patch::Merge(patch);
        let requests = client.resource(resource).namespace(namespace);
        requests.patch(name, patch).await.unwrap();
    }

    async fn service(&self, name: &str, labels: Value) {
        let index = name.len();
        self.create(
            &SERVICES,
            json!({"metadata": {"name": name, "labels": labels},
                "spec": {"clusterIP": format!("10.96.0.{index}"), "ports": [{"port": 80}]}}),
        )
        .await;
    }

    async fn slice(&self, service: &str, endpoints: Value) {
        self.create(
            &SLICES,
            json!({"metadata": {"name": service, "labels": {"kubernetes.io/service-name": service},
                    "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z"}},
                "addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": endpoints}),
        )
        .await;
    }

    async fn wait(&self, milliseconds: u64) {
        self.env.sleep(Duration::from_millis(milliseconds)).await;
    }

    fn ports(&self, name: &str) -> Vec<PortView> {
        self.backend
            .service(Family::V4, &ObjectKey::new("ns", name))
    }

    fn told(&self) -> Vec<(usize, bool)> {
        let changes = self.backend.changes();
        let of_four = changes
            .iter()
            .filter(|changes| changes.family == Family::V4);
        of_four
            .map(|changes| (changes.services.len(), changes.all))
            .collect()
    }
}

fn run<F: Future<Output = ()> + Send + 'static>(test: impl FnOnce(World) -> F) {
    let sim = SimEnv::new(11);
    let world = World::new(&sim.env());
    sim.block_on(test(world));
}

#[test]
fn all_is_told_at_first_and_then_what_changes() {
    run(|world| async move {
        world.service("a", json!({})).await;
        world.service("bb", json!({})).await;
        world
            .service("ccc", json!({"service.kubernetes.io/headless": ""}))
            .await;
        world
            .service(
                "dddd",
                json!({"service.kubernetes.io/service-proxy-name": "other"}),
            )
            .await;
        world.slice("a", json!([{"addresses": ["10.0.0.1"]}])).await;
        world.wait(1500).await;
        assert_eq!(world.told(), [(2, true)]);
        assert_eq!(world.ports("a")[0].cluster.len(), 1);
        assert!(!world.ports("bb")[0].has_endpoints);
        world.wait(5000).await;
        // At once, for nothing was written for a while.
        world
            .slice("bb", json!([{"addresses": ["10.0.0.2"]}]))
            .await;
        world.wait(10).await;
        assert_eq!(world.told(), [(2, true), (1, false)]);
        assert!(world.ports("bb")[0].has_endpoints);
        // Many changes within a moment are few writes.
        for count in 1..40 {
            let endpoints: Vec<Value> = (0..count)
                .map(|n| json!({"addresses": [format!("10.0.1.{n}")]}))
                .collect();
            world
                .patch(&SLICES, "bb", json!({"endpoints": endpoints}))
                .await;
            world.wait(20).await;
        }
        world.wait(2000).await;
        assert_eq!(world.ports("bb")[0].cluster.len(), 39);
        assert!(world.told().len() <= 5, "{:?}", world.told());
        let client = world.api.client();
        client
            .resource(&SERVICES)
            .namespace("ns")
            .delete("a", DeleteOptions::default())
            .await
            .unwrap();
        world.wait(2000).await;
        assert_eq!(world.backend.len(Family::V4), 1);
        // Nothing happens while nothing changes.
        let told = world.told().len();
        world
            .patch(
                &SERVICES,
                "bb",
                json!({"metadata": {"labels": {"new": "label"}}}),
            )
            .await;
        world.wait(600_000).await;
        assert_eq!(world.told().len(), told);
        let text = world.metrics.encode();
        for line in [
            "kubeproxy_sync_proxy_rules_service_changes_total 3",
            "kubeproxy_sync_proxy_rules_endpoint_changes_pending 0",
            "kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 1",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        world.group.shutdown().await;
        assert_eq!(world.backend.len(Family::V4), 1, "what was applied stays");
    });
}

#[test]
fn a_failure_is_tried_again_with_everything() {
    run(|world| async move {
        world.service("a", json!({})).await;
        world.wait(1500).await;
        // Two families, three tries each.
        world.backend.fail(6);
        world.service("bb", json!({})).await;
        world.wait(800).await;
        assert_eq!(world.backend.len(Family::V4), 1);
        world.wait(120_000).await;
        assert_eq!(world.backend.len(Family::V4), 2);
        assert_eq!(world.told(), [(1, true), (2, true)]);
        let text = world.metrics.encode();
        let failures =
            "kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family=\"IPv4\"} 3";
        assert!(text.contains(failures), "{text}");
        assert!(world.health.is_healthy());
        // One that lasts is told of.
        world.backend.fail(usize::MAX);
        world.service("ccc", json!({})).await;
        world.wait(61_000).await;
        assert!(!world.health.is_healthy());
        world.backend.fail(0);
        world.wait(31_000).await;
        assert!(world.health.is_healthy());
        assert_eq!(world.backend.len(Family::V4), 3);
        world.group.shutdown().await;
    });
}

#[test]
fn what_somebody_removed_is_applied_again() {
    run(|world| async move {
        world.service("a", json!({})).await;
        world.wait(1500).await;
        world.backend.lose();
        assert!(world.backend.is_empty(Family::V4));
        world.wait(32_000).await;
        assert_eq!(world.backend.len(Family::V4), 1);
        assert_eq!(world.told(), [(1, true), (1, true)]);
        world.group.shutdown().await;
    });
}

#[test]
fn the_node_says_which_endpoints_are_near_and_where_node_ports_are() {
    run(|world| async move {
        let zoned = |address: &str, zone: &str| json!({"addresses": [address], "hints": {"forZones": [{"name": zone}]}});
        world.service("a", json!({})).await;
        world
            .slice(
                "a",
                json!([zoned("10.0.0.1", "east"), zoned("10.0.0.2", "west")]),
            )
            .await;
        world.wait(1500).await;
        assert_eq!(world.ports("a")[0].cluster.len(), 2);
        let node = json!({"metadata": {"name": "here", "labels": {"topology.kubernetes.io/zone": "west"}},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}});
        world.create(&NODES, node).await;
        world
            .create(&NODES, json!({"metadata": {"name": "there"}}))
            .await;
        world.wait(1500).await;
        let near = &world.ports("a")[0].cluster;
        assert_eq!(near.len(), 1);
        assert_eq!(near[0].address.to_string(), "10.0.0.2");
        let last = world
            .backend
            .changes()
            .into_iter()
            .rfind(|changes| changes.family == Family::V4);
        assert_eq!(
            last.unwrap().node_ips,
            ["192.0.2.1".parse::<std::net::IpAddr>().unwrap()]
        );
        let taint = json!({"spec": {"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]}});
        world.patch(&NODES, "here", taint).await;
        world.wait(100).await;
        assert!(!world.health.node_eligible() && world.health.is_healthy());
        world.group.shutdown().await;
    });
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused() {
    let env = SimEnv::new(1).env();
    let client = || FakeApi::new(env.clone()).client();
    let refused = |change: fn(&mut ProxyConfig)| {
        let mut config = ProxyConfig::new("here");
        change(&mut config);
        Proxy::builder(client(), env.clone())
            .config(config)
            .build()
            .unwrap_err()
            .to_string()
    };
    for (message, change) in [
        (
            "nodeName",
            (|config| config.node_name.clear()) as fn(&mut ProxyConfig),
        ),
        ("masqueradeBit", |config| config.masquerade_bit = 32),
        ("IP family", |config| config.families.clear()),
        ("syncPeriod", |config| config.sync_period = Duration::ZERO),
        ("minSyncPeriod", |config| {
            config.min_sync_period = Duration::from_secs(31)
        }),
    ] {
        assert!(refused(change).contains(message), "{message}");
    }
    assert!(Proxy::builder(client(), env.clone()).build().is_err());
}
