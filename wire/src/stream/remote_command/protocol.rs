//! Which protocols there are, and which streams are wanted.

use crate::stream::websocket::ChannelFraming;

/// The protocols that are spoken inside SPDY, the best first.
pub const SPDY_PROTOCOLS: [&str; 4] = [
    "v4.channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
    "channel.k8s.io",
];

/// The protocols that are spoken over WebSockets, the best first. The last one stands for clients that name none.
pub const WEBSOCKET_PROTOCOLS: [&str; 6] = [
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
    "",
];

/// What was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Streams of SPDY/3.1.
    Spdy {
        /// The version inside: 1 to 4.
        version: u8,
    },
    /// Channels of a WebSocket.
    WebSocket {
        /// The version inside: 1, 4 or 5.
        version: u8,
        /// How channels are written into messages.
        framing: ChannelFraming,
    },
}

/// The version that a subprotocol's name begins with; 1 for one without.
fn version(name: &str) -> u8 {
    let mut bytes = name.bytes();
    match (bytes.next(), bytes.next(), bytes.next()) {
        (Some(b'v'), Some(digit @ b'1'..=b'9'), Some(b'.')) => digit - b'0',
        _ => 1,
    }
}

impl Protocol {
    /// A protocol over SPDY by its name; of a client that named none, the first.
    #[must_use]
    pub fn spdy(name: &str) -> Self {
        Self::Spdy {
            version: version(name),
        }
    }

    /// A protocol over a WebSocket by its name.
    #[must_use]
    pub fn websocket(name: &str) -> Self {
        Self::WebSocket {
            version: version(name),
            framing: ChannelFraming::of(name),
        }
    }

    pub(super) fn version(self) -> u8 {
        match self {
            Self::Spdy { version } | Self::WebSocket { version, .. } => version,
        }
    }

    /// Whether the end is told as a `Status` in JSON.
    pub(super) fn has_status(self) -> bool {
        self.version() >= 4
    }

    /// Whether terminals can be resized. A WebSocket has a channel for that in every version.
    pub(super) fn can_resize(self) -> bool {
        matches!(self, Self::WebSocket { .. }) || self.version() >= 3
    }
}

/// Which streams of a program are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    /// Its standard input.
    pub stdin: bool,
    /// Its standard output.
    pub stdout: bool,
    /// Its standard error.
    pub stderr: bool,
    /// It has a terminal.
    pub tty: bool,
}

/// The words of SPDY's `streamtype` header.
pub(super) mod stream_type {
    pub(in super::super) const NAME: &str = "streamtype";
    pub(in super::super) const ERROR: &str = "error";
    pub(in super::super) const STDIN: &str = "stdin";
    pub(in super::super) const STDOUT: &str = "stdout";
    pub(in super::super) const STDERR: &str = "stderr";
    pub(in super::super) const RESIZE: &str = "resize";
}

/// The numbers of a WebSocket's channels.
pub(super) mod channel {
    pub(in super::super) const STDIN: u8 = 0;
    pub(in super::super) const STDOUT: u8 = 1;
    pub(in super::super) const STDERR: u8 = 2;
    pub(in super::super) const ERROR: u8 = 3;
    pub(in super::super) const RESIZE: u8 = 4;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_versions() {
        for (name, expected) in [
            ("v5.channel.k8s.io", 5),
            ("v4.base64.channel.k8s.io", 4),
            ("channel.k8s.io", 1),
            ("base64.channel.k8s.io", 1),
            ("", 1),
        ] {
            assert_eq!(Protocol::websocket(name).version(), expected, "{name}");
        }
        assert!(!Protocol::spdy("v2.channel.k8s.io").can_resize());
        assert!(Protocol::spdy("v3.channel.k8s.io").can_resize());
        assert!(!Protocol::spdy("v3.channel.k8s.io").has_status());
    }
}
