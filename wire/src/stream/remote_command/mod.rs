//! `exec` and `attach`: a program's streams over one connection, on either side.
//!
//! The server's side, [`accept`], agrees on a protocol with whoever asks over HTTP and then joins the client to a
//! [`Process`](orlop_core::runtime::Process). The client's side, [`client`], is handed an upgraded connection and makes a `Process` of it.
//!
//! | protocol | over | what is special |
//! |---|---|---|
//! | `v5.channel.k8s.io` | WebSocket | standard input can be closed by itself |
//! | `v4.channel.k8s.io` | WebSocket, SPDY | the end is told as a `Status` in JSON |
//! | `v3.channel.k8s.io` | SPDY | terminals can be resized |
//! | `v2.channel.k8s.io`, `channel.k8s.io` | SPDY, WebSocket | the end is told as text |
//!
//! WebSockets carry all of them in base 64, too.

mod client;
mod protocol;
mod resize;
mod server;
mod status;
#[cfg(test)]
mod tests;

pub use self::client::client;
pub(crate) use self::client::sink as byte_sink_of;
pub use self::protocol::{Protocol, SPDY_PROTOCOLS, Streams, WEBSOCKET_PROTOCOLS};
pub use self::server::{Session, accept, serve};
