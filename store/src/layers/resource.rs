//! Which resource a key belongs to.

use orlop_core::store::KeyRange;

/// What the keys of objects begin with.
const ROOT: &[u8] = b"/registry/";

/// The resource that a key names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResourceOfKey<'a> {
    /// The part of the key that all keys of the resource begin with, with the slash at its end.
    pub(crate) prefix: &'a [u8],
    /// The group; empty for the core group, which keys call `core`.
    pub(crate) group: &'a str,
    /// The plural name.
    pub(crate) resource: &'a str,
}

/// Takes a key of the form `/registry/<group>/<resource>/…` apart. `None` for every other key.
pub(crate) fn of_key(key: &[u8]) -> Option<ResourceOfKey<'_>> {
    let rest = key.strip_prefix(ROOT)?;
    let group = rest.iter().position(|&b| b == b'/')?;
    let resource = rest[group + 1..].iter().position(|&b| b == b'/')?;
    let prefix = &key[..ROOT.len() + group + 1 + resource + 1];
    let name = std::str::from_utf8(&rest[..group]).ok()?;
    Some(ResourceOfKey {
        prefix,
        group: if name == "core" { "" } else { name },
        resource: std::str::from_utf8(&rest[group + 1..group + 1 + resource]).ok()?,
    })
}

/// The key that stands for a range when it is asked for its resource: the one that it begins with.
pub(crate) fn first_key(keys: &KeyRange) -> &[u8] {
    match keys {
        KeyRange::Key(key)
        | KeyRange::Prefix(key)
        | KeyRange::Span(key, _)
        | KeyRange::From(key) => key,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_name_their_resources() {
        let secret = of_key(b"/registry/core/secrets/default/a").unwrap();
        assert_eq!((secret.group, secret.resource), ("", "secrets"));
        assert_eq!(secret.prefix, b"/registry/core/secrets/");
        let all = of_key(b"/registry/apps/deployments/").unwrap();
        assert_eq!((all.group, all.resource), ("apps", "deployments"));
        for other in [
            b"/registry/".as_ref(),
            b"/registry/core/secrets",
            b"/else/core/secrets/a",
            b"",
            b"/registry/\xff/a/b",
        ] {
            assert_eq!(of_key(other), None);
        }
    }
}
