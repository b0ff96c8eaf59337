//! A watch: events out of the chunks of a body.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use futures::stream;
use http_body_util::BodyExt;
use orlop_core::client::{ObjectWatch, Target, WatchEvent};
use orlop_core::status::Status;

use super::answer;
use crate::body::Body;

/// Splits chunks into lines, wherever the chunks were cut. A line may not be longer than the limit.
pub(super) struct Lines {
    buffer: BytesMut,
    /// Up to here there is no line break.
    searched: usize,
    limit: usize,
}

impl Lines {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            searched: 0,
            limit,
        }
    }

    /// Takes a chunk.
    pub(super) fn push(&mut self, chunk: &Bytes) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next whole line that is not blank; `Err` for one that is too long.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, usize> {
        loop {
            let Some(end) = self.buffer[self.searched..]
                .iter()
                .position(|byte| *byte == b'\n')
            else {
                self.searched = self.buffer.len();
                return if self.searched > self.limit {
                    Err(self.limit)
                } else {
                    Ok(None)
                };
            };
            let line = self.buffer.split_to(self.searched + end);
            self.buffer.advance(1);
            self.searched = 0;
            if line.len() > self.limit {
                return Err(self.limit);
            }
            if !line.iter().all(u8::is_ascii_whitespace) {
                return Ok(Some(line.freeze()));
            }
        }
    }

    /// What came after the last line break.
    fn rest(&mut self) -> Bytes {
        self.searched = 0;
        self.buffer.split().freeze()
    }
}

struct Watch {
    body: Option<Body>,
    lines: Lines,
    target: Target,
    ready: VecDeque<Result<WatchEvent, Status>>,
}

/// The events of a watch. `keep` lives as long as the stream.
pub(super) fn events<K: Send + 'static>(
    body: Body,
    target: Target,
    limit: usize,
    keep: K,
) -> ObjectWatch {
    let watch = Watch {
        body: Some(body),
        lines: Lines::new(limit),
        target,
        ready: VecDeque::new(),
    };
    Box::pin(stream::unfold(
        (watch, keep),
        |(mut watch, keep)| async move {
            let event = watch.next().await?;
            Some((event, (watch, keep)))
        },
    ))
}

impl Watch {
    async fn next(&mut self) -> Option<Result<WatchEvent, Status>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let frame = self.body.as_mut()?.frame().await;
            match frame {
                Some(Ok(frame)) => {
                    if let Some(chunk) = frame.data_ref() {
                        self.lines.push(chunk);
                    }
                    self.take_lines();
                }
                Some(Err(error)) => {
                    self.body = None;
                    self.ready.push_back(Err(Status::unavailable(format!(
                        "the watch broke off: {error}"
                    ))));
                }
                None => {
                    self.body = None;
                    let rest = self.lines.rest();
                    if !rest.iter().all(u8::is_ascii_whitespace) {
                        // The last event may lack its line break; a torn one is an error.
                        self.take(&rest);
                    }
                }
            }
        }
    }

    fn take_lines(&mut self) {
        while self.body.is_some() {
            match self.lines.next() {
                Ok(Some(line)) => self.take(&line),
                Ok(None) => return,
                Err(limit) => {
                    let message = format!("an event of the watch has more than {limit} bytes");
                    self.ready.push_back(Err(Status::internal(message)));
                    self.body = None;
                }
            }
        }
    }

    fn take(&mut self, line: &[u8]) {
        let event = answer::event(&self.target, line);
        if event.is_err() {
            // An error is the last thing that a watch says.
            self.body = None;
        }
        self.ready.push_back(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_whole_wherever_they_were_cut() {
        let text = b"one\n\ntwo two\n  \nthree\nfour";
        for size in 1..text.len() {
            let mut lines = Lines::new(100);
            let mut found = Vec::new();
            for chunk in text.chunks(size) {
                lines.push(&Bytes::copy_from_slice(chunk));
                while let Some(line) = lines.next().unwrap() {
                    found.push(line);
                }
            }
            assert_eq!(
                found,
                [&b"one"[..], b"two two", b"three"],
                "cut every {size}"
            );
            assert_eq!(lines.rest(), &b"four"[..]);
        }
        let mut lines = Lines::new(4);
        lines.push(&Bytes::from_static(b"12345"));
        assert_eq!(lines.next(), Err(4));
    }
}
