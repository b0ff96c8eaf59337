//! Stores for Orlop: in memory, durable and embedded, on a real etcd; the etcd API in front of any of them; and layers over any of them.

mod durable;
#[cfg(feature = "encryption")]
pub mod encryption;
#[cfg(feature = "etcd")]
mod etcd;
pub mod layers;
mod memory;
#[cfg(test)]
mod model;
mod mvcc;
mod shared;
pub mod snapshot;
mod upkeep;
mod watch;

pub use durable::{DurableOptions, DurableStore};
#[cfg(feature = "etcd")]
pub use etcd::client::{EtcdOptions, EtcdStore, EtcdTls};
#[cfg(feature = "etcd")]
pub use etcd::server::{AutoCompaction, EtcdBody, EtcdServer, EtcdServerOptions};
pub use memory::MemoryStore;
pub use snapshot::SnapshotInfo;
pub use upkeep::{StoreSize, Upkeep};
