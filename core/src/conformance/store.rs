//! The conformance suite of [`Store`].
//!
//! ```no_run
//! # #[derive(Debug)] struct MyStore;
//! # impl MyStore { fn new(_: orlop_core::env::Env) -> std::sync::Arc<dyn orlop_core::store::Store> { unreachable!("documentation") } }
//! use orlop_core::conformance::store::{Subject, store};
//! use orlop_core::env::Env;
//!
//! # async fn test() {
//! let env = Env::tokio();
//! store(|| async { Subject::new(MyStore::new(env.clone()), env.clone()) }).await;
//! # }
//! ```

mod compaction;
mod concurrency;
mod crash;
mod leases;
mod linearizability;
mod range;
mod revisions;
mod transactions;
mod txn;
mod watch;
mod watch_order;
mod writes;

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;

use crate::env::Env;
use crate::revision::Revision;
use crate::store::{
    Change, Commit, KeyRange, KeyValue, RangeRequest, RangeResult, Store, StoreError, Txn,
    WatchItem, WatchRequest, WatchStream,
};

pub use self::crash::{CrashSubject, Crashes, crashes};
pub use self::linearizability::{
    Call, History, Load, Operation, Outcome, Recorder, Recording, Value, Violation,
    check_linearizable, record,
};
pub use self::watch_order::{WatchLoad, watch_order};

/// How long the suite waits for what must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which transactions with branches a store can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transactions {
    All,
    Simple,
    None,
}

/// A store to be tested.
pub struct Subject {
    store: Arc<dyn Store>,
    env: Env,
    fresh: bool,
    leases: bool,
    transactions: Transactions,
    /// What has to live as long as the store.
    keep: Option<Box<dyn Any + Send + Sync>>,
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject")
            .field("fresh", &self.fresh)
            .field("leases", &self.leases)
            .field("transactions", &self.transactions)
            .field("keeps", &self.keep.is_some())
            .finish_non_exhaustive()
    }
}

impl Subject {
    /// A new and empty store with leases and transactions, and the environment that it runs in.
    pub fn new(store: Arc<dyn Store>, env: Env) -> Self {
        Self {
            store,
            env,
            fresh: true,
            leases: true,
            transactions: Transactions::All,
            keep: None,
        }
    }

    /// Says that the store has no leases.
    #[must_use]
    pub fn without_leases(mut self) -> Self {
        self.leases = false;
        self
    }

    /// Says that the store does those transactions with branches that the default of [`Store::transact`] can do.
    #[must_use]
    pub fn with_simple_transactions(mut self) -> Self {
        self.transactions = Transactions::Simple;
        self
    }

    /// Says that the store has no transactions with branches.
    #[must_use]
    pub fn without_transactions(mut self) -> Self {
        self.transactions = Transactions::None;
        self
    }

    /// Says that the store has been used before, by nobody else meanwhile. What holds for an empty store only is not checked, and every
    /// check uses keys of its own.
    #[must_use]
    pub fn used_before(mut self) -> Self {
        self.fresh = false;
        self
    }

    /// Keeps something until the check has ended, such as a temporary directory.
    #[must_use]
    pub fn keeping(mut self, keep: impl Any + Send + Sync) -> Self {
        self.keep = Some(Box::new(keep));
        self
    }
}

/// Why a check failed.
#[derive(Debug)]
struct Failure(String);

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self(format!("the store refused: {error}"))
    }
}

type Checked = Result<(), Failure>;

/// Fails the check unless a condition holds.
macro_rules! ensure {
    ($condition:expr, $($why:tt)+) => {
        if !$condition {
            return Err($crate::conformance::store::Failure(format!($($why)+)));
        }
    };
}

/// Fails the check unless two values are the same.
macro_rules! same {
    ($got:expr, $wanted:expr, $what:expr) => {
        match (&$got, &$wanted) {
            (got, wanted) => {
                if got != wanted {
                    return Err($crate::conformance::store::Failure(format!(
                        "{}: wanted {:?}, got {:?}",
                        $what, wanted, got
                    )));
                }
            }
        }
    };
}

