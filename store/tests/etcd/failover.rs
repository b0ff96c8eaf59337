//! Three members, of which some die.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use orlop_core::env::Env;
use orlop_core::revision::Revision;
use orlop_core::store::{Commit, KeyRange, RangeRequest, Store, StoreError, Txn, WatchItem};

use crate::support::{Cluster, Watch, get, put_until_done};

#[tokio::test]
async fn the_member_in_use_dies() {
    let Some(mut cluster) = Cluster::start("the_member_in_use_dies", 3) else {
        return;
    };
    let store = cluster.connect().await;
    let first = put_until_done(&store, "/a", "0").await;
    let mut watch = Watch::open(&store, KeyRange::prefix("/"), first).await;
    for round in 0..3 {
        cluster.kill(round);
        // Reads find another member by themselves.
        assert!(get(&store, "/a").await.unwrap().is_some());
        let mut last = Revision::ZERO;
        for n in 0..20 {
            last = put_until_done(&store, "/a", &format!("{round}-{n}")).await;
        }
        watch.until(last).await;
        cluster.restart(round);
        cluster.leader().await;
    }
    store.close().await;
}

/// Writers go on while the leader is killed and comes back. What was acknowledged is there, and a watcher has seen every commit once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_dies() {
    let Some(mut cluster) = Cluster::start("the_leader_dies", 3) else {
        return;
    };
    let env = Env::tokio();
    let store = Arc::new(cluster.connect().await);
    let first = put_until_done(&*store, "/w/begin", "").await;
    let mut watch = Watch::open(&*store, KeyRange::prefix("/w/"), first).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (send, mut acknowledged) = tokio::sync::mpsc::unbounded_channel();
    for writer in 0..4 {
        let (store, stop, send) = (store.clone(), stop.clone(), send.clone());
        env.spawn("writer", async move {
            for n in 0.. {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let key = format!("/w/{writer}/{n:05}");
                match store.commit(Txn::create(key.clone(), n.to_string())).await {
                    Ok(Commit::Applied { revision, .. }) => send.send((key, revision)).unwrap(),
                    // Made by this writer alone, and sent once.
                    Ok(Commit::Refused { .. }) => panic!("{key} was written twice"),
                    Err(StoreError::OutcomeUnknown(_) | StoreError::Unavailable(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
    }
    drop(send);
    for _ in 0..2 {
        env.sleep(Duration::from_millis(700)).await;
        let leader = cluster.leader().await;
        cluster.kill(leader);
        env.sleep(Duration::from_millis(1200)).await;
        cluster.restart(leader);
    }
    env.sleep(Duration::from_millis(500)).await;
    stop.store(true, Ordering::SeqCst);
    let mut written = Vec::new();
    while let Some(write) = acknowledged.recv().await {
        written.push(write);
    }
    assert!(written.len() > 50, "only {} writes", written.len());
    let last = put_until_done(&*store, "/w/end", "").await;
    let seen = watch.until(last).await;
    let read = store
        .range(RangeRequest::new(KeyRange::prefix("/w/")))
        .await
        .unwrap();
    for (key, revision) in &written {
        let found = read.items.iter().find(|kv| kv.key == key.as_bytes());
        assert_eq!(found.map(|kv| kv.mod_revision), Some(*revision), "{key}");
    }
    // All are written once, so what was seen is what is there, in the order in which it came about.
    let mut there: Vec<_> = read.items.iter().collect();
    there.sort_by_key(|kv| kv.mod_revision);
    let there: Vec<_> = there
        .iter()
        .map(|kv| String::from_utf8_lossy(&kv.key).into_owned())
        .collect();
    // The two marks may have been written more than once.
    let own = |keys: Vec<String>| -> Vec<String> {
        let marks = ["/w/begin", "/w/end"];
        keys.into_iter()
            .filter(|key| !marks.contains(&key.as_str()))
            .collect()
    };
    let seen = seen.into_iter().map(|(key, _)| key).collect();
    assert_eq!(own(seen), own(there));
    store.close().await;
}

#[tokio::test]
async fn a_member_stands_still() {
    let Some(cluster) = Cluster::start("a_member_stands_still", 3) else {
        return;
    };
    cluster.leader().await;
    let env = Env::tokio();
    let options = cluster.options().request_timeout(Duration::from_secs(6));
    let store = cluster.connect_with(options).await;
    let first = put_until_done(&store, "/a", "0").await;
    let mut watch = Watch::open(&store, KeyRange::prefix("/"), first).await;
    watch.until(first).await;
    cluster.freeze(0);
    let began = env.now();
    assert_eq!(get(&store, "/a").await.unwrap().as_deref(), Some("0"));
    let last = put_until_done(&store, "/a", "1").await;
    // The watch notices that it is told nothing, long before its connection is given up.
    watch.until(last).await;
    let took = env.now().since(began);
    assert!(took < Duration::from_secs(12), "{took:?}");
    cluster.thaw(0);
    let last = put_until_done(&store, "/a", "2").await;
    watch.until(last).await;
    store.close().await;
}

#[tokio::test]
async fn most_members_are_gone() {
    let Some(mut cluster) = Cluster::start("most_members_are_gone", 3) else {
        return;
    };
    let options = cluster.options().request_timeout(Duration::from_secs(3));
    let store = cluster.connect_with(options).await;
    let first = put_until_done(&store, "/a", "0").await;
    let mut watch = Watch::open(&store, KeyRange::prefix("/"), first).await;
    store.healthy().await.unwrap();
    cluster.kill(0);
    cluster.kill(1);
    let refused = store.healthy().await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable(_))),
        "{refused:?}"
    );
    let refused = get(&store, "/a").await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable(_))),
        "{refused:?}"
    );
    let refused = store.commit(Txn::put("/a", "1")).await;
    assert!(
        matches!(
            refused,
            Err(StoreError::Unavailable(_) | StoreError::OutcomeUnknown(_))
        ),
        "{refused:?}"
    );
    cluster.restart(0);
    cluster.restart(1);
    let last = put_until_done(&store, "/a", "2").await;
    watch.until(last).await;
    store.healthy().await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn nobody_is_there() {
    let store = orlop_store::EtcdStore::connect(
        orlop_store::EtcdOptions::new(
            crate::support::free_ports(2)
                .into_iter()
                .map(|port| format!("127.0.0.1:{port}")),
        )
        .request_timeout(Duration::from_millis(500)),
        Env::tokio(),
    )
    .await;
    let error = store.map(|_| ()).unwrap_err();
    assert!(
        matches!(&error, StoreError::Unavailable(why) if why.contains("refused")),
        "{error}"
    );
}

