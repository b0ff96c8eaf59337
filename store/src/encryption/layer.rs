//! The layer.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use orlop_core::revision::Revision;
use orlop_core::store::{
    Change, Commit, Compare, KeyRange, KeyValue, LeaseId, LeaseInfo, Op, RangeRequest, RangeResult,
    Store, StoreError, Transaction, TransactionResult, Txn, WatchItem, WatchRequest, WatchStream,
};
use parking_lot::RwLock;

use super::config::EncryptionConfiguration;
use super::transform::Transformers;

/// How often a write whose conditions look at values is tried again when somebody else is faster.
pub(super) const TRIES: usize = 100;

/// A store whose values are encrypted in the store below it.
///
/// Reads give the values themselves. A value that cannot be decrypted, because its key is not configured or because it was changed, fails the
/// read, or ends the watch, with [`StoreError::Corrupt`], which names the key. The store below sees ciphertexts alone, so a condition on a
/// value is checked here and guarded by revisions there.
///
/// See the [module](super) for formats and an example.
pub struct EncryptedStore {
    pub(super) inner: Arc<dyn Store>,
    transformers: Arc<RwLock<Arc<Transformers>>>,
}

impl fmt::Debug for EncryptedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptedStore").finish_non_exhaustive()
    }
}

impl EncryptedStore {
    /// Encrypts the values of another store.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, config: &EncryptionConfiguration) -> Self {
        Self {
            inner,
            transformers: Arc::new(RwLock::new(Arc::new(Transformers::new(config)))),
        }
    }

    /// Takes another configuration, for all calls to come and for the watches that are open.
    pub fn reload(&self, config: &EncryptionConfiguration) {
        *self.transformers.write() = Arc::new(Transformers::new(config));
    }

    /// How many values each key has encrypted since the configuration was read, by `provider:name`. Other processes count for themselves.
    #[must_use]
    pub fn key_writes(&self) -> Vec<(String, u64)> {
        self.transformers().writes()
    }

    pub(super) fn transformers(&self) -> Arc<Transformers> {
        self.transformers.read().clone()
    }

    /// What stands at a key, decrypted.
    async fn current(
        &self,
        transformers: &Transformers,
        key: &bytes::Bytes,
    ) -> Result<Option<KeyValue>, StoreError> {
        let request = RangeRequest::new(KeyRange::Key(key.clone()));
        let mut found = self.inner.range(request).await?.items.pop();
        if let Some(kv) = &mut found {
            transformers.open(kv)?;
        }
        Ok(found)
    }

    /// Asks for a commit, and decrypts the answer.
    async fn ask(&self, transformers: &Transformers, txn: Txn) -> Result<Commit, StoreError> {
        let mut commit = self.inner.commit(txn).await?;
        if let Commit::Refused { current, .. } = &mut commit {
            for kv in current.iter_mut().flatten() {
                transformers.open(kv)?;
            }
        }
        Ok(commit)
    }

    /// A commit with conditions on values: they are checked on what is there now, and the commit is made if that is still there then.
    async fn commit_by_value(
        &self,
        transformers: &Transformers,
        txn: Txn,
    ) -> Result<Commit, StoreError> {
        for _ in 0..TRIES {
            let mut guarded = txn.clone();
            for compare in &mut guarded.compare {
                if !matches!(compare, Compare::Value(..)) {
                    continue;
                }
                let key = compare.key().clone();
                let current = self.current(transformers, &key).await?;
                *compare = match current {
                    Some(kv) if compare.holds(Some(&kv)) => {
                        Compare::ModRevision(key, kv.mod_revision)
                    }
                    // It does not hold, and neither does this one, ever.
                    _ => Compare::Version(key, u64::MAX),
                };
            }
            let commit = self.ask(transformers, guarded).await?;
            if let Commit::Refused { current, .. } = &commit {
                let mut conditions = txn.compare.iter().zip(current);
                if conditions.all(|(compare, kv)| compare.holds(kv.as_ref())) {
                    // Somebody wrote between the read and the commit, and now it should be made.
                    continue;
                }
            }
            return Ok(commit);
        }
        Err(contended())
    }
}

pub(super) fn contended() -> StoreError {
    StoreError::Unavailable(
        "others write the keys of a condition on values faster than it can be checked".to_owned(),
    )
}

/// Decrypts what a watch delivers.
fn decrypt(transformers: &Transformers, item: WatchItem) -> Result<WatchItem, StoreError> {
    let WatchItem::Changes(changes) = item else {
        return Ok(item);
    };
    let mut fresh = Vec::with_capacity(changes.len());
    let mut differ = false;
    for change in changes.iter() {
        let mut change = change.clone();
        let values: [Option<&mut KeyValue>; 2] = match &mut change {
            Change::Put { kv, prev } => [Some(kv), prev.as_mut()],
            Change::Delete { prev, .. } => [prev.as_mut(), None],
        };
        for kv in values.into_iter().flatten() {
            differ |= transformers.open(kv)?;
        }
        fresh.push(change);
    }
    Ok(WatchItem::Changes(if differ {
        fresh.into()
    } else {
        changes
    }))
}

#[async_trait]
impl Store for EncryptedStore {
    async fn range(&self, request: RangeRequest) -> Result<RangeResult, StoreError> {
        let mut found = self.inner.range(request).await?;
        let transformers = self.transformers();
        for kv in &mut found.items {
            transformers.open(kv)?;
        }
        Ok(found)
    }

    async fn commit(&self, mut txn: Txn) -> Result<Commit, StoreError> {
        let transformers = self.transformers();
        for op in &mut txn.ops {
            if let Op::Put { key, value, .. } = op {
                *value = transformers.seal(key, std::mem::take(value))?;
            }
        }
        let by_value = |compare: &Compare| matches!(compare, Compare::Value(..));
        if !transformers.is_empty() && txn.compare.iter().any(by_value) {
            return self.commit_by_value(&transformers, txn).await;
        }
        self.ask(&transformers, txn).await
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StoreError> {
        let stream = self.inner.watch(request).await?;
        let transformers = self.transformers.clone();
        let decrypted = stream.scan(false, move |failed, item| {
            let item = (!*failed).then(|| {
                let current = transformers.read().clone();
                item.and_then(|item| decrypt(&current, item))
            });
            *failed |= matches!(item, Some(Err(_)));
            futures::future::ready(item)
        });
        Ok(Box::pin(decrypted))
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.inner.compact(revision).await
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.inner.revision().await
    }

    async fn grant_lease(
        &self,
        id: Option<LeaseId>,
        ttl_seconds: u64,
    ) -> Result<LeaseId, StoreError> {
        self.inner.grant_lease(id, ttl_seconds).await
    }

    async fn renew_lease(&self, id: LeaseId) -> Result<u64, StoreError> {
        self.inner.renew_lease(id).await
    }

    async fn revoke_lease(&self, id: LeaseId) -> Result<(), StoreError> {
        self.inner.revoke_lease(id).await
    }

    async fn lease(&self, id: LeaseId, keys: bool) -> Result<LeaseInfo, StoreError> {
        self.inner.lease(id, keys).await
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, StoreError> {
        self.inner.leases().await
    }

    async fn transact(&self, transaction: Transaction) -> Result<TransactionResult, StoreError> {
        super::transact::transact(&*self.inner, &self.transformers(), transaction).await
    }

    async fn healthy(&self) -> Result<(), StoreError> {
        self.inner.healthy().await
    }
}
