//! Which credentials fit an image.

use std::collections::BTreeMap;
use std::fmt;

use super::credentials::{ByRegistry, Credentials};

/// What credentials for the default registry are stored under.
const DEFAULT_REGISTRY: &str = "index.docker.io";

/// Credentials by the registries and repositories that they are for.
#[derive(Clone, Default)]
pub struct Keyring {
    by_place: BTreeMap<String, Vec<Credentials>>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.by_place.keys()).finish()
    }
}

impl Keyring {
    /// Adds credentials. A place is a registry (`host`, `host:port`), with a repository or the beginning of one, with or without a
    /// scheme; in the host, `*`, `?` and `[…]` stand for parts between two dots.
    pub(super) fn add(&mut self, more: ByRegistry) {
        for (place, credentials) in more {
            let plain = place
                .strip_prefix("https://")
                .or_else(|| place.strip_prefix("http://"));
            let plain = plain.unwrap_or(&place);
            let (host, path) = plain.find('/').map_or((plain, ""), |at| plain.split_at(at));
            // Docker wrote the version of its API behind the host.
            let path = match path
                .strip_prefix("/v1/")
                .or_else(|| path.strip_prefix("/v2/"))
            {
                Some(rest) => format!("/{rest}"),
                None => path.to_owned(),
            };
            let key = if path == "/" {
                host.to_owned()
            } else {
                format!("{host}{path}")
            };
            self.by_place.entry(key).or_default().push(credentials);
        }
    }

    /// The credentials that fit a repository, given with its registry: those for the longest place first. Those for the default
    /// registry, for an image from there, if no other do.
    #[must_use]
    pub fn lookup(&self, repository: &str) -> Vec<Credentials> {
        let fitting = self
            .by_place
            .iter()
            .rev()
            .filter(|(place, _)| fits(place, repository));
        let found: Vec<Credentials> = fitting.flat_map(|(_, own)| own.iter().cloned()).collect();
        if found.is_empty() && is_default(repository) {
            return self
                .by_place
                .get(DEFAULT_REGISTRY)
                .cloned()
                .unwrap_or_default();
        }
        found
    }
}

/// Whether an image is one of the default registry's.
fn is_default(repository: &str) -> bool {
    match repository.split_once('/') {
        None => !repository.is_empty(),
        Some(("", _)) => false,
        Some(("docker.io" | "index.docker.io", _)) => true,
        Some((first, _)) => !first.contains(['.', ':']),
    }
}

/// Whether credentials for a place are for a repository.
pub(super) fn fits(place: &str, repository: &str) -> bool {
    fn split(text: &str) -> (&str, &str, &str) {
        let (host, path) = text.find('/').map_or((text, ""), |at| text.split_at(at));
        // Not the colons of an IPv6 address in brackets.
        match host.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port, path),
            _ => (host, "", path),
        }
    }
    let (pattern, pattern_port, prefix) = split(place);
    let (host, port, path) = split(repository);
    if pattern_port != port || !path.starts_with(prefix) {
        return false;
    }
    let (patterns, parts) = (pattern.split('.'), host.split('.'));
    patterns.clone().count() == parts.clone().count()
        && patterns
            .zip(parts)
            .all(|(pattern, part)| glob(pattern.as_bytes(), part.as_bytes()))
}

/// Whether a text fits a pattern of the shell: `*`, `?`, `[a-z]`, `[^a-z]`, and `\` before a character that means itself. A pattern
/// that is none fits nothing.
pub(super) fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on if what follows the last star does not fit: one byte of the text further on.
    let mut star: Option<(usize, usize)> = None;
    loop {
        let matched = match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, t));
                p += 1;
                continue;
            }
            None if t == text.len() => return true,
            None => None,
            Some(_) if t == text.len() => None,
            Some(_) => one(&pattern[p..], text[t]),
        };
        if let Some(used) = matched {
            p += used;
            t += 1;
        } else if let Some((after, at)) = star
            && at < text.len()
        {
            star = Some((after, at + 1));
            (p, t) = (after, at + 1);
        } else {
            return false;
        }
    }
}

/// How much of a pattern is used up by a byte that fits its beginning.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern[0] {
        b'?' => Some(1),
        b'\\' => (*pattern.get(1)? == byte).then_some(2),
        b'[' => {
            let negated = pattern.get(1) == Some(&b'^');
            let mut at = 1 + usize::from(negated);
            let mut inside = false;
            let mut first = true;
            while first || *pattern.get(at)? != b']' {
                first = false;
                let low = class_byte(pattern, &mut at)?;
                let mut high = low;
                if pattern.get(at) == Some(&b'-') {
                    at += 1;
                    high = class_byte(pattern, &mut at)?;
                }
                inside |= (low..=high).contains(&byte);
            }
            (inside != negated).then_some(at + 1)
        }
        own => (own == byte).then_some(1),
    }
}

fn class_byte(pattern: &[u8], at: &mut usize) -> Option<u8> {
    if matches!(pattern.get(*at)?, b'-' | b']') {
        return None;
    }
    if pattern[*at] == b'\\' {
        *at += 1;
    }
    let byte = *pattern.get(*at)?;
    *at += 1;
    Some(byte)
}
