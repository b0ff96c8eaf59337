//! The query of a request.

use http::Uri;

/// Its pairs, in order, without their encoding.
pub(super) fn pairs(uri: &Uri) -> Vec<(String, String)> {
    uri.query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name, true), decode(value, true))
        })
        .collect()
}

/// The first value of a name.
pub(super) fn first<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut all = pairs.iter().filter(|(have, _)| have == name);
    all.next().map(|(_, value)| value.as_str())
}

/// Whether a name has the value 1, as upstream has what may be set.
pub(super) fn is_set(pairs: &[(String, String)], name: &str) -> bool {
    first(pairs, name) == Some("1")
}

/// Takes percent signs away, and the plus signs of forms. What is no encoding stays.
pub(super) fn decode(text: &str, form: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |at: usize| {
            bytes
                .get(at)
                .and_then(|byte| char::from(*byte).to_digit(16))
        };
        match bytes[at] {
            b'%' if let (Some(high), Some(low)) = (hex(at + 1), hex(at + 2)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
                continue;
            }
            b'+' if form => out.push(b' '),
            byte => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read() {
        let uri =
            Uri::from_static("/x?command=sh&command=-c&command=echo%20%22a%26b%22+c&tty=1&&x");
        let query = pairs(&uri);
        let commands: Vec<&str> = query
            .iter()
            .filter(|(name, _)| name == "command")
            .map(|(_, value)| value.as_str())
            .collect();
        assert_eq!(commands, ["sh", "-c", "echo \"a&b\" c"]);
        assert!(is_set(&query, "tty") && !is_set(&query, "input"));
        assert_eq!(first(&query, "x"), Some(""));
        assert_eq!(decode("100%+%zz", false), "100%+%zz");
    }
}
