//! Saving the state of a store.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use orlop_core::env::Env;
use orlop_core::revision::Revision;
use orlop_core::store::{
    Change, KeyRange, KeyValue, LeaseId, RangeRequest, Store, StoreError, WatchItem, WatchRequest,
};
use tokio::sync::{mpsc, oneshot};

use super::bolt::{Bucket, Pages, Tree};
use super::file::SnapshotFile;
use super::message::{encode_deletion, encode_key_value, encode_lease};
use super::read::checksum;
use super::{
    CHECKSUM, COMPACTED, COMPACTING, CONSISTENT_INDEX, KEYS, LEASES, META, SnapshotInfo,
    revision_key,
};

/// How often it is begun anew when compaction overtakes it.
const TRIES: usize = 5;

/// How many keys are listed at once in the beginning, and at most.
const LIST_KEYS: usize = 1024;
const LIST_MOST: usize = 64 << 10;

/// About how many bytes are listed at once. Stores count what is left, so more and smaller steps cost much.
const LIST_BYTES: usize = 32 << 20;

/// The values of a store that is no larger are held from the listing, and need not be read again.
const HELD_BYTES: usize = 8 << 20;

/// How many keys are read again at once, and about how many bytes.
const BATCH_KEYS: usize = 256;
const BATCH_BYTES: usize = 1 << 20;

/// How many batches may wait for the disk.
const BATCHES: usize = 2;

/// How long to wait for the newest commit from history, which is there at once or not at all.
const HISTORY_WAIT: Duration = Duration::from_secs(2);

/// The time to live in seconds of a lease that ended while the snapshot was made, and still has keys in it: they are to go soon.
const ENDED_TTL: u64 = 1;

/// The buckets of an etcd that are empty in a new one, beside those that are filled here. In order.
const EMPTY_BEFORE: [&[u8]; 5] = [b"alarm", b"auth", b"authRoles", b"authUsers", b"cluster"];
const EMPTY_BETWEEN: [&[u8]; 2] = [b"members", b"members_removed"];

/// Saves the state of a store at its newest revision as a snapshot of etcd's form, in place of what the file holds, with the checksum at its
/// end. The file must be open for reading and writing. It is not synced.
///
/// Reads and writes go on meanwhile. Values pass through in parts; of every key, the key itself is held in memory. A store that compacts
/// what is being read makes it begin anew, a few times.
///
/// Leases are saved with their whole time to live. Files are written by a thread of its own, which ends when the future is dropped.
///
/// # Errors
/// Those of the store; [`StoreError::Compacted`] when it was overtaken too often; [`StoreError::NoSpace`] and [`StoreError::Unavailable`] for
/// the file.
pub async fn save(store: &dyn Store, env: &Env, file: File) -> Result<SnapshotInfo, StoreError> {
    let mut tries = 1;
    loop {
        let file = file.try_clone().map_err(|error| unwritable(&error))?;
        match attempt(store, env, file).await {
            Err(StoreError::Compacted { .. }) if tries < TRIES => tries += 1,
            done => return done,
        }
    }
}

/// Saves the state of a store as [`save`] does, in a file of its own, for its owner alone (0600). The file is written beside its place and
/// has its name when it is on disk; one that is there is replaced only if so wanted.
///
/// # Errors
/// As [`save`] and [`SnapshotFile`]; [`StoreError::InvalidRequest`] when the path is taken.
pub async fn save_as(
    store: &dyn Store,
    env: &Env,
    path: &Path,
    replace: bool,
) -> Result<SnapshotInfo, StoreError> {
    let snapshot = SnapshotFile::create(path, replace)?;
    let file = snapshot
        .file()
        .try_clone()
        .map_err(|error| unwritable(&error))?;
    let info = save(store, env, file).await?;
    // A sync takes long, and others want to go on meanwhile.
    let (send, finished) = oneshot::channel();
    std::thread::Builder::new()
        .name("store-snapshot".to_owned())
        .spawn(move || {
            let _ = send.send(snapshot.finish());
        })
        .map_err(|error| unwritable(&error))?;
    finished
        .await
        .map_err(|_| StoreError::Unavailable("the snapshot's writer has died".to_owned()))??;
    Ok(info)
}

fn unwritable(error: &io::Error) -> StoreError {
    let text = format!("the snapshot cannot be written: {error}");
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            StoreError::NoSpace(text)
        }
        _ => StoreError::Unavailable(text),
    }
}

/// A key that was listed.
struct Listed {
    revision: u64,
    key: Bytes,
    bytes: usize,
    held: Option<KeyValue>,
}

