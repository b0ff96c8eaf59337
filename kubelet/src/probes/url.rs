//! The addresses that probes and hooks ask, which are simpler than URLs in general.

use std::fmt;
use std::fmt::Write as _;

/// An address for an HTTP request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) https: bool,
    /// A name or an address; IPv6 without brackets.
    pub(crate) host: String,
    /// The port, where one is written.
    pub(crate) port: Option<u16>,
    /// Path and query, as they stand in a request.
    pub(crate) target: String,
}

impl Url {
    /// The address of an `httpGet`. The path may hold a query; what cannot stand in a request is escaped.
    pub(crate) fn new(https: bool, host: &str, port: u16, path: &str) -> Self {
        Self {
            https,
            host: host.trim_matches(['[', ']']).to_owned(),
            port: Some(port),
            target: request_target(path),
        }
    }

    /// The port to connect to.
    pub(crate) fn port(&self) -> u16 {
        self.port.unwrap_or(if self.https { 443 } else { 80 })
    }

    /// Host and port as they stand in the `Host` header.
    pub(crate) fn authority(&self) -> String {
        let bare = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        match self.port {
            Some(port) => format!("{bare}:{port}"),
            None => bare,
        }
    }

    /// Where a `Location` leads from here; `None` for what is no HTTP address.
    pub(crate) fn join(&self, location: &str) -> Option<Self> {
        let location = location.split('#').next().unwrap_or_default();
        let lower = location.to_ascii_lowercase();
        for (scheme, https) in [("http://", false), ("https://", true)] {
            if lower.starts_with(scheme) {
                return Self::absolute(https, &location[scheme.len()..]);
            }
        }
        if let Some(rest) = location.strip_prefix("//") {
            return Self::absolute(self.https, rest);
        }
        let path = self.target.split('?').next().unwrap_or("/");
        let (given, query) = match location.split_once('?') {
            Some((given, query)) => (given, Some(query)),
            None => (location, None),
        };
        // Another scheme, such as `mailto:`.
        if given
            .split('/')
            .next()
            .is_some_and(|first| first.contains(':'))
        {
            return None;
        }
        let mut target = if given.is_empty() {
            path.to_owned()
        } else if given.starts_with('/') {
            without_dots(given)
        } else {
            let directory = path.rfind('/').map_or("/", |end| &path[..=end]);
            without_dots(&format!("{directory}{given}"))
        };
        if let Some(query) = query {
            target.push('?');
            target.push_str(query);
        }
        Some(Self {
            target: request_target(&target),
            ..self.clone()
        })
    }

    fn absolute(https: bool, rest: &str) -> Option<Self> {
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let authority = authority.rsplit('@').next().unwrap_or_default();
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') && !port.is_empty() => {
                (host, Some(port.parse().ok()?))
            }
            Some((host, "")) => (host, None),
            _ => (authority, None),
        };
        (!host.is_empty()).then(|| Self {
            https,
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            target: request_target(target),
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.target)
    }
}

/// Path and query as they stand in a request: from the root, without fragment, and with what cannot stand there escaped.
fn request_target(path: &str) -> String {
    let path = path.split('#').next().unwrap_or_default();
    let mut target = String::with_capacity(path.len() + 1);
    if !path.starts_with('/') {
        target.push('/');
    }
    for byte in path.bytes() {
        match byte {
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => {
                escape(&mut target, byte)
            }
            0x21..=0x7e => target.push(char::from(byte)),
            _ => escape(&mut target, byte),
        }
    }
    target
}

fn escape(target: &mut String, byte: u8) {
    // Writing to a string does not fail.
    let _ = write!(target, "%{byte:02X}");
}

/// A path with `.` and `..` taken out.
fn without_dots(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').skip(1) {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    if path.ends_with("/.") || path.ends_with("/..") {
        parts.push("");
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_requests_have_them() {
        let cases = [
            (
                false,
                "10.0.0.1",
                8080,
                "/healthz",
                "http://10.0.0.1:8080/healthz",
            ),
            (true, "fd00::1", 443, "", "https://[fd00::1]:443/"),
            (false, "web", 80, "a b?x=1#top", "http://web:80/a%20b?x=1"),
            (false, "web", 80, "/ü", "http://web:80/%C3%BC"),
        ];
        for (https, host, port, path, want) in cases {
            assert_eq!(Url::new(https, host, port, path).to_string(), want);
        }
    }

    #[test]
    fn locations_are_followed_as_browsers_do() {
        let from = Url::new(false, "10.0.0.1", 8080, "/a/b?q=1");
        let cases = [
            ("/login", Some("http://10.0.0.1:8080/login")),
            ("c/d", Some("http://10.0.0.1:8080/a/c/d")),
            ("../d", Some("http://10.0.0.1:8080/d")),
            ("?x=2", Some("http://10.0.0.1:8080/a/b?x=2")),
            ("https://10.0.0.1/x#y", Some("https://10.0.0.1/x")),
            ("HTTP://other:81", Some("http://other:81/")),
            ("//[fd00::2]:9/x", Some("http://[fd00::2]:9/x")),
            ("mailto:a@b", None),
            ("http://", None),
            ("http://a:b/", None),
        ];
        for (location, want) in cases {
            let got = from.join(location).map(|url| url.to_string());
            assert_eq!(got.as_deref(), want, "{location}");
        }
    }
}
