//! [`Indexer`]: objects by key, and by whatever else somebody wants to find them by.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::object::{Object, ObjectKey};

/// The words under which an index files an object.
pub type IndexFn = Arc<dyn Fn(&Object) -> Vec<String> + Send + Sync>;

/// The names of the indexes that come with this crate.
pub mod index {
    /// By namespace; see [`by_namespace`](super::by_namespace). Every [`Indexer`](super::Indexer) has it.
    pub const NAMESPACE: &str = "namespace";
    /// By the uids of all owners; see [`by_owner_uid`](super::by_owner_uid).
    pub const OWNER_UID: &str = "ownerUID";
    /// By the uid of the owner that manages the object; see [`by_controller_uid`](super::by_controller_uid).
    pub const CONTROLLER_UID: &str = "controllerUID";
}

/// Files an object under its namespace.
#[must_use]
pub fn by_namespace(object: &Object) -> Vec<String> {
    vec![object.namespace().to_owned()]
}

/// Files an object under the uids of its owners.
#[must_use]
pub fn by_owner_uid(object: &Object) -> Vec<String> {
    object
        .metadata()
        .owner_references
        .iter()
        .map(|owner| owner.uid.clone())
        .collect()
}

/// Files an object under the uid of the owner that manages it, or under the empty word if none does: orphans can be found, too.
#[must_use]
pub fn by_controller_uid(object: &Object) -> Vec<String> {
    vec![
        object
            .metadata()
            .controller()
            .map(|owner| owner.uid.clone())
            .unwrap_or_default(),
    ]
}

/// A collection of objects, readable from anywhere. Clones share the content. What it returns is ordered by namespace and name.
#[derive(Clone, Default)]
pub struct Indexer(Arc<RwLock<Content>>);

#[derive(Default)]
struct Content {
    objects: BTreeMap<ObjectKey, Object>,
    indexes: BTreeMap<String, Index>,
}

struct Index {
    words_of: IndexFn,
    filed: BTreeMap<String, BTreeSet<ObjectKey>>,
}

impl fmt::Debug for Indexer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let content = self.0.read();
        write!(
            f,
            "Indexer({} objects, indexes {:?})",
            content.objects.len(),
            content.indexes.keys().collect::<Vec<_>>()
        )
    }
}

impl Index {
    fn file(&mut self, object: &Object, key: &ObjectKey) {
        for word in (self.words_of)(object) {
            self.filed.entry(word).or_default().insert(key.clone());
        }
    }

    fn unfile(&mut self, object: &Object, key: &ObjectKey) {
        for word in (self.words_of)(object) {
            if let Some(keys) = self.filed.get_mut(&word) {
                keys.remove(key);
                if keys.is_empty() {
                    self.filed.remove(&word);
                }
            }
        }
    }
}

impl Indexer {
    /// An empty collection. The namespace order of the keys is its first index.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an index, also over what is there. An index of that name that is there already stays as it is.
    pub fn add_index(
        &self,
        name: &str,
        words_of: impl Fn(&Object) -> Vec<String> + Send + Sync + 'static,
    ) {
        let mut content = self.0.write();
        if content.indexes.contains_key(name) {
            return;
        }
        let mut index = Index {
            words_of: Arc::new(words_of),
            filed: BTreeMap::new(),
        };
        for (key, object) in &content.objects {
            index.file(object, key);
        }
        content.indexes.insert(name.to_owned(), index);
    }

    /// Adds or replaces an object and returns the one that was there.
    pub fn upsert(&self, object: Object) -> Option<Object> {
        let key = object.key();
        let mut guard = self.0.write();
        let content = &mut *guard;
        let old = content.objects.insert(key.clone(), object.clone());
        for index in content.indexes.values_mut() {
            if let Some(old) = &old {
                index.unfile(old, &key);
            }
            index.file(&object, &key);
        }
        old
    }

    /// Removes an object and returns it.
    pub fn remove(&self, key: &ObjectKey) -> Option<Object> {
        let mut guard = self.0.write();
        let content = &mut *guard;
        let old = content.objects.remove(key)?;
        for index in content.indexes.values_mut() {
            index.unfile(&old, key);
        }
        Some(old)
    }

    /// The object of a key.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<Object> {
        self.0.read().objects.get(key).cloned()
    }

    /// All objects.
    #[must_use]
    pub fn list(&self) -> Vec<Object> {
        self.0.read().objects.values().cloned().collect()
    }

    /// The objects of a namespace; all for an empty one.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Vec<Object> {
        if namespace.is_empty() {
            return self.list();
        }
        let content = self.0.read();
        let first = ObjectKey::new(namespace, "");
        content
            .objects
            .range(first..)
            .take_while(|(key, _)| &*key.namespace == namespace)
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// The objects that an index has under a word. Nothing when there is no such index.
    #[must_use]
    pub fn by_index(&self, name: &str, word: &str) -> Vec<Object> {
        if name == index::NAMESPACE {
            return self.in_namespace(word);
        }
        let content = self.0.read();
        let keys = content
            .indexes
            .get(name)
            .and_then(|index| index.filed.get(word));
        keys.into_iter()
            .flatten()
            .filter_map(|key| content.objects.get(key).cloned())
            .collect()
    }

    /// The words of an index that have objects.
    #[must_use]
    pub fn words(&self, name: &str) -> Vec<String> {
        self.0
            .read()
            .indexes
            .get(name)
            .map(|index| index.filed.keys().cloned().collect())
            .unwrap_or_default()
    }

    /// All keys.
    #[must_use]
    pub fn keys(&self) -> Vec<ObjectKey> {
        self.0.read().objects.keys().cloned().collect()
    }

    /// How many objects there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.read().objects.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(namespace: &str, name: &str, owner: Option<&str>) -> Object {
        let owners: Vec<_> = owner
            .iter()
            .map(|uid| json!({"uid": uid, "controller": true}))
            .collect();
        Object::from_value(
            json!({"metadata": {"namespace": namespace, "name": name, "ownerReferences": owners}}),
        )
        .unwrap()
    }

    fn names(objects: &[Object]) -> Vec<String> {
        objects
            .iter()
            .map(|object| object.key().to_string())
            .collect()
    }

    #[test]
    fn an_index_follows_its_objects() {
        let store = Indexer::new();
        store.upsert(pod("b", "1", Some("x")));
        store.add_index(index::CONTROLLER_UID, by_controller_uid);
        store.upsert(pod("a", "2", Some("x")));
        store.upsert(pod("a", "1", None));
        assert_eq!(
            names(&store.by_index(index::CONTROLLER_UID, "x")),
            ["a/2", "b/1"]
        );
        assert_eq!(names(&store.by_index(index::CONTROLLER_UID, "")), ["a/1"]);
        store.upsert(pod("a", "2", None));
        store.remove(&ObjectKey::new("b", "1"));
        assert!(store.by_index(index::CONTROLLER_UID, "x").is_empty());
        assert_eq!(store.words(index::CONTROLLER_UID), [""]);
        assert_eq!(names(&store.list()), ["a/1", "a/2"]);
    }

    #[test]
    fn a_namespace_is_a_range() {
        let store = Indexer::new();
        for (namespace, name) in [("a", "z"), ("a-b", "1"), ("a", "1"), ("b", "1"), ("", "c")] {
            store.upsert(pod(namespace, name, None));
        }
        assert_eq!(names(&store.in_namespace("a")), ["a/1", "a/z"]);
        assert_eq!(names(&store.by_index(index::NAMESPACE, "b")), ["b/1"]);
        assert_eq!(store.in_namespace("").len(), 5);
    }
}