async fn attempt(store: &dyn Store, env: &Env, file: File) -> Result<SnapshotInfo, StoreError> {
    // Before the keys: what hangs on a lease that is granted later is found with the keys.
    let mut leases = BTreeMap::new();
    for lease in store.leases().await? {
        if let Some(ttl) = time_to_live(store, lease).await? {
            leases.insert(lease, ttl);
        }
    }
    let revision = store.revision().await?;
    let deleted = deletions(store, env, revision).await;
    let (mut listed, used) = list(store, revision).await?;
    for lease in used {
        if let Entry::Vacant(unknown) = leases.entry(lease) {
            unknown.insert(time_to_live(store, lease).await?.unwrap_or(ENDED_TTL));
        }
    }
    let deleted = if deleted.is_empty() && newest_is_missing(&listed, revision) {
        vec![never_there(&listed)]
    } else {
        deleted
    };
    listed.sort_unstable_by(|a, b| (a.revision, &a.key).cmp(&(b.revision, &b.key)));

    let (parts, incoming) = mpsc::channel(BATCHES);
    let (send, finished) = oneshot::channel();
    let keys = listed.len() as u64;
    let last = Last {
        revision,
        deleted,
        leases,
    };
    std::thread::Builder::new()
        .name("store-snapshot".to_owned())
        .spawn(move || {
            // Whoever does not wait any more does not want to know.
            let _ = send.send(write(file, incoming, last));
        })
        .map_err(|error| unwritable(&error))?;
    let sent = send_keys(store, revision, listed, parts).await;
    // It must be over before anybody writes to the file again.
    let written = finished
        .await
        .map_err(|_| StoreError::Unavailable("the snapshot's writer has died".to_owned()))?;
    sent?;
    let (length, leases) = written.map_err(|error| unwritable(&error))?;
    Ok(SnapshotInfo {
        revision,
        keys,
        leases,
        bytes: length,
        checksum: true,
    })
}

/// Reads the keys again, in the order of their revisions, and sends them to be written.
async fn send_keys(
    store: &dyn Store,
    revision: Revision,
    listed: Vec<Listed>,
    parts: mpsc::Sender<Part>,
) -> Result<(), StoreError> {
    let mut listed = listed.into_iter().peekable();
    while listed.peek().is_some() {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < BATCH_KEYS && bytes < BATCH_BYTES {
            let Some(next) = listed.next() else { break };
            bytes += next.bytes;
            batch.push(next);
        }
        let read = batch
            .into_iter()
            .map(|listed| value(store, revision, listed));
        let batch = futures::future::try_join_all(read).await?;
        if parts.send(Part::Keys(batch)).await.is_err() {
            // The writer failed, and says why.
            return Ok(());
        }
    }
    let _ = parts.send(Part::End).await;
    Ok(())
}

