//! Port-forward: connections to ports of a pod over one connection, on either side.
//!
//! Every connection has two streams: one for its bytes and one on which the server says what went wrong. Over SPDY (directly, or
//! tunnelled through a WebSocket) they are opened as they are wanted; over the older WebSocket protocols there is one connection for
//! each port that the request named.

mod client;
mod server;
#[cfg(test)]
mod tests;

pub use self::client::PortForwarder;
pub use self::server::{Session, accept, serve_spdy, serve_websocket};

/// What is spoken inside SPDY.
pub const PROTOCOL: &str = "portforward.k8s.io";

/// SPDY tunnelled through a WebSocket.
pub const TUNNEL_PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";

/// The older protocols over WebSockets, the best first. The last one stands for clients that name none.
pub const WEBSOCKET_PROTOCOLS: [&str; 5] = [
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
    "",
];

/// The headers of SPDY's streams.
mod header {
    pub(super) const STREAM_TYPE: &str = "streamtype";
    pub(super) const ERROR: &str = "error";
    pub(super) const DATA: &str = "data";
    pub(super) const PORT: &str = "port";
    pub(super) const REQUEST_ID: &str = "requestid";
}
