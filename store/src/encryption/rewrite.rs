//! Rewriting what is stored in another way than it would be today.

use std::time::Duration;

use bytes::Bytes;
use orlop_core::env::Env;
use orlop_core::store::{Commit, Compare, KeyRange, Op, RangeRequest, StoreError, Txn};

use super::layer::EncryptedStore;

/// How many keys are read at once.
const PAGE: usize = 500;

/// How fast [`EncryptedStore::rewrite_stale`] goes.
#[derive(Clone, Debug)]
pub struct RewritePace {
    env: Env,
    pause: Duration,
}

impl RewritePace {
    /// At most so many values a second; zero for as fast as it goes.
    #[must_use]
    pub fn per_second(env: Env, values: u32) -> Self {
        let pause = Duration::from_secs(1)
            .checked_div(values)
            .unwrap_or_default();
        Self { env, pause }
    }
}

/// What [`EncryptedStore::rewrite_stale`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewritten {
    /// How many values were looked at.
    pub examined: u64,
    /// How many were rewritten.
    pub rewritten: u64,
    /// How many somebody else wrote meanwhile, which is as good.
    pub overtaken: u64,
    /// How many cannot be decrypted, and were left as they are.
    pub unreadable: u64,
    /// The key of the first of them, and why.
    pub first_unreadable: Option<String>,
}

impl EncryptedStore {
    /// Walks through the whole store and rewrites every value that is not stored as the first provider of its resource would store it today: with
    /// an older key, or not encrypted at all (or encrypted, where `identity` comes first).
    ///
    /// Each value is written by itself, on the condition that nobody else has written it meanwhile, and keeps its lease. It is a write like any
    /// other: it takes a revision, so an object's resourceVersion changes though nothing else of it does, and watchers are told. Older values
    /// stay in the store's history until it is compacted.
    ///
    /// Nothing is lost when it is interrupted; the next walk finds what is left.
    ///
    /// # Errors
    /// What the store answers to reads and writes, beginning with [`StoreError::NoSpace`] and [`StoreError::Unavailable`].
    pub async fn rewrite_stale(&self, pace: &RewritePace) -> Result<Rewritten, StoreError> {
        let mut done = Rewritten::default();
        let mut after: Option<Bytes> = None;
        loop {
            let request = RangeRequest::new(KeyRange::prefix("")).page(PAGE, after.take());
            let page = self.inner.range(request).await?;
            after = page.items.last().map(|kv| kv.key.clone());
            for kv in page.items {
                done.examined += 1;
                // The configuration may change during a long walk.
                let transformers = self.transformers();
                let opened = match transformers.inspect(&kv.key, &kv.value) {
                    Ok(opened) => opened,
                    Err(error) => {
                        done.unreadable += 1;
                        done.first_unreadable.get_or_insert(error.to_string());
                        continue;
                    }
                };
                if !opened.stale {
                    continue;
                }
                let value = opened.value.map_or(kv.value, Bytes::from);
                let txn = Txn {
                    compare: vec![Compare::ModRevision(kv.key.clone(), kv.mod_revision)],
                    ops: vec![Op::Put {
                        value: transformers.seal(&kv.key, value)?,
                        key: kv.key,
                        lease: kv.lease,
                    }],
                };
                match self.inner.commit(txn).await {
                    Ok(Commit::Applied { .. }) => done.rewritten += 1,
                    Ok(Commit::Refused { .. }) => done.overtaken += 1,
                    // Its lease ran out between the read and the write, and the key went with it.
                    Err(StoreError::LeaseNotFound(_)) => done.overtaken += 1,
                    Err(error) => return Err(error),
                }
                if !pace.pause.is_zero() {
                    pace.env.sleep(pace.pause).await;
                }
            }
            if page.remaining == 0 {
                return Ok(done);
            }
        }
    }
}
