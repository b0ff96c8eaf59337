//! The [`Store`]: an MVCC key-value log of bytes, the first of the five joints.
//!
//! Everything a control plane knows is in one store, and only the API server holds it. A store keeps keys in order, gives every
//! commit the next [`Revision`], remembers past revisions until it is told to compact them, and tells watchers of every change in
//! order and without a gap. Encryption, metrics and fault injection are layers: stores over a store.
//!
//! An implementation proves itself with the conformance suite, [`conformance::store`](crate::conformance::store()).

mod over_commit;
mod transaction;

use std::fmt;
use std::ops::Bound;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;

use crate::revision::Revision;

pub use self::transaction::{
    Condition, Operand, PutLease, Relation, Step, StepResult, Transaction, TransactionResult,
};

/// A set of keys that lie beside each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyRange {
    /// One key.
    Key(Bytes),
    /// All keys that start with a prefix. An empty prefix is the whole store.
    Prefix(Bytes),
    /// From the first key, included, to the second, excluded.
    Span(Bytes, Bytes),
    /// From a key, included, to the end of the store.
    From(Bytes),
}

impl KeyRange {
    /// One key.
    #[must_use]
    pub fn key(key: impl Into<Bytes>) -> Self {
        Self::Key(key.into())
    }

    /// All keys that start with a prefix.
    #[must_use]
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        Self::Prefix(prefix.into())
    }

    /// Whether a key is in the range.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::Key(own) => own.as_ref() == key,
            Self::Prefix(prefix) => key.starts_with(prefix),
            Self::Span(from, to) => from.as_ref() <= key && key < to.as_ref(),
            Self::From(from) => from.as_ref() <= key,
        }
    }

    /// The range as the bounds of an ordered map.
    #[must_use]
    pub fn bounds(&self) -> (Bound<Bytes>, Bound<Bytes>) {
        match self {
            Self::Key(key) => (Bound::Included(key.clone()), Bound::Included(key.clone())),
            Self::Prefix(prefix) => (
                Bound::Included(prefix.clone()),
                prefix_end(prefix).map_or(Bound::Unbounded, Bound::Excluded),
            ),
            Self::Span(from, to) => (Bound::Included(from.clone()), Bound::Excluded(to.clone())),
            Self::From(from) => (Bound::Included(from.clone()), Bound::Unbounded),
        }
    }
}

/// The first key after all that start with `prefix`; `None` where there is none.
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|&b| b != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end.into())
}

/// A key with its value and its history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// The commit that made the key (again, if it had been deleted).
    pub create_revision: Revision,
    /// The commit that wrote this value.
    pub mod_revision: Revision,
    /// How often the key was written since it was made; the first write makes it 1.
    pub version: u64,
    /// The lease it hangs on, if any.
    pub lease: Option<LeaseId>,
}

/// What to read.
#[derive(Clone, Debug)]
pub struct RangeRequest {
    /// The keys.
    pub keys: KeyRange,
    /// The revision to read at; `None` (or [`Revision::ZERO`]) for the newest, which is then read consistently (never an older state than that of a
    /// commit that was acknowledged before the call).
    pub revision: Option<Revision>,
    /// At most this many keys; zero for all.
    pub limit: usize,
    /// Only keys after this one (excluded): how paging goes on.
    pub after: Option<Bytes>,
    /// Count only, return no keys.
    pub count_only: bool,
}

impl RangeRequest {
    /// Everything in a range, now.
    #[must_use]
    pub fn new(keys: KeyRange) -> Self {
        Self {
            keys,
            revision: None,
            limit: 0,
            after: None,
            count_only: false,
        }
    }

    /// At a revision of the past.
    #[must_use]
    pub fn at(mut self, revision: Revision) -> Self {
        self.revision = Some(revision);
        self
    }

    /// At most `limit` keys, after the key `after`.
    #[must_use]
    pub fn page(mut self, limit: usize, after: Option<Bytes>) -> Self {
        self.limit = limit;
        self.after = after;
        self
    }

    /// How many keys are to be returned at most: none for a count, all of them ([`usize::MAX`]) when no limit is set.
    #[must_use]
    pub fn wanted(&self) -> usize {
        match (self.count_only, self.limit) {
            (true, _) => 0,
            (false, 0) => usize::MAX,
            (false, limit) => limit,
        }
    }
}

