//! Where to listen.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Url {
    /// `http://` or `https://`.
    Tcp {
        /// Whether it is behind TLS.
        secure: bool,
        /// An address of this machine.
        host: String,
        /// Zero for a free one.
        port: u16,
    },
    /// `unix://`: a file.
    Unix(PathBuf),
}

impl Url {
    pub(super) fn is_secure(&self) -> bool {
        matches!(self, Self::Tcp { secure: true, .. })
    }
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text
            .split_once("://")
            .ok_or("a URL is wanted, such as http://127.0.0.1:2379")?;
        let secure = match scheme {
            "http" => false,
            "https" => true,
            "unix" if !rest.is_empty() => return Ok(Self::Unix(rest.into())),
            "unixs" => return Err("TLS over unix sockets is not there: use unix://".to_owned()),
            _ => return Err("the scheme must be http, https or unix".to_owned()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = rest.rsplit_once(':').ok_or("the port is missing")?;
        let port = port.parse().map_err(|_| "the port is not a number")?;
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        if host != "localhost" && host.parse::<std::net::IpAddr>().is_err() {
            return Err("the host must be an address of this machine, or localhost".to_owned());
        }
        Ok(Self::Tcp {
            secure,
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { secure, host, port } => {
                let scheme = if *secure { "https" } else { "http" };
                if host.contains(':') {
                    write!(f, "{scheme}://[{host}]:{port}")
                } else {
                    write!(f, "{scheme}://{host}:{port}")
                }
            }
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_written() {
        for url in [
            "http://127.0.0.1:2379",
            "https://[::1]:0",
            "http://localhost:2379",
            "unix:///run/etcd.sock",
        ] {
            assert_eq!(url.parse::<Url>().unwrap().to_string(), url);
        }
        assert!("https://[::1]:0".parse::<Url>().unwrap().is_secure());
        for bad in [
            "127.0.0.1:2379",
            "ftp://127.0.0.1:2379",
            "http://127.0.0.1",
            "http://127.0.0.1:x",
            "http://example.com:2379",
            "unixs:///run/etcd.sock",
            "unix://",
        ] {
            assert!(bad.parse::<Url>().is_err(), "{bad}");
        }
    }
}
