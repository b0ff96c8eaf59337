//! A real etcd as a store.

mod catch_up;
mod cluster;
mod compaction;
mod convert;
mod feed;
mod history;
mod lease;
mod options;
mod range;
mod refusal;
mod snapshot;
mod transaction;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orlop_core::env::{Env, TaskGroup};
use orlop_core::revision::Revision;
use orlop_core::store::{
    Commit, LeaseId, LeaseInfo, RangeRequest, RangeResult, Store, StoreError, Transaction,
    TransactionResult, Txn, WatchRequest, WatchStream,
};

use self::cluster::{Cluster, Kind};
use self::feed::{End, Feed};
pub use self::options::{EtcdOptions, EtcdTls};
use self::refusal::Refusal;
use crate::etcd::proto::kv;
use crate::etcd::proto::maintenance::{StatusRequest, StatusResponse};

const RANGE: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";
const TXN: &str = "/etcdserverpb.KV/Txn";
const COMPACT: &str = "/etcdserverpb.KV/Compact";

/// How long etcd may take to answer a question for its health.
const HEALTH_LIMIT: Duration = Duration::from_secs(2);

/// A cluster of etcd, 3.4 or later, as a store: the way past one machine.
///
/// What is read is read through the leader. A write is sent once: when its answer is lost, the caller gets
/// [`StoreError::OutcomeUnknown`]. A request that certainly was not looked at, and every read, is tried at the other members while there is time.
///
/// Watches are served from the memory of this process, which one watch of etcd feeds: it follows the whole key space (or the
/// configured prefix), moves to another member when its own fails, and goes on where it was, so that watchers notice nothing. One that is behind the history
/// kept here is served by etcd until it has caught up.
///
/// A transaction may have as many steps and conditions as etcd's `--max-txn-ops` allows (128), and a request as many bytes as its
/// `--max-request-bytes` (1.5 MiB); larger ones are refused with [`StoreError::InvalidRequest`]. A lease's time to live is raised by etcd where it is below about one and a half
/// election timeouts.
///
/// It needs a tokio runtime with time and I/O, in which its [`Env`] spawns: the transport is tonic's.
///
/// ```no_run
/// use orlop_core::env::Env;
/// use orlop_store::{EtcdOptions, EtcdStore};
///
/// # async fn run() -> Result<(), orlop_core::store::StoreError> {
/// let options = EtcdOptions::new(["http://127.0.0.1:2379"]);
/// let store = EtcdStore::connect(options, Env::tokio()).await?;
/// # Ok(())
/// # }
/// ```
pub struct EtcdStore {
    feed: Arc<Feed>,
    tasks: Owned,
}

impl fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdStore")
            .field("cluster", self.feed.cluster())
            .field("watched", &self.feed.history.read().newest())
            .finish_non_exhaustive()
    }
}

/// The tasks of a store, which end with it. Connections hold the group as well, and are held by its tasks, so that the group by itself
/// would never be dropped.
struct Owned(Arc<TaskGroup>);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.token().cancel();
    }
}

impl EtcdStore {
    /// Connects to a cluster: logs in if there is a user, reads the revision, and begins to watch.
    ///
    /// # Errors
    /// [`StoreError::InvalidRequest`] for endpoints, certificates or a login that are no good, and for an etcd too old for a
    /// [prefix](EtcdOptions::prefix); [`StoreError::Unavailable`] when no member answers in time.
    pub async fn connect(options: EtcdOptions, env: Env) -> Result<Self, StoreError> {
        let owned = Owned(Arc::new(TaskGroup::new(env)));
        let tasks = &owned.0;
        let cluster = Arc::new(Cluster::new(&options, tasks)?);
        cluster
            .log_in(0, options.request_timeout)
            .await
            .map_err(Refusal::into_error)?;
        if !options.prefix.is_empty() {
            can_tell_progress(&cluster).await?;
        }
        let request = kv::RangeRequest {
            key: feed::probe(&options.prefix),
            count_only: true,
            ..kv::RangeRequest::default()
        };
        let answer: kv::RangeResponse = cluster
            .call(RANGE, Kind::Read, request)
            .await
            .map_err(Refusal::into_error)?;
        let revision = answer.header.map_or(1, |h| convert::count(h.revision));
        let feed = Arc::new(Feed::new(
            cluster,
            &options.prefix,
            revision,
            options.history_bytes,
        ));
        let first = first_watch(&feed, revision).await?;
        let (hub, history, token) = (feed.hub.clone(), feed.history.clone(), tasks.token());
        tasks.spawn("etcd-hub", async move { hub.run(&history, token).await });
        let (own, token) = (feed.clone(), tasks.token());
        tasks.spawn("etcd-watch", async move { own.run(first, token).await });
        // Compaction concerns all keys, which is not for one who may see but some.
        let interval = options
            .compaction_interval
            .filter(|_| options.prefix.is_empty());
        if let Some(interval) = interval {
            let own = feed.clone();
            tasks.spawn_until_cancelled("etcd-compaction", async move {
                compaction::run(&own, interval).await;
            });
        }
        Ok(Self { feed, tasks: owned })
    }

