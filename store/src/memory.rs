//! The store in memory.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use orlop_core::env::{Env, TaskGroup};
use orlop_core::revision::Revision;
use orlop_core::store::{
    Commit, LeaseId, LeaseInfo, RangeRequest, RangeResult, Store, StoreError, Transaction,
    TransactionResult, Txn, WatchRequest, WatchStream,
};

use crate::mvcc::{Applied, Index, Transacted, tighten, tighten_steps, validate};
use crate::shared::Shared;

/// How many bytes of history a store keeps unless it is told otherwise.
pub(crate) const HISTORY_BYTES: usize = 64 << 20;

/// A store in memory: fast, complete, and gone with its process. For tests, simulations and clusters that need no yesterday.
///
/// It spawns two tasks in its [`Env`], which end with it: one wakes watchers, one ends leases. It needs no threads and no runtime
/// of its own, so it runs on virtual time as well as on real time.
///
/// Keys and values are copied into memory of their own, so a slice of a larger buffer does not keep that buffer alive.
///
/// ```
/// use orlop_core::env::SimEnv;
/// use orlop_core::store::{KeyRange, RangeRequest, Store, Txn};
/// use orlop_store::MemoryStore;
///
/// let sim = SimEnv::new(7);
/// let store = MemoryStore::new(sim.env());
/// sim.block_on(async move {
///     store.commit(Txn::create("/a", "1")).await?;
///     let read = store.range(RangeRequest::new(KeyRange::prefix("/"))).await?;
///     assert_eq!(read.items[0].value.as_ref(), b"1");
///     Ok::<_, orlop_core::store::StoreError>(())
/// }).unwrap();
/// ```
pub struct MemoryStore {
    shared: Arc<Shared>,
    tasks: TaskGroup,
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("revision", &self.shared.index.read().visible())
            .finish_non_exhaustive()
    }
}

impl MemoryStore {
    /// An empty store that keeps 64 MiB of history.
    #[must_use]
    pub fn new(env: Env) -> Self {
        Self::with_history(env, HISTORY_BYTES)
    }

    /// An empty store that keeps about so many bytes of history: superseded values, and what watchers can still be told of. When
    /// there is more, the oldest is compacted. The newest commit is always kept.
    #[must_use]
    pub fn with_history(env: Env, bytes: usize) -> Self {
        let tasks = TaskGroup::new(env.clone());
        let shared = Arc::new(Shared::new(Index::new(bytes), env));
        shared.start(&tasks);
        let (own, token) = (shared.clone(), tasks.token());
        tasks.spawn("store-leases", async move {
            while let Some(lease) = own.next_expired(&token).await {
                // It can only be gone already.
                let _ = revoke(&own, lease);
            }
        });
        Self { shared, tasks }
    }
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        self.tasks.token().cancel();
        self.shared.hub.close();
    }
}

/// Applies a transaction and lets everybody see it.
fn apply(shared: &Shared, index: &mut Index, txn: Txn) -> Result<Commit, StoreError> {
    match index.commit(txn)? {
        Applied::Unchanged(commit) => Ok(commit),
        Applied::Changed(_, commit) => {
            index.publish(index.newest());
            index.trim(shared.hub.seen(), &mut Vec::new());
            Ok(commit)
        }
    }
}

fn revoke(shared: &Shared, lease: LeaseId) -> Result<(), StoreError> {
    {
        let mut index = shared.index.write();
        index.leases_mut().end(lease)?;
        let txn = index.revocation(lease);
        apply(shared, &mut index, txn)?;
        index.leases_mut().ended(lease);
    }
    shared.hub.ring();
    shared.leases.notify_one();
    Ok(())
}

#[async_trait]
impl Store for MemoryStore {
    async fn range(&self, request: RangeRequest) -> Result<RangeResult, StoreError> {
        self.shared.range(&request)
    }

    async fn commit(&self, mut txn: Txn) -> Result<Commit, StoreError> {
        validate(&txn)?;
        tighten(&mut txn);
        let commit = apply(&self.shared, &mut self.shared.index.write(), txn)?;
        self.shared.hub.ring();
        Ok(commit)
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StoreError> {
        self.shared.watch(request)
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.shared.index.write().compact(revision.0)?;
        self.shared.trim();
        Ok(())
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        Ok(Revision(self.shared.index.read().visible()))
    }

    async fn grant_lease(
        &self,
        id: Option<LeaseId>,
        ttl_seconds: u64,
    ) -> Result<LeaseId, StoreError> {
        let id = {
            let mut index = self.shared.index.write();
            let id = self.shared.lease_id(&index, id, ttl_seconds)?;
            index.leases_mut().grant(id, ttl_seconds)?;
            index.leases_mut().granted(id, self.shared.env.now());
            id
        };
        self.shared.leases.notify_one();
        Ok(id)
    }

    async fn renew_lease(&self, id: LeaseId) -> Result<u64, StoreError> {
        let ttl = self
            .shared
            .index
            .write()
            .leases_mut()
            .renew(id, self.shared.env.now())?;
        self.shared.leases.notify_one();
        Ok(ttl)
    }

    async fn revoke_lease(&self, id: LeaseId) -> Result<(), StoreError> {
        revoke(&self.shared, id)
    }

    async fn lease(&self, id: LeaseId, keys: bool) -> Result<LeaseInfo, StoreError> {
        let index = self.shared.index.read();
        index.leases().info(id, self.shared.env.now(), keys)
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, StoreError> {
        let index = self.shared.index.read();
        Ok(index.leases().all().map(|(id, _)| id).collect())
    }

    async fn transact(
        &self,
        mut transaction: Transaction,
    ) -> Result<TransactionResult, StoreError> {
        transaction.validate()?;
        tighten_steps(&mut transaction);
        let result = {
            let mut index = self.shared.index.write();
            match index.transact(transaction, usize::MAX)? {
                Transacted::Unchanged(result) => return Ok(result),
                Transacted::Changed(_, result) => {
                    let newest = index.newest();
                    index.publish(newest);
                    index.trim(self.shared.hub.seen(), &mut Vec::new());
                    result
                }
            }
        };
        self.shared.hub.ring();
        Ok(result)
    }
}

#[cfg(test)]
mod tests;
