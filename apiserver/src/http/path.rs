//! What a URL's path names.

use percent::decode;

/// A path, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RequestPath {
    /// A resource of the API.
    Resource(ResourcePath),
    /// Anything else.
    Other(String),
}

/// A path that names a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResourcePath {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) namespace: String,
    pub(crate) resource: String,
    pub(crate) name: String,
    pub(crate) subresource: String,
    /// What follows the subresource: the path behind a proxy.
    pub(crate) rest: String,
    /// Whether the old `/watch/` prefix was there.
    pub(crate) watch_prefix: bool,
    /// Whether the path names a namespace (also an empty one).
    pub(crate) namespaced: bool,
}

impl ResourcePath {
    /// What follows the subresource in the path that this was taken from, with its escapes and the slash at its end.
    pub(crate) fn raw_rest<'a>(&self, path: &'a str) -> &'a str {
        let grouped = usize::from(!self.group.is_empty());
        let segments =
            5 + grouped + 2 * usize::from(self.namespaced) + usize::from(self.watch_prefix);
        let mut at = path.len() - path.trim_start_matches('/').len();
        for _ in 0..segments {
            match path[at..].find('/') {
                Some(slash) => at += slash + 1,
                None => return "",
            }
        }
        &path[at - 1..]
    }
}

impl RequestPath {
    /// Takes a path apart. Segments are percent-decoded; a path that cannot be is none of a resource.
    pub(crate) fn parse(path: &str) -> Self {
        Self::resource(path).map_or_else(|| Self::Other(path.to_owned()), Self::Resource)
    }

    fn resource(path: &str) -> Option<ResourcePath> {
        let segments: Option<Vec<String>> = path.trim_matches('/').split('/').map(decode).collect();
        let segments = segments?;
        let mut rest = segments.iter().map(String::as_str);
        let (group, version) = match rest.next()? {
            "api" => ("", rest.next()?),
            "apis" => (rest.next()?, rest.next()?),
            _ => return None,
        };
        let mut rest: Vec<&str> = rest.collect();
        let watch_prefix = rest.first() == Some(&"watch");
        if watch_prefix {
            rest.remove(0);
        }
        let mut found = ResourcePath {
            group: group.to_owned(),
            version: version.to_owned(),
            watch_prefix,
            ..ResourcePath::default()
        };
        let mut parts = rest.as_slice();
        if let ["namespaces", namespace, more @ ..] = parts
            && let [first, ..] = more
            && !(matches!(*first, "finalize" | "status") && more.len() == 1)
        {
            (*namespace).clone_into(&mut found.namespace);
            found.namespaced = true;
            parts = more;
        } else if let ["namespaces", name, ..] = parts {
            // The namespace itself: it is its own scope.
            (*name).clone_into(&mut found.namespace);
        }
        let (resource, more) = parts.split_first()?;
        if resource.is_empty() {
            return None;
        }
        (*resource).clone_into(&mut found.resource);
        if let Some((name, more)) = more.split_first() {
            (*name).clone_into(&mut found.name);
            if let Some((subresource, more)) = more.split_first() {
                (*subresource).clone_into(&mut found.subresource);
                found.rest = more.join("/");
            }
        }
        Some(found)
    }
}

mod percent {
    /// Decodes `%xx`; `None` where that is malformed or not UTF-8.
    pub(crate) fn decode(text: &str) -> Option<String> {
        if !text.contains('%') {
            return Some(text.to_owned());
        }
        let bytes = text.as_bytes();
        let mut out = Vec::with_capacity(bytes.len());
        let mut at = 0;
        while at < bytes.len() {
            if bytes[at] == b'%' {
                let hex = std::str::from_utf8(bytes.get(at + 1..at + 3)?).ok()?;
                out.push(u8::from_str_radix(hex, 16).ok()?);
                at += 3;
            } else {
                out.push(bytes[at]);
                at += 1;
            }
        }
        String::from_utf8(out).ok()
    }

    /// Encodes all bytes but those that stand for themselves anywhere in a URL, and some more.
    fn encode_but(text: &str, more: &[u8]) -> String {
        let mut out = String::with_capacity(text.len());
        for byte in text.bytes() {
            if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || more.contains(&byte) {
                out.push(char::from(byte));
            } else {
                out.push_str(&format!("%{byte:02X}"));
            }
        }
        out
    }

    /// A text as a name or a value in a query.
    pub(crate) fn encode(text: &str) -> String {
        encode_but(text, b"")
    }

    /// A path, with its slashes.
    pub(crate) fn encode_path(text: &str) -> String {
        encode_but(text, b"/:@!$&'()*+,;=")
    }
}

pub(crate) use percent::{
    decode as percent_decode, encode as percent_encode, encode_path as percent_encode_path,
};

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(path: &str) -> ResourcePath {
        match RequestPath::parse(path) {
            RequestPath::Resource(found) => found,
            RequestPath::Other(other) => panic!("{other} names no resource"),
        }
    }

    #[test]
    fn paths_of_resources() {
        let pod = parse("/api/v1/namespaces/default/pods/web-0/log");
        assert_eq!(
            (pod.namespace.as_str(), pod.resource.as_str()),
            ("default", "pods")
        );
        assert_eq!(
            (pod.name.as_str(), pod.subresource.as_str()),
            ("web-0", "log")
        );
        let role = parse("/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode");
        assert_eq!(role.name, "system:node");
        let namespace = parse("/api/v1/namespaces/default");
        assert_eq!(
            (namespace.resource.as_str(), namespace.name.as_str()),
            ("namespaces", "default")
        );
        assert!(!namespace.namespaced);
        let finalize = parse("/api/v1/namespaces/default/finalize");
        assert_eq!(
            (finalize.resource.as_str(), finalize.subresource.as_str()),
            ("namespaces", "finalize")
        );
        let watch = parse("/api/v1/watch/namespaces/pr/configmaps");
        assert!(watch.watch_prefix);
        assert_eq!(watch.resource, "configmaps");
        let proxy = parse("/api/v1/namespaces/a/services/b/proxy/c/d");
        assert_eq!(
            (proxy.subresource.as_str(), proxy.rest.as_str()),
            ("proxy", "c/d")
        );
        for (path, rest) in [
            ("/api/v1/namespaces/a/services/b/proxy/c%2Fd/", "/c%2Fd/"),
            ("/api/v1/namespaces/a/services/b/proxy/", "/"),
            ("/api/v1/namespaces/a/services/b/proxy", ""),
            ("/api/v1/nodes/n/proxy/metrics", "/metrics"),
        ] {
            assert_eq!(parse(path).raw_rest(path), rest);
        }
    }

    #[test]
    fn other_paths() {
        for path in [
            "/",
            "/version",
            "/api",
            "/api/v1",
            "/apis/apps/v1",
            "/openapi/v3/api/v1",
            "/api/v1/%zz",
        ] {
            assert!(
                matches!(RequestPath::parse(path), RequestPath::Other(_)),
                "{path}"
            );
        }
    }
}
