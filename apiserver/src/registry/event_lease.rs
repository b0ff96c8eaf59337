//! Events do not stay: they hang on leases that run out.

use std::time::Duration;

use orlop_core::env::{Env, Moment};
use orlop_core::resource::Resource;
use orlop_core::store::{LeaseId, Store, StoreError};

/// How long an Event stays (`--event-ttl`).
const TTL: Duration = Duration::from_secs(3_600);
/// Events of one such span share a lease.
const SHARED: Duration = Duration::from_secs(60);

/// The lease that new Events hang on.
#[derive(Debug, Default)]
pub(crate) struct EventLease {
    current: tokio::sync::Mutex<Option<(LeaseId, Moment)>>,
}

impl EventLease {
    /// The lease for an object about to be written: of the current minute for an Event, none for anything else, nor in a store that has
    /// no leases.
    pub(super) async fn of(
        &self,
        resource: &Resource,
        store: &dyn Store,
        env: &Env,
    ) -> Result<Option<LeaseId>, StoreError> {
        if resource.kind != "Event" {
            return Ok(None);
        }
        let now = env.now();
        let mut current = self.current.lock().await;
        if let Some((id, since)) = *current
            && now.since(since) < SHARED
        {
            return Ok(Some(id));
        }
        match store.grant_lease(None, (TTL + SHARED).as_secs()).await {
            Ok(id) => {
                *current = Some((id, now));
                Ok(Some(id))
            }
            Err(StoreError::InvalidRequest(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
