//! What of a log is wanted, and how it is written out.

use jiff::Timestamp;

use super::LogOptions;
use super::line::{Output, parse};

/// The longest record of which the whole is kept before it is written out.
const MAX_RECORD: usize = 256 * 1024;

/// Turns the bytes of a log file into what a client sees.
#[derive(Debug)]
pub(super) struct Filter {
    since: Option<Timestamp>,
    timestamps: bool,
    only: Option<Output>,
    /// How many records there may still be.
    records: Option<u64>,
    /// How many bytes there may still be.
    bytes: Option<u64>,
    /// A record of which the end has not come.
    rest: Vec<u8>,
    /// A record that was too long to wait for: whether what comes of it is wanted.
    overlong: Option<Option<Output>>,
    /// Whether the last thing written of each output was no whole line.
    open: [bool; 2],
}

impl Filter {
    pub(super) fn new(options: &LogOptions) -> Self {
        Self {
            since: options.since,
            timestamps: options.timestamps,
            only: options.output,
            records: options.tail.filter(|_| !options.follow),
            bytes: options.limit_bytes,
            rest: Vec::new(),
            overlong: None,
            open: [false; 2],
        }
    }

    /// Whether nothing more is wanted.
    pub(super) fn is_done(&self) -> bool {
        self.bytes == Some(0) || self.records == Some(0)
    }