/// What was read.
#[derive(Clone, Debug)]
pub struct RangeResult {
    /// The store's revision when it was read (not that of the request).
    pub revision: Revision,
    /// The keys, in order.
    pub items: Vec<KeyValue>,
    /// How many keys of the range come after the last one returned.
    pub remaining: u64,
}

/// A condition of a transaction on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The key is there and was last written at this revision; [`Revision::ZERO`] means that it is not there.
    ModRevision(Bytes, Revision),
    /// The key was made at this revision; [`Revision::ZERO`] means that it is not there.
    CreateRevision(Bytes, Revision),
    /// The key has this version; zero means that it is not there.
    Version(Bytes, u64),
    /// The key has this value.
    Value(Bytes, Bytes),
}

impl Compare {
    /// The key that is looked at.
    #[must_use]
    pub fn key(&self) -> &Bytes {
        match self {
            Self::ModRevision(key, _)
            | Self::CreateRevision(key, _)
            | Self::Version(key, _)
            | Self::Value(key, _) => key,
        }
    }

    /// Whether the condition holds for what is there.
    #[must_use]
    pub fn holds(&self, current: Option<&KeyValue>) -> bool {
        match self {
            Self::ModRevision(_, revision) => {
                current.map_or(Revision::ZERO, |kv| kv.mod_revision) == *revision
            }
            Self::CreateRevision(_, revision) => {
                current.map_or(Revision::ZERO, |kv| kv.create_revision) == *revision
            }
            Self::Version(_, version) => current.map_or(0, |kv| kv.version) == *version,
            Self::Value(_, value) => current.is_some_and(|kv| kv.value == *value),
        }
    }
}

/// A write of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes a key.
    Put {
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
        /// The lease it is to hang on.
        lease: Option<LeaseId>,
    },
    /// Deletes every key of a range that is there.
    Delete(KeyRange),
}

/// Conditions and writes that take effect together, at one revision, or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// All must hold.
    pub compare: Vec<Compare>,
    /// The writes. No key may be written twice.
    pub ops: Vec<Op>,
}

impl Txn {
    /// Writes a key that must not be there yet.
    #[must_use]
    pub fn create(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self::update(key, value, Revision::ZERO)
    }

    /// Writes a key that must stand at a revision.
    #[must_use]
    pub fn update(key: impl Into<Bytes>, value: impl Into<Bytes>, expected: Revision) -> Self {
        let key = key.into();
        Self {
            compare: vec![Compare::ModRevision(key.clone(), expected)],
            ops: vec![Op::Put {
                key,
                value: value.into(),
                lease: None,
            }],
        }
    }

    /// Writes a key, whatever is there.
    #[must_use]
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self {
            compare: Vec::new(),
            ops: vec![Op::Put {
                key: key.into(),
                value: value.into(),
                lease: None,
            }],
        }
    }

    /// Deletes a key that must stand at a revision.
    #[must_use]
    pub fn delete(key: impl Into<Bytes>, expected: Revision) -> Self {
        let key = key.into();
        Self {
            compare: vec![Compare::ModRevision(key.clone(), expected)],
            ops: vec![Op::Delete(KeyRange::Key(key))],
        }
    }
}

/// What became of a transaction.
#[derive(Clone, Debug)]
pub enum Commit {
    /// It took effect at this revision, and is as durable as the store promises. A transaction that changed nothing (no ops, or
    /// deletes that met no key) takes no revision of its own and carries the current one.
    Applied {
        /// The revision of all its writes.
        revision: Revision,
        /// How many keys its deletes met.
        deleted: u64,
    },
    /// A condition did not hold. Nothing was written.
    Refused {
        /// The store's revision at that moment.
        revision: Revision,
        /// What stands at the keys of the conditions, in their order.
        current: Vec<Option<KeyValue>>,
    },
}

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The key was written.
    Put {
        /// What is there now.
        kv: KeyValue,
        /// What was there before.
        prev: Option<KeyValue>,
    },
    /// The key was deleted.
    Delete {
        /// The key.
        key: Bytes,
        /// The commit that deleted it.
        revision: Revision,
        /// What was there before; `None` only where history no longer has it.
        prev: Option<KeyValue>,
    },
}

