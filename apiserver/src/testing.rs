//! An in-memory [`ObjectReader`] for tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use orlop_core::admission::ObjectReader;
use orlop_core::object::Object;
use orlop_core::resource::Resource;
use orlop_core::revision::Revision;
use orlop_core::status::Status;
use parking_lot::Mutex;
use serde_json::Value;

type Key = (String, String, String);

#[derive(Default)]
struct State {
    objects: BTreeMap<Key, Object>,
    changes: BTreeMap<String, Revision>,
    revision: Revision,
}

/// Objects that a test puts there and takes away.
#[derive(Default)]
pub(crate) struct Objects(Mutex<State>);

impl Objects {
    pub(crate) fn new(objects: impl IntoIterator<Item = (Resource, Value)>) -> Arc<Self> {
        let all = Self::default();
        for (resource, object) in objects {
            all.put(&resource, object);
        }
        Arc::new(all)
    }

    pub(crate) fn put(&self, resource: &Resource, object: Value) {
        let mut state = self.0.lock();
        state.revision = state.revision.next();
        let revision = state.revision;
        let object = Object::from_value(object).unwrap().with_revision(revision);
        let key = (
            resource.qualified(),
            object.namespace().to_owned(),
            object.name().to_owned(),
        );
        state.objects.insert(key, object);
        state.changes.insert(resource.qualified(), revision);
    }

    pub(crate) fn remove(&self, resource: &Resource, namespace: &str, name: &str) {
        let mut state = self.0.lock();
        state.revision = state.revision.next();
        let revision = state.revision;
        state
            .objects
            .remove(&(resource.qualified(), namespace.to_owned(), name.to_owned()));
        state.changes.insert(resource.qualified(), revision);
    }
}

#[async_trait]
impl ObjectReader for Objects {
    async fn get(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Object>, Status> {
        let key = (resource.qualified(), namespace.to_owned(), name.to_owned());
        Ok(self.0.lock().objects.get(&key).cloned())
    }

    async fn get_live(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Object>, Status> {
        self.get(resource, namespace, name).await
    }

    async fn list(&self, resource: &Resource, namespace: &str) -> Result<Vec<Object>, Status> {
        let wanted = resource.qualified();
        let state = self.0.lock();
        let found = state
            .objects
            .iter()
            .filter(|((resource, in_namespace, _), _)| {
                *resource == wanted && (namespace.is_empty() || in_namespace == namespace)
            });
        Ok(found.map(|(_, object)| object.clone()).collect())
    }

    fn last_change(&self, resource: &Resource) -> Revision {
        self.0
            .lock()
            .changes
            .get(&resource.qualified())
            .copied()
            .unwrap_or_default()
    }
}
