//! The engines, and what is asked of them.

use std::path::Path;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use fjall::{Database as Fjall, Keyspace, KeyspaceCreateOptions, PersistMode};
use orlop_core::env::Env;
use orlop_core::store::{Commit, KeyRange, RangeRequest, Store, Txn};
use orlop_store::{DurableOptions, DurableStore};
use redb::{Database as Redb, ReadableDatabase, TableDefinition};

use crate::group::Group;

/// The memory that an engine may use as a cache, where it asks: more than all that is stored, as redb does by default and fjall recommends.
const CACHE: usize = 1 << 30;

/// A put that waits to be durable.
pub(crate) struct Put {
    pub(crate) revision: u64,
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
}

/// An engine that has no more than ordered keys and durable batches.
pub(crate) trait Batches: Send + Sync + 'static {
    /// Writes all of them and returns when they are durable.
    fn write(&self, puts: &[Put]);

    /// Reads the newest versions of all keys that begin with a prefix.
    fn range(&self, prefix: &[u8]) -> Vec<(Bytes, Bytes)>;
}

/// The key under which a version of a key is stored. Versions of a key lie beside each other, the newest last.
fn versioned(key: &[u8], revision: u64) -> Bytes {
    let mut bytes = BytesMut::with_capacity(key.len() + 9);
    bytes.put_slice(key);
    bytes.put_u8(0);
    bytes.put_u64(revision);
    bytes.freeze()
}

/// Keeps the newest version of each key, of versions in order.
fn newest(found: &mut Vec<(Bytes, Bytes)>, versioned: &[u8], value: &[u8]) {
    let key = &versioned[..versioned.len() - 9];
    match found.last_mut() {
        Some(last) if last.0 == key => last.1 = Bytes::copy_from_slice(value),
        _ => found.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value))),
    }
}

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("versions");

impl Batches for Redb {
    fn write(&self, puts: &[Put]) {
        // A transaction is durable when `commit` returns, if nothing else is asked for.
        let transaction = self.begin_write().expect("a transaction");
        {
            let mut table = transaction.open_table(TABLE).expect("a table");
            for put in puts {
                let key = versioned(&put.key, put.revision);
                table.insert(&key[..], &put.value[..]).expect("an insert");
            }
        }
        transaction.commit().expect("a commit");
    }

    fn range(&self, prefix: &[u8]) -> Vec<(Bytes, Bytes)> {
        let transaction = self.begin_read().expect("a transaction");
        let table = transaction.open_table(TABLE).expect("a table");
        let end = orlop_core::store::prefix_end(prefix).expect("an end");
        let mut found = Vec::new();
        for entry in table.range(prefix..&end[..]).expect("a range") {
            let (key, value) = entry.expect("an entry");
            newest(&mut found, key.value(), value.value());
        }
        found
    }
}

struct InFjall {
    database: Fjall,
    versions: Keyspace,
}

impl Batches for InFjall {
    fn write(&self, puts: &[Put]) {
        let mut batch = self
            .database
            .batch()
            .durability(Some(PersistMode::SyncData));
        for put in puts {
            let key = versioned(&put.key, put.revision);
            batch.insert(&self.versions, &key[..], &put.value[..]);
        }
        batch.commit().expect("a commit");
    }

    fn range(&self, prefix: &[u8]) -> Vec<(Bytes, Bytes)> {
        let mut found = Vec::new();
        for entry in self.versions.prefix(prefix) {
            let (key, value) = entry.into_inner().expect("an entry");
            newest(&mut found, &key, &value);
        }
        found
    }
}

/// A store of versions on one of the engines.
#[derive(Clone)]
pub(crate) enum Engine {
    /// The whole of our store: index, history, watches and all.
    Own(Arc<DurableStore>),
    /// Another engine behind a thread that commits in groups.
    Other(Arc<Group>),
}

impl Engine {
    pub(crate) const ALL: [&'static str; 3] = ["own", "redb", "fjall"];

    /// Opens a store in a directory, or makes one.
    pub(crate) fn open(name: &str, directory: &Path) -> Self {
        match name {
            "own" => {
                let options = DurableOptions::default();
                let store = DurableStore::open(directory, options, Env::tokio());
                Self::Own(Arc::new(store.expect("a store")))
            }
            "redb" => {
                std::fs::create_dir_all(directory).expect("a directory");
                let database = Redb::builder()
                    .set_cache_size(CACHE)
                    .create(directory.join("versions.redb"))
                    .expect("a database");
                Self::Other(Arc::new(Group::start(Box::new(database))))
            }
            "fjall" => {
                let database = Fjall::builder(directory).cache_size(CACHE as u64).open();
                let database = database.expect("a database");
                let versions = database.keyspace("versions", KeyspaceCreateOptions::default);
                let versions = versions.expect("a keyspace");
                Self::Other(Arc::new(Group::start(Box::new(InFjall {
                    database,
                    versions,
                }))))
            }
            other => panic!("no engine is called {other}"),
        }
    }

    /// Writes a key, and returns when that is durable.
    pub(crate) async fn put(&self, key: Bytes, value: Bytes) {
        match self {
            Self::Own(store) => {
                let commit = store.commit(Txn::put(key, value)).await;
                assert!(matches!(commit, Ok(Commit::Applied { .. })));
            }
            Self::Other(group) => group.put(key, value).await,
        }
    }

    /// How many keys begin with a prefix. All of them are read, with their values.
    pub(crate) async fn range(&self, prefix: Bytes) -> usize {
        match self {
            Self::Own(store) => {
                let read = store.range(RangeRequest::new(KeyRange::Prefix(prefix)));
                read.await.expect("an answer").items.len()
            }
            Self::Other(group) => group.range(&prefix).len(),
        }
    }
}
