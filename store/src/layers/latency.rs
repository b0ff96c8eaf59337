//! Latency: a store that is some way off.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orlop_core::env::Env;
use orlop_core::revision::Revision;
use orlop_core::store::{
    Commit, LeaseId, LeaseInfo, RangeRequest, RangeResult, Store, StoreError, Transaction,
    TransactionResult, Txn, WatchRequest, WatchStream,
};

use super::Operation;
use super::late::Late;

/// How long something takes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Latency {
    /// No time.
    #[default]
    None,
    /// Always as long.
    Fixed(Duration),
    /// Between the two, every duration as likely.
    Uniform(Duration, Duration),
    /// This long on average: mostly less, now and then much more (up to twenty times). It is what queues on the way do.
    Exponential(Duration),
}

impl Latency {
    /// A duration, by the randomness of an environment. [`None`](Self::None) and [`Fixed`](Self::Fixed) take none of it.
    #[must_use]
    pub fn draw(&self, env: &Env) -> Duration {
        match *self {
            Self::None => Duration::ZERO,
            Self::Fixed(duration) => duration,
            Self::Uniform(least, most) => {
                least + most.saturating_sub(least).mul_f64(env.random_unit())
            }
            Self::Exponential(mean) => {
                // 1 - u is never zero, so that the logarithm is finite.
                mean.mul_f64((-(1.0 - env.random_unit()).ln()).min(20.0))
            }
        }
    }
}

/// A store behind a way: every call waits before and after, and changes reach watchers late. All waiting is the environment's, so it
/// costs nothing on virtual time.
///
/// Half of a call's latency passes before the store below is asked and half after it has answered: others see a commit before the one
/// who made it knows of it.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use orlop_core::env::SimEnv;
/// use orlop_core::store::{Store, Txn};
/// use orlop_store::MemoryStore;
/// use orlop_store::layers::{Delayed, Latency, Operation};
///
/// let sim = SimEnv::new(7);
/// let env = sim.env();
/// let waited = sim.block_on(async move {
///     let far = Delayed::new(Arc::new(MemoryStore::new(env.clone())), env.clone(), Latency::None)
///         .on(Operation::Commit, Latency::Fixed(Duration::from_millis(40)));
///     far.commit(Txn::put("/a", "1")).await?;
///     Ok::<_, orlop_core::store::StoreError>(env.now().since_start())
/// }).unwrap();
/// assert_eq!(waited, Duration::from_millis(40));
/// ```
pub struct Delayed {
    inner: Arc<dyn Store>,
    env: Env,
    calls: [Latency; Operation::COUNT],
    changes: Latency,
}

impl fmt::Debug for Delayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delayed")
            .field("calls", &self.calls)
            .field("changes", &self.changes)
            .finish_non_exhaustive()
    }
}

impl Delayed {
    /// A store whose every call takes so much longer. Changes reach watchers without delay.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, env: Env, latency: Latency) -> Self {
        Self {
            inner,
            env,
            calls: [latency; Operation::COUNT],
            changes: Latency::None,
        }
    }

    /// Another latency for one operation.
    #[must_use]
    pub fn on(mut self, operation: Operation, latency: Latency) -> Self {
        self.calls[operation.index()] = latency;
        self
    }

    /// How late changes reach watchers. They stay in order.
    #[must_use]
    pub fn changes(mut self, latency: Latency) -> Self {
        self.changes = latency;
        self
    }

    async fn call<T>(&self, operation: Operation, call: impl Future<Output = T> + Send) -> T {
        let way = self.calls[operation.index()].draw(&self.env) / 2;
        if !way.is_zero() {
            self.env.sleep(way).await;
        }
        let answer = call.await;
        if !way.is_zero() {
            self.env.sleep(way).await;
        }
        answer
    }
}

#[async_trait]
impl Store for Delayed {
    async fn range(&self, request: RangeRequest) -> Result<RangeResult, StoreError> {
        self.call(Operation::Range, self.inner.range(request)).await
    }

    async fn commit(&self, txn: Txn) -> Result<Commit, StoreError> {
        self.call(Operation::Commit, self.inner.commit(txn)).await
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StoreError> {
        let stream = self
            .call(Operation::Watch, self.inner.watch(request))
            .await?;
        if self.changes == Latency::None {
            return Ok(stream);
        }
        let changes = self.changes;
        Ok(Box::pin(Late::new(
            stream,
            self.env.clone(),
            move |env: &Env| changes.draw(env),
        )))
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.call(Operation::Compact, self.inner.compact(revision))
            .await
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.call(Operation::Revision, self.inner.revision()).await
    }

    async fn grant_lease(
        &self,
        id: Option<LeaseId>,
        ttl_seconds: u64,
    ) -> Result<LeaseId, StoreError> {
        self.call(
            Operation::GrantLease,
            self.inner.grant_lease(id, ttl_seconds),
        )
        .await
    }

    async fn renew_lease(&self, id: LeaseId) -> Result<u64, StoreError> {
        self.call(Operation::RenewLease, self.inner.renew_lease(id))
            .await
    }

    async fn revoke_lease(&self, id: LeaseId) -> Result<(), StoreError> {
        self.call(Operation::RevokeLease, self.inner.revoke_lease(id))
            .await
    }

    async fn lease(&self, id: LeaseId, keys: bool) -> Result<LeaseInfo, StoreError> {
        self.call(Operation::Lease, self.inner.lease(id, keys))
            .await
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, StoreError> {
        self.call(Operation::Leases, self.inner.leases()).await
    }

    async fn transact(&self, transaction: Transaction) -> Result<TransactionResult, StoreError> {
        self.call(Operation::Transact, self.inner.transact(transaction))
            .await
    }

    async fn healthy(&self) -> Result<(), StoreError> {
        self.call(Operation::Healthy, self.inner.healthy()).await
    }
}
