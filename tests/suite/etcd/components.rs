//! One component a process: two API servers, two schedulers and two controller managers over three members of etcd, and what becomes of
//! them when one of each is killed.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use orlop::core::client::{Client, ListOptions};
use orlop::core::env::{CancelToken, Env};
use orlop::core::resource::Resource;
use orlop::sim::SimulatedNodes;
use orlop::wire::pki::{ClusterPki, ClusterPkiOptions};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{MAPS, client, directory, leader, pods_are_ready, share_keys, until};
use crate::support::{Component, EtcdCluster, Kubectl, Server};

const SERVICES: Resource = Resource::namespaced("", "v1", "services", "Service");
const ADDRESSES: Resource =
    Resource::cluster("networking.k8s.io", "v1", "ipaddresses", "IPAddress");

/// How many Services are made at once, by each of the API servers.
const SERVICES_EACH: usize = 15;

fn controllers(name: &str, home: &Path, log: &Path) -> Component {
    let file = |name: &str| home.join(name).display().to_string();
    let (certificate, key) = (file("pki/ca.crt"), file("pki/ca.key"));
    let arguments = [
        "--cluster-signing-cert-file",
        &certificate,
        "--cluster-signing-key-file",
        &key,
        "--allocate-node-cidrs",
        "--cluster-cidr",
        "10.244.0.0/16",
    ];
    let kubeconfig = home.join("controller-manager.conf");
    Component::start("controller-manager", name, &kubeconfig, log, &arguments)
}

fn scheduler(name: &str, home: &Path, log: &Path) -> Component {
    let kubeconfig = home.join("scheduler.conf");
    Component::start("scheduler", name, &kubeconfig, log, &[])
}

/// Makes Services by both API servers at the same time; what they were given is given once.
async fn make_services(servers: [&Arc<dyn Client>; 2]) {
    let made = futures::future::join_all((0..2 * SERVICES_EACH).map(|n| {
        let services = servers[n % 2].resource(&SERVICES).namespace("default");
        async move {
            let spec =
                json!({"type": "NodePort", "ports": [{"port": 80}], "selector": {"app": "web"}});
            let object = json!({"metadata": {"name": format!("s{n}")}, "spec": spec});
            services.create(&object).await.unwrap()
        }
    }))
    .await;
    let values: Vec<Value> = made
        .iter()
        .map(|object| object.value().unwrap().as_ref().clone())
        .collect();
    let of = |pointer: &str| -> BTreeSet<String> {
        let all = values.iter().map(|value| value.pointer(pointer).unwrap());
        all.map(ToString::to_string).collect()
    };
    assert_eq!(of("/spec/clusterIP").len(), 2 * SERVICES_EACH);
    assert_eq!(of("/spec/ports/0/nodePort").len(), 2 * SERVICES_EACH);
    // Neither server lets the other's be taken: not an address, not a port.
    for field in ["clusterIP", "nodePort"] {
        let mut spec = json!({"type": "NodePort", "ports": [{"port": 80}]});
        match field {
            "clusterIP" => spec[field] = values[0]["spec"][field].clone(),
            _ => spec["ports"][0][field] = values[0]["spec"]["ports"][0][field].clone(),
        }
        let object = json!({"metadata": {"name": "thief"}, "spec": spec});
        for server in servers {
            let services = server.resource(&SERVICES).namespace("default");
            let refused = services.create(&object).await.unwrap_err();
            assert_eq!(refused.code, 422, "{refused}");
            assert!(
                refused.message.ends_with("is already allocated"),
                "{refused}"
            );
        }
    }
}

