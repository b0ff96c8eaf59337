//! The conformance suite on a single etcd.

use std::sync::Arc;

use orlop_core::conformance::store::{Subject, store};
use orlop_core::env::Env;
use orlop_core::revision::Revision;
use orlop_core::store::Store;

use crate::support::{Cluster, put};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn single() {
    let Some(cluster) = Cluster::start("single", 1) else {
        return;
    };
    let env = Env::tokio();
    let cluster = &cluster;
    store(|| async {
        let etcd = cluster.connect().await;
        Subject::new(Arc::new(etcd), env.clone()).used_before()
    })
    .await;
}

#[tokio::test]
async fn revisions_of_a_fresh_etcd_begin_at_one() {
    let Some(cluster) = Cluster::start("revisions_of_a_fresh_etcd_begin_at_one", 1) else {
        return;
    };
    let etcd = cluster.connect().await;
    assert_eq!(etcd.revision().await.unwrap(), Revision(1));
    assert_eq!(put(&etcd, "/a", "1").await.unwrap(), Revision(2));
    etcd.close().await;
}
