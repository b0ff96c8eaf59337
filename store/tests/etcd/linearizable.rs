//! What concurrent clients of etcd are told fits one order, also while members die.

use std::sync::Arc;
use std::time::Duration;

use orlop_core::conformance::store::{
    Load, Outcome, Subject, WatchLoad, check_linearizable, record, store, watch_order,
};
use orlop_core::env::Env;
use orlop_core::store::Store;

use crate::support::{Cluster, get, put_until_done};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_passes_the_suite() {
    let Some(cluster) = Cluster::start("a_cluster_passes_the_suite", 3) else {
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

/// Members are killed and started again one after the other.
async fn members_die(cluster: &mut Cluster, env: &Env) {
    for round in 0..3 {
        env.sleep(Duration::from_millis(400)).await;
        // A follower first, then whoever leads.
        let leader = cluster.leader().await;
        let victim = if round == 0 { (leader + 1) % 3 } else { leader };
        cluster.kill(victim);
        env.sleep(Duration::from_millis(900)).await;
        cluster.restart(victim);
    }
}

/// Members are killed, the leader among them, and started again one after the other, while clients with a connection of their own each
/// work. Every answer they get must fit one order, and what was acknowledged must be there at the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_fit_one_order_while_members_die() {
    let Some(mut cluster) = Cluster::start("answers_fit_one_order_while_members_die", 3) else {
        return;
    };
    let env = Env::tokio();
    let etcd = Arc::new(cluster.connect().await);
    put_until_done(&*etcd, "/before", "x").await;
    let mut load = Load::default();
    load.clients = 8;
    load.operations = 150;
    load.keys = 5;
    load.pause = Duration::from_millis(30);
    let recording = record(etcd.clone(), env.clone(), "/linearizable/", &load);
    let (history, ()) = futures::join!(recording, members_die(&mut cluster, &env));
    let history = history.unwrap_or_else(|error| panic!("{error}\n{}", cluster.logs()));
    let unknown = history
        .operations
        .iter()
        .filter(|operation| operation.outcome == Outcome::Unknown)
        .count();
    println!(
        "{} operations, {unknown} of them unknown",
        history.operations.len()
    );
    assert!(
        history.operations.len() - unknown > 200,
        "hardly anything was answered: {unknown} of {} are unknown",
        history.operations.len()
    );
    if let Err(violation) = check_linearizable(&history) {
        panic!("{violation}");
    }
    assert_eq!(
        get(&*etcd, "/before").await.expect("a read").as_deref(),
        Some("x")
    );
    assert!(etcd.healthy().await.is_ok());
    etcd.close().await;
}

/// The same beside watches: each sees every commit once and in order, whichever member told of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_keep_the_order_while_members_die() {
    let Some(mut cluster) = Cluster::start("watches_keep_the_order_while_members_die", 3) else {
        return;
    };
    let env = Env::tokio();
    let etcd = Arc::new(cluster.connect().await);
    let mut load = WatchLoad::default();
    load.commits = 120;
    load.pause = Duration::from_millis(30);
    load.outages = true;
    let writing = watch_order(etcd.clone(), env.clone(), "/order/", &load);
    futures::join!(writing, members_die(&mut cluster, &env));
    etcd.close().await;
}
