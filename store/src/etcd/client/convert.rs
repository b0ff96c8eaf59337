//! Between what the store speaks of and what etcd does.

use bytes::Bytes;
use orlop_core::revision::Revision;
use orlop_core::store::{Change, KeyRange, KeyValue, LeaseId, prefix_end};

use crate::etcd::proto::kv;

/// etcd's end of a range that has none.
const NO_END: &[u8] = b"\0";

/// A range as etcd has it: a first key, and the first key after it; no end for the first key alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wire {
    pub(super) key: Bytes,
    pub(super) range_end: Bytes,
}

/// A range of keys, as far as it lies after a key, in etcd's words; `None` when no key can be in it, for which etcd has no word.
pub(super) fn wire_range(keys: &KeyRange, after: Option<&Bytes>) -> Option<Wire> {
    let (from, end) = match keys {
        KeyRange::Key(key) => {
            let past = after.is_some_and(|after| key <= after);
            return (!past && !key.is_empty()).then(|| Wire {
                key: key.clone(),
                range_end: Bytes::new(),
            });
        }
        KeyRange::Prefix(prefix) => (prefix.clone(), prefix_end(prefix)),
        KeyRange::Span(from, to) => (from.clone(), Some(to.clone())),
        KeyRange::From(from) => (from.clone(), None),
    };
    let mut from = from;
    if let Some(after) = after
        && *after >= from
    {
        from = [after.as_ref(), b"\0"].concat().into();
    }
    if from.is_empty() {
        // There is no empty key, and etcd takes none.
        from = Bytes::from_static(b"\0");
    }
    if end.as_ref().is_some_and(|end| *end <= from) {
        return None;
    }
    Some(Wire {
        key: from,
        range_end: end.unwrap_or_else(|| Bytes::from_static(NO_END)),
    })
}

/// A revision for the wire. One that no etcd can reach is as good as the last.
pub(super) fn wire_revision(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

/// A number of the wire that is never negative.
pub(super) fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

pub(super) fn revision(number: i64) -> Revision {
    Revision(count(number))
}

/// What was read. It is copied out of the network's buffer, which a single key would otherwise keep alive as a whole.
pub(super) fn key_value(kv: &kv::KeyValue) -> KeyValue {
    KeyValue {
        key: Bytes::copy_from_slice(&kv.key),
        value: Bytes::copy_from_slice(&kv.value),
        create_revision: revision(kv.create_revision),
        mod_revision: revision(kv.mod_revision),
        version: count(kv.version),
        lease: (kv.lease != 0).then_some(LeaseId(kv.lease)),
    }
}

pub(super) fn key_values(kvs: &[kv::KeyValue]) -> Vec<KeyValue> {
    kvs.iter().map(key_value).collect()
}

/// What a watch told; `None` for an event without a key, which etcd does not send.
pub(super) fn change(event: &kv::Event) -> Option<Change> {
    let kv = event.kv.as_ref()?;
    let prev = event.prev_kv.as_ref().map(key_value);
    Some(if event.r#type == kv::EventType::Delete as i32 {
        Change::Delete {
            key: Bytes::copy_from_slice(&kv.key),
            revision: revision(kv.mod_revision),
            prev,
        }
    } else {
        Change::Put {
            kv: key_value(kv),
            prev,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(keys: KeyRange, after: Option<&'static str>) -> Option<(Vec<u8>, Vec<u8>)> {
        wire_range(&keys, after.map(Bytes::from).as_ref())
            .map(|wire| (wire.key.to_vec(), wire.range_end.to_vec()))
    }

    fn some(key: &[u8], end: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        Some((key.to_vec(), end.to_vec()))
    }

    #[test]
    fn ranges_are_as_etcd_has_them() {
        let span = |from: &'static str, to: &'static str| KeyRange::Span(from.into(), to.into());
        assert_eq!(wire(KeyRange::key("a"), None), some(b"a", b""));
        assert_eq!(wire(KeyRange::key(""), None), None);
        assert_eq!(wire(KeyRange::prefix("a/"), None), some(b"a/", b"a0"));
        assert_eq!(wire(KeyRange::prefix(""), None), some(b"\0", b"\0"));
        assert_eq!(
            wire(KeyRange::prefix(&b"\xff\xff"[..]), None),
            some(b"\xff\xff", b"\0")
        );
        assert_eq!(wire(KeyRange::From("b".into()), None), some(b"b", b"\0"));
        assert_eq!(wire(span("a", "b"), None), some(b"a", b"b"));
        assert_eq!(wire(span("", "b"), None), some(b"\0", b"b"));
        // What etcd would take for one key, or for everything, or refuse.
        assert_eq!(wire(span("a", ""), None), None);
        assert_eq!(wire(span("", "\0"), None), None);
        assert_eq!(wire(span("b", "a"), None), None);
        assert_eq!(wire(span("a", "a"), None), None);
    }

    #[test]
    fn a_page_begins_after_a_key() {
        assert_eq!(
            wire(KeyRange::prefix("a/"), Some("a/5")),
            some(b"a/5\0", b"a0")
        );
        assert_eq!(wire(KeyRange::prefix("a/"), Some("a")), some(b"a/", b"a0"));
        assert_eq!(wire(KeyRange::prefix("a/"), Some("b")), None);
        assert_eq!(wire(KeyRange::key("a"), Some("a")), None);
        assert_eq!(wire(KeyRange::key("b"), Some("a")), some(b"b", b""));
        assert_eq!(
            wire(KeyRange::From("b".into()), Some("c")),
            some(b"c\0", b"\0")
        );
    }
}
