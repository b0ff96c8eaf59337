//! Serves a store to clients of etcd: `cargo run -p orlop-store --features etcd --example etcd_server -- 127.0.0.1:2379 [DIRECTORY]`. Without a
//! directory the store is in memory.

use std::error::Error;
use std::sync::Arc;

use orlop_core::env::{CancelToken, Env};
use orlop_core::store::Store;
use orlop_store::{DurableOptions, DurableStore, EtcdServer, EtcdServerOptions, MemoryStore};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments
        .next()
        .unwrap_or_else(|| "127.0.0.1:2379".to_owned());
    let env = Env::tokio();
    let mut options = EtcdServerOptions::new("example");
    let store: Arc<dyn Store> = match arguments.next() {
        Some(directory) => {
            let options_of_store = DurableOptions::default();
            let store = DurableStore::open(directory, options_of_store, env.clone())?;
            let store = Arc::new(store);
            options.upkeep = Some(store.clone());
            store
        }
        None => Arc::new(MemoryStore::new(env.clone())),
    };
    let socket = TcpListener::bind(&address).await?;
    println!("etcd is served at http://{}", socket.local_addr()?);
    let server = EtcdServer::new(store, options, env);
    server.serve(socket, None, &CancelToken::new()).await?;
    Ok(())
}
