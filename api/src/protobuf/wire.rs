//! The encoding itself: varints, tags and lengths.

/// How a value stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WireType {
    Varint,
    Fixed64,
    Length,
    Fixed32,
}

/// What is wrong with bytes.
pub(crate) type Fault = &'static str;

const TRUNCATED: Fault = "the message is cut short";

/// Reads a message from its first byte to its last.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn varint(&mut self) -> Result<u64, Fault> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.bytes.split_first().ok_or(TRUNCATED)?;
            self.bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                // The tenth byte has room for one bit.
                return if shift == 63 && byte > 1 {
                    Err("an integer has more than 64 bits")
                } else {
                    Ok(value)
                };
            }
        }
        Err("an integer has more than 64 bits")
    }

    /// A signed number, which is a varint of its two's complement.
    pub(crate) fn int64(&mut self) -> Result<i64, Fault> {
        self.varint().map(u64::cast_signed)
    }

    /// Numbers of 32 bits are sent as if they had 64; what is above is dropped, as every protobuf reader does.
    pub(crate) fn int32(&mut self) -> Result<i32, Fault> {
        #[expect(clippy::cast_possible_truncation, reason = "the encoding says so")]
        self.int64().map(|value| value as i32)
    }

    pub(crate) fn fixed64(&mut self) -> Result<[u8; 8], Fault> {
        let (head, rest) = self.bytes.split_first_chunk().ok_or(TRUNCATED)?;
        self.bytes = rest;
        Ok(*head)
    }

    /// The field's number and how its value stands there.
    pub(crate) fn tag(&mut self) -> Result<(u32, WireType), Fault> {
        let tag = self.varint()?;
        let wire_type = match tag & 7 {
            0 => WireType::Varint,
            1 => WireType::Fixed64,
            2 => WireType::Length,
            5 => WireType::Fixed32,
            _ => return Err("a field has no valid wire type"),
        };
        match u32::try_from(tag >> 3) {
            Ok(number) if number > 0 => Ok((number, wire_type)),
            _ => Err("a field has no valid number"),
        }
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Fault> {
        let length = usize::try_from(self.varint()?).map_err(|_| TRUNCATED)?;
        let (head, rest) = self.bytes.split_at_checked(length).ok_or(TRUNCATED)?;
        self.bytes = rest;
        Ok(head)
    }

    pub(crate) fn string(&mut self) -> Result<&'a str, Fault> {
        std::str::from_utf8(self.bytes()?).map_err(|_| "a string is not UTF-8")
    }

    pub(crate) fn skip(&mut self, wire_type: WireType) -> Result<(), Fault> {
        match wire_type {
            WireType::Varint => self.varint().map(drop),
            WireType::Fixed64 => self.fixed64().map(drop),
            WireType::Length => self.bytes().map(drop),
            WireType::Fixed32 => {
                self.bytes = self.bytes.get(4..).ok_or(TRUNCATED)?;
                Ok(())
            }
        }
    }
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        #[expect(clippy::cast_possible_truncation, reason = "the seven lowest bits")]
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    #[expect(clippy::cast_possible_truncation, reason = "less than 0x80")]
    out.push(value as u8);
}

pub(crate) fn put_tag(out: &mut Vec<u8>, number: u32, wire_type: WireType) {
    let wire_type = match wire_type {
        WireType::Varint => 0,
        WireType::Fixed64 => 1,
        WireType::Length => 2,
        WireType::Fixed32 => 5,
    };
    put_varint(out, u64::from(number) << 3 | wire_type);
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_tag(out, number, WireType::Length);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(crate) fn put_int(out: &mut Vec<u8>, number: u32, value: i64) {
    put_tag(out, number, WireType::Varint);
    put_varint(out, value.cast_unsigned());
}

/// Writes a length-delimited field whose content `write` appends.
pub(crate) fn put_nested<E>(
    out: &mut Vec<u8>,
    number: u32,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    put_tag(out, number, WireType::Length);
    let start = out.len();
    write(out)?;
    // The length comes before what it measures: append it, and turn it to the front.
    let end = out.len();
    put_varint(out, (end - start) as u64);
    let length = out.len() - end;
    out[start..].rotate_right(length);
    Ok(())
}
