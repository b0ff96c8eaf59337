//! Ranges of keys: etcd's way to name them, to sort what is in them, and to leave some of it out.

use bytes::Bytes;
use orlop_core::revision::Revision;
use orlop_core::store::{self, KeyRange, KeyValue, RangeResult, prefix_end};

use super::error::{EMPTY_KEY, GrpcError};
use super::header::signed;
use crate::etcd::proto::kv::{
    KeyValue as ProtoKeyValue, RangeRequest, RangeResponse, SortOrder, SortTarget,
};

/// The keys that a message names. Without an end it is one key; an end of one zero byte is the end of the store.
pub(super) fn keys(key: &Bytes, end: &Bytes) -> KeyRange {
    match end.as_ref() {
        b"" => KeyRange::Key(key.clone()),
        // There is no key before this one.
        b"\0" if key.as_ref() == b"\0" => KeyRange::Prefix(Bytes::new()),
        b"\0" => KeyRange::From(key.clone()),
        end if prefix_end(key).as_deref() == Some(end) => KeyRange::Prefix(key.clone()),
        _ => KeyRange::Span(key.clone(), end.clone()),
    }
}

/// A key with its value as a message has it.
pub(super) fn key_value(kv: KeyValue) -> ProtoKeyValue {
    ProtoKeyValue {
        key: kv.key,
        create_revision: signed(kv.create_revision),
        mod_revision: signed(kv.mod_revision),
        version: kv.version.cast_signed(),
        value: kv.value,
        lease: kv.lease.map_or(0, |lease| lease.0),
    }
}

/// Whether what is found has to be looked through as a whole before it can be cut.
fn needs_all(request: &RangeRequest) -> bool {
    let filtered = request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0;
    let order = request.sort_order;
    let by_key = request.sort_target == SortTarget::Key as i32;
    filtered || !by_key || order == SortOrder::Descend as i32
}

/// What to ask a store for.
pub(super) fn to_store(request: &RangeRequest) -> Result<store::RangeRequest, GrpcError> {
    if request.key.is_empty() {
        return Err(EMPTY_KEY);
    }
    let limit = if needs_all(request) {
        0
    } else {
        usize::try_from(request.limit).unwrap_or(0)
    };
    Ok(store::RangeRequest {
        keys: keys(&request.key, &request.range_end),
        revision: u64::try_from(request.revision)
            .ok()
            .filter(|&revision| revision != 0)
            .map(Revision),
        limit,
        after: None,
        count_only: request.count_only,
    })
}

/// What a store found as an answer, without the header.
pub(super) fn from_store(request: &RangeRequest, found: RangeResult) -> RangeResponse {
    let count = (found.items.len() as u64 + found.remaining).cast_signed();
    if request.count_only {
        return RangeResponse {
            count,
            ..RangeResponse::default()
        };
    }
    let mut items = found.items;
    let mut more = found.remaining > 0;
    if needs_all(request) {
        arrange(request, &mut items);
        let limit = usize::try_from(request.limit)
            .ok()
            .filter(|&limit| limit > 0)
            .unwrap_or(usize::MAX);
        more = items.len() > limit;
        items.truncate(limit);
    }
    let without_value = request.keys_only;
    let kvs = items
        .into_iter()
        .map(|mut kv| {
            if without_value {
                kv.value = Bytes::new();
            }
            key_value(kv)
        })
        .collect();
    RangeResponse {
        header: None,
        kvs,
        more,
        count,
    }
}

