//! Giving up history by itself.

use std::collections::VecDeque;
use std::time::Duration;

use orlop_core::env::{CancelToken, Moment};
use orlop_core::revision::Revision;
use orlop_core::store::StoreError;

use super::Inner;
use super::options::AutoCompaction;

/// How often history is cut by revisions.
const REVISION_INTERVAL: Duration = Duration::from_secs(300);
/// The longest time between two cuts by age.
const LONGEST: Duration = Duration::from_secs(3600);
/// How many times between two cuts by age it is noted which revision is the newest.
const NOTES: u32 = 10;

impl Inner {
    /// Gives up history until it is cancelled.
    pub(super) async fn compact_by_itself(&self, mode: AutoCompaction, cancel: &CancelToken) {
        match mode {
            AutoCompaction::Periodic(age) => self.compact_by_age(age, cancel).await,
            AutoCompaction::Revision(keep) => {
                while self.waited(REVISION_INTERVAL, cancel).await {
                    if let Ok(newest) = self.store.revision().await {
                        self.give_up(Revision(newest.0.saturating_sub(keep))).await;
                    }
                }
            }
        }
    }

    async fn compact_by_age(&self, age: Duration, cancel: &CancelToken) {
        let interval = age.min(LONGEST);
        let mut notes: VecDeque<(Moment, Revision)> = VecDeque::new();
        let mut next = self.env.now() + age;
        loop {
            if let Ok(revision) = self.store.revision().await {
                notes.push_back((self.env.now(), revision));
            }
            if !self.waited(interval / NOTES, cancel).await {
                return;
            }
            let now = self.env.now();
            if now < next {
                continue;
            }
            next = now + interval;
            // The newest of the notes that are old enough.
            let mut old = None;
            while let Some(&(at, revision)) = notes.front()
                && now.since(at) >= age
            {
                old = Some(revision);
                notes.pop_front();
            }
            if let Some(revision) = old {
                self.give_up(revision).await;
            }
        }
    }

    async fn waited(&self, time: Duration, cancel: &CancelToken) -> bool {
        cancel.run(self.env.sleep(time)).await.is_some()
    }

    async fn give_up(&self, revision: Revision) {
        // There is nothing before the first commit.
        if revision.0 < 2 {
            return;
        }
        match self.store.compact(revision).await {
            Ok(()) => tracing::info!(%revision, "history was compacted"),
            // Somebody, or the store itself, did more already.
            Err(StoreError::Compacted { .. }) => {}
            Err(error) => tracing::warn!(%revision, %error, "history could not be compacted"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use orlop_core::env::SimEnv;
    use orlop_core::store::{KeyRange, RangeRequest, Store, Txn};

    use super::super::{EtcdServer, EtcdServerOptions};
    use super::*;
    use crate::MemoryStore;

    /// The oldest revision that can be read after writes of one a minute.
    fn oldest(mode: AutoCompaction, minutes: u64) -> u64 {
        let sim = SimEnv::new(1);
        let env = sim.env();
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(env.clone()));
        let server = EtcdServer::new(
            store.clone(),
            EtcdServerOptions {
                auto_compaction: Some(mode),
                ..EtcdServerOptions::new("test")
            },
            env.clone(),
        );
        sim.block_on(async move {
            let cancel = CancelToken::new();
            let token = cancel.clone();
            env.spawn("compaction", async move { server.run(&token).await });
            for _ in 0..minutes {
                store.commit(Txn::put("a", "b")).await.unwrap();
                env.sleep(Duration::from_secs(60)).await;
            }
            cancel.cancel();
            let request = RangeRequest::new(KeyRange::key("a")).at(Revision(1));
            match store.range(request).await {
                Err(StoreError::Compacted { oldest, .. }) => oldest.0,
                other => {
                    other.unwrap();
                    0
                }
            }
        })
    }

    #[test]
    fn what_is_older_than_asked_for_goes() {
        assert_eq!(
            oldest(AutoCompaction::Periodic(Duration::from_secs(1800)), 29),
            0
        );
        let kept = 61 - oldest(AutoCompaction::Periodic(Duration::from_secs(1800)), 60);
        assert!((29..=35).contains(&kept), "{kept}");
    }

    #[test]
    fn so_many_revisions_stay() {
        assert_eq!(oldest(AutoCompaction::Revision(100), 60), 0);
        let kept = 61 - oldest(AutoCompaction::Revision(10), 60);
        assert!((10..=16).contains(&kept), "{kept}");
    }
}
