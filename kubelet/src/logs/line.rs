//! One record of a log as the Container Runtime Interface has it: `<time> <stream> <tags> <content>`.

use jiff::Timestamp;

/// Which output of a container a record comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    /// When it was written, as RFC 3339 with as many fractional digits as were needed.
    pub(super) time: &'a str,
    pub(super) output: Output,
    /// Whether the line goes on in the next record of the same output.
    pub(super) partial: bool,
    pub(super) content: &'a [u8],
}

/// Reads a record; the line comes without its end.
pub(super) fn parse(line: &[u8]) -> Option<Record<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let output = match parts.next()? {
        b"stdout" => Output::Stdout,
        b"stderr" => Output::Stderr,
        _ => return None,
    };
    // More tags may come after a colon, some day.
    let tag = parts.next()?.split(|byte| *byte == b':').next()?;
    let content = parts.next()?;
    // A time has at least its seconds: `2006-01-02T15:04:05Z`.
    if time.len() < 20 || !time.as_bytes()[0].is_ascii_digit() {
        return None;
    }
    Some(Record {
        time,
        output,
        partial: tag == b"P",
        content,
    })
}

impl Record<'_> {
    /// When it was written, in a form that can be compared.
    pub(super) fn timestamp(&self) -> Option<Timestamp> {
        self.time.parse().ok()
    }

    /// Writes the time with nine fractional digits and a space, so that columns line up.
    pub(super) fn write_time(&self, out: &mut Vec<u8>) {
        let (seconds, rest) = self.time.split_at(19);
        let digits = rest.strip_prefix('.').unwrap_or_default();
        let count = digits.bytes().take_while(u8::is_ascii_digit).count();
        let zone = if digits.is_empty() {
            rest
        } else {
            &digits[count..]
        };
        out.extend_from_slice(seconds.as_bytes());
        out.push(b'.');
        let shown = &digits.as_bytes()[..count.min(9)];
        out.extend_from_slice(shown);
        out.resize(out.len() + 9 - shown.len(), b'0');
        out.extend_from_slice(zone.as_bytes());
        out.push(b' ');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read() {
        let record = parse(b"2026-10-06T00:17:09.669794202Z stdout F log content 1").unwrap();
        assert_eq!(record.output, Output::Stdout);
        assert_eq!(record.content, b"log content 1");
        assert!(!record.partial);
        assert!(
            parse(b"2026-10-06T00:17:09Z stderr P:x  two")
                .unwrap()
                .partial
        );
        assert_eq!(
            parse(b"2026-10-06T00:17:09Z stderr F ").unwrap().content,
            b""
        );
        for bad in [
            &b""[..],
            b"2026-10-06T00:17:09Z stdout F",
            b"2026-10-06T00:17:09Z stdin F x",
            b"soon stdout F x",
            b"{\"log\":\"docker's own\"} stdout F x",
        ] {
            assert!(parse(bad).is_none(), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn times_are_written_with_nine_digits() {
        for (have, want) in [
            (
                "2026-10-06T00:17:09.669794202Z",
                "2026-10-06T00:17:09.669794202Z ",
            ),
            ("2026-10-06T00:17:09.5Z", "2026-10-06T00:17:09.500000000Z "),
            ("2026-10-06T00:17:09Z", "2026-10-06T00:17:09.000000000Z "),
            (
                "2026-10-06T00:17:09.12+02:00",
                "2026-10-06T00:17:09.120000000+02:00 ",
            ),
            (
                "2026-10-06T00:17:09-07:00",
                "2026-10-06T00:17:09.000000000-07:00 ",
            ),
        ] {
            let line = format!("{have} stdout F x");
            let record = parse(line.as_bytes()).unwrap();
            let mut out = Vec::new();
            record.write_time(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), want);
            assert!(record.timestamp().is_some());
        }
    }
}