impl Change {
    /// The key that changed.
    #[must_use]
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put { kv, .. } => &kv.key,
            Self::Delete { key, .. } => key,
        }
    }

    /// The commit that changed it.
    #[must_use]
    pub fn revision(&self) -> Revision {
        match self {
            Self::Put { kv, .. } => kv.mod_revision,
            Self::Delete { revision, .. } => *revision,
        }
    }
}

/// What a watch yields.
#[derive(Clone, Debug)]
pub enum WatchItem {
    /// Changes of one or more whole commits, in order of their revisions. A commit is never split over two items.
    Changes(Arc<[Change]>),
    /// All changes up to this revision have been delivered, though none may have been of interest.
    Progress(Revision),
}

/// A stream of changes. It ends after an error: [`StoreError::Compacted`] when the watcher asked for what history no longer has,
/// [`StoreError::Lagged`] when it read too slowly to be kept.
pub type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchItem, StoreError>> + Send>>;

/// A watch to open.
#[derive(Clone, Debug)]
pub struct WatchRequest {
    /// The keys of interest.
    pub keys: KeyRange,
    /// Changes of this revision and later ones are delivered; [`Revision::ZERO`] means "what comes after now".
    pub from: Revision,
    /// Whether to deliver a [`WatchItem::Progress`] when commits that touch none of the keys have passed (at once when the watch has
    /// caught up with history, then for every batch of such commits).
    pub progress: bool,
}

/// A lease: keys that hang on it go when it is not renewed in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// What a store knows of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseInfo {
    /// The time to live in seconds that it was granted.
    pub granted_seconds: u64,
    /// How many seconds it lives on if it is not renewed, rounded down.
    pub remaining_seconds: u64,
    /// The keys that hang on it, in order; empty unless they were asked for.
    pub keys: Vec<Bytes>,
}

/// Why a store refused.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The revision asked for is no longer in history.
    #[error("revision {requested} has been compacted; the oldest is {oldest}")]
    Compacted {
        /// What was asked for.
        requested: Revision,
        /// The oldest revision that can still be read.
        oldest: Revision,
    },
    /// The revision asked for has not happened yet.
    #[error("revision {requested} is in the future; the newest is {newest}")]
    FutureRevision {
        /// What was asked for.
        requested: Revision,
        /// The newest revision.
        newest: Revision,
    },
    /// The watcher read too slowly; it must start again from a list.
    #[error("the watcher fell behind and was dropped at revision {at}")]
    Lagged {
        /// The last revision that was delivered in full.
        at: Revision,
    },
    /// The lease is not there, or has run out.
    #[error("lease {0} not found")]
    LeaseNotFound(LeaseId),
    /// The lease is there already.
    #[error("lease {0} already exists")]
    LeaseExists(LeaseId),
    /// A step keeps the value or the lease of a key that is not there.
    #[error("key {:?} not found", .0.escape_ascii().to_string())]
    KeyNotFound(Bytes),
    /// The request breaks a rule of the contract, such as one key written twice in a transaction.
    #[error("invalid request: {0}")]
    InvalidRequest(String),
    /// No room for more: writes are refused, reads go on.
    #[error("no space left: {0}")]
    NoSpace(String),
    /// What is stored was damaged.
    #[error("corrupt: {0}")]
    Corrupt(String),
    /// The store cannot be reached, or has been closed.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// The commit may or may not have taken effect: the answer was lost.
    #[error("outcome unknown: {0}")]
    OutcomeUnknown(String),
}

