//! `orlop up --store etcd=…`.

use serde_json::json;

use super::{MAPS, client, directory, leader, pods_are_ready, share_keys, until};
use crate::support::{EtcdCluster, Kubectl, Server, run_to_end};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_etcd_is_found_again_and_two_may_share_it() {
    let test = "etcd::up::what_is_in_etcd_is_found_again_and_two_may_share_it";
    if !EtcdCluster::is_there(test) || !Kubectl::is_there(test) {
        return;
    }
    let (a, b) = (directory(), directory());
    let etcd = EtcdCluster::start(a.path(), 1);
    let store = format!("etcd={}", etcd.urls());
    let arguments = ["--store", store.as_str()];
    let first = Server::start_in(&a, &arguments);
    assert!(
        first.said.contains("  store    etcd, at http://127.0.0.1:"),
        "{}",
        first.said
    );
    let maps = |server: &Server| {
        let client = client(server);
        async move {
            let maps = client.resource(&MAPS).namespace("default");
            maps.get("kept").await.map(|map| map.json())
        }
    };
    let made = client(&first)
        .resource(&MAPS)
        .namespace("default")
        .create(&json!({"metadata": {"name": "kept"}, "data": {"a": "b"}}))
        .await
        .unwrap();
    Kubectl::new(&first).ok("create deployment web --image=nginx --replicas=2");
    pods_are_ready(&client(&first), "web", 2).await;
    assert_eq!(first.stop().code(), Some(0));

    let first = Server::start_in(&a, &arguments);
    assert_eq!(maps(&first).await.unwrap(), made.json());

    // Another one beside it: one cluster with two API servers, of whose other parts one each works.
    share_keys(a.path(), b.path());
    let second = Server::start_in(&b, &arguments);
    assert_eq!(maps(&second).await.unwrap(), made.json());
    let by_second = client(&second);
    pods_are_ready(&by_second, "web", 2).await;
    let old = leader(&by_second, "kube-controller-manager").await;
    Kubectl::new(&second).ok("scale deployment web --replicas=4");
    pods_are_ready(&by_second, "web", 4).await;
    assert_eq!(leader(&by_second, "kube-controller-manager").await, old);
    // Who stops gives its leases back.
    assert_eq!(first.stop().code(), Some(0));
    Kubectl::new(&second).ok("scale deployment web --replicas=5");
    pods_are_ready(&by_second, "web", 5).await;
    until("the other one leads", || async {
        (leader(&by_second, "kube-controller-manager").await != old).then_some(())
    })
    .await;
}

#[test]
fn an_etcd_that_cannot_be_reached_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let port = {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap().port()
    };
    let url = format!("http://127.0.0.1:{port}");
    let store = format!("etcd={url}");
    let output = run_to_end(&directory.path().join("data"), &["--store", &store]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = error.lines().collect();
    let begin = [
        format!("orlop: etcd at {url} is waited for: "),
        format!("orlop: etcd at {url} cannot be reached: "),
    ];
    assert_eq!(lines.len(), 2, "{error}");
    assert!(
        lines[0].starts_with(&begin[0]) && lines[1].starts_with(&begin[1]),
        "{error}"
    );

    for (store, why) in [
        ("etcd=", "etcd=URL"),
        (
            "disk",
            "one of durable, memory or etcd=URL[,URL…] is wanted",
        ),
    ] {
        let output = run_to_end(&directory.path().join("data"), &["--store", store]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(why), "{error}");
    }
}
