//! Encryption at rest: a layer over any [`Store`](orlop_core::store::Store), configured as in Kubernetes.
//!
//! An [`EncryptionConfiguration`] says by resource which keys values are encrypted with. The formats are those of kube-apiserver, byte for byte:
//!
//! | provider | stored value |
//! |---|---|
//! | `aesgcm` | `k8s:enc:aesgcm:v1:<key name>:`, a nonce of 12 bytes, the ciphertext, a tag of 16; the key in the store is authenticated with it |
//! | `aescbc` | `k8s:enc:aescbc:v1:<key name>:`, an IV of 16 bytes, blocks padded as in PKCS #7. Nothing is authenticated: who can write to the disk can change values |
//! | `secretbox` | `k8s:enc:secretbox:v1:<key name>:`, a nonce of 24 bytes, a box of XSalsa20 and Poly1305. The key in the store is not authenticated: who can write to the disk can put a value in another one's place |
//! | `identity` | the value itself |
//!
//! The first key of the first provider encrypts; all that are configured decrypt. Keys and revisions are not encrypted, and the length of a value can
//! be seen.
//!
//! To rotate a key: add the new one behind the old one and let all servers know it; put it first and let all servers know that; rewrite what is
//! stored ([`EncryptedStore::rewrite_stale`]); remove the old one.
//!
//! ```
//! use std::sync::Arc;
//! use orlop_core::env::SimEnv;
//! use orlop_core::store::{KeyRange, RangeRequest, Store, Txn};
//! use orlop_store::MemoryStore;
//! use orlop_store::encryption::{EncryptedStore, EncryptionConfiguration};
//!
//! let config = EncryptionConfiguration::from_json(&serde_json::json!({
//!     "apiVersion": "apiserver.config.k8s.io/v1",
//!     "kind": "EncryptionConfiguration",
//!     "resources": [{
//!         "resources": ["secrets"],
//!         "providers": [
//!             {"secretbox": {"keys": [{"name": "key1", "secret": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}]}},
//!             {"identity": {}},
//!         ],
//!     }],
//! }))?;
//! let sim = SimEnv::new(7);
//! let inner: Arc<dyn Store> = Arc::new(MemoryStore::new(sim.env()));
//! let store = EncryptedStore::new(inner.clone(), &config);
//! sim.block_on(async move {
//!     let key = "/registry/core/secrets/default/password";
//!     store.commit(Txn::create(key, "swordfish")).await?;
//!     let request = RangeRequest::new(KeyRange::key(key));
//!     let stored = inner.range(request.clone()).await?.items.remove(0).value;
//!     assert!(stored.starts_with(b"k8s:enc:secretbox:v1:key1:"));
//!     assert_eq!(store.range(request).await?.items[0].value.as_ref(), b"swordfish");
//!     Ok::<_, orlop_core::store::StoreError>(())
//! }).unwrap();
//! # Ok::<(), orlop_store::encryption::ConfigError>(())
//! ```

mod cipher;
mod config;
mod layer;
mod parse;
mod rewrite;
#[cfg(test)]
mod tests;
mod transact;
mod transform;

pub use self::config::{ConfigError, EncryptionConfiguration};
pub use self::layer::EncryptedStore;
pub use self::rewrite::{RewritePace, Rewritten};
