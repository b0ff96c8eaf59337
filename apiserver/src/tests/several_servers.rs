//! Several API servers on one store.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use futures::future::{join, join_all};
use orlop_core::store::{KeyRange, Op, RangeRequest, Store, Txn};

use super::*;
use crate::ServiceRange;

const SERVICES: &str = "/api/v1/namespaces/default/services";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";
const ENDPOINTS: &str = "/api/v1/namespaces/default/endpoints/kubernetes";
const SLICE: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";

async fn start(env: &Env, store: &Arc<MemoryStore>, address: u8) -> Cluster {
    let range = ServiceRange {
        prefix: 27,
        node_ports: 30_000..=30_039,
        ..ServiceRange::default()
    };
    let api = ApiServer::builder(store.clone(), env.clone())
        .with_defaults()
        .service_range(range)
        .address(Ipv4Addr::new(192, 0, 2, address).into(), 6443)
        .start()
        .await
        .unwrap();
    let api = Arc::new(api);
    let admin = UserInfo::new("admin", [SYSTEM_MASTERS, ALL_AUTHENTICATED]);
    let service = api.service_as(admin);
    Cluster {
        env: env.clone(),
        api,
        service,
    }
}

/// Two servers that start at the same time.
fn with_two<F: Future<Output = ()> + Send + 'static>(
    seed: u64,
    test: impl FnOnce(Arc<MemoryStore>, Cluster, Cluster) -> F + Send + 'static,
) {
    let sim = SimEnv::new(seed);
    let env = sim.env();
    sim.block_on(async move {
        let store = Arc::new(MemoryStore::new(env.clone()));
        let (a, b) = join(start(&env, &store, 1), start(&env, &store, 2)).await;
        test(store, a.clone(), b.clone()).await;
        join(a.api.shutdown(), b.api.shutdown()).await;
    });
}

fn service(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": spec})
}

fn node_port(name: &str) -> Value {
    service(
        name,
        json!({"type": "NodePort", "ports": [{"port": 80}], "selector": {"app": name}}),
    )
}

async fn keys(store: &MemoryStore, prefix: &str) -> Vec<String> {
    let found = store.range(RangeRequest::new(KeyRange::prefix(prefix.to_owned())));
    let name = |key: &[u8]| String::from_utf8(key[prefix.len()..].to_vec()).unwrap();
    let found = found.await.unwrap();
    found.items.iter().map(|kv| name(&kv.key)).collect()
}

const PORT_KEYS: &str = "/registry/ranges/servicenodeports/";

#[test]
fn what_two_servers_give_at_once_is_given_once() {
    for seed in 60..64 {
        with_two(seed, |store, a, b| async move {
            let made = join_all((0..28).map(|n| {
                let server = if n % 2 == 0 { a.clone() } else { b.clone() };
                async move { server.post(SERVICES, &node_port(&format!("s{n}"))).await }
            }))
            .await;
            let made: Vec<Value> = made.iter().map(|answer| answer.expect(201)).collect();
            let ips: BTreeSet<&str> = made
                .iter()
                .map(|service| service["spec"]["clusterIP"].as_str().unwrap())
                .collect();
            let ports: BTreeSet<u64> = made
                .iter()
                .map(|service| service["spec"]["ports"][0]["nodePort"].as_u64().unwrap())
                .collect();
            assert_eq!((ips.len(), ports.len()), (28, 28));
            // 30 addresses, of which the first is the API servers' own.
            b.post(SERVICES, &service("last", json!({"ports": [{"port": 80}]})))
                .await
                .expect(201);
            let full = a
                .post(SERVICES, &service("more", json!({"ports": [{"port": 80}]})))
                .await
                .refused(500);
            assert!(full.contains("range 10.96.0.0/27 is full"), "{full}");
            assert_eq!(keys(&store, PORT_KEYS).await.len(), 28);
            // What one server frees, the other one gives at once.
            a.delete(&format!("{SERVICES}/s0"), None).await.expect(200);
            b.post(SERVICES, &service("more", json!({"ports": [{"port": 80}]})))
                .await
                .expect(201);
            let known = b.get(ADDRESSES).await.expect(200);
            assert_eq!(known["items"].as_array().unwrap().len(), 30);
            assert_eq!(keys(&store, PORT_KEYS).await.len(), 27);
        });
    }
}