/// Writes one object after the other, and takes note of those that were acknowledged.
async fn write(client: Arc<dyn Client>, written: Arc<Mutex<BTreeSet<String>>>, stop: CancelToken) {
    let maps = client.resource(&MAPS).namespace("default");
    for n in 0.. {
        let name = format!("written-{n}");
        let object = json!({"metadata": {"name": name}, "data": {"n": n.to_string()}});
        // A write whose answer was lost may be there or not.
        if maps.create(&object).await.is_ok() {
            written.lock().insert(name);
        }
        if stop.is_cancelled() {
            return;
        }
        Env::tokio().sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until so many more writes have been acknowledged.
async fn more(written: &Mutex<BTreeSet<String>>, count: usize) {
    let before = written.lock().len();
    let enough = || written.lock().len() >= before + count;
    until("writes go on", || async { enough().then_some(()) }).await;
}

async fn names(client: &Arc<dyn Client>, resource: &Resource, namespace: &str) -> BTreeSet<String> {
    let all = client.resource(resource).namespace(namespace);
    let all = all.list(ListOptions::default()).await.unwrap().items;
    all.iter().map(|object| object.name().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(
    clippy::disallowed_methods,
    reason = "the test waits for what its tasks return"
)]
async fn one_of_each_may_be_killed() {
    let test = "etcd::components::one_of_each_may_be_killed";
    if !EtcdCluster::is_there(test) || !Kubectl::is_there(test) {
        return;
    }
    let (a, b) = (directory(), directory());
    let mut etcd = EtcdCluster::start(a.path(), 3);
    let urls = etcd.urls();
    let pki = a.path().join("data/pki");
    let now = Env::tokio().wall();
    ClusterPki::load_or_create(&pki, &ClusterPkiOptions::new(), now).unwrap();
    share_keys(a.path(), b.path());

    // Both make the cluster's own objects at the same time.
    let start = |directory: &Arc<tempfile::TempDir>| {
        let (directory, urls) = (directory.clone(), urls.clone());
        std::thread::spawn(move || Server::api_alone(&directory, &["--etcd-servers", &urls]))
    };
    let (first, second) = (start(&a), start(&b));
    let (mut first, second) = (first.join().unwrap(), second.join().unwrap());
    let (by_first, by_second) = (client(&first), client(&second));

    // These lead, because they are the first. The scheduler goes by the API server that is killed; the controller manager is killed itself.
    let mut lost_scheduler = scheduler("scheduler-1", &first.data(), a.path());
    let mut killed_manager = controllers("manager-1", &second.data(), a.path());
    let old_scheduler = leader(&by_second, "kube-scheduler").await;
    let old_manager = leader(&by_second, "kube-controller-manager").await;
    let _scheduler = scheduler("scheduler-2", &second.data(), b.path());
    let _manager = controllers("manager-2", &second.data(), b.path());

    let (nodes, stop_nodes) = (SimulatedNodes::new(3), CancelToken::new());
    let kubelets = {
        let (client, stop) = (by_second.clone(), stop_nodes.clone());
        tokio::spawn(async move { nodes.run(client, Env::tokio(), &stop).await })
    };
    let kubectl = Kubectl::new(&first);
    kubectl.ok("create deployment web --image=nginx --replicas=6");
    pods_are_ready(&by_second, "web", 6).await;
    make_services([&by_first, &by_second]).await;

    let (written, stop) = (Arc::default(), CancelToken::new());
    let writer = tokio::spawn(write(by_second.clone(), Arc::clone(&written), stop.clone()));
    more(&written, 10).await;
    etcd.kill(0);
    first.signal("KILL");
    first.wait();
    killed_manager.kill();

    // Everything goes on: others lead, and do what is asked for now.
    let kubectl = Kubectl::new(&second);
    kubectl.ok("scale deployment web --replicas=12");
    until("another scheduler leads", || async {
        let now = leader(&by_second, "kube-scheduler").await;
        (now != old_scheduler).then_some(())
    })
    .await;
    until("another controller manager leads", || async {
        let now = leader(&by_second, "kube-controller-manager").await;
        (now != old_manager).then_some(())
    })
    .await;
    pods_are_ready(&by_second, "web", 12).await;
    // Who has lost its API server has lost its lease, and ends, to be started again by who looks after it.
    until("the scheduler without an API server ends", || {
        let ended = lost_scheduler.ended();
        async move { ended }
    })
    .await;
    assert!(
        lost_scheduler.stderr().contains("the lease was lost"),
        "{}",
        lost_scheduler.stderr()
    );

    // Nothing is lost, as a server says that has only just begun to look.
    more(&written, 10).await;
    stop.cancel();
    writer.await.unwrap();
    let written = written.lock().clone();
    drop(first);
    let again = Server::api_alone(&a, &["--store", &format!("etcd={urls}")]);
    let by_again = client(&again);
    assert!(
        names(&by_again, &MAPS, "default")
            .await
            .is_superset(&written)
    );
    let services = names(&by_again, &SERVICES, "default").await;
    assert_eq!(services.len(), 2 * SERVICES_EACH + 1, "{services:?}");
    let addresses = names(&by_again, &ADDRESSES, "").await;
    assert_eq!(addresses.len(), 2 * SERVICES_EACH + 1, "{addresses:?}");

    // What one server deletes is free at the other at once.
    let services = by_again.resource(&SERVICES).namespace("default");
    let old = services.get("s0").await.unwrap();
    let ip = old.value().unwrap()["spec"]["clusterIP"].clone();
    let others = by_second.resource(&SERVICES).namespace("default");
    others.delete("s0", Default::default()).await.unwrap();
    let heir =
        json!({"metadata": {"name": "heir"}, "spec": {"clusterIP": ip, "ports": [{"port": 80}]}});
    services.create(&heir).await.unwrap();

    stop_nodes.cancel();
    kubelets.await.unwrap().unwrap();
}
