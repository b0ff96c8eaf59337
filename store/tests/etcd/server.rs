//! The two sides of etcd against each other: [`orlop_store::EtcdServer`] in front of a store in memory, and [`EtcdStore`] as its client. No etcd
//! is needed.

use std::sync::Arc;
use std::time::Duration;

use orlop_core::conformance::store::{Subject, store};
use orlop_core::env::{Env, TaskGroup};
use orlop_core::revision::Revision;
use orlop_core::store::{KeyRange, RangeRequest, Store, StoreError};
use orlop_store::{EtcdOptions, EtcdServer, EtcdServerOptions, EtcdStore, MemoryStore};
use tempfile::TempDir;
use tokio::net::UnixListener;

use crate::support::{Watch, put};

/// A server on a socket of its own. It ends with this.
struct Served {
    store: Arc<MemoryStore>,
    url: String,
    _tasks: TaskGroup,
    _dir: TempDir,
}

fn serve(name: &str) -> Served {
    let (env, dir) = (Env::tokio(), tempfile::tempdir().unwrap());
    let path = dir.path().join("etcd.sock");
    let socket = UnixListener::bind(&path).unwrap();
    let store = Arc::new(MemoryStore::new(env.clone()));
    let server = EtcdServer::new(store.clone(), EtcdServerOptions::new(name), env.clone());
    let tasks = TaskGroup::new(env);
    let token = tasks.token();
    tasks.spawn("server", async move {
        server.serve_unix(socket, &token).await.unwrap();
    });
    Served {
        store,
        url: format!("unix://{}", path.display()),
        _tasks: tasks,
        _dir: dir,
    }
}

async fn connect(options: EtcdOptions) -> EtcdStore {
    EtcdStore::connect(options, Env::tokio()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suite() {
    store(|| async {
        let served = serve("suite");
        let etcd = connect(EtcdOptions::new([served.url.as_str()])).await;
        Subject::new(Arc::new(etcd), Env::tokio()).keeping(served)
    })
    .await;
}

/// A store that sees but a part of the keys is told how far it is.
#[tokio::test]
async fn a_part_of_the_keys() {
    let served = serve("part");
    let own = KeyRange::prefix("/own/");
    for n in 0..20 {
        put(&*served.store, "/own/old", &n.to_string())
            .await
            .unwrap();
        put(&*served.store, "/other/old", &n.to_string())
            .await
            .unwrap();
    }
    let options = EtcdOptions::new([served.url.as_str()]).prefix("/own/");
    let etcd = connect(options.clone().history_bytes(4000)).await;
    // From before it connected: from the server, and then from its own memory.
    let mut past = Watch::open(&etcd, own.clone(), Revision(2)).await;
    let mut live = Watch::open(&etcd, own.clone(), Revision::ZERO).await;
    let mut wanted = Vec::new();
    let mut last = Revision::ZERO;
    for n in 0..10 {
        let value = format!("new-{n}");
        put(&etcd, "/own/new", &value).await.unwrap();
        wanted.push(("/own/new".to_owned(), Some(value)));
        last = put(&*served.store, "/other/new", "x").await.unwrap();
    }
    // The last change is none of its own. It hears of it all the same, when it asks.
    assert_eq!(etcd.revision().await.unwrap(), last);
    assert_eq!(live.until(last).await, wanted);
    assert_eq!(past.until(last).await.len(), 20 + 10);
    // Many foreign changes push the own ones out of memory; those who listen go on.
    for _ in 0..400 {
        last = put(&*served.store, "/other/new", "y").await.unwrap();
    }
    assert_eq!(etcd.revision().await.unwrap(), last);
    assert_eq!(live.until(last).await, []);
    let last = put(&etcd, "/own/new", "end").await.unwrap();
    let end = [("/own/new".to_owned(), Some("end".to_owned()))];
    assert_eq!(live.until(last).await, end);
    assert_eq!(past.until(last).await, end);
    etcd.close().await;
}

/// The server goes, with its store, and another one is there under the same address.
#[tokio::test]
async fn another_server_under_the_same_address() {
    let env = Env::tokio();
    let served = serve("one");
    let options = EtcdOptions::new([served.url.as_str()]).request_timeout(Duration::from_secs(2));
    let etcd = connect(options).await;
    let at = put(&etcd, "/a", "1").await.unwrap();
    let Served {
        url,
        _tasks: tasks,
        _dir: dir,
        ..
    } = served;
    tasks.shutdown().await;
    let gone = etcd.range(RangeRequest::new(KeyRange::key("/a"))).await;
    assert!(matches!(gone, Err(StoreError::Unavailable(_))), "{gone:?}");
    let path = url.strip_prefix("unix://").unwrap();
    std::fs::remove_file(path).unwrap();
    let socket = UnixListener::bind(path).unwrap();
    let store = Arc::new(MemoryStore::new(env.clone()));
    let server = EtcdServer::new(store, EtcdServerOptions::new("two"), env.clone());
    let tasks = TaskGroup::new(env);
    let token = tasks.token();
    tasks.spawn("server", async move {
        server.serve_unix(socket, &token).await.unwrap();
    });
    let other = etcd
        .range(RangeRequest::new(KeyRange::key("/a")).at(at))
        .await;
    assert!(
        matches!(
            other,
            Err(StoreError::Corrupt(_)
                | StoreError::Unavailable(_)
                | StoreError::FutureRevision { .. })
        ),
        "{other:?}"
    );
    let other = etcd.range(RangeRequest::new(KeyRange::key("/a"))).await;
    assert!(
        matches!(
            other,
            Err(StoreError::Corrupt(_) | StoreError::Unavailable(_))
        ),
        "{other:?}"
    );
    etcd.close().await;
    tasks.shutdown().await;
    drop(dir);
}