/// Leaves out what was not asked for, and sorts the rest.
fn arrange(request: &RangeRequest, items: &mut Vec<KeyValue>) {
    let within = |revision: Revision, least: i64, most: i64| {
        let revision = signed(revision);
        (least == 0 || revision >= least) && (most == 0 || revision <= most)
    };
    items.retain(|kv| {
        within(
            kv.mod_revision,
            request.min_mod_revision,
            request.max_mod_revision,
        ) && within(
            kv.create_revision,
            request.min_create_revision,
            request.max_create_revision,
        )
    });
    // They come in the order of their keys, and where two are alike in what is sorted by, that order stays.
    match SortTarget::try_from(request.sort_target) {
        Ok(SortTarget::Version) => items.sort_by_key(|kv| kv.version),
        Ok(SortTarget::Create) => items.sort_by_key(|kv| kv.create_revision),
        Ok(SortTarget::Mod) => items.sort_by_key(|kv| kv.mod_revision),
        Ok(SortTarget::Value) => items.sort_by(|a, b| a.value.cmp(&b.value)),
        Ok(SortTarget::Key) | Err(_) => {}
    }
    if request.sort_order == SortOrder::Descend as i32 {
        items.reverse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(key: &'static [u8], end: &'static [u8]) -> KeyRange {
        keys(&Bytes::from_static(key), &Bytes::from_static(end))
    }

    #[test]
    fn the_end_of_a_range_says_what_it_is() {
        let bytes = Bytes::from_static;
        assert_eq!(range(b"a", b""), KeyRange::Key(bytes(b"a")));
        assert_eq!(range(b"a", b"\0"), KeyRange::From(bytes(b"a")));
        assert_eq!(range(b"\0", b"\0"), KeyRange::Prefix(Bytes::new()));
        assert_eq!(range(b"a/", b"a0"), KeyRange::Prefix(bytes(b"a/")));
        assert_eq!(range(b"a", b"c"), KeyRange::Span(bytes(b"a"), bytes(b"c")));
    }

    fn item(key: &'static str, mod_revision: u64, create_revision: u64, version: u64) -> KeyValue {
        KeyValue {
            key: key.into(),
            value: format!("{}", 9 - mod_revision).into(),
            create_revision: Revision(create_revision),
            mod_revision: Revision(mod_revision),
            version,
            lease: None,
        }
    }

    fn answer(request: &RangeRequest) -> (Vec<String>, bool, i64) {
        let found = RangeResult {
            revision: Revision(9),
            items: vec![item("a", 7, 2, 3), item("b", 4, 4, 1), item("c", 8, 3, 2)],
            remaining: 0,
        };
        let answer = from_store(request, found);
        let keys = answer
            .kvs
            .iter()
            .map(|kv| String::from_utf8(kv.key.to_vec()).unwrap())
            .collect();
        (keys, answer.more, answer.count)
    }

    #[test]
    fn what_is_found_is_sorted_cut_and_counted() {
        let by = |target: SortTarget, order: SortOrder| RangeRequest {
            sort_target: target as i32,
            sort_order: order as i32,
            ..RangeRequest::default()
        };
        let keys = |request: &RangeRequest| answer(request).0.concat();
        assert_eq!(keys(&by(SortTarget::Key, SortOrder::None)), "abc");
        assert_eq!(keys(&by(SortTarget::Key, SortOrder::Descend)), "cba");
        assert_eq!(keys(&by(SortTarget::Mod, SortOrder::None)), "bac");
        assert_eq!(keys(&by(SortTarget::Mod, SortOrder::Descend)), "cab");
        assert_eq!(keys(&by(SortTarget::Create, SortOrder::Ascend)), "acb");
        assert_eq!(keys(&by(SortTarget::Version, SortOrder::Ascend)), "bca");
        assert_eq!(keys(&by(SortTarget::Value, SortOrder::Ascend)), "cab");
        let cut = RangeRequest {
            limit: 2,
            ..by(SortTarget::Mod, SortOrder::Ascend)
        };
        assert_eq!(answer(&cut), (vec!["b".into(), "a".into()], true, 3));
        let filtered = RangeRequest {
            min_mod_revision: 5,
            max_create_revision: 2,
            ..RangeRequest::default()
        };
        assert_eq!(answer(&filtered), (vec!["a".into()], false, 3));
    }
}
