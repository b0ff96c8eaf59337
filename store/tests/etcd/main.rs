//! [`orlop_store::EtcdStore`] on the real etcd: single, as a cluster whose members die, with TLS, with users.
//!
//! `etcd` and `etcdctl` are taken from the path. Where they are missing, the tests say that they were skipped.

mod compaction;
mod durable;
mod failover;
mod limits;
mod linearizable;
mod security;
mod server;
mod suite;
mod support;
mod transactions;
mod watches;