#[test]
fn what_is_asked_for_is_refused_while_another_has_it() {
    with_two(65, |store, a, b| async move {
        let spec = json!({"clusterIP": "10.96.0.9", "type": "NodePort", "ports": [{"port": 80, "nodePort": 30007}]});
        let (one, other) = join(
            a.post(SERVICES, &service("one", spec.clone())),
            b.post(SERVICES, &service("other", spec.clone())),
        )
        .await;
        let (won, lost) = if one.code == 201 {
            ("one", other)
        } else {
            ("other", one)
        };
        let why = lost.refused(422);
        assert!(why.ends_with("Invalid value: [\"10.96.0.9\"]: failed to allocate IP 10.96.0.9: provided IP is already allocated"), "{why}");
        let ports = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30007}]});
        for server in [&a, &b] {
            for path in [SERVICES.to_owned(), format!("{SERVICES}?dryRun=All")] {
                let why = server
                    .post(&path, &service("third", ports.clone()))
                    .await
                    .refused(422);
                assert!(
                    why.ends_with("spec.ports[0].nodePort: Invalid value: 30007: provided port is already allocated"),
                    "{why}"
                );
            }
        }
        let address = b.get(&format!("{ADDRESSES}/10.96.0.9")).await.expect(200);
        assert_eq!(address["spec"]["parentRef"]["name"], won);
        assert_eq!(
            address["metadata"]["labels"]["ipaddress.kubernetes.io/managed-by"],
            "ipallocator.k8s.io"
        );
        // It is written with the Service: at one revision.
        let path = format!("{SERVICES}/{won}");
        let there = a.get(&path).await.expect(200);
        assert_eq!(revision(&there), revision(&address));

        // Another Service may ask for what this one no longer has.
        let change =
            json!({"spec": {"type": "ClusterIP", "ports": [{"port": 80, "nodePort": null}]}});
        b.patch(&path, MERGE, &change).await.expect(200);
        assert!(keys(&store, PORT_KEYS).await.is_empty());
        a.post(SERVICES, &service("third", ports)).await.expect(201);
        assert_eq!(keys(&store, PORT_KEYS).await, ["30007"]);
        let change =
            json!({"spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30007}]}});
        let why = b.patch(&path, MERGE, &change).await.refused(422);
        assert!(why.ends_with("provided port is already allocated"), "{why}");
        b.delete(&path, None).await.expect(200);
        a.post(
            SERVICES,
            &service(
                "heir",
                json!({"clusterIP": "10.96.0.9", "ports": [{"port": 80}]}),
            ),
        )
        .await
        .expect(201);
    });
}

#[test]
fn the_endpoints_of_the_service_kubernetes_are_the_servers_that_are_alive() {
    with_two(66, |store, a, b| async move {
        let endpoints = async |of: &Cluster| -> Vec<String> {
            let object = of.get(ENDPOINTS).await.expect(200);
            let slice = of.get(SLICE).await.expect(200);
            let all = object["subsets"][0]["addresses"].as_array().unwrap();
            let all: Vec<String> = all
                .iter()
                .map(|address| address["ip"].as_str().unwrap().to_owned())
                .collect();
            let in_slice: Vec<String> = slice["endpoints"]
                .as_array()
                .unwrap()
                .iter()
                .map(|endpoint| endpoint["addresses"][0].as_str().unwrap().to_owned())
                .collect();
            assert_eq!(all, in_slice);
            all
        };
        b.env.sleep(Duration::from_secs(30)).await;
        assert_eq!(endpoints(&a).await, ["192.0.2.1", "192.0.2.2"]);
        // Who stops says so.
        a.api.shutdown().await;
        assert_eq!(endpoints(&b).await, ["192.0.2.2"]);
        // Who is killed is missed: its lease runs out.
        let third = start(&b.env, &store, 3).await;
        assert_eq!(endpoints(&b).await, ["192.0.2.2", "192.0.2.3"]);
        drop(third);
        b.env.sleep(Duration::from_secs(5)).await;
        assert_eq!(endpoints(&b).await, ["192.0.2.2", "192.0.2.3"]);
        b.env.sleep(Duration::from_secs(25)).await;
        assert_eq!(endpoints(&b).await, ["192.0.2.2"]);
    });
}

#[test]
fn services_of_an_older_store_keep_what_they_have() {
    let sim = SimEnv::new(67);
    let env = sim.env();
    sim.block_on(async move {
        let store = Arc::new(MemoryStore::new(env.clone()));
        let old = |name: &str, ip: &str, port: u16| {
            let object = json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": name, "namespace": "default", "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"type": "NodePort", "clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 80, "nodePort": port, "protocol": "TCP"}]},
            });
            Txn::create(format!("/registry/core/services/default/{name}"), object.to_string())
        };
        for txn in [old("a", "10.96.0.5", 30_001), old("b", "10.96.0.6", 30_002)] {
            store.commit(txn).await.unwrap();
        }
        // What a Service had that is gone.
        let gone = json!({"resource": "services", "namespace": "default", "name": "gone"});
        let put = Txn::create(format!("{PORT_KEYS}30003"), gone.to_string());
        store.commit(put).await.unwrap();

        let cluster = start(&env, &store, 1).await;
        assert_eq!(keys(&store, PORT_KEYS).await, ["30001", "30002"]);
        let taken = service("c", json!({"clusterIP": "10.96.0.6", "ports": [{"port": 80}]}));
        let why = cluster.post(SERVICES, &taken).await.refused(422);
        assert!(why.ends_with("provided IP is already allocated"), "{why}");

        // What is taken away by hand comes back; an address of somebody else's making stays.
        cluster.delete(&format!("{ADDRESSES}/10.96.0.5"), None).await.expect(200);
        let own = json!({"metadata": {"name": "10.96.0.9"}, "spec": {"parentRef": {"resource": "services", "namespace": "x", "name": "y"}}});
        cluster.post(ADDRESSES, &own).await.expect(201);
        let ops = vec![Op::Delete(KeyRange::key(format!("{PORT_KEYS}30001")))];
        store.commit(Txn { compare: Vec::new(), ops }).await.unwrap();
        env.sleep(Duration::from_secs(200)).await;
        assert_eq!(keys(&store, PORT_KEYS).await, ["30001", "30002"]);
        let all = cluster.get(ADDRESSES).await.expect(200);
        assert_eq!(names(&all), ["10.96.0.1", "10.96.0.5", "10.96.0.6", "10.96.0.9"]);
        cluster.delete(&format!("{SERVICES}/a"), None).await.expect(200);
        assert_eq!(keys(&store, PORT_KEYS).await, ["30002"]);
        let all = cluster.get(ADDRESSES).await.expect(200);
        assert_eq!(names(&all), ["10.96.0.1", "10.96.0.6", "10.96.0.9"]);
        cluster.api.shutdown().await;
    });
}
