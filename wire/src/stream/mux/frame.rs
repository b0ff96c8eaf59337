//! What goes over a cable, whatever its framing is.

use bytes::Bytes;

/// The header fields of a stream, in order. Names are compared without regard to case; a name may occur more than once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// No fields.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with one more field. The name is put in lower case, as SPDY wants it.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.push(name, value);
        self
    }

    /// Adds a field.
    pub fn push(&mut self, name: &str, value: impl Into<String>) {
        self.0.push((name.to_ascii_lowercase(), value.into()));
    }

    /// The first value of a field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter()
            .find(|(have, _)| have.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// All fields.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Why a stream was reset, by SPDY's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResetCode(pub u32);

impl ResetCode {
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1);
    /// A frame for a stream that is not there.
    pub const INVALID_STREAM: Self = Self(2);
    /// The stream was refused before anything was done with it.
    pub const REFUSED: Self = Self(3);
    /// Whoever opened or took the stream wants it no more.
    pub const CANCEL: Self = Self(5);
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A new stream. `fin`: the opener will send nothing. `unidirectional`: the other side will not.
    Open {
        id: u32,
        headers: Headers,
        fin: bool,
        unidirectional: bool,
    },
    /// The stream was taken.
    Reply {
        id: u32,
        headers: Headers,
        fin: bool,
    },
    /// Content of a stream.
    Data { id: u32, data: Bytes, fin: bool },
    /// The end of a stream, both ways.
    Reset { id: u32, code: ResetCode },
    /// A question whether the peer is there, or its answer: who asked is told by the number.
    Ping(u32),
    /// No more streams.
    GoAway { last: u32 },
    /// Something that only shows that the peer is there.
    Alive,
}
