//! A store of one's own: here a layer that keeps a log of all commits, over the store in memory. It proves itself with the public
//! conformance suite, then carries a control plane.
//!
//! `cargo run --example custom_store --features orlop-core/conformance`

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use orlop::ControlPlane;
use orlop::core::conformance;
use orlop::core::env::Env;
use orlop::core::revision::Revision;
use orlop::core::store::{
    Commit, LeaseId, LeaseInfo, RangeRequest, RangeResult, Store, StoreError, Txn, WatchRequest,
    WatchStream,
};
use orlop::store::MemoryStore;

/// Counts what is committed to another store.
struct Audited<S> {
    inner: S,
    commits: Arc<AtomicU64>,
}

#[async_trait]
impl<S: Store> Store for Audited<S> {
    async fn range(&self, request: RangeRequest) -> Result<RangeResult, StoreError> {
        self.inner.range(request).await
    }

    async fn commit(&self, txn: Txn) -> Result<Commit, StoreError> {
        let outcome = self.inner.commit(txn).await?;
        if matches!(outcome, Commit::Applied { .. }) {
            self.commits.fetch_add(1, Ordering::Relaxed);
        }
        Ok(outcome)
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StoreError> {
        self.inner.watch(request).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.inner.compact(revision).await
    }

    async fn grant_lease(&self, id: Option<LeaseId>, ttl: u64) -> Result<LeaseId, StoreError> {
        self.inner.grant_lease(id, ttl).await
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
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let env = Env::tokio();
    let make = |commits: Arc<AtomicU64>| Audited {
        inner: MemoryStore::new(Env::tokio()),
        commits,
    };

    // `transact` is the trait's own, which reads and commits: so what it commits is counted, too.
    conformance::store::store(|| async {
        conformance::store::Subject::new(Arc::new(make(Arc::default())), Env::tokio())
            .with_simple_transactions()
    })
    .await;
    println!("the store passes the conformance suite");

    let commits = Arc::new(AtomicU64::new(0));
    let plane = ControlPlane::builder()
        .env(env)
        .store(make(commits.clone()))
        .with_defaults()
        .start()
        .await?;
    println!(
        "a control plane set itself up with {} commits",
        commits.load(Ordering::Relaxed)
    );
    plane.shutdown().await;
    Ok(())
}
