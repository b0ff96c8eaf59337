//! The node ports that Services have, as the cache knows them.

use std::collections::BTreeMap;

use bytes::Bytes;
use orlop_core::store::Change;
use parking_lot::Mutex;

/// What the keys of node ports begin with; the port follows.
pub(crate) const NODE_PORTS: &str = "/registry/ranges/servicenodeports/";

/// The ports, each with what stands at its key.
#[derive(Debug, Default)]
pub(crate) struct NodePorts(Mutex<BTreeMap<u16, Bytes>>);

/// The port that a key is of.
pub(super) fn port_of(key: &[u8]) -> Option<u16> {
    let port = key.strip_prefix(NODE_PORTS.as_bytes())?;
    std::str::from_utf8(port).ok()?.parse().ok()
}

impl NodePorts {
    /// Whether somebody has it.
    pub(crate) fn contains(&self, port: u16) -> bool {
        self.0.lock().contains_key(&port)
    }

    /// All, with what stands at their keys.
    pub(crate) fn all(&self) -> Vec<(u16, Bytes)> {
        let known = self.0.lock();
        known
            .iter()
            .map(|(port, value)| (*port, value.clone()))
            .collect()
    }

    pub(super) fn replace(&self, ports: BTreeMap<u16, Bytes>) {
        *self.0.lock() = ports;
    }

    pub(super) fn apply(&self, port: u16, change: &Change) {
        let mut known = self.0.lock();
        match change {
            Change::Put { kv, .. } => known.insert(port, kv.value.clone()),
            Change::Delete { .. } => known.remove(&port),
        };
    }
}
