//! Text in quotes, as the files of a downward API volume have it.

use std::fmt::Write;

/// A text in double quotes, with what cannot be printed escaped as in a Go string literal, which is the form in which Kubernetes
/// writes labels and annotations: `\n`, `\"`, `\\`, `\x7f`, `\u200b`, ….
#[must_use]
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            ' '..='~' => out.push(c),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            _ if is_printable(c) => out.push(c),
            // Writing to a string cannot fail.
            _ => {
                let code = u32::from(c);
                let _ = match code {
                    0..0x80 => write!(out, "\\x{code:02x}"),
                    0x80..0x1_0000 => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push('"');
    out
}

/// Whether a character outside ASCII is a letter, mark, number, punctuation or symbol.
fn is_printable(c: char) -> bool {
    // The standard library escapes for debugging what is not printable, by the same categories. It escapes a mark, too, but only at
    // the beginning.
    let mut text = [0; 5];
    text[0] = b'a';
    let length = 1 + c.encode_utf8(&mut text[1..]).len();
    std::str::from_utf8(&text[..length]).is_ok_and(|text| {
        text.escape_debug()
            .nth(1)
            .is_some_and(|first| first != '\\')
    })
}
