//! The two messages that etcd keeps in its database, `mvccpb.KeyValue` and `leasepb.Lease`, in protobuf's wire format. They have no
//! more than numbers and bytes, which is not worth a library.

use bytes::Bytes;
use orlop_core::revision::Revision;
use orlop_core::store::{KeyValue, LeaseId};

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED32: u64 = 5;

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// A number that is zero is left out, as in every message of proto3.
fn put_number(out: &mut Vec<u8>, field: u64, number: u64) {
    if number != 0 {
        put_varint(out, field << 3 | VARINT);
        put_varint(out, number);
    }
}

fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    if !bytes.is_empty() {
        put_varint(out, field << 3 | LENGTH);
        put_varint(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
}

/// `mvccpb.KeyValue`.
pub(super) fn encode_key_value(kv: &KeyValue) -> Vec<u8> {
    let mut out = Vec::with_capacity(kv.key.len() + kv.value.len() + 48);
    put_bytes(&mut out, 1, &kv.key);
    put_number(&mut out, 2, kv.create_revision.0);
    put_number(&mut out, 3, kv.mod_revision.0);
    put_number(&mut out, 4, kv.version);
    put_bytes(&mut out, 5, &kv.value);
    put_number(
        &mut out,
        6,
        kv.lease.map_or(0, |lease| lease.0.cast_unsigned()),
    );
    out
}

/// `mvccpb.KeyValue` of a deletion, which has nothing but the key.
pub(super) fn encode_deletion(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + 4);
    put_bytes(&mut out, 1, key);
    out
}

/// `leasepb.Lease` that has its whole time before it.
pub(super) fn encode_lease(lease: LeaseId, ttl: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(24);
    put_number(&mut out, 1, lease.0.cast_unsigned());
    put_number(&mut out, 2, ttl);
    out
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn split<'a>(bytes: &mut &'a [u8], length: u64) -> Option<&'a [u8]> {
    let (first, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some(first)
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Other,
}

/// The next field; `None` where the bytes are no message.
fn field<'a>(bytes: &mut &'a [u8]) -> Option<(u64, Value<'a>)> {
    let tag = varint(bytes)?;
    let value = match tag & 7 {
        VARINT => Value::Number(varint(bytes)?),
        LENGTH => {
            let length = varint(bytes)?;
            Value::Bytes(split(bytes, length)?)
        }
        FIXED64 => split(bytes, 8).map(|_| Value::Other)?,
        FIXED32 => split(bytes, 4).map(|_| Value::Other)?,
        _ => return None,
    };
    Some((tag >> 3, value))
}

/// Reads `mvccpb.KeyValue`, copying what it keeps. `None` for what is none, or has no key.
pub(super) fn decode_key_value(mut bytes: &[u8]) -> Option<KeyValue> {
    let mut kv = KeyValue {
        key: Bytes::new(),
        value: Bytes::new(),
        create_revision: Revision::ZERO,
        mod_revision: Revision::ZERO,
        version: 0,
        lease: None,
    };
    while !bytes.is_empty() {
        match field(&mut bytes)? {
            (1, Value::Bytes(key)) => kv.key = Bytes::copy_from_slice(key),
            (2, Value::Number(revision)) => kv.create_revision = Revision(revision),
            (3, Value::Number(revision)) => kv.mod_revision = Revision(revision),
            (4, Value::Number(version)) => kv.version = version,
            (5, Value::Bytes(value)) => kv.value = Bytes::copy_from_slice(value),
            (6, Value::Number(lease)) => {
                kv.lease = (lease != 0).then_some(LeaseId(lease.cast_signed()));
            }
            (1..=6, _) => return None,
            // A later etcd may say more.
            _ => {}
        }
    }
    (!kv.key.is_empty()).then_some(kv)
}

/// Reads `leasepb.Lease`: the id, the time to live and the remaining time in seconds, which is zero where it was not recorded.
pub(super) fn decode_lease(mut bytes: &[u8]) -> Option<(LeaseId, i64, i64)> {
    let (mut id, mut ttl, mut remaining) = (0, 0, 0);
    while !bytes.is_empty() {
        match field(&mut bytes)? {
            (1, Value::Number(number)) => id = number.cast_signed(),
            (2, Value::Number(number)) => ttl = number.cast_signed(),
            (3, Value::Number(number)) => remaining = number.cast_signed(),
            (1..=3, _) => return None,
            _ => {}
        }
    }
    (id != 0).then_some((LeaseId(id), ttl, remaining))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_are_protobufs() {
        let kv = KeyValue {
            key: "ab".into(),
            value: "c".into(),
            create_revision: Revision(2),
            mod_revision: Revision(300),
            version: 1,
            lease: Some(LeaseId(-1)),
        };
        let mut wanted = b"\x0a\x02ab\x10\x02\x18\xac\x02\x20\x01\x2a\x01c\x30".to_vec();
        wanted.extend([0xff; 9]);
        wanted.push(1);
        assert_eq!(encode_key_value(&kv), wanted);
        assert_eq!(encode_lease(LeaseId(7), 60), b"\x08\x07\x10\x3c");
        // A field of another form, and one that is not known.
        assert_eq!(decode_lease(b"\x0a\x00"), None);
        assert_eq!(
            decode_lease(b"\x08\x07\x21\0\0\0\0\0\0\0\0\x18\x05"),
            Some((LeaseId(7), 0, 5))
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            key in proptest::collection::vec(any::<u8>(), 1..200),
            value in proptest::collection::vec(any::<u8>(), 0..300),
            numbers: (u64, u64, u64),
            lease: Option<i64>,
        ) {
            let kv = KeyValue {
                key: key.into(),
                value: value.into(),
                create_revision: Revision(numbers.0),
                mod_revision: Revision(numbers.1),
                version: numbers.2,
                lease: lease.filter(|id| *id != 0).map(LeaseId),
            };
            prop_assert_eq!(decode_key_value(&encode_key_value(&kv)), Some(kv));
        }

        #[test]
        fn no_bytes_are_too_wild(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = decode_key_value(&bytes);
            let _ = decode_lease(&bytes);
        }
    }
}
