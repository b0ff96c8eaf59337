//! Changes as events on the wire.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use orlop_core::store::Change;
use prost::Message;
use prost::encoding::{encoded_len_varint, message};

use super::super::error::GrpcError;
use super::super::frame;
use super::super::header::signed;
use super::super::ranges::key_value;
use crate::etcd::proto::kv::{Event, EventType, KeyValue, ResponseHeader};
use crate::etcd::proto::watch::{FilterType, WatchCreateRequest, WatchResponse};

/// The number of the field of an answer that holds its events. It is the last one.
const EVENTS: u32 = 11;

/// What of the changes a client wants, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    puts: bool,
    deletes: bool,
    previous: bool,
    /// How long an answer may be before it is split, if that may be.
    fragment: Option<usize>,
}

impl Wanted {
    pub(super) fn of(request: &WatchCreateRequest, fragment_limit: usize) -> Self {
        let without = |filter: FilterType| request.filters.contains(&(filter as i32));
        Self {
            puts: !without(FilterType::Noput),
            deletes: !without(FilterType::Nodelete),
            previous: request.prev_kv,
            fragment: request.fragment.then_some(fragment_limit),
        }
    }

    fn event(&self, change: &Change) -> Option<Event> {
        let previous = |prev: &Option<orlop_core::store::KeyValue>| {
            prev.clone().filter(|_| self.previous).map(key_value)
        };
        match change {
            Change::Put { kv, prev } => self.puts.then(|| Event {
                r#type: EventType::Put as i32,
                kv: Some(key_value(kv.clone())),
                prev_kv: previous(prev),
            }),
            Change::Delete {
                key,
                revision,
                prev,
            } => self.deletes.then(|| Event {
                r#type: EventType::Delete as i32,
                kv: Some(KeyValue {
                    key: key.clone(),
                    mod_revision: signed(*revision),
                    ..KeyValue::default()
                }),
                prev_kv: previous(prev),
            }),
        }
    }
}

/// Encodes events, once for all watches of a stream that want the same of the same commit.
#[derive(Default)]
pub(super) struct Encoder {
    last: Option<Last>,
}

struct Last {
    changes: Arc<[Change]>,
    wanted: Wanted,
    events: Bytes,
    count: usize,
}

impl Encoder {
    /// Appends the answer that tells a watch of changes, and says how many events are in it. Where nothing of them is wanted, there is none.
    pub(super) fn put(
        &mut self,
        header: Option<ResponseHeader>,
        id: i64,
        wanted: &Wanted,
        changes: &Arc<[Change]>,
        out: &mut BytesMut,
    ) -> Result<usize, GrpcError> {
        let known = self
            .last
            .as_ref()
            .is_some_and(|last| Arc::ptr_eq(&last.changes, changes) && last.wanted == *wanted);
        if !known {
            let mut events = BytesMut::new();
            let mut count = 0;
            for event in changes.iter().filter_map(|change| wanted.event(change)) {
                message::encode(EVENTS, &event, &mut events);
                count += 1;
            }
            self.last = Some(Last {
                changes: changes.clone(),
                wanted: *wanted,
                events: events.freeze(),
                count,
            });
        }
        let Some(last) = self.last.as_ref().filter(|last| last.count > 0) else {
            return Ok(0);
        };
        let head = WatchResponse {
            header,
            watch_id: id,
            ..WatchResponse::default()
        };
        let length = head.encoded_len() + last.events.len();
        match wanted.fragment {
            Some(limit) if length >= limit && last.count > 1 => {
                fragments(head, wanted, changes, limit, out)?;
            }
            _ => {
                frame::put_prefix(length, out)?;
                head.encode_raw(out);
                out.extend_from_slice(&last.events);
            }
        }
        Ok(last.count)
    }
}

/// Appends an answer in parts that each stay below a limit, as far as single events do. All but the last say that there is more.
fn fragments(
    head: WatchResponse,
    wanted: &Wanted,
    changes: &Arc<[Change]>,
    limit: usize,
    out: &mut BytesMut,
) -> Result<(), GrpcError> {
    let mut part = WatchResponse {
        fragment: true,
        ..head
    };
    let empty = part.encoded_len();
    let mut length = empty;
    for event in changes.iter().filter_map(|change| wanted.event(change)) {
        let own = event.encoded_len();
        let own = 1 + encoded_len_varint(own as u64) + own;
        if !part.events.is_empty() && length + own >= limit {
            frame::put(&part, out)?;
            part.events.clear();
            length = empty;
        }
        length += own;
        part.events.push(event);
    }
    part.fragment = false;
    frame::put(&part, out)
}

