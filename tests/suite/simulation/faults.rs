//! A store that fails: a layer over another one, driven by the environment's randomness.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures::StreamExt;
use orlop::core::env::Env;
use orlop::core::revision::Revision;
use orlop::core::store::{
    Commit, RangeRequest, RangeResult, Store, StoreError, Txn, WatchRequest, WatchStream,
};

/// How much goes wrong.
#[derive(Debug)]
pub(super) struct Faults {
    /// How many of a hundred calls.
    percent: AtomicU64,
    happened: AtomicU64,
}

impl Faults {
    pub(super) fn none() -> Self {
        Self {
            percent: AtomicU64::new(0),
            happened: AtomicU64::new(0),
        }
    }

    pub(super) fn begin(&self, percent: u64) {
        self.percent.store(percent, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.begin(0);
    }

    pub(super) fn happened(&self) -> u64 {
        self.happened.load(Ordering::Relaxed)
    }

    fn strikes(&self, env: &Env) -> bool {
        let percent = self.percent.load(Ordering::Relaxed);
        let strikes = percent > 0 && env.random_below(100) < percent;
        if strikes {
            self.happened.fetch_add(1, Ordering::Relaxed);
        }
        strikes
    }
}

/// A store whose calls fail, whose answers get lost, and whose watches end.
pub(super) struct Faulty<S> {
    inner: S,
    env: Env,
    faults: Arc<Faults>,
}

impl<S> Faulty<S> {
    pub(super) fn new(inner: S, env: Env, faults: Arc<Faults>) -> Self {
        Self { inner, env, faults }
    }

    fn available(&self) -> Result<(), StoreError> {
        if self.faults.strikes(&self.env) {
            return Err(StoreError::Unavailable("out of reach".to_owned()));
        }
        Ok(())
    }
}

#[async_trait]
impl<S: Store> Store for Faulty<S> {
    async fn range(&self, request: RangeRequest) -> Result<RangeResult, StoreError> {
        self.available()?;
        self.inner.range(request).await
    }

    async fn commit(&self, txn: Txn) -> Result<Commit, StoreError> {
        self.available()?;
        if !self.faults.strikes(&self.env) {
            return self.inner.commit(txn).await;
        }
        // The answer gets lost, and nobody knows whether the request did.
        if self.env.random_below(2) == 0 {
            self.inner.commit(txn).await?;
        }
        Err(StoreError::OutcomeUnknown("the answer was lost".to_owned()))
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StoreError> {
        self.available()?;
        let stream = self.inner.watch(request).await?;
        let (env, faults) = (self.env.clone(), self.faults.clone());
        // One event more, and it may be over: with an error, or without a word.
        let stream = stream.scan(false, move |over, item| {
            let item = if *over {
                None
            } else if faults.strikes(&env) {
                *over = true;
                (env.random_below(2) == 0)
                    .then(|| Err(StoreError::Unavailable("the watch broke off".to_owned())))
            } else {
                Some(item)
            };
            async move { item }
        });
        Ok(Box::pin(stream))
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.available()?;
        self.inner.compact(revision).await
    }
}
