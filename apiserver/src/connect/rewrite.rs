//! Pages from behind a proxy: their links to places of their own host lead through the proxy, too.

use std::io::Read as _;

use flate2::read::GzDecoder;
use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, LOCATION,
};
use http::request::Parts;
use http::{Response, StatusCode};
use orlop_wire::body::Body;

use super::forward::read;

/// Pages up to so many bytes are mended. Larger ones are refused, rather than shown with links that lead astray.
const MAX_PAGE: usize = 8 << 20;

/// The attributes with links, by element.
const LINKS: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// Where a page is seen.
#[derive(Debug)]
pub(super) struct Page {
    /// The path of the proxy itself.
    prefix: String,
    /// The path behind it.
    path: String,
    /// The host by which the client knows this server.
    host: String,
}

/// A client that asks for the proxy without a path is sent to its root: else relative links would lead beside it.
pub(super) fn to_directory(parts: &Parts) -> Response<Body> {
    let query = parts.uri.query().map(|query| format!("?{query}"));
    let location = format!("{}/{}", parts.uri.path(), query.unwrap_or_default());
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

impl Page {
    pub(super) fn of(parts: &Parts, rest: &str) -> Self {
        let whole = parts.uri.path();
        let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = host.or_else(|| parts.uri.authority().map(http::uri::Authority::as_str));
        Self {
            prefix: whole.strip_suffix(rest).unwrap_or(whole).to_owned(),
            path: rest.to_owned(),
            host: host.unwrap_or_default().to_owned(),
        }
    }

    /// Tells who answers where the client sees the answer.
    pub(super) fn say_where(&self, headers: &mut HeaderMap) {
        let uri = format!("{}{}", self.prefix, self.path);
        if let Ok(uri) = HeaderValue::from_str(&uri) {
            headers.insert("x-forwarded-uri", uri);
        }
    }

    /// A link as it leads through the proxy. `source` is host and port of who wrote it.
    fn link(&self, link: &str, source: &str) -> Option<String> {
        let (scheme, rest) = match link.split_once("//") {
            Some((scheme, rest)) if scheme.is_empty() || scheme.ends_with(':') => {
                (Some(scheme), rest)
            }
            _ => (None, link),
        };
        let (host, path) = match scheme {
            Some(_) => rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len())),
            None => ("", rest),
        };
        let own = host.is_empty() || host == source || host == self.host;
        if !own || !path.starts_with('/') {
            return None;
        }
        let before = match scheme {
            // The client's own name for this server may stay.
            Some(scheme) if !host.is_empty() && host == self.host => format!("{scheme}//{host}"),
            _ => String::new(),
        };
        let through = path.starts_with(&self.prefix);
        let prefix = if through { "" } else { self.prefix.as_str() };
        let mended = format!("{before}{prefix}{path}");
        (mended != link).then_some(mended)
    }

    /// An answer with its links mended.
    pub(super) async fn mend(&self, mut response: Response<Body>, source: &str) -> Response<Body> {
        let headers = response.headers_mut();
        for name in [
            "access-control-allow-credentials",
            "access-control-allow-headers",
            "access-control-allow-methods",
            "access-control-allow-origin",
        ] {
            headers.remove(name);
        }
        if let Some(location) = headers.get(LOCATION).and_then(|value| value.to_str().ok()) {
            let mended = self.link(location, source);
            if let Some(Ok(value)) = mended.map(|mended| HeaderValue::from_str(&mended)) {
                headers.insert(LOCATION, value);
            }
            return response;
        }
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let kind = text(CONTENT_TYPE).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        let coding = text(CONTENT_ENCODING).unwrap_or_default().to_owned();
        if kind != "text/html" || !matches!(coding.as_str(), "" | "gzip") {
            return response;
        }
        let (mut parts, body) = response.into_parts();
        let page = match read(body, MAX_PAGE).await {
            Ok(bytes) if coding == "gzip" => gunzip(&bytes),
            Ok(bytes) => Ok(bytes.to_vec()),
            Err(why) => Err(why),
        };
        match page {
            Ok(page) => {
                let mended = self.html(&page, source);
                parts.headers.remove(CONTENT_ENCODING);
                parts
                    .headers
                    .insert(CONTENT_LENGTH, HeaderValue::from(mended.len()));
                Response::from_parts(parts, Body::from(mended))
            }
            Err(why) => {
                let mut response =
                    Response::new(Body::from(format!("the page cannot be shown: {why}\n")));
                *response.status_mut() = StatusCode::BAD_GATEWAY;
                response
            }
        }
    }

    /// A page with its links mended. Everything else stays as it is, byte by byte.
    fn html(&self, page: &[u8], source: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(page.len() + page.len() / 16);
        let mut at = 0;
        while let Some(found) = page[at..].iter().position(|byte| *byte == b'<') {
            out.extend_from_slice(&page[at..at + found]);
            at += found;
            let rest = &page[at..];
            if rest.get(1).is_some_and(u8::is_ascii_alphabetic) {
                at += self.element(rest, source, &mut out);
                continue;
            }
            let comment = rest.starts_with(b"<!--");
            let end = if comment { find(rest, b"-->") } else { Some(0) };
            let length = match end {
                Some(end) if comment => end + 3,
                Some(_) => 1,
                None => rest.len(),
            };
            out.extend_from_slice(&rest[..length]);
            at += length;
        }
        out.extend_from_slice(&page[at..]);
        out
    }

    /// Copies an element's tag, and its text where that is no HTML; returns how much of the page that was.
    fn element(&self, page: &[u8], source: &str, out: &mut Vec<u8>) -> usize {
        let is_end = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'>' | b'/');
        let name_end = page.iter().position(is_end).unwrap_or(page.len());
        let name = String::from_utf8_lossy(&page[1..name_end]).to_ascii_lowercase();
        let links = LINKS.iter().find(|(element, _)| *element == name);
        let links = links.map_or(&[] as &[&str], |(_, links)| links);
        out.extend_from_slice(&page[..name_end]);
        let mut at = name_end;
        while at < page.len() && page[at] != b'>' {
            let attribute = Attribute::read(&page[at..]);
            let bytes = &page[at..at + attribute.length];
            let value = &bytes[attribute.value.clone()];
            let wanted = links.iter().any(|link| {
                attribute.name.eq_ignore_ascii_case(link) && !attribute.value.is_empty()
            });
            let mended = std::str::from_utf8(value)
                .ok()
                .filter(|_| wanted)
                .and_then(|value| self.link(value, source));
            match mended {
                Some(mended) => {
                    out.extend_from_slice(&bytes[..attribute.value.start]);
                    out.extend_from_slice(mended.as_bytes());
                    out.extend_from_slice(&bytes[attribute.value.end..]);
                }
                None => out.extend_from_slice(bytes),
            }
            at += attribute.length;
        }
        if at < page.len() {
            out.push(b'>');
            at += 1;
        }
        if matches!(name.as_str(), "script" | "style" | "textarea" | "title") {
            let close = format!("</{name}");
            let text = page[at..]
                .windows(close.len())
                .position(|window| window.eq_ignore_ascii_case(close.as_bytes()))
                .unwrap_or(page.len() - at);
            out.extend_from_slice(&page[at..at + text]);
            at += text;
        }
        at
    }
}

