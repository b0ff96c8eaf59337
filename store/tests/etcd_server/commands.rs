//! Commands of etcdctl whose answers are this server's own.

use std::process::Command;
use std::time::Duration;

use orlop_core::store::{KeyRange, RangeRequest, Store, Txn};
use serde_json::Value;

use crate::support::{Served, etcdctl, etcdctl_for, have, text};

/// Runs what waits for other programs beside the server.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_operator_asks() {
    if !have("what_an_operator_asks", &["etcdctl"]) {
        return;
    }
    let served = Served::start(|_| ()).await;
    let url = served.url.clone();
    beside(move || {
        let ctl = |words: &str| etcdctl(&url, words, "");
        ctl("put a b");
        assert!(ctl("endpoint health").contains("is healthy"));
        let status: Value = serde_json::from_str(&ctl("endpoint status -w json")).unwrap();
        let status = &status[0]["Status"];
        assert_eq!(status["version"], "3.5.17");
        assert_eq!(status["header"]["revision"], 2);
        assert_eq!(status["leader"], status["header"]["member_id"]);
        assert!(status["dbSize"].as_u64().unwrap() > 0, "{status}");
        let members = ctl("member list");
        assert!(
            members.contains("started, default, http://localhost:2380"),
            "{members}"
        );
        assert!(members.contains(&url), "{members}");
        assert!(ctl("defrag").contains("Finished defragmenting"));
        assert!(ctl("member add x --peer-urls=http://127.0.0.1:1").contains("cluster of its own"));
        assert!(ctl("user list").contains("no users and roles"));
        // Whoever logs in is told that nobody has to, and etcdctl goes on without.
        assert_eq!(ctl("get a --user=root:root"), "a\nb\n");
    })
    .await;
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_of_this_machine() {
    if !have("a_socket_of_this_machine", &["etcdctl"]) {
        return;
    }
    let served = Served::start(|_| ()).await;
    let socket = served.dir.path().join("a socket-1.sock");
    served.also_at(&socket);
    let url = format!("unix://{}", text(&socket));
    beside(move || {
        let ctl = |words: &str| etcdctl(&url, words, "");
        assert_eq!(ctl("put a b"), "OK\n");
        assert_eq!(ctl("get a --print-value-only"), "b\n");
        assert!(ctl("member list").contains("started, default"));
        assert!(ctl("endpoint status").contains("3.5.17"));
    })
    .await;
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_are_granted_renewed_and_run_out() {
    if !have("leases_are_granted_renewed_and_run_out", &["etcdctl"]) {
        return;
    }
    let served = Served::start(|_| ()).await;
    let url = served.url.clone();
    beside(move || {
        let ctl = |words: &str| etcdctl(&url, words, "");
        let grant = |seconds: u32| -> String {
            let said = ctl(&format!("lease grant {seconds}"));
            assert!(said.contains("granted with TTL"), "{said}");
            said.split_whitespace().nth(1).unwrap().to_owned()
        };
        let long = grant(600);
        ctl(&format!("put kept x --lease={long}"));
        let told = ctl(&format!("lease timetolive {long} --keys"));
        assert!(
            told.contains("granted with TTL(600s), remaining("),
            "{told}"
        );
        assert!(told.contains("attached keys([kept])"), "{told}");
        assert!(ctl("lease list").contains(&long));
        let renewed = ctl(&format!("lease keep-alive --once {long}"));
        assert!(renewed.contains("keepalived with TTL(600)"), "{renewed}");
        let short = grant(2);
        ctl(&format!("put gone x --lease={short}"));
        for _ in 0..100 {
            if ctl("get gone").is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(ctl("get gone"), "");
        assert!(ctl(&format!("lease timetolive {short}")).contains("already expired"));
        assert!(ctl(&format!("lease revoke {long}")).contains("revoked"));
        assert_eq!(ctl("get kept"), "");
    })
    .await;
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_and_elections_work() {
    if !have("locks_and_elections_work", &["etcdctl", "timeout"]) {
        return;
    }
    let served = Served::start(|_| ()).await;
    let url = served.url.clone();
    beside(move || {
        let locked = etcdctl(&url, "lock mine echo inside", "");
        assert_eq!(locked, "inside\n");
        let elected = etcdctl_for(&url, "elect who me", "", 2);
        assert!(
            elected.contains("who/") && elected.contains("me"),
            "{elected}"
        );
    })
    .await;
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_one_of_etcd() {
    if !have("a_snapshot_is_one_of_etcd", &["etcdctl"]) {
        return;
    }
    let served = Served::start(|_| ()).await;
    for n in 0..2000 {
        let value = vec![b'v'; 1000];
        served
            .store
            .commit(Txn::put(format!("key-{n:04}"), value))
            .await
            .unwrap();
    }
    let (url, path) = (
        served.url.clone(),
        text(&served.dir.path().join("snapshot")),
    );
    let restored = text(&served.dir.path().join("restored"));
    beside(move || {
        let saved = etcdctl(&url, &format!("snapshot save {path}"), "");
        assert!(
            saved.contains(&format!("Snapshot saved at {path}")),
            "{saved}"
        );
        let status = etcdctl(&url, &format!("snapshot status {path} -w json"), "");
        let status: Value = serde_json::from_str(&status).unwrap();
        assert_eq!(status["revision"], 2001);
        let restored = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["snapshot", "restore", &path, "--data-dir", &restored])
            .output()
            .unwrap();
        assert!(restored.status.success(), "{restored:?}");
    })
    .await;
    // What it lay in while it was sent is gone.
    let left: Vec<_> = std::fs::read_dir(served.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name.to_string_lossy().starts_with('.'))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_quota_raises_an_alarm() {
    if !have("the_quota_raises_an_alarm", &["etcdctl"]) {
        return;
    }
    let served = Served::start(|options| options.quota_bytes = Some(1)).await;
    served.store.commit(Txn::put("a", "b")).await.unwrap();
    let url = served.url.clone();
    beside(move || {
        let ctl = |words: &str| etcdctl(&url, words, "");
        assert!(ctl("put c d").contains("database space exceeded"));
        assert!(ctl("alarm list").contains("alarm:NOSPACE"));
        // Reads and deletions go on.
        assert_eq!(ctl("get a"), "a\nb\n");
        assert_eq!(ctl("del a"), "1\n");
        assert!(ctl("lease grant 100").contains("database space exceeded"));
        assert!(ctl("alarm disarm").contains("alarm:NOSPACE"));
        assert_eq!(ctl("alarm list"), "");
    })
    .await;
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_may_be_so_large() {
    if !have("a_request_may_be_so_large", &["etcdctl"]) {
        return;
    }
    let served = Served::start(|options| options.max_request_bytes = 1000).await;
    let url = served.url.clone();
    beside(move || {
        let put = |bytes: usize| etcdctl(&url, "put a", &"x".repeat(bytes));
        assert_eq!(put(900), "OK\n");
        let said = put(1000);
        assert!(said.contains("etcdserver: request is too large"), "{said}");
        let said = put(1_000_000);
        assert!(said.contains("received message larger than max"), "{said}");
    })
    .await;
    let found = served
        .store
        .range(RangeRequest::new(KeyRange::key("a")))
        .await;
    assert_eq!(found.unwrap().items[0].value.len(), 900);
    served.stop().await;
}
