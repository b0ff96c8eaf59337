//! The images of a simulated runtime.

use std::collections::{BTreeMap, BTreeSet};

use crate::env::split_mix;
use crate::runtime::{Image, ImageId, RuntimeError};

/// Images by their names in full. Every name that is one can be pulled, unless it was forbidden.
#[derive(Debug, Default)]
pub(super) struct Images {
    have: BTreeMap<String, Image>,
    forbidden: BTreeSet<String>,
}

impl Images {
    pub(super) fn forbid(&mut self, name: &str) {
        self.forbidden.insert(full(name));
    }

    pub(super) fn pull(&mut self, name: &str) -> Result<ImageId, RuntimeError> {
        if !is_name(name) {
            return Err(RuntimeError::InvalidRequest(format!(
                "{name:?} is not the name of an image"
            )));
        }
        let name = full(name);
        if self.forbidden.contains(&name) {
            return Err(RuntimeError::ImageNotFound(name));
        }
        let image = self
            .have
            .entry(name.clone())
            .or_insert_with(|| image(&name));
        Ok(image.id.clone())
    }

    pub(super) fn find(&self, name: &str) -> Option<&Image> {
        let by_id = |image: &&Image| image.answers_to(name);
        self.have
            .get(&full(name))
            .or_else(|| self.have.values().find(by_id))
    }

    pub(super) fn remove(&mut self, name: &str) {
        if let Some(id) = self.find(name).map(|image| image.id.clone()) {
            self.have.retain(|_, image| image.id != id);
        }
    }

    pub(super) fn all(&self) -> Vec<Image> {
        self.have.values().cloned().collect()
    }
}

/// An image that has nothing in it.
fn image(name: &str) -> Image {
    let mut seed = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut digest = || {
        let words: Vec<String> = (0..4)
            .map(|_| format!("{:016x}", split_mix(&mut seed)))
            .collect();
        format!("sha256:{}", words.concat())
    };
    let (id, manifest) = (digest(), digest());
    let (repository, own) = match name.split_once('@') {
        Some((repository, own)) => (repository, own.to_owned()),
        None => (name, manifest),
    };
    let repository = untagged(repository);
    Image {
        id: ImageId::new(id),
        tags: if name.contains('@') {
            Vec::new()
        } else {
            vec![name.to_owned()]
        },
        digests: vec![format!("{repository}@{own}")],
        size: 0,
        user: None,
        pinned: false,
    }
}

/// A name without its tag. A colon before a slash is a registry's port.
fn untagged(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

/// A name with a tag.
fn full(name: &str) -> String {
    if name.contains('@') || untagged(name) != name {
        name.to_owned()
    } else {
        format!("{name}:latest")
    }
}

fn is_name(name: &str) -> bool {
    let (name, digest) = name
        .split_once('@')
        .map_or((name, None), |(name, digest)| (name, Some(digest)));
    let repository = untagged(name);
    let tag = name[repository.len()..].strip_prefix(':');
    let part = |part: &str| {
        let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        ends(part.chars().next())
            && ends(part.chars().last())
            && part
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-:".contains(c))
    };
    let word = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    repository.split('/').all(part)
        && tag.is_none_or(|tag| !tag.is_empty() && tag.len() <= 128 && tag.chars().all(word))
        && digest.is_none_or(|digest| {
            let hex = digest.strip_prefix("sha256:");
            hex.is_some_and(|hex| hex.len() == 64 && hex.chars().all(|c| c.is_ascii_hexdigit()))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_what_is_none() {
        for name in [
            "busybox",
            "a/b:1.2",
            "host.example:5000/a/b",
            "host.example:5000/a:v1",
            "0cafe",
        ] {
            assert!(is_name(name), "{name}");
        }
        for name in [
            "",
            "Busybox",
            "a b",
            "a/",
            "/a",
            "a:",
            "-a",
            "a@sha256:12",
            "a//b",
        ] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn a_name_without_a_tag_means_the_latest() {
        let mut images = Images::default();
        let id = images.pull("busybox").unwrap();
        assert_eq!(images.pull("busybox:latest").unwrap(), id);
        assert_eq!(images.find(id.as_str()).unwrap().tags, ["busybox:latest"]);
        assert_ne!(images.pull("h:5000/busybox").unwrap(), id);
        images.remove("busybox");
        assert!(images.find("busybox").is_none());
        assert_eq!(images.all().len(), 1);
    }
}
