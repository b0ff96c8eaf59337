//! As much of HPACK (RFC 7541) as it takes to find the authority in the first block of headers of a connection, and to put another text in its place.

use http::uri::Authority;

/// The number of `:authority` in the table that every connection begins with.
const AUTHORITY: usize = 1;

/// The Huffman code of appendix B, up to its codes of 15 bits, in the order of the codes. Those of one length are consecutive numbers, and the first
/// of a length follows the last of the length before.
const CODES: [(u32, &[u8]); 10] = [
    (5, b"012aceiost"),
    (6, b" %-./3456789=A_bdfghlmnpru"),
    (7, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, b"&*,;XZ"),
    (10, b"!\"()?"),
    (11, b"'+|"),
    (12, b"#>"),
    (13, b"\0$@[]~"),
    (14, b"^}"),
    (15, b"<`{"),
];

/// The block with an authority that is one, or `None` if it has one, or none at all, or cannot be read.
pub(super) fn mended(block: &[u8]) -> Option<Vec<u8>> {
    let mut at = 0;
    loop {
        let first = *block.get(at)?;
        let name = match first {
            // A field of the table.
            0x80.. => {
                integer(block, &mut at, 7)?;
                continue;
            }
            // Added to the table, as the next ones are not.
            0x40.. => integer(block, &mut at, 6)?,
            // The table's size.
            0x20.. => {
                integer(block, &mut at, 5)?;
                continue;
            }
            _ => integer(block, &mut at, 4)?,
        };
        if name == 0 {
            text(block, &mut at)?;
        }
        let begin = at;
        let (coded, bytes) = text(block, &mut at)?;
        if name != AUTHORITY {
            continue;
        }
        let told = if coded {
            decoded(bytes)?
        } else {
            bytes.to_vec()
        };
        if told.is_empty() || Authority::try_from(&told[..]).is_ok() {
            return None;
        }
        let mut mended = block[..begin].to_vec();
        write_length(&mut mended, told.len());
        mended.extend(told.iter().map(|byte| match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' => *byte,
            _ => b'.',
        }));
        mended.extend_from_slice(&block[at..]);
        return Some(mended);
    }
}

/// A number whose first byte has that many bits of it.
fn integer(block: &[u8], at: &mut usize, bits: u32) -> Option<usize> {
    let full = (1 << bits) - 1;
    let mut value = usize::from(*block.get(*at)?) & full;
    *at += 1;
    if value < full {
        return Some(value);
    }
    for shift in [0, 7, 14] {
        let byte = *block.get(*at)?;
        *at += 1;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Writes the length of a text that is not coded.
fn write_length(block: &mut Vec<u8>, length: usize) {
    let Some(mut rest) = length.checked_sub(0x7f) else {
        // Less than 127.
        block.push(length as u8);
        return;
    };
    block.push(0x7f);
    while rest >= 0x80 {
        block.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    block.push(rest as u8);
}

/// A text, and whether it is in Huffman's code.
fn text<'a>(block: &'a [u8], at: &mut usize) -> Option<(bool, &'a [u8])> {
    let coded = *block.get(*at)? & 0x80 != 0;
    let length = integer(block, at, 7)?;
    let bytes = block.get(*at..)?.get(..length)?;
    *at += length;
    Some((coded, bytes))
}

fn decoded(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let (mut code, mut length) = (0, 0);
    for byte in bytes {
        for place in (0..8).rev() {
            code = code << 1 | u32::from(byte >> place & 1);
            length += 1;
            if let Some(letter) = letter(code, length) {
                text.push(letter);
                (code, length) = (0, 0);
            } else if length > 15 {
                return None;
            }
        }
    }
    // What is left is padding.
    (length < 8).then_some(text)
}

fn letter(code: u32, length: u32) -> Option<u8> {
    let (mut first, mut before) = (0, 0);
    for (bits, letters) in CODES {
        first <<= bits - before;
        if bits == length {
            let number = code.checked_sub(first)?;
            return letters.get(number as usize).copied();
        }
        first += letters.len() as u32;
        before = bits;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The Huffman code of `http://127.0.0.1:23790`.
    const SENT: &[u8] = &[
        0x90, 0x9d, 0x29, 0xae, 0xe3, 0x0c, 0x04, 0x4e, 0xae, 0x05, 0xc0, 0xb8, 0x6e, 0x09, 0x97,
        0x5f, 0x07,
    ];

    fn block(authority: &[u8]) -> Vec<u8> {
        // POST, a path in Huffman's code that has what looks like an authority in it, and a header after it.
        [
            b"\x83\x3f\xe1\x1f\x04\x03\x41\x01/\x41",
            authority,
            b"\x40\x01a\x01b",
        ]
        .concat()
    }

    fn raw(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_length(&mut bytes, text.len());
        bytes.extend(text.as_bytes());
        bytes
    }

    #[test]
    fn what_is_no_authority_becomes_one_of_the_same_length() {
        let url = mended(&block(SENT)).unwrap();
        assert_eq!(url, block(&raw("http...127.0.0.1.23790")));
        let long = format!("/{}", "x".repeat(300));
        for path in ["/run/etcd.sock", "unix:///a%2F_#b", "", &long] {
            let dots = path.replace(['/', ':', '%', '_', '#'], ".");
            let wanted = Some(block(&raw(&dots)));
            assert_eq!(
                mended(&block(&raw(path))),
                wanted.filter(|_| !path.is_empty()),
                "{path}"
            );
        }
    }

    #[test]
    fn an_authority_stays() {
        for authority in ["localhost:2379", "127.0.0.1", "[::1]:2379", "etcd_1"] {
            assert_eq!(mended(&block(&raw(authority))), None, "{authority}");
        }
    }

    #[test]
    fn every_letter_is_known_by_its_code() {
        // RFC 7541, appendix C.4.1, and some codes of appendix B.
        let example = b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
        assert_eq!(decoded(example).unwrap(), b"www.example.com");
        for (code, length, wanted) in [(0x18, 6, b'/'), (0x7b, 7, b'z'), (0x3f8, 10, b'!')] {
            assert_eq!(letter(code, length), Some(wanted));
        }
        assert_eq!(letter(0xffa, 12), Some(b'#'));
        assert_eq!(letter(0x1ffd, 13), Some(b'~'));
        assert_eq!(letter(0x7ffe, 15), Some(b'{'));
    }

    #[test]
    fn what_cannot_be_read_stays() {
        let whole = block(&raw("/run/etcd.sock"));
        for length in 0..10 {
            assert_eq!(mended(&whole[..length]), None);
        }
        assert_eq!(mended(b"\x41\x84\xff\xff\xff\xff"), None);
        assert_eq!(mended(b"\x41\xff\xff\xff\xff\xff\xff"), None);
    }
}
