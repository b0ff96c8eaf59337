//! From values to what is stored, and back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use orlop_core::store::{KeyValue, StoreError};

use super::cipher::Cipher;
use super::config::{Algorithm, EncryptionConfiguration, GroupResource, Key, Provider};
use crate::layers::resource;

/// What every encrypted value begins with.
const ENCRYPTED: &[u8] = b"k8s:enc:";
/// After so many values a key of AES-GCM should be replaced: Kubernetes' recommendation for random nonces.
const WORN_OUT: u64 = 200_000;

/// A key that a configuration names.
struct NamedKey {
    /// `k8s:enc:<provider>:v1:<name>:`.
    prefix: Box<[u8]>,
    /// How it is called in messages: `<provider>:<name>`.
    label: String,
    cipher: Cipher,
    /// How many values it has encrypted since it was read.
    writes: AtomicU64,
}

enum Link {
    Keys {
        /// `k8s:enc:<provider>:v1:`.
        prefix: &'static [u8],
        /// What is said when no key has the name that a value asks for.
        no_key: &'static str,
        keys: Vec<NamedKey>,
    },
    Identity,
}

/// The providers of a resource: the first encrypts, all decrypt.
struct Chain(Vec<Arc<Link>>);

/// What was stored.
pub(super) struct Opened {
    /// `None` where it is what is stored.
    pub(super) value: Option<Vec<u8>>,
    /// Whether it would be stored in another way today.
    pub(super) stale: bool,
}

impl Link {
    fn new(algorithm: Algorithm, keys: &[Key]) -> Self {
        let (prefix, no_key): (&'static [u8], _) = match algorithm {
            Algorithm::AesGcm => (
                b"k8s:enc:aesgcm:v1:",
                "no matching key was found for the provided AES transformer",
            ),
            Algorithm::AesCbc => (
                b"k8s:enc:aescbc:v1:",
                "no matching key was found for the provided AES transformer",
            ),
            Algorithm::Secretbox => (
                b"k8s:enc:secretbox:v1:",
                "no matching key was found for the provided Secretbox transformer",
            ),
        };
        let named = keys.iter().filter_map(|key| {
            let cipher = match algorithm {
                Algorithm::AesGcm => Cipher::gcm(&key.secret),
                Algorithm::AesCbc => Cipher::cbc(&key.secret),
                Algorithm::Secretbox => Cipher::secretbox(&key.secret),
            };
            // The length was checked when the configuration was read.
            cipher.map(|cipher| NamedKey {
                prefix: [prefix, key.name.as_bytes(), b":"].concat().into(),
                label: format!("{}:{}", algorithm.field(), key.name),
                cipher,
                writes: AtomicU64::new(0),
            })
        });
        Self::Keys {
            prefix,
            no_key,
            keys: named.collect(),
        }
    }
}

impl Chain {
    /// Turns a value into what is stored. `None`: it is stored as it is.
    fn seal(&self, key: &[u8], value: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(Link::Keys { keys, .. }) = self.0.first().map(|link| &**link) else {
            return Ok(None);
        };
        let Some(first) = keys.first() else {
            return Ok(None);
        };
        let mut out = Vec::with_capacity(first.prefix.len() + value.len() + 48);
        out.extend_from_slice(&first.prefix);
        first.cipher.seal(value, key, &mut out).map_err(|_| {
            StoreError::Unavailable("the operating system gives no randomness".to_owned())
        })?;
        let writes = first.writes.fetch_add(1, Ordering::Relaxed) + 1;
        if first.cipher.wears_out() && writes.is_multiple_of(WORN_OUT) {
            tracing::warn!(
                key = first.label,
                writes,
                "a key of AES-GCM should be replaced after {WORN_OUT} writes: nonces are random, and two must not be the same"
            );
        }
        Ok(Some(out))
    }

    /// Turns what is stored into a value.
    fn open(&self, key: &[u8], stored: &[u8]) -> Result<Opened, String> {
        let mut errors: Vec<String> = Vec::new();
        for (place, link) in self.0.iter().enumerate() {
            match &**link {
                // What is encrypted is for those who come after.
                Link::Identity if stored.starts_with(ENCRYPTED) => {}
                Link::Identity => {
                    return Ok(Opened {
                        value: None,
                        stale: place > 0,
                    });
                }
                Link::Keys {
                    prefix,
                    no_key,
                    keys,
                } => {
                    if !stored.starts_with(prefix) {
                        continue;
                    }
                    let mut asked = false;
                    for (number, own) in keys.iter().enumerate() {
                        let Some(data) = stored.strip_prefix(&*own.prefix) else {
                            continue;
                        };
                        asked = true;
                        match own.cipher.open(data, key) {
                            Ok(value) => {
                                return Ok(Opened {
                                    value: Some(value),
                                    stale: place > 0 || number > 0,
                                });
                            }
                            Err(why) => errors.push(format!("{}: {why}", own.label)),
                        }
                    }
                    if !asked {
                        errors.push((*no_key).to_owned());
                    }
                }
            }
        }
        errors.dedup();
        Err(match errors.as_slice() {
            [] => "no matching prefix found".to_owned(),
            [one] => one.clone(),
            more => format!("[{}]", more.join(", ")),
        })
    }
}

