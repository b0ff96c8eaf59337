//! What is wrong with a JSON text, in the words of Go's decoder, which are those that clients of Kubernetes know.

/// How deep arrays and objects may be nested: the limit of the parser that reads the body.
const MAX_DEPTH: usize = 127;

/// The first thing that is wrong, or `None` where the text is well-formed.
pub(super) fn refusal(text: &[u8]) -> Option<String> {
    let mut scanner = Scanner { text, at: 0 };
    let outcome = scanner.value(0).and_then(|()| {
        scanner.space();
        match scanner.peek() {
            None => Ok(()),
            Some(c) => Err(invalid(c, "after top-level value")),
        }
    });
    outcome.err()
}

type Scanned = Result<(), String>;

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

fn invalid(c: u8, context: &str) -> String {
    format!("invalid character {} {context}", quoted(c))
}

/// A byte as Go shows it: quoted, escaped where it cannot be printed.
fn quoted(c: u8) -> String {
    match c {
        b'\'' => r"'\''".to_owned(),
        b'\\' => r"'\\'".to_owned(),
        b'\n' => r"'\n'".to_owned(),
        b'\r' => r"'\r'".to_owned(),
        b'\t' => r"'\t'".to_owned(),
        0..=0x1f | 0x7f => format!("'\\x{c:02x}'"),
        0x80..=0x9f | 0xad => format!("'\\u{c:04x}'"),
        c => format!("'{}'", char::from(c)),
    }
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// The next byte, which must be there.
    fn next(&mut self) -> Result<u8, String> {
        let c = self.peek();
        self.at += 1;
        c.ok_or_else(|| "unexpected end of JSON input".to_owned())
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Scanned {
        self.space();
        let c = self.next()?;
        if matches!(c, b'{' | b'[') && depth >= MAX_DEPTH {
            return Err(invalid(c, "exceeded max depth"));
        }
        match c {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => self.string(),
            b'-' => match self.next()? {
                c @ b'0'..=b'9' => self.number(c),
                c => Err(invalid(c, "in numeric literal")),
            },
            b'0'..=b'9' => self.number(c),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            c => Err(invalid(c, "looking for beginning of value")),
        }
    }

    fn object(&mut self, depth: usize) -> Scanned {
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.space();
            match self.next()? {
                b'"' => self.string()?,
                c => return Err(invalid(c, "looking for beginning of object key string")),
            }
            self.space();
            match self.next()? {
                b':' => {}
                c => return Err(invalid(c, "after object key")),
            }
            self.value(depth + 1)?;
            self.space();
            match self.next()? {
                b',' => {}
                b'}' => return Ok(()),
                c => return Err(invalid(c, "after object key:value pair")),
            }
        }
    }

    fn array(&mut self, depth: usize) -> Scanned {
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value(depth + 1)?;
            self.space();
            match self.next()? {
                b',' => {}
                b']' => return Ok(()),
                c => return Err(invalid(c, "after array element")),
            }
        }
    }

    fn string(&mut self) -> Scanned {
        loop {
            match self.next()? {
                b'"' => return Ok(()),
                b'\\' => match self.next()? {
                    b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => {}
                    b'u' => {
                        for _ in 0..4 {
                            let c = self.next()?;
                            if !c.is_ascii_hexdigit() {
                                return Err(invalid(c, "in \\u hexadecimal character escape"));
                            }
                        }
                    }
                    c => return Err(invalid(c, "in string escape code")),
                },
                c @ 0..=0x1f => return Err(invalid(c, "in string literal")),
                _ => {}
            }
        }
    }

    /// The rest of a number that begins with a digit.
    fn number(&mut self, first: u8) -> Scanned {
        let digits = |scanner: &mut Self| {
            while scanner.peek().is_some_and(|c| c.is_ascii_digit()) {
                scanner.at += 1;
            }
        };
        if first != b'0' {
            digits(self);
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            match self.next()? {
                b'0'..=b'9' => digits(self),
                c => return Err(invalid(c, "after decimal point in numeric literal")),
            }
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            let mut c = self.next()?;
            if matches!(c, b'+' | b'-') {
                c = self.next()?;
            }
            if !c.is_ascii_digit() {
                return Err(invalid(c, "in exponent of numeric literal"));
            }
            digits(self);
        }
        Ok(())
    }

    /// The rest of a word whose first letter has been read.
    fn literal(&mut self, word: &str) -> Scanned {
        for expected in word.bytes().skip(1) {
            let c = self.next()?;
            if c != expected {
                let context = format!("in literal {word} (expecting {})", quoted(expected));
                return Err(invalid(c, &context));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn errors_in_the_words_of_go() {
        let table = [
            ("", "unexpected end of JSON input"),
            ("{", "unexpected end of JSON input"),
            ("tru", "unexpected end of JSON input"),
            ("x", "invalid character 'x' looking for beginning of value"),
            (
                "{a:1}",
                "invalid character 'a' looking for beginning of object key string",
            ),
            (
                "{'a':1}",
                "invalid character '\\'' looking for beginning of object key string",
            ),
            (
                "{\"a\":1,}",
                "invalid character '}' looking for beginning of object key string",
            ),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            (
                "{\"a\":01}",
                "invalid character '1' after object key:value pair",
            ),
            ("[1 2]", "invalid character '2' after array element"),
            ("{} x", "invalid character 'x' after top-level value"),
            ("\"\x01\"", "invalid character '\\x01' in string literal"),
            ("\"\\q\"", "invalid character 'q' in string escape code"),
            (
                "\"\\u00g0\"",
                "invalid character 'g' in \\u hexadecimal character escape",
            ),
            ("-a", "invalid character 'a' in numeric literal"),
            (
                "1.x",
                "invalid character 'x' after decimal point in numeric literal",
            ),
            (
                "1ex",
                "invalid character 'x' in exponent of numeric literal",
            ),
            (
                "trxe",
                "invalid character 'x' in literal true (expecting 'u')",
            ),
        ];
        for (text, expected) in table {
            assert_eq!(
                refusal(text.as_bytes()).as_deref(),
                Some(expected),
                "{text}"
            );
        }
        let deep = "[".repeat(100_000);
        assert_eq!(
            refusal(deep.as_bytes()).unwrap(),
            "invalid character '[' exceeded max depth"
        );
        let fits = format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
        assert_eq!(refusal(fits.as_bytes()), None);
        assert!(crate::registry::parse_json(fits.as_bytes()).is_ok());
    }

    proptest! {
        #[test]
        fn what_is_well_formed_is_what_the_parser_reads(text in "[\\[\\]{}:,\"a0-9\\-.eE+ truefalsn\\\\]{0,24}") {
            let read = serde_json::from_str::<serde_json::Value>(&text);
            // Numbers that are too large for the parser are well-formed all the same.
            if refusal(text.as_bytes()).is_some() {
                prop_assert!(read.is_err());
            } else if let Err(error) = read {
                prop_assert!(error.to_string().contains("number out of range"), "{text}: {error}");
            }
        }
    }
}