/// Fails the check unless an answer has a form; yields what the form binds.
macro_rules! wanted {
    ($got:expr, $form:pat => $value:expr, $what:expr) => {
        match $got {
            $form => $value,
            other => {
                return Err($crate::conformance::store::Failure(format!(
                    "{}: wanted {}, got {:?}",
                    $what,
                    stringify!($form),
                    other.map(|_| "success")
                )));
            }
        }
    };
}

use {ensure, same, wanted};

type Check = for<'a> fn(&'a Context) -> BoxFuture<'a, Checked>;

/// The checks of one part of the contract.
macro_rules! checks {
    ($($name:ident),+ $(,)?) => {
        pub(in $crate::conformance::store) const CHECKS: &[(&str, $crate::conformance::store::Check)] =
            &[$((concat!(module_path!(), "::", stringify!($name)), |c| Box::pin($name(c)))),+];
    };
}

use checks;

/// Runs the whole suite. `make` gives a new store for every check.
///
/// # Panics
/// When a check fails, with its name and what was wrong.
pub async fn store<F, Fut>(make: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Subject>,
{
    store_part("", make).await;
}

/// Runs those checks of the suite whose names contain a word, such as `watch` or `transactions::nesting`.
///
/// # Panics
/// As [`store()`], and when there is no such check.
pub async fn store_part<F, Fut>(word: &str, make: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Subject>,
{
    let parts = [
        revisions::CHECKS,
        range::CHECKS,
        txn::CHECKS,
        transactions::conditions::CHECKS,
        transactions::reads::CHECKS,
        transactions::writes::CHECKS,
        transactions::nesting::CHECKS,
        transactions::refusals::CHECKS,
        watch::CHECKS,
        compaction::CHECKS,
        concurrency::CHECKS,
        linearizability::CHECKS,
        watch_order::CHECKS,
        leases::CHECKS,
    ];
    let mut checked = false;
    for (name, check) in parts.into_iter().flatten() {
        let name = name.rsplit("conformance::").next().unwrap_or(name);
        if !name.contains(word) {
            continue;
        }
        checked = true;
        tracing::debug!(check = name, "conformance");
        let subject = make().await;
        let context = Context {
            prefix: format!("/conformance/{}/", name.replace("::", "/")),
            subject,
        };
        if let Err(Failure(why)) = check(&context).await {
            panic!("conformance check `{name}` failed: {why}");
        }
    }
    assert!(checked, "no conformance check has {word:?} in its name");
}

/// What a check works with: the store, and keys that no other check uses.
struct Context {
    subject: Subject,
    prefix: String,
}

impl Context {
    fn store(&self) -> &dyn Store {
        &*self.subject.store
    }

    fn shared(&self) -> Arc<dyn Store> {
        self.subject.store.clone()
    }

    fn env(&self) -> &Env {
        &self.subject.env
    }

    fn key(&self, name: &str) -> Bytes {
        format!("{}{name}", self.prefix).into()
    }

    fn all(&self) -> KeyRange {
        KeyRange::prefix(self.prefix.clone())
    }

    /// Writes a key, whatever is there.
    async fn put(&self, name: &str, value: &str) -> Result<Revision, Failure> {
        self.apply(Txn::put(self.key(name), value.to_owned())).await
    }

    /// Deletes a key that is there.
    async fn delete(&self, name: &str) -> Result<Revision, Failure> {
        let key = KeyRange::Key(self.key(name));
        self.apply(Txn {
            compare: Vec::new(),
            ops: vec![crate::store::Op::Delete(key)],
        })
        .await
    }

    /// Commits what must be applied.
    async fn apply(&self, txn: Txn) -> Result<Revision, Failure> {
        match self.store().commit(txn).await? {
            Commit::Applied { revision, .. } => Ok(revision),
            Commit::Refused { revision, current } => Err(Failure(format!(
                "a transaction was refused at {revision}, where {current:?} stands"
            ))),
        }
    }

    async fn read(&self, request: RangeRequest) -> Result<RangeResult, Failure> {
        Ok(self.store().range(request).await?)
    }

    async fn get(&self, name: &str) -> Result<Option<KeyValue>, Failure> {
        Ok(self
            .read(RangeRequest::new(KeyRange::Key(self.key(name))))
            .await?
            .items
            .pop())
    }

    /// The keys of a read, without the prefix of the check, and their values.
    fn short(&self, items: &[KeyValue]) -> Vec<(String, String)> {
        items
            .iter()
            .map(|kv| (self.name(&kv.key), text(&kv.value)))
            .collect()
    }

    fn name(&self, key: &Bytes) -> String {
        let key = text(key);
        key.strip_prefix(&self.prefix)
            .map(str::to_owned)
            .unwrap_or(key)
    }

    async fn watch(&self, keys: KeyRange, from: Revision) -> Result<Watch, Failure> {
        self.open(WatchRequest {
            keys,
            from,
            progress: false,
        })
        .await
    }

    async fn open(&self, request: WatchRequest) -> Result<Watch, Failure> {
        Ok(Watch {
            stream: self.store().watch(request).await?,
            env: self.env().clone(),
        })
    }

    /// Runs tasks side by side until all have ended, and fails with the first that failed.
    async fn together(&self, tasks: Vec<BoxFuture<'static, Checked>>) -> Checked {
        let ends: Vec<_> = tasks
            .into_iter()
            .map(|task| {
                let (send, receive) = tokio::sync::oneshot::channel();
                self.env().spawn("conformance", async move {
                    let _ = send.send(task.await);
                });
                receive
            })
            .collect();
        for end in ends {
            let ended = self.env().timeout(PATIENCE * 4, end).await;
            ended
                .map_err(|_| Failure("concurrent clients did not come to an end".to_owned()))?
                .map_err(|_| Failure("a concurrent client panicked".to_owned()))??;
        }
        Ok(())
    }
}

/// A watch that is read with patience.
struct Watch {
    stream: WatchStream,
    env: Env,
}

impl Watch {
    async fn next(&mut self) -> Result<Result<WatchItem, StoreError>, Failure> {
        match self.env.timeout(PATIENCE, self.stream.next()).await {
            Ok(Some(item)) => Ok(item),
            Ok(None) => Err(Failure("the watch ended without an error".to_owned())),
            Err(_) => Err(Failure("the watch did not deliver".to_owned())),
        }
    }

    /// Whole items, until they hold at least so many changes.
    async fn batches(&mut self, changes: usize) -> Result<Vec<Vec<Change>>, Failure> {
        let mut batches = Vec::new();
        let mut count = 0;
        while count < changes {
            if let WatchItem::Changes(batch) = self.next().await?? {
                count += batch.len();
                batches.push(batch.to_vec());
            }
        }
        same!(
            count,
            changes,
            "the number of changes that a watch delivered"
        );
        Ok(batches)
    }

    async fn changes(&mut self, changes: usize) -> Result<Vec<Change>, Failure> {
        Ok(self.batches(changes).await?.concat())
    }

    /// Fails if anything comes soon.
    async fn silent(&mut self) -> Checked {
        match self
            .env
            .timeout(Duration::from_millis(20), self.stream.next())
            .await
        {
            Err(_) => Ok(()),
            Ok(item) => Err(Failure(format!(
                "the watch delivered what it should not: {item:?}"
            ))),
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A change in short: `+` and the key for a write, `-` and the key for a deletion.
fn sketch(context: &Context, changes: &[Change]) -> Vec<String> {
    changes
        .iter()
        .map(|change| match change {
            Change::Put { kv, .. } => format!("+{}={}", context.name(&kv.key), text(&kv.value)),
            Change::Delete { key, .. } => format!("-{}", context.name(key)),
        })
        .collect()
}