/// What a configuration says of each resource.
#[derive(Default)]
pub(super) struct Transformers {
    chains: Vec<(GroupResource, Chain)>,
}

impl Transformers {
    pub(super) fn new(config: &EncryptionConfiguration) -> Self {
        let mut chains: Vec<(GroupResource, Chain)> = Vec::new();
        for rule in &config.rules {
            // Once a rule, so that a key counts what it encrypts for all resources.
            let links = rule.providers.iter().map(|provider| {
                Arc::new(match provider {
                    Provider::Keys(algorithm, keys) => Link::new(*algorithm, keys),
                    Provider::Identity => Link::Identity,
                })
            });
            let links: Vec<Arc<Link>> = links.collect();
            for resource in &rule.resources {
                // Several rules for one resource are one after the other, as in kube-apiserver.
                match chains.iter_mut().find(|(known, _)| known == resource) {
                    Some((_, chain)) => chain.0.extend(links.iter().cloned()),
                    None => chains.push((resource.clone(), Chain(links.clone()))),
                }
            }
        }
        Self { chains }
    }

    /// Whether nothing is configured.
    pub(super) fn is_empty(&self) -> bool {
        self.chains.is_empty()
    }

    /// The providers of the resource that a key belongs to: those named for it, for its group, or for everything.
    fn of(&self, key: &[u8]) -> Option<&Chain> {
        if self.chains.is_empty() {
            return None;
        }
        let find = |group: &str, resource: &str| {
            self.chains
                .iter()
                .find(|(of, _)| of.group == group && of.resource == resource)
                .map(|(_, chain)| chain)
        };
        let own = resource::of_key(key)
            .and_then(|named| find(named.group, named.resource).or_else(|| find(named.group, "*")));
        own.or_else(|| find("*", "*"))
    }

    /// What is to be stored for a value.
    pub(super) fn seal(&self, key: &[u8], value: Bytes) -> Result<Bytes, StoreError> {
        let Some(chain) = self.of(key) else {
            return Ok(value);
        };
        Ok(chain.seal(key, &value)?.map_or(value, Bytes::from))
    }

    /// Opens what is stored at a key.
    pub(super) fn inspect(&self, key: &[u8], stored: &[u8]) -> Result<Opened, StoreError> {
        let opened = match self.of(key) {
            Some(chain) => chain.open(key, stored),
            None if stored.starts_with(ENCRYPTED) => {
                Err("identity transformer tried to read encrypted data".to_owned())
            }
            None => Ok(Opened {
                value: None,
                stale: false,
            }),
        };
        opened.map_err(|why| {
            StoreError::Corrupt(format!(
                "unable to transform key \"{}\": {why}",
                key.escape_ascii()
            ))
        })
    }

    /// Puts the value in the place of what is stored. Says whether that was something else.
    pub(super) fn open(&self, kv: &mut KeyValue) -> Result<bool, StoreError> {
        match self.inspect(&kv.key, &kv.value)?.value {
            Some(value) => {
                kv.value = value.into();
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// How many values each key has encrypted.
    pub(super) fn writes(&self) -> Vec<(String, u64)> {
        let mut links: Vec<&Arc<Link>> = Vec::new();
        for link in self.chains.iter().flat_map(|(_, chain)| &chain.0) {
            if !links.iter().any(|known| Arc::ptr_eq(known, link)) {
                links.push(link);
            }
        }
        let keys = links.into_iter().flat_map(|link| match &**link {
            Link::Keys { keys, .. } => keys.as_slice(),
            Link::Identity => &[],
        });
        let mut writes: Vec<(String, u64)> = Vec::new();
        for key in keys {
            let count = key.writes.load(Ordering::Relaxed);
            match writes.iter_mut().find(|(label, _)| *label == key.label) {
                Some((_, sum)) => *sum += count,
                None => writes.push((key.label.clone(), count)),
            }
        }
        writes
    }
}
