//! Which API servers there are: each keeps a key alive in the store that they share, and one that has ended is not among them when its
//! lease has run out. Behind the Service `kubernetes` stand those that are alive.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use orlop_core::store::{KeyRange, LeaseId, Op, RangeRequest, Store, StoreError, Txn};
use parking_lot::Mutex;
use serde_json::json;

/// Where they stand, by their addresses, as in Kubernetes.
const PREFIX: &str = "/registry/masterleases/";
/// How long one that says nothing more is believed to be alive, in seconds. It speaks up every ten.
const TTL: u64 = 15;

/// This server among those of the store.
pub(crate) struct Members {
    store: Arc<dyn Store>,
    own: SocketAddr,
    lease: Mutex<Option<LeaseId>>,
}

impl Members {
    pub(crate) fn new(store: Arc<dyn Store>, own: SocketAddr) -> Self {
        Self {
            store,
            own,
            lease: Mutex::new(None),
        }
    }

    fn key(&self) -> String {
        format!("{PREFIX}{}", self.own.ip())
    }

    /// Says that this server is alive, and who else is: all addresses, in order. In a store without leases, it is alone.
    pub(crate) async fn alive(&self) -> Result<Vec<IpAddr>, StoreError> {
        let mut alive = BTreeSet::from([self.own.ip()]);
        let known = *self.lease.lock();
        let renewed = match known {
            Some(lease) => match self.store.renew_lease(lease).await {
                Ok(_) => true,
                Err(StoreError::LeaseNotFound(_)) => false,
                Err(error) => return Err(error),
            },
            None => false,
        };
        if !renewed {
            match self.store.grant_lease(None, TTL).await {
                Ok(lease) => {
                    let endpoints = json!({"subsets": [{
                        "addresses": [{"ip": self.own.ip()}],
                        "ports": [{"name": "https", "port": self.own.port(), "protocol": "TCP"}],
                    }]});
                    let put = Op::Put {
                        key: self.key().into(),
                        value: endpoints.to_string().into(),
                        lease: Some(lease),
                    };
                    let txn = Txn {
                        compare: Vec::new(),
                        ops: vec![put],
                    };
                    self.store.commit(txn).await?;
                    *self.lease.lock() = Some(lease);
                }
                Err(StoreError::InvalidRequest(_)) => return Ok(alive.into_iter().collect()),
                Err(error) => return Err(error),
            }
        }
        let request = RangeRequest::new(KeyRange::prefix(PREFIX));
        for kv in self.store.range(request).await?.items {
            let name = std::str::from_utf8(&kv.key[PREFIX.len()..]).ok();
            alive.extend(name.and_then(|name| name.parse::<IpAddr>().ok()));
        }
        Ok(alive.into_iter().collect())
    }

    /// Says goodbye, and who is left; `None` where this server was not among them.
    pub(crate) async fn leave(&self) -> Result<Option<Vec<IpAddr>>, StoreError> {
        let Some(lease) = self.lease.lock().take() else {
            return Ok(None);
        };
        match self.store.revoke_lease(lease).await {
            Ok(()) | Err(StoreError::LeaseNotFound(_)) => {}
            Err(error) => return Err(error),
        }
        let request = RangeRequest::new(KeyRange::prefix(PREFIX));
        let left = self.store.range(request).await?.items;
        let addresses = left.iter().filter_map(|kv| {
            let name = std::str::from_utf8(&kv.key[PREFIX.len()..]).ok()?;
            name.parse().ok()
        });
        Ok(Some(addresses.collect()))
    }
}
