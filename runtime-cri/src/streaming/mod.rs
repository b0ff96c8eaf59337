//! Streams into containers and sandboxes.
//!
//! CRI answers `Exec`, `Attach` and `PortForward` with the address of an HTTP server of the engine's, where the streams are to be had
//! over SPDY/3.1, in the same way in which the kubelet offers them to the API server.

mod command;
mod port;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{Method, Uri};
use orlop_core::env::Env;
use orlop_core::runtime::{ByteSink, ByteStream, RuntimeError};
use orlop_wire::stream::mux::{Connection, Options, ReceiveHalf, SendHalf};
use orlop_wire::stream::spdy;
use orlop_wire::upgrade::{self, Outcome, STREAM_PROTOCOL};
use tokio::net::TcpStream;

pub(crate) use self::command::{Wanted, command};
pub(crate) use self::port::port;

/// How long it may take until streams are there.
const PATIENCE: Duration = Duration::from_secs(30);

/// How much an engine may have to say about an end.
const REPORT_LIMIT: usize = 64 << 10;

/// Asks at an address for streams in one of these protocols.
async fn connect(env: &Env, address: &str, protocols: &[&str]) -> Result<Connection, RuntimeError> {
    let upgraded = env.timeout(PATIENCE, upgrade_at(address, protocols)).await;
    let io = upgraded.map_err(|_| {
        RuntimeError::Unavailable("the engine's streaming server did not answer".to_owned())
    })??;
    Ok(spdy::client(io, Options::default(), env))
}

async fn upgrade_at(
    address: &str,
    protocols: &[&str],
) -> Result<upgrade::UpgradedIo, RuntimeError> {
    let uri: Uri = address.parse().map_err(|error| failed(address, error))?;
    // An engine whose streaming server wants TLS is set up for another machine; the kubelet refuses such, too.
    let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(failed(address, "not an address over plain HTTP"));
    };
    let host = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']');
    let port = authority.port_u16().unwrap_or(80);
    let tcp = TcpStream::connect((host, port)).await.map_err(|error| {
        RuntimeError::Unavailable(format!(
            "the engine's streaming server at {authority}: {error}"
        ))
    })?;
    tcp.set_nodelay(true)
        .map_err(|error| failed(address, error))?;
    let request = upgrade::spdy_request(Method::POST, &uri, protocols);
    let request = request.map_err(|error| failed(address, error))?;
    let outcome = upgrade::connect(tcp, request).await;
    match outcome.map_err(|error| failed(authority, error))? {
        Outcome::Switched { response, io } => {
            let chosen = response.headers().get(STREAM_PROTOCOL);
            let chosen = chosen.and_then(|chosen| chosen.to_str().ok());
            if chosen.is_some_and(|chosen| protocols.contains(&chosen)) {
                Ok(io)
            } else {
                Err(failed(
                    authority,
                    format!("it chose the protocol {chosen:?}"),
                ))
            }
        }
        Outcome::Answered(response) => {
            let said = String::from_utf8_lossy(response.body()).trim().to_owned();
            Err(failed(authority, format!("{}: {said}", response.status())))
        }
    }
}

fn failed(at: impl fmt::Display, why: impl fmt::Display) -> RuntimeError {
    RuntimeError::Failed(format!("the engine's streaming server at {at}: {why}"))
}

fn broken(error: std::io::Error) -> RuntimeError {
    RuntimeError::Unavailable(format!(
        "the connection to the engine's streaming server: {error}"
    ))
}

fn sink(half: SendHalf) -> ByteSink {
    Box::pin(half.sink_map_err(broken))
}

fn stream(half: ReceiveHalf) -> ByteStream {
    Box::pin(half.map(|bytes| bytes.map_err(broken)))
}

/// Reads what an engine says about an end.
async fn report(mut half: ReceiveHalf) -> Result<Vec<u8>, RuntimeError> {
    let mut said = Vec::new();
    while let Some(bytes) = half.bytes().await {
        let bytes: Bytes = bytes.map_err(broken)?;
        let room = REPORT_LIMIT - said.len();
        said.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
    Ok(said)
}
