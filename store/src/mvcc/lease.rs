//! Leases and the keys that hang on them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use orlop_core::env::Moment;
use orlop_core::store::{LeaseId, LeaseInfo, StoreError};

/// How far a lease is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseState {
    /// Its grant is not on disk yet.
    Granting,
    /// It can be used.
    Live,
    /// Its revocation is not on disk yet.
    Ending,
}

/// One lease.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) ttl: u64,
    pub(crate) state: LeaseState,
    expires: Moment,
    keys: BTreeSet<Bytes>,
}

/// All leases of a store.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    leases: BTreeMap<LeaseId, Lease>,
    /// The live leases by the moment when they run out.
    due: BTreeSet<(Moment, LeaseId)>,
}

impl Leases {
    /// Takes an id. The lease can be used after [`granted`](Self::granted).
    pub(crate) fn grant(&mut self, id: LeaseId, ttl: u64) -> Result<(), StoreError> {
        if self.leases.contains_key(&id) {
            return Err(StoreError::LeaseExists(id));
        }
        let lease = Lease {
            ttl,
            state: LeaseState::Granting,
            expires: Moment::START,
            keys: BTreeSet::new(),
        };
        self.leases.insert(id, lease);
        Ok(())
    }

    pub(crate) fn contains(&self, id: LeaseId) -> bool {
        self.leases.contains_key(&id)
    }

    /// Starts the time of a lease.
    pub(crate) fn granted(&mut self, id: LeaseId, now: Moment) {
        let Some(lease) = self.leases.get_mut(&id) else {
            return;
        };
        self.due.remove(&(lease.expires, id));
        lease.state = LeaseState::Live;
        lease.expires = now + Duration::from_secs(lease.ttl);
        self.due.insert((lease.expires, id));
    }

    /// Starts the time of every lease, as after a restart.
    pub(crate) fn grant_all(&mut self, now: Moment) {
        let ids: Vec<_> = self.leases.keys().copied().collect();
        for id in ids {
            self.granted(id, now);
        }
    }

    /// Whether keys may be hung on the lease.
    pub(crate) fn usable(&self, id: LeaseId) -> bool {
        self.leases
            .get(&id)
            .is_some_and(|lease| lease.state == LeaseState::Live)
    }

    /// Gives a lease its full time again. One that has run out is not there any more, even if its keys still are.
    pub(crate) fn renew(&mut self, id: LeaseId, now: Moment) -> Result<u64, StoreError> {
        match self.leases.get(&id) {
            Some(lease) if lease.state == LeaseState::Live && lease.expires > now => {
                let ttl = lease.ttl;
                self.granted(id, now);
                Ok(ttl)
            }
            _ => Err(StoreError::LeaseNotFound(id)),
        }
    }

    /// Begins to end a lease: nothing more can be hung on it.
    pub(crate) fn end(&mut self, id: LeaseId) -> Result<(), StoreError> {
        match self.leases.get_mut(&id) {
            Some(lease) if lease.state == LeaseState::Live => {
                lease.state = LeaseState::Ending;
                self.due.remove(&(lease.expires, id));
                Ok(())
            }
            _ => Err(StoreError::LeaseNotFound(id)),
        }
    }

    /// Ends a lease for good.
    pub(crate) fn ended(&mut self, id: LeaseId) {
        if let Some(lease) = self.leases.remove(&id) {
            self.due.remove(&(lease.expires, id));
        }
    }

    /// What there is to know of a lease. One that has run out is not there any more, even if its keys still are.
    pub(crate) fn info(
        &self,
        id: LeaseId,
        now: Moment,
        keys: bool,
    ) -> Result<LeaseInfo, StoreError> {
        match self.leases.get(&id) {
            Some(lease) if lease.state == LeaseState::Live && lease.expires > now => {
                Ok(LeaseInfo {
                    granted_seconds: lease.ttl,
                    remaining_seconds: lease.expires.since(now).as_secs(),
                    keys: if keys {
                        lease.keys.iter().cloned().collect()
                    } else {
                        Vec::new()
                    },
                })
            }
            _ => Err(StoreError::LeaseNotFound(id)),
        }
    }

    /// The first lease to run out, and when.
    pub(crate) fn next_due(&self) -> Option<(Moment, LeaseId)> {
        self.due.first().copied()
    }

    pub(crate) fn keys(&self, id: LeaseId) -> impl Iterator<Item = &Bytes> {
        self.leases
            .get(&id)
            .into_iter()
            .flat_map(|lease| &lease.keys)
    }

    /// The leases whose grant is not under way, with their times to live.
    pub(crate) fn all(&self) -> impl Iterator<Item = (LeaseId, u64)> {
        self.leases
            .iter()
            .filter(|(_, lease)| lease.state != LeaseState::Granting)
            .map(|(&id, lease)| (id, lease.ttl))
    }

    pub(super) fn attach(&mut self, id: LeaseId, key: &Bytes) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.keys.insert(key.clone());
        }
    }

    pub(super) fn detach(&mut self, id: LeaseId, key: &Bytes) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.keys.remove(key);
        }
    }

    /// Takes back what is under way.
    pub(super) fn roll_back(&mut self) {
        self.leases
            .retain(|_, lease| lease.state != LeaseState::Granting);
        for (&id, lease) in &mut self.leases {
            if lease.state == LeaseState::Ending {
                lease.state = LeaseState::Live;
                self.due.insert((lease.expires, id));
            }
        }
    }
}
