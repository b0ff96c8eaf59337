//! What `orlop etcd` serves: the etcd API in front of the durable store.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use orlop::core::env::{CancelToken, Env};
use orlop::store::{DurableOptions, DurableStore, EtcdServer, EtcdServerOptions};
use tokio::net::TcpListener;

/// Serves until the process ends.
pub(crate) async fn serve(address: SocketAddr, directory: &Path) {
    let store = DurableStore::open(directory, DurableOptions::default(), Env::tokio());
    let store = Arc::new(store.expect("a store"));
    let mut options = EtcdServerOptions::new("default");
    options.upkeep = Some(store.clone());
    let server = EtcdServer::new(store, options, Env::tokio());
    let socket = TcpListener::bind(address).await.expect("a socket");
    let cancel = CancelToken::new();
    let served = server.serve(socket, None, &cancel);
    let ((), served) = futures::join!(server.run(&cancel), served);
    served.expect("connections");
}