/// An attribute at the beginning of a text, or what stands there instead.
struct Attribute<'a> {
    name: &'a str,
    /// Where its value is, without quotes; empty without one.
    value: std::ops::Range<usize>,
    /// How much of the text it is; at least one byte.
    length: usize,
}

impl<'a> Attribute<'a> {
    fn read(text: &'a [u8]) -> Self {
        let space = |from: usize| {
            let rest = text[from..].iter();
            from + rest.take_while(|byte| byte.is_ascii_whitespace()).count()
        };
        let until = |from: usize, stop: &dyn Fn(u8) -> bool| {
            let found = text[from..].iter().position(|byte| stop(*byte));
            found.map_or(text.len(), |found| from + found)
        };
        let start = space(0);
        let name_end = until(start, &|byte| {
            byte.is_ascii_whitespace() || matches!(byte, b'=' | b'>' | b'/')
        });
        let name = std::str::from_utf8(&text[start..name_end]).unwrap_or_default();
        let equals = space(name_end);
        if name_end == start || text.get(equals) != Some(&b'=') {
            let stray = matches!(text.get(name_end), Some(b'/' | b'=')) && name_end == start;
            return Self {
                name,
                value: 0..0,
                length: (name_end + usize::from(stray)).max(1),
            };
        }
        let begin = space(equals + 1);
        match text.get(begin) {
            Some(quote @ (b'"' | b'\'')) => {
                let end = until(begin + 1, &|byte| byte == *quote);
                Self {
                    name,
                    value: begin + 1..end,
                    length: (end + 1).min(text.len()),
                }
            }
            _ => {
                let end = until(begin, &|byte| byte.is_ascii_whitespace() || byte == b'>');
                Self {
                    name,
                    value: begin..end,
                    length: end,
                }
            }
        }
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

fn gunzip(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut page = Vec::new();
    let limit = MAX_PAGE as u64 + 1;
    GzDecoder::new(bytes)
        .take(limit)
        .read_to_end(&mut page)
        .map_err(|error| error.to_string())?;
    if page.len() > MAX_PAGE {
        return Err("it is too large".to_owned());
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PREFIX: &str = "/api/v1/namespaces/n/services/s/proxy";

    fn page() -> Page {
        Page {
            prefix: PREFIX.to_owned(),
            path: "/x/".to_owned(),
            host: "api:6443".to_owned(),
        }
    }

    fn mend(text: &str) -> String {
        String::from_utf8(page().html(text.as_bytes(), "10.0.0.1:80")).unwrap()
    }

    #[test]
    fn links_lead_through_the_proxy() {
        let link = |text: &str| page().link(text, "10.0.0.1:80");
        let through = |path: &str| Some(format!("{PREFIX}{path}"));
        assert_eq!(link("/a/b?c=d#e"), through("/a/b?c=d#e"));
        assert_eq!(link("http://10.0.0.1:80/a/"), through("/a/"));
        assert_eq!(link("//10.0.0.1:80/a"), through("/a"));
        assert_eq!(
            link("https://api:6443/a"),
            Some(format!("https://api:6443{PREFIX}/a"))
        );
        for same in [
            "a/b",
            "../a",
            "#x",
            "http://elsewhere/a",
            "mailto:a@b",
            "",
            "javascript:x()//y",
        ] {
            assert_eq!(link(same), None, "{same}");
        }
        assert_eq!(link(&format!("{PREFIX}/a")), None);
    }

    #[test]
    fn pages_are_mended_and_nothing_else() {
        assert_eq!(
            mend("<a  HREF = '/x' class=y>t</a><IMG src=/i.png/><p href=\"/no\">"),
            format!(
                "<a  HREF = '{PREFIX}/x' class=y>t</a><IMG src={PREFIX}/i.png/><p href=\"/no\">"
            )
        );
        let same = "<!-- <a href=\"/x\"> --><script>if (a<b) \"<a href='/x'>\"</script> 1 < 2 <br/><a href>";
        assert_eq!(mend(same), same);
        assert_eq!(
            mend("<script src='/s.js'></script><form action=\"/go\" / ="),
            format!("<script src='{PREFIX}/s.js'></script><form action=\"{PREFIX}/go\" / =")
        );
    }

    proptest! {
        #[test]
        fn pages_without_absolute_links_are_left_alone(text in "[a-z<>=\"' !-]{0,80}") {
            prop_assert_eq!(mend(&text), text);
        }
    }
}