async fn time_to_live(store: &dyn Store, lease: LeaseId) -> Result<Option<u64>, StoreError> {
    match store.lease(lease, false).await {
        Ok(info) => Ok(Some(info.granted_seconds)),
        Err(StoreError::LeaseNotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The keys that the newest commit deleted, as far as history has it.
async fn deletions(store: &dyn Store, env: &Env, revision: Revision) -> Vec<Bytes> {
    let request = WatchRequest {
        keys: KeyRange::prefix(Bytes::new()),
        from: revision,
        progress: true,
    };
    // An empty store, whose revision is the first, has no commit.
    if revision.0 <= 1 {
        return Vec::new();
    }
    let Ok(mut watch) = store.watch(request).await else {
        return Vec::new();
    };
    match env.timeout(HISTORY_WAIT, watch.next()).await {
        Ok(Some(Ok(WatchItem::Changes(changes)))) => changes
            .iter()
            .filter_map(|change| match change {
                Change::Delete {
                    key, revision: at, ..
                } if *at == revision => Some(key.clone()),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// All keys at a revision, with the values of the first ones, and the leases that they hang on.
async fn list(
    store: &dyn Store,
    revision: Revision,
) -> Result<(Vec<Listed>, Vec<LeaseId>), StoreError> {
    let mut listed = Vec::new();
    let mut leases = Vec::new();
    let mut total = 0;
    let mut limit = LIST_KEYS;
    let mut after = None;
    loop {
        let request = RangeRequest::new(KeyRange::prefix(Bytes::new()))
            .at(revision)
            .page(limit, after.take());
        let page = store.range(request).await?;
        after = page.items.last().map(|kv| kv.key.clone());
        for kv in page.items {
            leases.extend(kv.lease);
            let bytes = kv.key.len() + kv.value.len();
            total += bytes;
            listed.push(Listed {
                revision: kv.mod_revision.0,
                key: kv.key.clone(),
                bytes,
                held: (total <= HELD_BYTES).then_some(kv),
            });
        }
        if page.remaining == 0 {
            break;
        }
        limit = (LIST_BYTES / (total / listed.len().max(1)).max(1)).clamp(LIST_KEYS / 8, LIST_MOST);
        leases.sort_unstable();
        leases.dedup();
    }
    leases.sort_unstable();
    leases.dedup();
    Ok((listed, leases))
}

/// Whether nothing that is there says what the newest revision is.
fn newest_is_missing(listed: &[Listed], revision: Revision) -> bool {
    revision.0 > 1 && listed.iter().all(|listed| listed.revision < revision.0)
}

/// A key that is not there.
fn never_there(listed: &[Listed]) -> Bytes {
    let longest = listed
        .iter()
        .filter(|listed| listed.key.iter().all(|&byte| byte == 0));
    let length = longest.map(|listed| listed.key.len()).max().unwrap_or(0) + 1;
    vec![0; length].into()
}

async fn value(
    store: &dyn Store,
    revision: Revision,
    listed: Listed,
) -> Result<KeyValue, StoreError> {
    if let Some(held) = listed.held {
        return Ok(held);
    }
    let request = RangeRequest::new(KeyRange::Key(listed.key)).at(revision);
    let read = store.range(request).await?;
    read.items
        .into_iter()
        .next()
        .filter(|kv| kv.mod_revision.0 == listed.revision)
        .ok_or_else(|| {
            StoreError::Unavailable(format!(
                "the store does not read the same twice at revision {revision}"
            ))
        })
}

/// What the writing thread is told.
enum Part {
    /// Keys in the order of their revisions.
    Keys(Vec<KeyValue>),
    /// These were all.
    End,
}

/// What comes after the keys.
struct Last {
    revision: Revision,
    deleted: Vec<Bytes>,
    leases: BTreeMap<LeaseId, u64>,
}

/// Writes the file. Returns its length and the number of leases.
fn write(file: File, mut parts: mpsc::Receiver<Part>, last: Last) -> io::Result<(u64, u64)> {
    let mut pages = Pages::new(file)?;
    let mut keys = Tree::default();
    let mut newest = (0, 0);
    let mut next = |revision: u64| {
        newest = match newest {
            (before, place) if before == revision => (revision, place + 1),
            _ => (revision, 0),
        };
        newest.1
    };
    loop {
        match parts.blocking_recv() {
            Some(Part::Keys(batch)) => {
                for kv in batch {
                    let revision = kv.mod_revision.0;
                    let key = revision_key(revision, next(revision), false);
                    keys.add(&mut pages, &key, &encode_key_value(&kv))?;
                }
            }
            Some(Part::End) => break,
            None => return Err(io::Error::other("it was given up")),
        }
    }
    let revision = last.revision.0;
    for key in last.deleted {
        let at = revision_key(revision, next(revision), true);
        keys.add(&mut pages, &at, &encode_deletion(&key))?;
    }
    let keys = keys.finish(&mut pages)?;
    let mut leases = Tree::default();
    // In the order of their bytes, in which negative numbers come last.
    let in_order: BTreeMap<_, _> = last
        .leases
        .iter()
        .map(|(&lease, &ttl)| (lease.0.to_be_bytes(), (lease, ttl)))
        .collect();
    for (key, (lease, ttl)) in in_order {
        leases.add(&mut pages, &key, &encode_lease(lease, ttl))?;
    }
    let leases = leases.finish(&mut pages)?;
    let mut meta = Tree::default();
    // The place in a log that a restored etcd does not have: it begins a new one.
    meta.add(&mut pages, CONSISTENT_INDEX, &0u64.to_be_bytes())?;
    if revision > 1 {
        for name in [COMPACTED, COMPACTING] {
            meta.add(&mut pages, name, &revision_key(revision, 0, false))?;
        }
    }
    let meta = meta.finish(&mut pages)?;
    let mut buckets: Vec<(&[u8], Bucket)> = Vec::new();
    buckets.extend(EMPTY_BEFORE.map(|name| (name, Bucket::Empty)));
    buckets.extend([(KEYS, keys), (LEASES, leases)]);
    buckets.extend(EMPTY_BETWEEN.map(|name| (name, Bucket::Empty)));
    buckets.push((META, meta));
    let (file, length) = pages.finish(&buckets)?;
    let sum = checksum(&file, length)?;
    file.write_all_at(&sum, length)?;
    Ok((length + CHECKSUM, last.leases.len() as u64))
}
