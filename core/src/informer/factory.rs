//! [`InformerFactory`]: one informer for each collection that somebody looks at.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::indexer::Indexer;
use super::shared::{InformerOptions, SharedInformer};
use crate::client::Client;
use crate::env::{Env, TaskGroup};
use crate::resource::Resource;

/// The collection that an informer follows: a resource, in one namespace or all, narrowed by selectors.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope {
    /// The resource.
    pub resource: Resource,
    /// The namespace; empty for all.
    pub namespace: String,
    /// A label selector in its text form; empty for all.
    pub label_selector: String,
    /// A field selector in its text form; empty for all.
    pub field_selector: String,
}

impl Scope {
    /// All objects of a resource.
    #[must_use]
    pub fn all(resource: &Resource) -> Self {
        Self {
            resource: resource.clone(),
            namespace: String::new(),
            label_selector: String::new(),
            field_selector: String::new(),
        }
    }
}

impl From<&Resource> for Scope {
    fn from(resource: &Resource) -> Self {
        Self::all(resource)
    }
}

/// Hands out [`SharedInformer`]s, the same one for the same [`Scope`]. Clones share them.
#[derive(Clone)]
pub struct InformerFactory(Arc<Inner>);

struct Inner {
    client: Arc<dyn Client>,
    env: Env,
    options: InformerOptions,
    informers: Mutex<BTreeMap<Scope, Known>>,
}

struct Known {
    informer: SharedInformer,
    started: bool,
}

impl fmt::Debug for InformerFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.informers.lock().keys())
            .finish()
    }
}

impl InformerFactory {
    /// A factory without informers, which will all use one client.
    #[must_use]
    pub fn new(client: Arc<dyn Client>, env: Env) -> Self {
        Self::with_options(client, env, InformerOptions::default())
    }

    /// A factory whose informers run with these options.
    #[must_use]
    pub fn with_options(client: Arc<dyn Client>, env: Env, options: InformerOptions) -> Self {
        Self(Arc::new(Inner {
            client,
            env,
            options,
            informers: Mutex::default(),
        }))
    }

    /// The informer of a collection. It runs after the next [`start`](Self::start).
    #[must_use]
    pub fn informer(&self, scope: impl Into<Scope>) -> SharedInformer {
        let scope = scope.into();
        let mut informers = self.0.informers.lock();
        let known = informers.entry(scope).or_insert_with_key(|scope| Known {
            informer: SharedInformer::new(
                self.0.client.clone(),
                self.0.env.clone(),
                scope.clone(),
                self.0.options.clone(),
            ),
            started: false,
        });
        known.informer.clone()
    }

    /// The informer of a collection, if it was asked for before.
    #[must_use]
    pub fn find(&self, scope: &Scope) -> Option<SharedInformer> {
        self.0
            .informers
            .lock()
            .get(scope)
            .map(|known| known.informer.clone())
    }

    /// The local copy of a collection.
    #[must_use]
    pub fn store(&self, scope: impl Into<Scope>) -> Indexer {
        self.informer(scope).indexer()
    }

    /// Runs all informers that do not run yet, as tasks of `group`.
    pub fn start(&self, group: &TaskGroup) {
        let new: Vec<SharedInformer> = self
            .0
            .informers
            .lock()
            .values_mut()
            .filter_map(|known| {
                (!std::mem::replace(&mut known.started, true)).then(|| known.informer.clone())
            })
            .collect();
        for informer in new {
            informer.start(group);
        }
    }

    /// Waits until every informer that is there now has its first list.
    pub async fn synced(&self) {
        let all: Vec<SharedInformer> = self
            .0
            .informers
            .lock()
            .values()
            .map(|known| known.informer.clone())
            .collect();
        for informer in all {
            informer.synced().await;
        }
    }

    /// Stops the informer of a collection and forgets it; for collections that went away. Its subscriptions end.
    pub fn forget(&self, scope: &Scope) {
        let known = self.0.informers.lock().remove(scope);
        if let Some(known) = known {
            known.informer.stop();
        }
    }
}
