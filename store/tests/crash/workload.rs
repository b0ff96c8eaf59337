//! What clients write, such that from what stands there one sees who wrote it and whether it is whole.

/// How many clients write at the same time, and how many keys each has.
pub(crate) const CLIENTS: u64 = 8;
pub(crate) const KEYS: u64 = 24;

/// What all clients count up.
pub(crate) const COUNTER: &str = "/counter";

/// Numbers that look random, the same for the same seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        let mut own = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        own.next();
        own
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 11) % end
    }
}

pub(crate) fn prefix(client: u64) -> String {
    format!("/client/{client}/")
}

pub(crate) fn key(client: u64, number: u64) -> String {
    format!("/client/{client}/{number:02}")
}

/// How often a client has counted up.
pub(crate) fn count_key(client: u64) -> String {
    format!("/count/{client}")
}

/// The value that step `step` of a client writes to a key: who wrote it, bytes that follow from that, and a checksum.
pub(crate) fn value(client: u64, step: u64, key: &str) -> Vec<u8> {
    let mut random =
        Random::new(client ^ step << 8 ^ u64::from(crc32fast::hash(key.as_bytes())) << 32);
    let length = match random.below(40) {
        0 => 20_000,
        1..4 => 0,
        _ => random.below(1200),
    };
    let mut value = format!("{client} {step} ").into_bytes();
    for _ in 0..length {
        value.push(random.next() as u8);
    }
    let sum = crc32fast::hash(&value);
    value.extend(sum.to_le_bytes());
    value
}

/// The client and the step that wrote a value; `None` for one that is not whole.
pub(crate) fn author(bytes: &[u8], key: &str) -> Option<(u64, u64)> {
    let mut words = bytes.split(|&byte| byte == b' ');
    let mut number = || std::str::from_utf8(words.next()?).ok()?.parse().ok();
    let (client, step) = (number()?, number()?);
    (value(client, step, key) == bytes).then_some((client, step))
}
