//! Files of variables, which `fileKeyRef` reads.

/// The largest file, in bytes.
pub(super) const LARGEST_FILE: u64 = 64 << 10;

/// The value of a name in a text of `NAME='value'` lines; `None` if it is not there. A value stands in single quotes, is taken as it
/// is and may span lines; empty lines and those that begin with `#` mean nothing, nor does a comment behind a value. The last
/// definition of a name counts.
///
/// # Errors
/// What is wrong, with the number of the line.
pub(super) fn value(text: &str, name: &str) -> Result<Option<String>, String> {
    let mut found = None;
    let mut rest = text;
    let mut line = 1;
    loop {
        // Blank space and line breaks before the next definition.
        let start = rest.trim_start_matches([' ', '\t', '\r']);
        if let Some(more) = start.strip_prefix('\n') {
            (rest, line) = (more, line + 1);
            continue;
        }
        if start.is_empty() {
            return Ok(found);
        }
        if start.starts_with('#') {
            rest = start.find('\n').map_or("", |at| &start[at..]);
            continue;
        }
        let (own, after) = start
            .split_once('=')
            .filter(|(own, _)| !own.is_empty() && !own.contains(char::is_whitespace))
            .ok_or_else(|| format!("invalid environment variable format at line {line}"))?;
        let quoted = after
            .strip_prefix('\'')
            .ok_or_else(|| format!("invalid environment variable format at line {line}: the value must be in single quotes"))?;
        let (value, after) = quoted
            .split_once('\'')
            .ok_or_else(|| format!("unterminated quoted value that begins at line {line}"))?;
        line += value.matches('\n').count();
        let (tail, more) = after
            .find('\n')
            .map_or((after, ""), |at| after.split_at(at));
        let tail = tail.trim();
        if !tail.is_empty() && !tail.starts_with('#') {
            return Err(format!("unexpected text behind the value at line {line}"));
        }
        if own == name {
            found = Some(value.to_owned());
        }
        rest = more;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_what_stands_between_single_quotes() {
        let text =
            "# a comment\n\n  A='one'  # more\nB='two\nlines $(A) \"x\"'\r\nA='last'\nE=''\n";
        for (name, expected) in [
            ("A", Some("last")),
            ("B", Some("two\nlines $(A) \"x\"")),
            ("E", Some("")),
            ("C", None),
        ] {
            assert_eq!(value(text, name).unwrap().as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn what_is_no_definition_is_refused() {
        for text in [
            "A",
            "A=x",
            "A=\"x\"",
            "=''",
            "A B='x'",
            "A='x' y",
            "\nA='x",
            "export A='x'",
        ] {
            assert!(value(text, "A").is_err(), "{text:?}");
        }
        assert_eq!(
            value("A='a\nb'\nB", "A"),
            Err("invalid environment variable format at line 3".to_owned())
        );
    }
}