    /// Takes more of the file and writes what is wanted of it behind `out`.
    pub(super) fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() && !self.is_done() {
            let Some(at) = bytes.iter().position(|byte| *byte == b'\n') else {
                self.unfinished(bytes, out);
                return;
            };
            let (line, after) = (&bytes[..at], &bytes[at + 1..]);
            bytes = after;
            if self.overlong.is_some() {
                self.more_of_overlong(line, out);
                self.end_overlong(out);
            } else if self.rest.is_empty() {
                self.record(line, out);
            } else {
                let mut whole = std::mem::take(&mut self.rest);
                whole.extend_from_slice(line);
                self.record(&whole, out);
                whole.clear();
                self.rest = whole;
            }
        }
    }

    /// The file has come to its end for good: what is there of a last record is written out.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        if !self.rest.is_empty() && !self.is_done() {
            let rest = std::mem::take(&mut self.rest);
            self.write(&rest, true, out);
        }
    }

    /// Another file begins: no record goes on in it.
    pub(super) fn next_file(&mut self, out: &mut Vec<u8>) {
        self.finish(out);
        self.rest.clear();
        if self.overlong.is_some() {
            self.end_overlong(out);
        }
    }

    fn unfinished(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.overlong.is_some() {
            self.more_of_overlong(bytes, out);
            return;
        }
        self.rest.extend_from_slice(bytes);
        if self.rest.len() > MAX_RECORD {
            let begun = std::mem::take(&mut self.rest);
            self.overlong = Some(self.write(&begun, true, out));
        }
    }

    fn more_of_overlong(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.overlong.flatten().is_some() {
            self.put(bytes, out);
        }
    }

    fn end_overlong(&mut self, out: &mut Vec<u8>) {
        if let Some(Some(output)) = self.overlong.take() {
            self.put(b"\n", out);
            self.open[output as usize] = false;
        }
        self.count();
    }

    fn record(&mut self, line: &[u8], out: &mut Vec<u8>) {
        self.write(line, false, out);
        self.count();
    }

    fn count(&mut self) {
        if let Some(records) = &mut self.records {
            *records = records.saturating_sub(1);
        }
    }

    /// Writes a record, if it is wanted: then its output is returned.
    fn write(&mut self, line: &[u8], unfinished: bool, out: &mut Vec<u8>) -> Option<Output> {
        // What is no record is passed over.
        let record = parse(line)?;
        if self.only.is_some_and(|only| only != record.output) {
            return None;
        }
        if let Some(since) = self.since
            && record.timestamp().is_none_or(|time| time < since)
        {
            return None;
        }
        let from = out.len();
        let open = &mut self.open[record.output as usize];
        if self.timestamps && !*open {
            record.write_time(out);
        }
        out.extend_from_slice(record.content);
        *open = record.partial || unfinished;
        if !*open {
            out.push(b'\n');
        }
        self.cut(from, out);
        Some(record.output)
    }

    fn put(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let from = out.len();
        out.extend_from_slice(bytes);
        self.cut(from, out);
    }

    /// Holds what was written from `from` on to what there may still be.
    fn cut(&mut self, from: usize, out: &mut Vec<u8>) {
        if let Some(left) = &mut self.bytes {
            let written = out.len() - from;
            let kept = usize::try_from(*left).map_or(written, |left| left.min(written));
            out.truncate(from + kept);
            *left -= kept as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LOG: &str = "\
2026-01-01T00:00:01Z stdout F one
2026-01-01T00:00:02.5Z stderr F two
2026-01-01T00:00:03Z stdout P thr
2026-01-01T00:00:03Z stderr F between
2026-01-01T00:00:03Z stdout P e
2026-01-01T00:00:04Z stdout F e
nonsense
2026-01-01T00:00:05Z stdout F 
2026-01-01T00:00:06Z stdout F last
";

    fn filtered(options: &LogOptions, pieces: &[&[u8]]) -> String {
        let (mut filter, mut out) = (Filter::new(options), Vec::new());
        for piece in pieces {
            filter.feed(piece, &mut out);
        }
        filter.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_wanted_is_written() {
        let all = LogOptions::default();
        let at = |second: i64| Some(Timestamp::from_second(1_767_225_600 + second).unwrap());
        for (options, want) in [
            (all.clone(), "one\ntwo\nthrbetween\nee\n\nlast\n"),
            (
                LogOptions {
                    output: Some(Output::Stdout),
                    ..all.clone()
                },
                "one\nthree\n\nlast\n",
            ),
            (
                LogOptions {
                    output: Some(Output::Stderr),
                    ..all.clone()
                },
                "two\nbetween\n",
            ),
            (
                LogOptions {
                    since: at(4),
                    ..all.clone()
                },
                "e\n\nlast\n",
            ),
            (
                LogOptions {
                    limit_bytes: Some(6),
                    ..all.clone()
                },
                "one\ntw",
            ),
            (
                LogOptions {
                    limit_bytes: Some(0),
                    ..all.clone()
                },
                "",
            ),
            (
                LogOptions {
                    tail: Some(2),
                    ..all.clone()
                },
                "one\ntwo\n",
            ),
            (
                LogOptions {
                    tail: Some(0),
                    ..all.clone()
                },
                "",
            ),
            (
                LogOptions {
                    timestamps: true,
                    output: Some(Output::Stdout),
                    ..all
                },
                "2026-01-01T00:00:01.000000000Z one\n2026-01-01T00:00:03.000000000Z three\n2026-01-01T00:00:05.000000000Z \n2026-01-01T00:00:06.000000000Z last\n",
            ),
        ] {
            assert_eq!(filtered(&options, &[LOG.as_bytes()]), want, "{options:?}");
        }
    }

    #[test]
    fn a_record_of_any_length_takes_bounded_memory() {
        let options = LogOptions {
            timestamps: true,
            ..LogOptions::default()
        };
        let (mut filter, mut written) = (Filter::new(&options), 0);
        filter.feed(b"2026-01-01T00:00:01Z stdout F ", &mut Vec::new());
        let piece = vec![b'x'; 64 * 1024];
        for _ in 0..160 {
            let mut out = Vec::new();
            filter.feed(&piece, &mut out);
            written += out.len();
            assert!(filter.rest.capacity() <= 3 * MAX_RECORD);
        }
        let mut out = Vec::new();
        filter.feed(b"\n2026-01-01T00:00:02Z stdout F y\n", &mut out);
        assert_eq!(out, b"\n2026-01-01T00:00:02.000000000Z y\n");
        assert_eq!(written, 160 * 64 * 1024 + 31);
    }

    #[test]
    fn a_last_record_without_its_end_is_written() {
        let text = "2026-01-01T00:00:01Z stdout F one\n2026-01-01T00:00:01Z stdout F tw";
        assert_eq!(
            filtered(&LogOptions::default(), &[text.as_bytes()]),
            "one\ntw"
        );
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(cuts in prop::collection::vec(0usize..LOG.len(), 0..20), timestamps: bool) {
            let options = LogOptions { timestamps, ..LogOptions::default() };
            let mut cuts = cuts;
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts {
                pieces.push(&LOG.as_bytes()[from..cut]);
                from = cut;
            }
            pieces.push(&LOG.as_bytes()[from..]);
            prop_assert_eq!(filtered(&options, &pieces), filtered(&options, &[LOG.as_bytes()]));
        }
    }
}
