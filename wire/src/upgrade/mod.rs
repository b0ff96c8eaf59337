//! HTTP/1.1 connections that become something else: `Connection: Upgrade`.
//!
//! The server's side looks at a request, answers `101 Switching Protocols` and is handed the bytes below ([`websocket`], [`spdy`], and
//! [`switch`] for who only passes them on). The client's side, [`connect`], asks and is handed them likewise.

mod client;
mod server;
#[cfg(test)]
mod tests;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub use self::client::{Outcome, connect, spdy_request, websocket_request};
pub use self::server::{
    Accepted, Upgrading, is_spdy, is_upgrade, is_websocket, spdy, switch, websocket,
};

/// Which stream protocols a client knows, or which one was chosen: with SPDY, where WebSockets have `Sec-WebSocket-Protocol`.
pub const STREAM_PROTOCOL: &str = "x-stream-protocol-version";

/// Which stream protocols a server knows, told to a client that knows none of them.
pub const ACCEPTED_STREAM_PROTOCOLS: &str = "x-accepted-stream-protocol-versions";

/// The bytes below a connection that has been upgraded.
pub struct UpgradedIo(TokioIo<Upgraded>);

impl UpgradedIo {
    fn new(upgraded: Upgraded) -> Self {
        Self(TokioIo::new(upgraded))
    }
}

impl std::fmt::Debug for UpgradedIo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UpgradedIo")
    }
}

impl AsyncRead for UpgradedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for UpgradedIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