/// An MVCC key-value log of bytes.
///
/// # Contract
///
/// * Revisions start at 1 for an empty store; the first commit takes 2 (as in etcd), every further one the next.
/// * [`commit`](Store::commit) is atomic and linearizable. When it returns [`Commit::Applied`], a [`range`](Store::range) that starts
///   later sees it, and a durable store has it on disk.
/// * [`watch`](Store::watch) delivers every change of its keys from the given revision on, in order, once, without a gap; or ends in an
///   error. It never makes a writer wait.
/// * A delete of a key that is not there changes nothing and takes no revision.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Reads keys in order, now or at a revision of the past.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] or [`StoreError::FutureRevision`] for a revision that cannot be read.
    async fn range(&self, request: RangeRequest) -> Result<RangeResult, StoreError>;

    /// Checks conditions and writes, as one step.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`], [`StoreError::Unavailable`]: nothing was written. [`StoreError::OutcomeUnknown`]: read to find out.
    async fn commit(&self, txn: Txn) -> Result<Commit, StoreError>;

    /// Follows the changes of keys.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] where history no longer reaches back to `from`.
    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StoreError>;

    /// Forgets history before a revision: older states can no longer be read, nor watched from.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when it was done already, [`StoreError::FutureRevision`] when it lies ahead.
    async fn compact(&self, revision: Revision) -> Result<(), StoreError>;

    /// The newest revision. Consistent: not older than any commit that was acknowledged before the call.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn revision(&self) -> Result<Revision, StoreError> {
        Ok(self
            .range(RangeRequest {
                count_only: true,
                ..RangeRequest::new(KeyRange::key("\0"))
            })
            .await?
            .revision)
    }

    /// Makes a lease that runs out after `ttl_seconds` without renewal. With `None` the store chooses the id.
    ///
    /// # Errors
    /// [`StoreError::LeaseExists`]; [`StoreError::InvalidRequest`] from a store without leases, which is the default.
    async fn grant_lease(
        &self,
        id: Option<LeaseId>,
        ttl_seconds: u64,
    ) -> Result<LeaseId, StoreError> {
        let _ = (id, ttl_seconds);
        Err(StoreError::InvalidRequest(
            "this store has no leases".to_owned(),
        ))
    }

    /// Renews a lease and returns its time to live in seconds.
    ///
    /// # Errors
    /// [`StoreError::LeaseNotFound`].
    async fn renew_lease(&self, id: LeaseId) -> Result<u64, StoreError> {
        Err(StoreError::LeaseNotFound(id))
    }

    /// Ends a lease and deletes the keys that hang on it, at one revision.
    ///
    /// # Errors
    /// [`StoreError::LeaseNotFound`].
    async fn revoke_lease(&self, id: LeaseId) -> Result<(), StoreError> {
        Err(StoreError::LeaseNotFound(id))
    }

    /// What there is to know of a lease, with its keys if they are asked for.
    ///
    /// # Errors
    /// [`StoreError::LeaseNotFound`].
    async fn lease(&self, id: LeaseId, keys: bool) -> Result<LeaseInfo, StoreError> {
        let _ = keys;
        Err(StoreError::LeaseNotFound(id))
    }

    /// All leases, in the order of their numbers.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn leases(&self) -> Result<Vec<LeaseId>, StoreError> {
        Ok(Vec::new())
    }

    /// Does a transaction with branches and reads, as one step. It is for those who speak etcd's API to a store; the API server needs
    /// [`commit`](Store::commit) alone.
    ///
    /// The default does it over [`range`](Store::range) and [`commit`](Store::commit): it reads at one revision, and commits on the
    /// condition that the keys it looked at still stand as they were. What it does is exact, but it cannot do everything. The branches
    /// taken may look at ranges of keys only if they write nothing; if they write, then conditions, reads of the transaction's own state
    /// and deletions that tell what was there must be of single keys ([`KeyRange::Key`]), and at most one deletion may be of a range.
    /// Other transactions are refused with [`StoreError::InvalidRequest`], and one whose keys others write again and again ends with
    /// [`StoreError::Unavailable`] after some tries; nothing is written then. A store that can should do better.
    ///
    /// # Errors
    /// As [`commit`](Store::commit) and [`range`](Store::range); [`StoreError::KeyNotFound`]; [`StoreError::InvalidRequest`].
    async fn transact(&self, transaction: Transaction) -> Result<TransactionResult, StoreError> {
        over_commit::transact(self, transaction).await
    }

    /// Whether the store can serve, for a readiness check.
    ///
    /// # Errors
    /// Why it cannot.
    async fn healthy(&self) -> Result<(), StoreError> {
        self.revision().await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_next_key_that_does_not_start_with_it() {
        assert_eq!(prefix_end(b"/a/").as_deref(), Some(b"/a0".as_ref()));
        assert_eq!(prefix_end(b"a\xff\xff").as_deref(), Some(b"b".as_ref()));
        assert_eq!(prefix_end(b"\xff"), None);
        assert_eq!(prefix_end(b""), None);
    }
}
