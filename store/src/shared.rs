//! What both stores do alike: reads, watches, and the time of leases.

use std::sync::Arc;

use orlop_core::env::{CancelToken, Env, TaskGroup};
use orlop_core::revision::Revision;
use orlop_core::store::{
    KeyRange, LeaseId, RangeRequest, RangeResult, StoreError, WatchRequest, WatchStream,
};
use parking_lot::{RwLock, RwLockWriteGuard};
use tokio::sync::Notify;

use crate::mvcc::{Index, TRIM_STEP};
use crate::watch::Hub;

/// How many keys a read looks at under one hold of the lock, so that a long read never makes a writer wait for long.
const READ_STEP: usize = 4096;

/// How often a read of the newest state begins again when compaction overtakes it, before it holds the lock to its end.
const READ_TRIES: usize = 3;

/// How often a writer looks whether the lock is free before it goes to sleep, and how long it pauses in between.
const LOCK_TRIES: usize = 100;
const LOCK_PAUSES: usize = 16;

/// The longest time to live of a lease in seconds: etcd's.
const MAX_TTL: u64 = 9_000_000_000;

/// The state of a store.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) index: Arc<RwLock<Index>>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) env: Env,
    /// Rings when the first moment at which a lease runs out may have changed.
    pub(crate) leases: Notify,
}

/// Keeps what was the newest state readable, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Pin {
    index: Arc<RwLock<Index>>,
    pub(crate) revision: u64,
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.index.write().unpin(self.revision);
    }
}

impl Shared {
    /// Pins the newest published state. Let it go without the index locked.
    pub(crate) fn pin(&self) -> Pin {
        let mut index = self.index.write();
        let revision = index.visible();
        index.pin(revision);
        Pin {
            index: self.index.clone(),
            revision,
        }
    }

    pub(crate) fn new(index: Index, env: Env) -> Self {
        let hub = Arc::new(Hub::new(index.visible()));
        Self {
            index: Arc::new(RwLock::new(index)),
            hub,
            env,
            leases: Notify::new(),
        }
    }

    /// Starts the task that wakes watchers.
    pub(crate) fn start(&self, tasks: &TaskGroup) {
        let (hub, index, token) = (self.hub.clone(), self.index.clone(), tasks.token());
        tasks.spawn("store-watch", async move { hub.run(&index, token).await });
    }

    /// Waits until the first lease runs out and returns it; `None` when cancelled.
    pub(crate) async fn next_expired(&self, token: &CancelToken) -> Option<LeaseId> {
        loop {
            let changed = self.leases.notified();
            let next = self.index.read().leases().next_due();
            match next {
                None => token.run(changed).await?,
                Some((at, lease)) if at <= self.env.now() => return Some(lease),
                // Whichever comes first.
                Some((at, _)) => {
                    let left = at.since(self.env.now());
                    let _ = token.run(self.env.timeout(left, changed)).await?;
                }
            }
        }
    }

    /// The index, locked by a writer, who waits for another one awake for a moment: what is done under the lock takes less than it takes to
    /// put a thread to sleep and to wake it.
    pub(crate) fn locked(&self) -> RwLockWriteGuard<'_, Index> {
        for _ in 0..LOCK_TRIES {
            if let Some(index) = self.index.try_write() {
                return index;
            }
            for _ in 0..LOCK_PAUSES {
                std::hint::spin_loop();
            }
        }
        self.index.write()
    }

    /// Reads a range. The lock is held for a part of it at a time.
    pub(crate) fn range(&self, request: &RangeRequest) -> Result<RangeResult, StoreError> {
        let wanted = request.wanted();
        if let KeyRange::Key(key) = &request.keys {
            let index = self.index.read();
            let at = index.readable(request.revision)?;
            let past = request.after.as_ref().is_some_and(|after| key <= after);
            let found = if past { None } else { index.get(key, at) };
            let remaining = u64::from(wanted == 0 && found.is_some());
            let items = if wanted == 0 {
                Vec::new()
            } else {
                found.into_iter().collect()
            };
            return Ok(RangeResult {
                revision: Revision(index.visible()),
                items,
                remaining,
            });
        }
        for _ in 0..READ_TRIES {
            match self.read(request, wanted, READ_STEP) {
                // The caller named no revision, so it is for us to choose a later one.
                Err(StoreError::Compacted { .. }) if newest(request) => {}
                done => return done,
            }
        }
        self.read(request, wanted, usize::MAX)
    }

    fn read(
        &self,
        request: &RangeRequest,
        wanted: usize,
        step: usize,
    ) -> Result<RangeResult, StoreError> {
        let mut index = self.index.read();
        let at = index.readable(request.revision)?;
        let revision = Revision(index.visible());
        let mut result = RangeResult {
            revision,
            items: Vec::new(),
            remaining: 0,
        };
        let mut after = request.after.clone();
        loop {
            let page = index.page(
                &request.keys,
                after.as_ref(),
                at,
                wanted - result.items.len(),
                step,
            );
            result.remaining += page.counted;
            if result.items.is_empty() {
                result.items = page.items;
            } else {
                result.items.extend(page.items);
            }
            let Some(resume) = page.resume else {
                return Ok(result);
            };
            after = Some(resume);
            drop(index);
            index = self.index.read();
            if at < index.oldest() {
                return Err(index.compacted(at));
            }
        }
    }

    pub(crate) fn watch(&self, request: WatchRequest) -> Result<WatchStream, StoreError> {
        self.hub.watch(&self.index, request)
    }

    /// Drops a little of what was compacted or has no room any more. True when there is more.
    pub(crate) fn trim_step(&self) -> bool {
        let mut forgotten = Vec::with_capacity(TRIM_STEP);
        self.index.write().trim(self.hub.seen(), &mut forgotten)
    }

    /// Drops what was compacted.
    pub(crate) fn trim(&self) {
        while self.trim_step() {}
    }

    /// Checks a grant, and chooses an id where none is given. The id is free, but not taken yet.
    pub(crate) fn lease_id(
        &self,
        index: &Index,
        id: Option<LeaseId>,
        ttl: u64,
    ) -> Result<LeaseId, StoreError> {
        if ttl == 0 || ttl > MAX_TTL {
            return Err(StoreError::InvalidRequest(format!(
                "a lease lives for 1 to {MAX_TTL} seconds, not {ttl}"
            )));
        }
        match id {
            Some(LeaseId(id)) if id < 0 => Err(StoreError::InvalidRequest(
                "a lease's id must not be negative".to_owned(),
            )),
            Some(id) if id.0 != 0 => Ok(id),
            _ => loop {
                let id = LeaseId((self.env.random_u64() >> 1).cast_signed());
                if id.0 != 0 && !index.leases().contains(id) {
                    return Ok(id);
                }
            },
        }
    }
}

fn newest(request: &RangeRequest) -> bool {
    request.revision.is_none_or(Revision::is_zero)
}
