//! Ports: the protocol `portforward.k8s.io`.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::{once, unfold};
use orlop_core::env::Env;
use orlop_core::runtime::{ByteStream, Connection, RuntimeError};
use orlop_wire::stream::mux::{Headers, ReceiveHalf};

use super::{broken, connect, report, sink};

const PROTOCOL: &str = "portforward.k8s.io";

/// How long after the end of the data an engine may take to say that it was a failure.
const SAYS_WITHIN: Duration = Duration::from_secs(1);

/// A connection to a port, at an address where it can be had. Whether something listens shows when it is read.
pub(crate) async fn port(env: &Env, address: &str, port: u16) -> Result<Connection, RuntimeError> {
    let connection = connect(env, address, &[PROTOCOL]).await?;
    let headers = |kind: &str| {
        Headers::new()
            .with("streamtype", kind)
            .with("port", port.to_string())
            .with("requestid", "0")
    };
    let error = connection.open(headers("error")).await.map_err(broken)?;
    // Nothing is ever sent over it.
    error.close_send();
    let data = connection.open(headers("data")).await.map_err(broken)?;
    let (receive, send) = data.into_split();
    Ok(Connection {
        send: sink(send),
        receive: received(env.clone(), receive, error.into_split().0, port),
    })
}

/// The data, and after them why they ended, if by a failure.
fn received(env: Env, data: ReceiveHalf, error: ReceiveHalf, port: u16) -> ByteStream {
    let data = unfold(Some(data), |data| async move {
        let mut data = data?;
        let bytes = data.bytes().await?.map_err(broken);
        let rest = bytes.is_ok().then_some(data);
        Some((bytes, rest))
    });
    let failure = once(async move {
        match env.timeout(SAYS_WITHIN, report(error)).await {
            Ok(Ok(said)) if !said.is_empty() => Some(Err(failure(&said, port))),
            _ => None,
        }
    });
    Box::pin(data.chain(failure.filter_map(std::future::ready)))
}

fn failure(said: &[u8], port: u16) -> RuntimeError {
    let said = String::from_utf8_lossy(said);
    if said.to_ascii_lowercase().contains("connection refused") {
        RuntimeError::Refused(port)
    } else {
        RuntimeError::Failed(own_words(said.trim()).to_owned())
    }
}

/// What an engine says without what its streaming server puts before it, `error forwarding port 1 to pod 2, uid 3: `, which the
/// kubelet says, too, in terms that users know.
fn own_words(said: &str) -> &str {
    said.strip_prefix("error forwarding port ")
        .and_then(|rest| rest.split_once(", uid "))
        .and_then(|(_, rest)| rest.split_once(": "))
        .map_or(said, |(_, own)| own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_once() {
        let said = |text: &str| failure(text.as_bytes(), 81);
        let failed = |text: &str| RuntimeError::Failed(text.to_owned());
        assert_eq!(
            said("error forwarding port 81 to pod 1f0e, uid : no namespace: gone\n"),
            failed("no namespace: gone")
        );
        assert_eq!(said("something: else"), failed("something: else"));
        assert_eq!(
            said("error forwarding port 81 to pod 1f0e, uid : dial: connect: connection refused"),
            RuntimeError::Refused(81)
        );
    }
}