/// Connections break again and again while a watch is open.
#[tokio::test]
async fn a_watch_outlives_its_connections() {
    let Some(cluster) = Cluster::start("a_watch_outlives_its_connections", 1) else {
        return;
    };
    let env = Env::tokio();
    let relay = cluster.relay(0).await;
    let direct = cluster.connect().await;
    let store = cluster
        .connect_with(orlop_store::EtcdOptions::new([relay.endpoint()]))
        .await;
    let first = put_until_done(&direct, "/n", "begin").await;
    let mut watch = Watch::open(&store, KeyRange::prefix("/"), first).await;
    let mut last = first;
    for round in 0..5 {
        for n in 0..30 {
            if n == 10 {
                relay.cut();
            }
            last = put_until_done(&direct, "/n", &format!("{round}-{n}")).await;
        }
        relay.mend();
        env.sleep(Duration::from_millis(30)).await;
    }
    let seen = watch.until(last).await;
    let wanted = (0..5).flat_map(|round| (0..30).map(move |n| format!("{round}-{n}")));
    let wanted: Vec<_> = std::iter::once("begin".to_owned())
        .chain(wanted)
        .map(|value| ("/n".to_owned(), Some(value)))
        .collect();
    assert_eq!(seen, wanted);
    // A store that is closed ends its watches.
    store.close().await;
    loop {
        match watch.next().await {
            Ok(WatchItem::Progress(_)) => {}
            Ok(WatchItem::Changes(changes)) => panic!("{changes:?}"),
            Err(error) => {
                assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
                break;
            }
        }
    }
}

/// A cluster that was put back to a backup tells another past. What was read of it before cannot be built on.
#[tokio::test]
async fn a_cluster_goes_back() {
    let Some(mut cluster) = Cluster::start("a_cluster_goes_back", 1) else {
        return;
    };
    let store = cluster.connect().await;
    let first = put_until_done(&store, "/a", "0").await;
    let dir = tempfile::tempdir().unwrap();
    let snapshot = dir.path().join("snapshot");
    cluster
        .etcdctl(0, &["snapshot", "save", &snapshot.display().to_string()])
        .unwrap();
    let mut watch = Watch::open(&store, KeyRange::prefix("/"), first).await;
    let last = put_until_done(&store, "/a", "1").await;
    watch.until(last).await;
    cluster.kill(0);
    cluster.restore(0, &snapshot);
    cluster.restart(0);
    let ended = watch.next().await;
    assert!(
        matches!(ended, Err(StoreError::Unavailable(_))),
        "{ended:?}"
    );
    let refused = store.healthy().await;
    assert!(
        matches!(&refused, Err(StoreError::Unavailable(why)) if why.contains("went back")),
        "{refused:?}"
    );
    // Who connects anew is served.
    let again = cluster.connect().await;
    assert_eq!(get(&again, "/a").await.unwrap().as_deref(), Some("0"));
    again.close().await;
    store.close().await;
}

/// Two endpoints of two clusters: whichever answers second is not listened to.
#[tokio::test]
async fn members_of_two_clusters() {
    let (Some(mut one), Some(other)) = (
        Cluster::start("members_of_two_clusters", 1),
        Cluster::start("members_of_two_clusters", 1),
    ) else {
        return;
    };
    let endpoints = [one.endpoint(0), other.endpoint(0)];
    let store = one
        .connect_with(orlop_store::EtcdOptions::new(endpoints))
        .await;
    put_until_done(&store, "/a", "0").await;
    one.kill(0);
    let refused = get(&store, "/a").await;
    assert!(
        matches!(refused, Err(StoreError::Corrupt(_))),
        "{refused:?}"
    );
    store.close().await;
    // A closed store refuses at once.
    let began = Env::tokio();
    let refused = get(&store, "/a").await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable(_))),
        "{refused:?}"
    );
    assert!(began.now().since_start() < Duration::from_secs(1));
}
