//! The messages of etcd's API, version 3, by their field numbers: no `protoc` is needed to build this.
//!
//! Names are those of the wire, in Rust's spelling.

#![allow(
    dead_code,
    reason = "the server reads what the client writes, and the other way round"
)]

pub(crate) mod auth;
pub(crate) mod cluster;
pub(crate) mod kv;
pub(crate) mod lease;
pub(crate) mod maintenance;
pub(crate) mod watch;

/// The services, as the paths of their methods begin.
pub(crate) mod service {
    pub(crate) const KV: &str = "etcdserverpb.KV";
    pub(crate) const WATCH: &str = "etcdserverpb.Watch";
    pub(crate) const LEASE: &str = "etcdserverpb.Lease";
    pub(crate) const MAINTENANCE: &str = "etcdserverpb.Maintenance";
    pub(crate) const CLUSTER: &str = "etcdserverpb.Cluster";
    pub(crate) const AUTH: &str = "etcdserverpb.Auth";
}
