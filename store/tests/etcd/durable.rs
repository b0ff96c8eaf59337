//! [`EtcdStore`] against [`EtcdServer`] on a loopback port, in front of the durable store. No etcd is needed.

use std::sync::Arc;

use orlop_core::conformance::store::{Subject, store};
use orlop_core::env::{Env, TaskGroup};
use orlop_store::{
    DurableOptions, DurableStore, EtcdOptions, EtcdServer, EtcdServerOptions, EtcdStore,
};
use tokio::net::TcpListener;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suite_through_the_server_over_the_durable_store() {
    let env = Env::tokio();
    store(|| async {
        let dir = tempfile::tempdir().expect("a directory");
        let durable = DurableStore::open(dir.path(), DurableOptions::default(), env.clone());
        let durable = Arc::new(durable.expect("a store"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let server = EtcdServer::new(durable, EtcdServerOptions::new("durable"), env.clone());
        let tasks = TaskGroup::new(env.clone());
        let token = tasks.token();
        tasks.spawn("server", async move {
            server
                .serve(listener, None, &token)
                .await
                .expect("it serves");
        });
        let etcd = EtcdStore::connect(EtcdOptions::new([url.as_str()]), env.clone());
        let etcd = etcd.await.expect("a connection");
        Subject::new(Arc::new(etcd), env.clone()).keeping((tasks, dir))
    })
    .await;
}
