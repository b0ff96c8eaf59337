//! [`Informer`]: a local copy of one kind.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use orlop_core::informer::{self, InformerFactory, Scope, SharedInformer};
use orlop_core::object::{Object, ObjectError, ObjectKey};

use super::Kind;

/// A local copy of the objects of one kind, which follows the server. Clones are the same informer.
pub struct Informer<K> {
    shared: SharedInformer,
    kind: PhantomData<fn() -> K>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            kind: PhantomData,
        }
    }
}

impl<K> fmt::Debug for Informer<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Informer").field(&self.shared).finish()
    }
}

/// What a subscriber is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice<K> {
    /// An object is there.
    Added {
        /// The object.
        object: Arc<K>,
        /// Whether it was there before the subscription began, or before the first list.
        initial: bool,
    },
    /// An object changed, or is shown again by a resync.
    Updated {
        /// How it was.
        old: Arc<K>,
        /// How it is.
        new: Arc<K>,
    },
    /// An object went.
    Deleted {
        /// How it last looked.
        object: Arc<K>,
        /// Whether its last state is not known.
        unseen: bool,
    },
}

impl<K: Kind> Informer<K> {
    /// The informer of all objects of the kind, shared with all who ask the same factory.
    #[must_use]
    pub fn all(factory: &InformerFactory) -> Self {
        Self::new(factory.informer(&K::resource()))
    }

    /// The informer of a narrower collection; `narrow` changes the scope from all objects of the kind.
    #[must_use]
    pub fn scoped(factory: &InformerFactory, narrow: impl FnOnce(&mut Scope)) -> Self {
        let mut scope = Scope::all(&K::resource());
        narrow(&mut scope);
        Self::new(factory.informer(scope))
    }

    /// A typed view of an informer, which must follow objects of this kind.
    #[must_use]
    pub fn new(shared: SharedInformer) -> Self {
        Self {
            shared,
            kind: PhantomData,
        }
    }

    /// The informer without types.
    #[must_use]
    pub fn shared(&self) -> &SharedInformer {
        &self.shared
    }

    /// Waits until the local copy holds the first list.
    pub async fn synced(&self) {
        self.shared.synced().await;
    }

    /// An object of the local copy. The namespace is empty for what belongs to the cluster.
    ///
    /// # Errors
    /// When the object doesn't fit its type, as for every method here.
    pub fn get(&self, namespace: &str, name: &str) -> Result<Option<Arc<K>>, ObjectError> {
        let found = self.shared.indexer().get(&ObjectKey::new(namespace, name));
        found.map(|object| object.decode()).transpose()
    }

    /// All objects of the local copy, in order of namespace and name.
    ///
    /// # Errors
    /// When an object doesn't fit its type.
    pub fn list(&self) -> Result<Vec<Arc<K>>, ObjectError> {
        decode_all(&self.shared.indexer().list())
    }

    /// The objects in a namespace, in order of their names.
    ///
    /// # Errors
    /// When an object doesn't fit its type.
    pub fn in_namespace(&self, namespace: &str) -> Result<Vec<Arc<K>>, ObjectError> {
        decode_all(&self.shared.indexer().in_namespace(namespace))
    }

    /// The objects under a word of an index that was added to the shared informer.
    ///
    /// # Errors
    /// When an object doesn't fit its type.
    pub fn by_index(&self, index: &str, word: &str) -> Result<Vec<Arc<K>>, ObjectError> {
        decode_all(&self.shared.indexer().by_index(index, word))
    }

    /// Begins to tell of changes. What is there already comes first.
    #[must_use]
    pub fn subscribe(&self) -> Subscription<K> {
        Subscription {
            shared: self.shared.subscribe(),
            kind: PhantomData,
        }
    }
}

fn decode_all<K: Kind>(objects: &[Object]) -> Result<Vec<Arc<K>>, ObjectError> {
    objects.iter().map(Object::decode).collect()
}

/// What an [`Informer`] tells one of its readers. Dropping it ends it.
pub struct Subscription<K> {
    shared: informer::Subscription,
    kind: PhantomData<fn() -> K>,
}

impl<K> fmt::Debug for Subscription<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Subscription").field(&self.shared).finish()
    }
}

impl<K: Kind> Subscription<K> {
    /// The next notice; `None` when the informer was stopped. Nothing is lost when this future is dropped.
    ///
    /// # Errors
    /// When an object doesn't fit its type. The next notice can still be asked for.
    pub async fn next(&mut self) -> Result<Option<Notice<K>>, ObjectError> {
        let Some(notice) = self.shared.next().await else {
            return Ok(None);
        };
        Ok(Some(match notice {
            informer::Notice::Added { object, initial } => Notice::Added {
                object: object.decode()?,
                initial,
            },
            informer::Notice::Updated { old, new } => Notice::Updated {
                old: old.decode()?,
                new: new.decode()?,
            },
            informer::Notice::Deleted { object, unseen } => Notice::Deleted {
                object: object.decode()?,
                unseen,
            },
        }))
    }
}
