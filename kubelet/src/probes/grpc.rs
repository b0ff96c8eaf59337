//! The gRPC health check: `grpc.health.v1.Health/Check` over HTTP/2 without TLS. Its two messages have one field each, which is why they
//! are written here by hand.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use orlop_core::env::Env;
use orlop_wire::executor::ConnectionTasks;
use tokio::net::TcpStream;

use super::dial::{dial, join_host_port};
use super::http::{BODY_LIMIT, beside};
use super::prober::{Outcome, seconds};

/// How long to wait before connecting again, as gRPC clients do.
const RECONNECT: Duration = Duration::from_secs(1);

const NAMES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];
const UNKNOWN: u32 = 2;
const DEADLINE_EXCEEDED: u32 = 4;
const UNIMPLEMENTED: u32 = 12;
const INTERNAL: u32 = 13;
const UNAVAILABLE: u32 = 14;

/// A call that failed.
struct Refusal {
    code: u32,
    message: String,
}

/// Asks a server whether a service of its is healthy (the empty name: the server as a whole).
pub(super) async fn check(
    env: &Env,
    host: &str,
    port: u16,
    service: &str,
    agent: &str,
    timeout: Duration,
) -> Outcome {
    let address = join_host_port(host, port);
    let end = env.now() + timeout;
    let stream = match env.timeout(timeout, connect(env, host, port)).await {
        Ok(stream) => stream,
        Err(_) => {
            return Outcome::Failure(format!(
                "timeout: failed to connect service {address:?} within {}: context deadline exceeded",
                seconds(timeout)
            ));
        }
    };
    let left = end.since(env.now());
    let late = || Refusal {
        code: DEADLINE_EXCEEDED,
        message: String::new(),
    };
    let called = env.timeout(left, call(env, stream, &address, service, agent, left));
    match called.await.unwrap_or_else(|_| Err(late())) {
        Ok(1) => Outcome::Success("service healthy".to_owned()),
        Ok(status) => {
            let name = match status {
                0 => "UNKNOWN".to_owned(),
                2 => "NOT_SERVING".to_owned(),
                3 => "SERVICE_UNKNOWN".to_owned(),
                other => other.to_string(),
            };
            Outcome::Failure(format!("service unhealthy (responded with {name:?})"))
        }
        Err(Refusal {
            code: UNIMPLEMENTED,
            message,
        }) => Outcome::Failure(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
        )),
        Err(Refusal {
            code: DEADLINE_EXCEEDED,
            ..
        }) => Outcome::Failure(format!(
            "timeout: health rpc did not complete within {}",
            seconds(timeout)
        )),
        Err(Refusal { code, message }) => {
            let name = NAMES.get(code as usize).copied();
            let name = name.map_or_else(|| format!("Code({code})"), str::to_owned);
            Outcome::Failure(format!(
                "error: health rpc probe failed: rpc error: code = {name} desc = {message}"
            ))
        }
    }
}

async fn connect(env: &Env, host: &str, port: u16) -> TcpStream {
    loop {
        if let Ok(stream) = dial(host, port).await {
            return stream;
        }
        env.sleep(RECONNECT).await;
    }
}

