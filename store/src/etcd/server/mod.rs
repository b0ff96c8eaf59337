//! The etcd v3 server: etcd's gRPC API in front of any [`Store`].
//!
//! What it serves: KV, Watch, Lease, Maintenance and Cluster, and of Auth that there are no users; and on the same port `/health`, `/version` and
//! `/metrics`. It is a cluster of one: members can be listed, but not changed. The JSON gateway and the API of etcd 2 are not there.
//!
//! [`EtcdServer`] is a `tower` service over requests of any body, so it stands behind a socket as well as behind a pipe in memory.

mod alarm;
mod auth;
mod body;
mod cluster;
mod compaction;
mod connection;
mod error;
mod frame;
mod header;
mod http;
mod kv;
mod lease;
mod listen;
mod maintenance;
mod method;
mod metrics;
mod options;
mod ranges;
mod service;
#[cfg(test)]
mod tests;
mod txn;
mod watch;

use std::fmt;
use std::sync::Arc;

use orlop_core::env::{CancelToken, Env};
use orlop_core::store::Store;

use self::alarm::Alarms;
pub use self::body::EtcdBody;
use self::metrics::Metrics;
pub use self::options::{AutoCompaction, EtcdServerOptions};

/// The version of etcd whose API this is, as clients are told: some ask for it before they use what older ones did not have.
pub(super) const VERSION: &str = "3.5.17";
/// The version of the cluster.
const CLUSTER_VERSION: &str = "3.5.0";

/// By how much a message may be longer than a request may be: what gRPC and its headers take, by etcd's reckoning.
const OVERHEAD: usize = 512 * 1024;

/// The etcd v3 server in front of a store. Clones share one server.
#[derive(Clone)]
pub struct EtcdServer {
    inner: Arc<Inner>,
}

/// What the services share.
struct Inner {
    store: Arc<dyn Store>,
    options: EtcdServerOptions,
    env: Env,
    alarms: Alarms,
    metrics: Arc<Metrics>,
    closing: CancelToken,
}

impl fmt::Debug for EtcdServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdServer")
            .field("options", &self.inner.options)
            .finish_non_exhaustive()
    }
}

impl EtcdServer {
    /// A server in front of a store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, options: EtcdServerOptions, env: Env) -> Self {
        Self {
            inner: Arc::new(Inner {
                store,
                options,
                env,
                alarms: Alarms::default(),
                metrics: Arc::default(),
                closing: CancelToken::new(),
            }),
        }
    }

    /// Does what is to be done now and then, until it is cancelled: gives up history, where that was asked for.
    pub async fn run(&self, cancel: &CancelToken) {
        match self.inner.options.auto_compaction {
            Some(mode) => self.inner.compact_by_itself(mode, cancel).await,
            None => cancel.cancelled().await,
        }
    }

    /// Ends all streams of watches and of renewals; other calls are still answered.
    pub fn close(&self) {
        self.inner.closing.cancel();
    }
}

impl Inner {
    /// The longest message that is taken.
    fn message_limit(&self) -> usize {
        self.options.max_request_bytes.saturating_add(OVERHEAD)
    }

    /// How long an answer to a watch may be before it is split, for those who asked for that.
    fn fragment_limit(&self) -> usize {
        self.message_limit()
    }
}
