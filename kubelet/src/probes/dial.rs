//! Connections to pods, and what is said when there is none: Go's words, which users know from events.

use std::io;
use std::net::IpAddr;

use tokio::net::TcpStream;

/// Connects to a host, a name or an address.
///
/// # Errors
/// Why not, in words such as `dial tcp 10.0.0.1:80: connect: connection refused`.
pub(crate) async fn dial(host: &str, port: u16) -> Result<TcpStream, String> {
    let address = join_host_port(host, port);
    if tokio::runtime::Handle::try_current().is_err() {
        return Err(format!("dial tcp {address}: there is no network here"));
    }
    match TcpStream::connect((host, port)).await {
        Ok(stream) => {
            // Requests and answers are small: they are not to wait for more.
            let _ = stream.set_nodelay(true);
            Ok(stream)
        }
        Err(error) if error.raw_os_error().is_none() && host.parse::<IpAddr>().is_err() => {
            Err(format!("dial tcp: lookup {host}: no such host"))
        }
        Err(error) => Err(format!("dial tcp {address}: connect: {}", reason(&error))),
    }
}

/// A host and a port, with brackets around an IPv6 address.
pub(crate) fn join_host_port(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// What the operating system says, in its own words: small letters and no number.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(letters).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_words_that_users_know() {
        let cases = [
            (111, "connection refused"),
            (113, "no route to host"),
            (101, "network is unreachable"),
            (104, "connection reset by peer"),
        ];
        for (code, want) in cases {
            assert_eq!(reason(&io::Error::from_raw_os_error(code)), want);
        }
        assert_eq!(join_host_port("fd00::1", 80), "[fd00::1]:80");
    }
}
