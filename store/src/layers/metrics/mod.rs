//! Metrics of a store, under Kubernetes' names where it has them.

mod series;
mod verb;
mod watch;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use orlop_core::env::Env;
use orlop_core::revision::Revision;
use orlop_core::store::{
    Commit, LeaseId, LeaseInfo, Op, RangeRequest, RangeResult, Step, StepResult, Store, StoreError,
    Transaction, TransactionResult, Txn, WatchRequest, WatchStream,
};

use self::series::PerResource;
pub use self::series::StoreMetrics;
use self::verb::{Verb, key_of_transaction, key_of_txn};
use self::watch::MeteredWatch;
use super::resource;

/// A store that counts what is asked of it: see [`StoreMetrics`].
///
/// A call costs two readings of the clock and a lookup of the key's resource; nothing is allocated once a resource and an operation are known.
///
/// ```
/// use std::sync::Arc;
/// use orlop_core::env::SimEnv;
/// use orlop_core::store::{Store, Txn};
/// use orlop_store::MemoryStore;
/// use orlop_store::layers::{Metered, StoreMetrics};
/// use prometheus_client::registry::Registry;
///
/// let mut registry = Registry::default();
/// let metrics = StoreMetrics::register(&mut registry);
/// let sim = SimEnv::new(7);
/// let env = sim.env();
/// sim.block_on(async move {
///     let store = Metered::new(Arc::new(MemoryStore::new(env.clone())), env, metrics);
///     store.commit(Txn::create("/registry/apps/deployments/default/web", "{}")).await
/// }).unwrap();
/// let mut text = String::new();
/// prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
/// assert!(text.contains(r#"etcd_requests_total{operation="create",group="apps",resource="deployments"} 1"#));
/// ```
pub struct Metered {
    inner: Arc<dyn Store>,
    env: Env,
    metrics: StoreMetrics,
}

impl fmt::Debug for Metered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metered").finish_non_exhaustive()
    }
}

impl Metered {
    /// A store that counts what is asked of another one.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, env: Env, metrics: StoreMetrics) -> Self {
        Self {
            inner,
            env,
            metrics,
        }
    }

    async fn call<T>(
        &self,
        of: &PerResource,
        verb: Verb,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let begun = self.env.now();
        let answer = call.await;
        let took = self.env.now().since(begun);
        self.metrics.called(of, verb, took, &answer);
        answer
    }

    /// A call that concerns no resource.
    async fn plain<T>(
        &self,
        verb: Verb,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        self.call(&self.metrics.other(), verb, call).await
    }

    /// The sizes of the values that a branch writes, without those of nested transactions.
    fn sizes(&self, steps: &[Step]) -> Vec<(Arc<PerResource>, usize)> {
        let puts = steps.iter().filter_map(|step| match step {
            Step::Put {
                key,
                value: Some(value),
                ..
            } => Some((self.metrics.of_key(key), value.len())),
            _ => None,
        });
        puts.collect()
    }

    fn read_by(&self, steps: &[StepResult]) {
        for step in steps {
            match step {
                StepResult::Read(found) => {
                    if let Some(first) = found.items.first() {
                        self.metrics.read(
                            &self.metrics.of_key(&first.key),
                            found,
                            found.items.len() > 1,
                        );
                    }
                }
                StepResult::Nested(inner) => self.read_by(&inner.steps),
                StepResult::Put { .. } | StepResult::Delete { .. } => {}
            }
        }
    }
}

#[async_trait]
impl Store for Metered {
    async fn range(&self, request: RangeRequest) -> Result<RangeResult, StoreError> {
        let of = self.metrics.of_key(resource::first_key(&request.keys));
        let verb = Verb::of_range(&request);
        let found = self.call(&of, verb, self.inner.range(request)).await?;
        self.metrics.read(&of, &found, verb == Verb::List);
        Ok(found)
    }

    async fn commit(&self, txn: Txn) -> Result<Commit, StoreError> {
        let of = self.metrics.of_key(key_of_txn(&txn));
        let verb = Verb::of_txn(&txn);
        let mut sizes = txn.ops.iter().filter_map(|op| match op {
            Op::Put { value, .. } => Some(value.len()),
            Op::Delete(_) => None,
        });
        // Nearly all commits write one value, for which nothing is allocated.
        let (first, more) = (sizes.next(), sizes.collect::<Vec<_>>());
        let commit = self.call(&of, verb, self.inner.commit(txn)).await?;
        match commit {
            Commit::Applied { .. } => {
                for size in first.into_iter().chain(more) {
                    of.written.observe(size as f64);
                }
            }
            Commit::Refused { .. } => {
                of.refusals.inc();
            }
        }
        Ok(commit)
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StoreError> {
        let of = self.metrics.of_key(resource::first_key(&request.keys));
        let inner = self
            .call(&of, Verb::Watch, self.inner.watch(request))
            .await?;
        Ok(Box::pin(MeteredWatch::new(inner, self.metrics.clone(), of)))
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.plain(Verb::Compact, self.inner.compact(revision))
            .await
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.plain(Verb::Revision, self.inner.revision()).await
    }

    async fn grant_lease(
        &self,
        id: Option<LeaseId>,
        ttl_seconds: u64,
    ) -> Result<LeaseId, StoreError> {
        self.plain(Verb::GrantLease, self.inner.grant_lease(id, ttl_seconds))
            .await
    }

    async fn renew_lease(&self, id: LeaseId) -> Result<u64, StoreError> {
        self.plain(Verb::RenewLease, self.inner.renew_lease(id))
            .await
    }

    async fn revoke_lease(&self, id: LeaseId) -> Result<(), StoreError> {
        self.plain(Verb::RevokeLease, self.inner.revoke_lease(id))
            .await
    }

    async fn lease(&self, id: LeaseId, keys: bool) -> Result<LeaseInfo, StoreError> {
        self.plain(Verb::Lease, self.inner.lease(id, keys)).await
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, StoreError> {
        self.plain(Verb::Leases, self.inner.leases()).await
    }

    async fn transact(&self, transaction: Transaction) -> Result<TransactionResult, StoreError> {
        let of = self
            .metrics
            .of_key(key_of_transaction(&transaction).unwrap_or_default());
        let (then, otherwise) = (
            self.sizes(&transaction.success),
            self.sizes(&transaction.failure),
        );
        let result = self
            .call(&of, Verb::Txn, self.inner.transact(transaction))
            .await?;
        self.read_by(&result.steps);
        let written = if result.succeeded {
            then
        } else {
            of.refusals.inc();
            otherwise
        };
        for (of, size) in written {
            of.written.observe(size as f64);
        }
        Ok(result)
    }

    async fn healthy(&self) -> Result<(), StoreError> {
        // Asked by whoever looks after the server, again and again: it would drown what is worth counting.
        self.inner.healthy().await
    }
}
