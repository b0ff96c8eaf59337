//! Looking after what Services have: what was taken away by hand comes back, what belongs to none is freed, and a store that was written
//! before lots had keys gets them.

use std::collections::BTreeMap;

use futures::future::join_all;
use orlop_core::object::Object;
use orlop_core::status::Status;
use orlop_core::store::{Commit, Compare, KeyRange, KeyValue, Op, RangeRequest, Txn};

use super::claim::{Holder, Lot, MANAGED_BY, not_there};
use super::lots_of;
use crate::cache::store_status;
use crate::names::{IP_ADDRESSES, SERVICES};
use crate::registry::{Registry, keys};

/// How many writes are under way at once: one commit of a store takes many of them.
const AT_ONCE: usize = 64;

impl Registry {
    /// Makes the lots' keys fit the Services. What the cache shows is only the reason to look: each write is made on what the store says.
    pub(crate) async fn repair_services(&self) -> Result<(), Status> {
        self.caches.wait_until_current().await?;
        let services = self.known(&SERVICES);
        let mut held: BTreeMap<Lot, Option<Holder>> = BTreeMap::new();
        for address in self.known(&IP_ADDRESSES) {
            let label = "ipaddress.kubernetes.io/managed-by";
            let ours = address.metadata().labels.get(label);
            if let Ok(ip) = address.name().parse() {
                let lot = Lot::Address(ip);
                // Somebody else's is only not to be given to a Service.
                let holder = ours
                    .filter(|by| *by == MANAGED_BY)
                    .and_then(|_| lot.holder(address.stored_json()));
                held.insert(lot, holder);
            }
        }
        for (port, value) in self.caches.node_ports.all() {
            let lot = Lot::Port(port);
            held.insert(lot, lot.holder(&value));
        }

        let mut missing = Vec::new();
        for service in &services {
            let Ok(document) = service.value() else {
                continue;
            };
            let own = (service.namespace().to_owned(), service.name().to_owned());
            for lot in lots_of(&document) {
                match held.remove(&lot) {
                    None => missing.push((lot, service)),
                    Some(Some(holder)) if holder == own => {}
                    Some(holder) => {
                        tracing::warn!(?lot, service = ?own, ?holder, "a Service has what is not its own");
                    }
                }
            }
        }
        for some in missing.chunks(AT_ONCE) {
            let writes = some
                .iter()
                .map(|(lot, service)| self.give_missing(*lot, service));
            join_all(writes)
                .await
                .into_iter()
                .collect::<Result<(), Status>>()?;
        }
        // What is left is held by nobody that the cache knows.
        for (lot, holder) in held {
            if let Some(holder) = holder {
                self.free_leaked(lot, &holder).await?;
            }
        }
        Ok(())
    }

    fn known(&self, resource: &orlop_core::resource::Resource) -> Vec<Object> {
        self.caches
            .kind(resource)
            .map(|kind| kind.list(""))
            .unwrap_or_default()
    }

    async fn read(&self, key: String) -> Result<Option<KeyValue>, Status> {
        let request = RangeRequest::new(KeyRange::key(key));
        let found = self.store.range(request).await.map_err(store_status)?;
        Ok(found.items.into_iter().next())
    }

    /// Makes the key of a lot that a Service has, if the Service still stands as it was seen.
    async fn give_missing(&self, lot: Lot, service: &Object) -> Result<(), Status> {
        let holder = (service.namespace().to_owned(), service.name().to_owned());
        let key = keys::object(&SERVICES, &holder.0, &holder.1);
        let txn = Txn {
            compare: vec![
                Compare::ModRevision(key.into(), service.revision()),
                not_there(lot),
            ],
            ops: vec![self.reserve(lot, &holder)?],
        };
        if let Commit::Applied { .. } = self.store.commit(txn).await.map_err(store_status)? {
            tracing::info!(?lot, service = ?holder, "what a Service has is written down");
        }
        Ok(())
    }

    /// Deletes the key of a lot whose Service has it no more. The lot is read first: while it stands as it was read, no Service can come to
    /// have it.
    async fn free_leaked(&self, lot: Lot, holder: &Holder) -> Result<(), Status> {
        let Some(stands) = self.read(lot.key()).await? else {
            return Ok(());
        };
        let service = self
            .read(keys::object(&SERVICES, &holder.0, &holder.1))
            .await?;
        let document = service.and_then(|kv| serde_json::from_slice(&kv.value).ok());
        if document.is_some_and(|document| lots_of(&document).contains(&lot))
            || lot.holder(&stands.value).as_ref() != Some(holder)
        {
            return Ok(());
        }
        let txn = Txn {
            compare: vec![Compare::ModRevision(
                stands.key.clone(),
                stands.mod_revision,
            )],
            ops: vec![Op::Delete(KeyRange::Key(stands.key))],
        };
        if let Commit::Applied { .. } = self.store.commit(txn).await.map_err(store_status)? {
            tracing::warn!(?lot, service = ?holder, "what no Service has is free again");
        }
        Ok(())
    }
}
