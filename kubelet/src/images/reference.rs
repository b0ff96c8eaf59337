//! Names of images.

use std::fmt;

/// The registry that a name without one means.
const DEFAULT_DOMAIN: &str = "docker.io";
/// The longest repository, with its registry.
const LONGEST: usize = 255;

/// Text that is no name of an image. The messages are those that Kubernetes shows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidName {
    /// It has not the form of a name.
    #[error("invalid reference format")]
    Format,
    /// The repository has capital letters.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// It is the id of an image.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    Identifier(String),
    /// It is too long.
    #[error("repository name must not be more than {LONGEST} characters")]
    TooLong,
    /// There is no such kind of digest.
    #[error("unsupported digest algorithm")]
    DigestAlgorithm,
    /// A digest of this kind has another length.
    #[error("invalid checksum digest length")]
    DigestLength,
}

/// The name of an image, with all that was left out of it put in, but for the tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageName {
    /// The registry: a host, with a port if it has one.
    pub domain: String,
    /// The repository there.
    pub path: String,
    /// The tag.
    pub tag: Option<String>,
    /// The digest.
    pub digest: Option<String>,
}

impl ImageName {
    /// Reads a name.
    ///
    /// # Errors
    /// [`InvalidName`].
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(InvalidName::Identifier(text.to_owned()));
        }
        let (domain, rest) = split_domain(text);
        let (name, digest) = match rest.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (rest.as_str(), None),
        };
        let (path, tag) = match name.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (name, None),
        };
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(InvalidName::Uppercase(path.to_owned()));
        }
        if !is_domain(&domain) || !path.split('/').all(is_component) || !tag.is_none_or(is_tag) {
            return Err(InvalidName::Format);
        }
        if domain.len() + 1 + path.len() > LONGEST {
            return Err(InvalidName::TooLong);
        }
        digest.map_or(Ok(()), check_digest)?;
        Ok(Self {
            path: path.to_owned(),
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
            domain,
        })
    }

    /// A name as it was written, with the tag `latest` if it has neither tag nor digest. Nothing else is put in: which registry a
    /// short name means is for the runtime to say.
    ///
    /// # Errors
    /// [`InvalidName`].
    pub fn with_default_tag(text: &str) -> Result<String, InvalidName> {
        let name = Self::parse(text)?;
        Ok(if name.tag.is_none() && name.digest.is_none() {
            format!("{text}:latest")
        } else {
            text.to_owned()
        })
    }

    /// The repository with its registry, without tag and digest.
    #[must_use]
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// The registry and the rest. The first part is a registry if it looks like a host: with a dot, a port or a capital letter, or `localhost`.
fn split_domain(text: &str) -> (String, String) {
    let host = |first: &str| {
        first.contains(['.', ':'])
            || first == "localhost"
            || first.bytes().any(|b| b.is_ascii_uppercase())
    };
    let (domain, rest) = match text.split_once('/') {
        Some((first, rest)) if host(first) => (first, rest),
        _ => (DEFAULT_DOMAIN, text),
    };
    let domain = if domain == "index.docker.io" {
        DEFAULT_DOMAIN
    } else {
        domain
    };
    let rest = if domain == DEFAULT_DOMAIN && !rest.contains('/') {
        format!("library/{rest}")
    } else {
        rest.to_owned()
    };
    (domain.to_owned(), rest)
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (domain, None),
    };
    let label = |label: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        label.bytes().all(inner)
            && !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let v6 = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host = match v6 {
        Some(v6) => !v6.is_empty() && v6.bytes().all(|b| b.is_ascii_hexdigit() || b == b':'),
        None => host.split('.').all(label),
    };
    host && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

/// A part of a repository: words of small letters and digits between single dots, one or two underscores, or dashes.
fn is_component(part: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    if !bytes.first().copied().is_some_and(word) || !bytes.last().copied().is_some_and(word) {
        return false;
    }
    let separator =
        |run: &[u8]| run == b"." || run == b"_" || run == b"__" || run.iter().all(|b| *b == b'-');
    bytes.split(|b| word(*b)).all(separator)
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

fn check_digest(digest: &str) -> Result<(), InvalidName> {
    let (algorithm, hex) = digest.split_once(':').ok_or(InvalidName::Format)?;
    let part = |part: &str| {
        part.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
            && part.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    if !algorithm.split(['-', '_', '+', '.']).all(part)
        || hex.len() < 32
        || !hex.bytes().all(|b| b.is_ascii_hexdigit())
    {
        return Err(InvalidName::Format);
    }
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return Err(InvalidName::DigestAlgorithm),
    };
    if hex.len() == length {
        Ok(())
    } else {
        Err(InvalidName::DigestLength)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_out_of_a_name_is_put_in() {
        let hex = "0123456789abcdef".repeat(4);
        let digest = format!("sha256:{hex}");
        for (text, repository, tag, has_digest) in [
            ("busybox", "docker.io/library/busybox", None, false),
            ("busybox:1", "docker.io/library/busybox", Some("1"), false),
            ("me/web", "docker.io/me/web", None, false),
            (
                "index.docker.io/web:v1.2-3",
                "docker.io/library/web",
                Some("v1.2-3"),
                false,
            ),
            ("localhost/web", "localhost/web", None, false),
            ("Host/web", "Host/web", None, false),
            (
                "host:5000/a/b__c-d.e:x",
                "host:5000/a/b__c-d.e",
                Some("x"),
                false,
            ),
            ("[::1]:5000/a", "[::1]:5000/a", None, false),
            (
                &format!("r.example/a:t@{digest}"),
                "r.example/a",
                Some("t"),
                true,
            ),
        ] {
            let name = ImageName::parse(text).unwrap();
            assert_eq!(name.repository(), repository, "{text}");
            assert_eq!(name.tag.as_deref(), tag, "{text}");
            assert_eq!(name.digest.is_some(), has_digest, "{text}");
        }
        assert_eq!(
            ImageName::with_default_tag("busybox").unwrap(),
            "busybox:latest"
        );
        assert_eq!(
            ImageName::with_default_tag("h:5000/a").unwrap(),
            "h:5000/a:latest"
        );
        assert_eq!(ImageName::with_default_tag("a:1").unwrap(), "a:1");
        let full = format!("a@{digest}");
        assert_eq!(ImageName::with_default_tag(&full).unwrap(), full);
        assert_eq!(
            ImageName::parse(&full).unwrap().to_string(),
            format!("docker.io/library/{full}")
        );
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let hex = "0123456789abcdef".repeat(4);
        for text in [
            "",
            "/a",
            "a/",
            "a b",
            "a:",
            "a:-x",
            "a//b",
            "-a",
            "a___b",
            "a..b",
            "h:x/a",
            "a@sha256:12",
            "a@x",
        ] {
            assert_eq!(ImageName::parse(text), Err(InvalidName::Format), "{text:?}");
        }
        let refused = |text: &str| ImageName::parse(text).unwrap_err().to_string();
        assert_eq!(
            refused("Busybox"),
            "invalid reference format: repository name (library/Busybox) must be lowercase"
        );
        assert!(refused(&hex).ends_with("cannot specify 64-byte hexadecimal strings"));
        assert_eq!(
            refused(&format!("a@md9:{hex}")),
            "unsupported digest algorithm"
        );
        assert_eq!(
            refused(&format!("a@sha512:{hex}")),
            "invalid checksum digest length"
        );
        assert_eq!(
            refused(&"a".repeat(250)),
            "repository name must not be more than 255 characters"
        );
    }
}
