//! Header blocks: names and values, compressed by one zlib stream a direction.

use std::io;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::dictionary::dictionary;
use crate::stream::mux::Headers;

/// The largest header block, before it is compressed.
const MAX_BLOCK: usize = 256 * 1024;

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Compresses header blocks.
pub(super) struct Deflater {
    zlib: Compress,
    primed: bool,
}

impl Deflater {
    pub(super) fn new() -> Self {
        Self {
            zlib: Compress::new(Compression::default(), true),
            primed: false,
        }
    }

    /// Writes a compressed block behind what is in `out`.
    pub(super) fn write(&mut self, headers: &Headers, out: &mut Vec<u8>) -> io::Result<()> {
        if !self.primed {
            self.zlib
                .set_dictionary(dictionary())
                .map_err(io::Error::other)?;
            self.primed = true;
        }
        let block = encode(headers)?;
        let mut rest = block.as_slice();
        loop {
            if out.capacity() - out.len() < 512 {
                out.reserve(1024);
            }
            let before = self.zlib.total_in();
            self.zlib
                .compress_vec(rest, out, FlushCompress::Sync)
                .map_err(io::Error::other)?;
            let taken = usize::try_from(self.zlib.total_in() - before).unwrap_or(usize::MAX);
            rest = rest.get(taken..).unwrap_or_default();
            // A flush is complete when it leaves room.
            if rest.is_empty() && out.len() < out.capacity() {
                return Ok(());
            }
        }
    }
}

/// Reads compressed header blocks.
pub(super) struct Inflater {
    zlib: Decompress,
}

impl Inflater {
    pub(super) fn new() -> Self {
        Self {
            zlib: Decompress::new(true),
        }
    }

    pub(super) fn read(&mut self, mut compressed: &[u8]) -> io::Result<Headers> {
        let mut block = Vec::with_capacity(1024);
        while !compressed.is_empty() || block.len() == block.capacity() {
            if block.len() == block.capacity() {
                if block.len() >= MAX_BLOCK {
                    return Err(invalid("SPDY: a header block is too large"));
                }
                block.reserve(block.len());
            }
            let (before_in, before_out) = (self.zlib.total_in(), block.len());
            let result = self
                .zlib
                .decompress_vec(compressed, &mut block, FlushDecompress::Sync);
            let taken = usize::try_from(self.zlib.total_in() - before_in).unwrap_or(usize::MAX);
            compressed = compressed.get(taken..).unwrap_or_default();
            match result {
                Ok(Status::StreamEnd) => {
                    return Err(invalid("SPDY: the header compression ended"));
                }
                Ok(_) if taken == 0 && block.len() == before_out => break,
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.zlib
                        .set_dictionary(dictionary())
                        .map_err(|_| invalid("SPDY: headers of another dictionary"))?;
                }
                Err(_) => return Err(invalid("SPDY: headers cannot be decompressed")),
            }
        }
        if !compressed.is_empty() {
            return Err(invalid("SPDY: headers cannot be decompressed"));
        }
        decode(&block)
    }
}

/// A block: the number of names, then each name and its values, which a zero byte divides, all behind their lengths.
fn encode(headers: &Headers) -> io::Result<Vec<u8>> {
    let mut fields: Vec<(&str, Vec<&str>)> = Vec::new();
    for (name, value) in headers.iter() {
        match fields.iter_mut().find(|(have, _)| *have == name) {
            Some((_, values)) => values.push(value),
            None => fields.push((name, vec![value])),
        }
    }
    let mut block = Vec::with_capacity(256);
    let number = |block: &mut Vec<u8>, count: usize| {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        block.extend_from_slice(&count.to_be_bytes());
    };
    number(&mut block, fields.len());
    for (name, values) in fields {
        number(&mut block, name.len());
        block.extend_from_slice(name.as_bytes());
        let length = values.iter().map(|value| value.len()).sum::<usize>() + values.len() - 1;
        number(&mut block, length);
        block.extend_from_slice(values.join("\0").as_bytes());
    }
    if block.len() > MAX_BLOCK {
        return Err(invalid("SPDY: a header block is too large"));
    }
    Ok(block)
}

fn decode(mut block: &[u8]) -> io::Result<Headers> {
    const CUT: &str = "SPDY: a header block is cut off";
    fn number(block: &mut &[u8]) -> io::Result<usize> {
        let (bytes, rest) = block.split_first_chunk::<4>().ok_or_else(|| invalid(CUT))?;
        *block = rest;
        Ok(u32::from_be_bytes(*bytes) as usize)
    }
    fn text<'a>(block: &mut &'a [u8]) -> io::Result<&'a str> {
        let length = number(block)?;
        let (bytes, rest) = block.split_at_checked(length).ok_or_else(|| invalid(CUT))?;
        *block = rest;
        std::str::from_utf8(bytes).map_err(|_| invalid("SPDY: a header is not text"))
    }
    let count = number(&mut block)?;
    let mut headers = Headers::new();
    for _ in 0..count {
        let name = text(&mut block)?;
        for value in text(&mut block)?.split('\0') {
            headers.push(name, value);
        }
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_read_as_they_were_written_and_share_one_compression() {
        let (mut deflater, mut inflater) = (Deflater::new(), Inflater::new());
        let mut sizes = Vec::new();
        for round in 0..4 {
            let headers = Headers::new()
                .with("streamtype", "stdin")
                .with("Accept", "a")
                .with("accept", "b")
                .with("requestid", round.to_string());
            let mut out = Vec::new();
            deflater.write(&headers, &mut out).unwrap();
            sizes.push(out.len());
            let read = inflater.read(&out).unwrap();
            assert_eq!(read, headers);
            assert_eq!(read.get("Accept"), Some("a"));
        }
        // Later blocks refer to earlier ones.
        assert!(sizes[1] < sizes[0], "{sizes:?}");
    }

    #[test]
    fn large_blocks_pass_and_larger_ones_do_not() {
        let (mut deflater, mut inflater) = (Deflater::new(), Inflater::new());
        let value: String = (0..100_000u32)
            .map(|n| char::from(b'a' + (n.wrapping_mul(2_654_435_761) >> 27) as u8 % 26))
            .collect();
        let headers = Headers::new().with("big", value);
        let mut out = Vec::new();
        deflater.write(&headers, &mut out).unwrap();
        assert_eq!(inflater.read(&out).unwrap(), headers);
        let headers = Headers::new().with("bigger", "x".repeat(MAX_BLOCK));
        assert!(deflater.write(&headers, &mut Vec::new()).is_err());
        // A small block that would become a large one.
        let mut bomb = Compress::new(Compression::best(), true);
        bomb.set_dictionary(dictionary()).unwrap();
        let mut out = Vec::with_capacity(64 * 1024);
        bomb.compress_vec(&vec![0; 8 << 20], &mut out, FlushCompress::Sync)
            .unwrap();
        assert!(Inflater::new().read(&out).is_err());
    }

    #[test]
    fn what_is_no_block_is_refused() {
        assert!(Inflater::new().read(b"no zlib at all").is_err());
        assert!(Inflater::new().read(b"").is_err());
        for block in [&[0, 0, 0, 1][..], &[0, 0, 0, 1, 0, 0, 0, 9, b'x'], &[0, 0]] {
            assert!(decode(block).is_err(), "{block:?}");
        }
        assert_eq!(decode(&[0; 4]).unwrap(), Headers::new());
    }
}