    /// Ends all watches and connections. Later calls fail.
    pub async fn close(&self) {
        self.feed.hub.close();
        self.tasks.0.shutdown().await;
    }
}

impl Drop for EtcdStore {
    fn drop(&mut self) {
        self.feed.hub.close();
    }
}

/// Opens the watch that feeds all others, and makes sure that etcd agrees to it.
async fn first_watch(feed: &Feed, revision: u64) -> Result<feed::Opened, StoreError> {
    let cluster = feed.cluster();
    let mut member = cluster.current();
    let deadline = cluster.env().now() + cluster.timeout();
    loop {
        let login = cluster.login();
        let ended = match feed::open(cluster, member, feed.keys(), revision + 1).await {
            // The first message says that the watch was created, or why not.
            Ok(mut opened) => match cluster
                .env()
                .timeout(cluster.timeout(), opened.next())
                .await
            {
                Ok(Ok(response)) if response.created => return Ok(opened),
                Ok(Ok(_)) => End::Broken("the watch began with something else".to_owned()),
                Ok(Err(end)) => end,
                Err(timed_out) => End::Broken(timed_out.to_string()),
            },
            Err(status) => feed::end(&status, login),
        };
        match ended {
            End::Refused(StoreError::InvalidRequest(why)) if why.contains("permission denied") => {
                return Err(StoreError::InvalidRequest(format!(
                    "etcd does not let this user watch all keys of the store; a prefix may be allowed: {why}"
                )));
            }
            End::Refused(error) => return Err(error),
            End::LogIn(login) => cluster
                .log_in(login, cluster.timeout())
                .await
                .map_err(Refusal::into_error)?,
            End::Compacted(_) | End::Broken(_) => member = cluster.next(member),
        }
        if cluster.env().now() >= deadline {
            return Err(StoreError::Unavailable(format!(
                "no member of etcd opened a watch: {ended:?}"
            )));
        }
        cluster.env().sleep(Duration::from_millis(50)).await;
    }
}

/// Whether etcd's answer to how far a watch has come can be trusted: before 3.4.25 and 3.5.8 it could overtake events.
fn tells_progress(version: &str) -> bool {
    let numbers: Vec<u64> = version
        .split(['.', '-', '+'])
        .map_while(|part| part.parse().ok())
        .take(3)
        .collect();
    match numbers.as_slice() {
        [3, 4, patch] => *patch >= 25,
        [3, 5, patch] => *patch >= 8,
        [major, minor, ..] => (*major, *minor) >= (3, 6),
        _ => false,
    }
}

async fn can_tell_progress(cluster: &Cluster) -> Result<(), StoreError> {
    let status: StatusResponse = cluster
        .call(
            "/etcdserverpb.Maintenance/Status",
            Kind::Read,
            StatusRequest {},
        )
        .await
        .map_err(Refusal::into_error)?;
    if tells_progress(&status.version) {
        return Ok(());
    }
    Err(StoreError::InvalidRequest(format!(
        "etcd {} does not tell reliably how far a watch of a prefix has come, as 3.4.25 and 3.5.8 do; let the user read all keys instead, and set no prefix",
        status.version
    )))
}

#[async_trait]
impl Store for EtcdStore {
    async fn range(&self, request: RangeRequest) -> Result<RangeResult, StoreError> {
        range::range(&self.feed, &request).await
    }

    async fn commit(&self, txn: Txn) -> Result<Commit, StoreError> {
        transaction::commit(&self.feed, txn).await
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StoreError> {
        self.feed.watch(request).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        compaction::compact(&self.feed, revision).await
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.feed.revision(self.feed.cluster().timeout()).await
    }

    async fn grant_lease(
        &self,
        id: Option<LeaseId>,
        ttl_seconds: u64,
    ) -> Result<LeaseId, StoreError> {
        lease::grant(&self.feed, id, ttl_seconds).await
    }

    async fn renew_lease(&self, id: LeaseId) -> Result<u64, StoreError> {
        lease::renew(&self.feed, id).await
    }

    async fn revoke_lease(&self, id: LeaseId) -> Result<(), StoreError> {
        lease::revoke(&self.feed, id).await
    }

    async fn lease(&self, id: LeaseId, keys: bool) -> Result<LeaseInfo, StoreError> {
        lease::lease(&self.feed, id, keys).await
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, StoreError> {
        lease::leases(&self.feed).await
    }

    async fn transact(&self, transaction: Transaction) -> Result<TransactionResult, StoreError> {
        transaction::transact(&self.feed, transaction).await
    }

    async fn healthy(&self) -> Result<(), StoreError> {
        let limit = HEALTH_LIMIT.min(self.feed.cluster().timeout());
        self.feed.revision(limit).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_tell_progress() {
        for (version, tells) in [
            ("3.4.23", false),
            ("3.4.25", true),
            ("3.5.7", false),
            ("3.5.8", true),
            ("3.6.0", true),
            ("3.6.0-rc.1", true),
            ("4.0.0", true),
            ("3.3.27", false),
            ("not a version", false),
        ] {
            assert_eq!(tells_progress(version), tells, "{version}");
        }
    }
}
