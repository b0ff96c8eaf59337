//! SPDY/3.1, as far as Kubernetes' clients (client-go, kubectl) and container runtimes (containerd, CRI-O) speak it.
//!
//! They open streams, reply to them, half-close and reset them, ping and take their leave. They send no windows and heed none: content
//! is held back only by the transport below. Nor are there SETTINGS or priorities; what comes of them is passed over.
//!
//! ```
//! use orlop_core::env::SimEnv;
//! use orlop_wire::stream::mux::{Headers, Options};
//! use orlop_wire::stream::spdy;
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! let sim = SimEnv::new(1);
//! let env = sim.env();
//! sim.block_on(async move {
//!     let (near, far) = tokio::io::duplex(1024);
//!     let client = spdy::client(near, Options::default(), &env);
//!     let server = spdy::server(far, Options::default(), &env);
//!     env.spawn("server", async move {
//!         let mut stream = server.accept().await.unwrap();
//!         stream.reply(Headers::new(), false);
//!         assert_eq!(stream.headers().get("streamtype"), Some("data"));
//!         let mut text = String::new();
//!         stream.read_to_string(&mut text).await.unwrap();
//!         stream.write_all(text.to_uppercase().as_bytes()).await.unwrap();
//!     });
//!     let mut stream = client.open(Headers::new().with("streamtype", "data")).await.unwrap();
//!     stream.write_all(b"hello").await.unwrap();
//!     stream.close_send();
//!     let mut answer = String::new();
//!     stream.read_to_string(&mut answer).await.unwrap();
//!     assert_eq!(answer, "HELLO");
//! });
//! ```

mod dictionary;
mod headers;
#[cfg(test)]
mod tests;
mod transport;

use orlop_core::env::Env;
use tokio::io::{AsyncRead, AsyncWrite};

use self::transport::SpdyTransport;
use super::mux::{Connection, Options, Role};

/// What `Upgrade:` says.
pub const PROTOCOL: &str = "SPDY/3.1";

/// The side that asked for the connection.
pub fn client<IO>(io: IO, options: Options, env: &Env) -> Connection
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    Connection::start(SpdyTransport::new(io), Role::Client, options, env, &[]).0
}

/// The side that was asked.
pub fn server<IO>(io: IO, options: Options, env: &Env) -> Connection
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    Connection::start(SpdyTransport::new(io), Role::Server, options, env, &[]).0
}