#[cfg(test)]
mod tests {
    use orlop_core::revision::Revision;
    use orlop_core::store;

    use super::*;

    fn kv(key: String, revision: u64) -> store::KeyValue {
        store::KeyValue {
            key: key.into(),
            value: Bytes::from(vec![b'v'; 100]),
            create_revision: Revision(2),
            mod_revision: Revision(revision),
            version: 2,
            lease: None,
        }
    }

    fn changes(count: usize) -> Arc<[Change]> {
        (0..count)
            .map(|n| {
                let key = format!("key-{n}");
                if n % 2 == 0 {
                    Change::Put {
                        kv: kv(key.clone(), 9),
                        prev: Some(kv(key, 4)),
                    }
                } else {
                    Change::Delete {
                        key: key.clone().into(),
                        revision: Revision(9),
                        prev: Some(kv(key, 4)),
                    }
                }
            })
            .collect()
    }

    fn sent(request: &WatchCreateRequest, limit: usize, count: usize) -> Vec<WatchResponse> {
        let mut out = BytesMut::new();
        let mut encoder = Encoder::default();
        let header = Some(ResponseHeader {
            revision: 9,
            ..ResponseHeader::default()
        });
        let wanted = Wanted::of(request, limit);
        encoder
            .put(header, 7, &wanted, &changes(count), &mut out)
            .unwrap();
        let mut out = out.freeze();
        let mut sent = Vec::new();
        while !out.is_empty() {
            let length = u32::from_be_bytes(out[1..5].try_into().unwrap()) as usize;
            let message = out.split_to(5 + length).split_off(5);
            sent.push(WatchResponse::decode(message).unwrap());
        }
        sent
    }

    #[test]
    fn events_carry_what_was_asked_for() {
        let plain = sent(&WatchCreateRequest::default(), 1000, 2);
        assert_eq!(plain.len(), 1);
        assert_eq!(plain[0].watch_id, 7);
        assert_eq!(plain[0].header.as_ref().unwrap().revision, 9);
        let [put, delete] = &plain[0].events[..] else {
            panic!("{plain:?}");
        };
        assert_eq!(put.r#type, EventType::Put as i32);
        assert_eq!(put.kv.as_ref().unwrap().version, 2);
        assert_eq!(put.prev_kv, None);
        assert_eq!(delete.r#type, EventType::Delete as i32);
        let gone = delete.kv.as_ref().unwrap();
        assert_eq!((gone.mod_revision, gone.create_revision), (9, 0));
        let previous = WatchCreateRequest {
            prev_kv: true,
            ..WatchCreateRequest::default()
        };
        let with = sent(&previous, 1000, 2);
        assert!(with[0].events.iter().all(|event| {
            event
                .prev_kv
                .as_ref()
                .is_some_and(|kv| kv.mod_revision == 4)
        }));
    }

    #[test]
    fn what_is_filtered_out_is_not_sent() {
        let without = |filters: Vec<i32>| WatchCreateRequest {
            filters,
            ..WatchCreateRequest::default()
        };
        let (noput, nodelete) = (FilterType::Noput as i32, FilterType::Nodelete as i32);
        assert_eq!(sent(&without(vec![noput]), 1000, 3)[0].events.len(), 1);
        assert_eq!(sent(&without(vec![nodelete]), 1000, 3)[0].events.len(), 2);
        assert!(sent(&without(vec![noput, nodelete]), 1000, 3).is_empty());
    }

    #[test]
    fn a_long_answer_is_split_where_that_was_asked_for() {
        let whole = sent(&WatchCreateRequest::default(), 1000, 100);
        assert_eq!(whole.len(), 1);
        let fragment = WatchCreateRequest {
            fragment: true,
            ..WatchCreateRequest::default()
        };
        let parts = sent(&fragment, 1000, 100);
        assert!(parts.len() > 2);
        assert!(parts.iter().all(|part| part.encoded_len() < 1000));
        let last = parts.len() - 1;
        for (n, part) in parts.iter().enumerate() {
            assert_eq!(part.fragment, n != last);
        }
        let events: Vec<_> = parts.into_iter().flat_map(|part| part.events).collect();
        assert_eq!(events, whole[0].events);
    }
}