async fn call(
    env: &Env,
    stream: TcpStream,
    address: &str,
    service: &str,
    agent: &str,
    left: Duration,
) -> Result<u64, Refusal> {
    let refused = |code: u32, message: String| Refusal { code, message };
    let unavailable =
        |error: hyper::Error| refused(UNAVAILABLE, format!("connection error: desc = \"{error}\""));
    let (tasks, _end) = ConnectionTasks::new(env);
    let (mut sender, connection) = http2::handshake(tasks, TokioIo::new(stream))
        .await
        .map_err(unavailable)?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", agent)
        .header("grpc-timeout", format!("{}m", left.as_millis().max(1)))
        .body(Full::new(frame(service)))
        .map_err(|error| refused(INTERNAL, error.to_string()))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(unavailable)?;
        let (head, mut body) = response.into_parts();
        let mut trailers = HeaderMap::new();
        let mut message = BytesMut::new();
        while let Some(part) = body.frame().await {
            match part.map_err(unavailable)?.into_data() {
                Ok(data) if message.len() + data.len() <= BODY_LIMIT => message.put(data),
                Ok(_) => {
                    return Err(refused(
                        8,
                        "grpc: received message larger than max".to_owned(),
                    ));
                }
                Err(other) => trailers.extend(other.into_trailers().unwrap_or_default()),
            }
        }
        // An answer without a message has its status among the headers.
        for headers in [&trailers, &head.headers] {
            let Some(code) = headers.get("grpc-status") else {
                continue;
            };
            let code = code
                .to_str()
                .ok()
                .and_then(|code| code.parse().ok())
                .unwrap_or(UNKNOWN);
            if code != 0 {
                let text = headers
                    .get("grpc-message")
                    .map(|text| unescape(text.as_bytes()));
                return Err(refused(code, text.unwrap_or_default()));
            }
            return parse(&message).ok_or_else(|| {
                refused(
                    INTERNAL,
                    "grpc: the answer is no HealthCheckResponse".to_owned(),
                )
            });
        }
        let status = head.status;
        let code = match status.as_u16() {
            200 | 400 => INTERNAL,
            401 => 16,
            403 => 7,
            404 => UNIMPLEMENTED,
            429 | 502..=504 => UNAVAILABLE,
            _ => UNKNOWN,
        };
        Err(refused(
            code,
            match status.as_u16() {
                200 => "server closed the stream without sending trailers".to_owned(),
                _ => format!("unexpected HTTP status code received from server: {status}"),
            },
        ))
    };
    beside(connection, exchange).await
}

/// `HealthCheckRequest { service = 1 }` with gRPC's prefix.
fn frame(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(1 << 3 | 2);
        let mut length = service.len();
        while length >= 0x80 {
            // Seven bits at a time.
            message.put_u8((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(0);
    // A service's name is far shorter than 4 GiB.
    framed.put_u32(message.len() as u32);
    framed.put(message);
    framed.freeze()
}

/// The status in `HealthCheckResponse { status = 1 }`, behind gRPC's prefix.
fn parse(framed: &[u8]) -> Option<u64> {
    let [0, a, b, c, d, message @ ..] = framed else {
        return None;
    };
    let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
    let mut rest = message.get(..length)?;
    let mut status = 0;
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        let value = match key & 7 {
            0 => varint(&mut rest)?,
            1 => take(&mut rest, 8)?,
            2 => {
                let length = varint(&mut rest)?;
                take(&mut rest, length)?
            }
            5 => take(&mut rest, 4)?,
            _ => return None,
        };
        if key == 1 << 3 {
            status = value;
        }
    }
    Some(status)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, others) = rest.split_first()?;
        *rest = others;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take(rest: &mut &[u8], length: u64) -> Option<u64> {
    *rest = rest.get(usize::try_from(length).ok()?..)?;
    Some(0)
}

/// gRPC's percent encoding of messages.
fn unescape(text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, others @ ..] = rest {
        let hex = |byte: u8| char::from(byte).to_digit(16);
        rest = match others {
            [high, low, after @ ..]
                if *first == b'%' && hex(*high).is_some() && hex(*low).is_some() =>
            {
                // Two digits make a byte.
                bytes.push((hex(*high).unwrap_or(0) * 16 + hex(*low).unwrap_or(0)) as u8);
                after
            }
            _ => {
                bytes.push(*first);
                others
            }
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_are_written_and_read() {
        assert_eq!(&frame("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&frame("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(frame(&"x".repeat(300)).len(), 5 + 3 + 300);
        assert_eq!(parse(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(parse(&[0, 0, 0, 0, 0]), Some(0));
        assert_eq!(parse(&[0, 0, 0, 0, 5, 0x12, 1, 7, 8, 2]), Some(2));
        assert_eq!(parse(&[1, 0, 0, 0, 0]), None, "compressed");
        assert_eq!(parse(&[0, 0, 0, 0, 9, 8, 1]), None, "cut short");
        assert_eq!(unescape(b"no%20such %zz%"), "no such %zz%");
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse(&bytes);
            let _ = unescape(&bytes);
        }
    }
}
