//! [`ObjectCache`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::{Either, select};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use orlop_core::client::Client;
use orlop_core::env::{CancelToken, Env, Moment, TaskGroup};
use orlop_core::informer::{InformerOptions, Notice, Scope, SharedInformer, Subscription};
use orlop_core::object::{Object, ObjectKey};
use orlop_core::status::Status;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;

use super::references::{ObjectKind, ObjectRef, references};

/// Called with the uid of a pod, one of whose objects changed.
pub type Wake = Arc<dyn Fn(&str) + Send + Sync>;

/// How long a read waits for a watch that has just begun before it asks the API itself: upstream's limit for the same wait.
const SYNC_LIMIT: Duration = Duration::from_secs(1);

/// How long the API may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// How long nobody may read an object before its watch is ended: five times the period in which every pod is looked at, as upstream.
/// What a volume shows is read in each of these periods, so it stays watched; what only an environment names is not.
const IDLE_LIMIT: Duration = Duration::from_secs(300);

/// The ConfigMaps and Secrets that the registered pods name. Clones share it.
///
/// - An object is watched alone (`metadata.name=…`), from its first read, while a registered pod names it.
/// - An immutable object is kept and no longer watched.
/// - An object that nobody read for five minutes is no longer watched; the next read begins anew.
/// - What no registered pod names is read from the API each time.
#[derive(Clone)]
pub struct ObjectCache(Arc<Inner>);

struct Inner {
    client: Arc<dyn Client>,
    env: Env,
    group: TaskGroup,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<ObjectRef, Entry>,
    /// What each registered pod names.
    pods: BTreeMap<String, BTreeSet<ObjectRef>>,
    watches: u64,
    wake: Option<Wake>,
}

struct Entry {
    /// The uids of the pods that name it.
    users: BTreeSet<String>,
    last_read: Moment,
    /// Somebody went away without an answer of the watch.
    missed: bool,
    source: Source,
}

enum Source {
    /// Not watched: nobody has read it, or not for long.
    Idle,
    Watched {
        informer: SharedInformer,
        /// Tells this watch from an earlier one of the same object.
        number: u64,
    },
    /// Immutable: this is how it is for as long as a pod names it.
    Fixed(Object),
}

impl fmt::Debug for ObjectCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.state.lock();
        write!(
            f,
            "ObjectCache({} objects of {} pods)",
            state.entries.len(),
            state.pods.len()
        )
    }
}

impl ObjectCache {
    /// A cache without pods. Its watches end with `parent`, or with the cache.
    #[must_use]
    pub fn new(client: Arc<dyn Client>, env: Env, parent: &CancelToken) -> Self {
        Self(Arc::new(Inner {
            client,
            group: TaskGroup::with_parent(env.clone(), parent),
            env,
            state: Mutex::default(),
        }))
    }

    /// Whom to tell of changes: called with the uid of each pod that names an object which appeared, changed or went. There is one
    /// such callback; a later call replaces it.
    pub fn on_change(&self, wake: Wake) {
        self.0.state.lock().wake = Some(wake);
    }

    /// From now on the objects that a pod names are kept. For a pod that is registered, what it names now replaces what it named.
    pub fn register(&self, pod: &Pod) {
        let Some(uid) = pod.metadata.uid.clone() else {
            return;
        };
        self.0.replace(uid, references(pod));
    }

    /// A pod is gone: what only it named is forgotten.
    pub fn unregister(&self, uid: &str) {
        self.0.replace(uid.to_owned(), BTreeSet::new());
    }

    /// A ConfigMap, if it is there.
    ///
    /// # Errors
    /// The API's refusal, where it had to be asked.
    pub async fn config_map(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<ConfigMap>>, Status> {
        self.typed(ObjectKind::ConfigMap, namespace, name).await
    }

    /// A Secret, if it is there.
    ///
    /// # Errors
    /// The API's refusal, where it had to be asked.
    pub async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Arc<Secret>>, Status> {
        self.typed(ObjectKind::Secret, namespace, name).await
    }

    /// How many objects are watched now.
    #[must_use]
    pub fn watched(&self) -> usize {
        let state = self.0.state.lock();
        let watched = |entry: &&Entry| matches!(entry.source, Source::Watched { .. });
        state.entries.values().filter(watched).count()
    }

    /// Ends all watches and waits for their tasks.
    pub async fn shutdown(&self) {
        self.0.group.shutdown().await;
    }

    async fn typed<K: DeserializeOwned + Send + Sync + 'static>(
        &self,
        kind: ObjectKind,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<K>>, Status> {
        let object = ObjectRef {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let Some(found) = self.0.read(&object).await? else {
            return Ok(None);
        };
        // The error of a Secret says where, not what.
        found.decode().map(Some).map_err(|error| {
            Status::internal(format!(
                "{} {name:?} does not fit its type: {error}",
                kind.resource().kind
            ))
        })
    }
}

impl Inner {
    fn replace(&self, uid: String, new: BTreeSet<ObjectRef>) {
        let mut stopped = Vec::new();
        {
            let mut state = self.state.lock();
            let old = state.pods.remove(&uid).unwrap_or_default();
            for object in old.difference(&new) {
                if let Some(entry) = state.entries.get_mut(object) {
                    entry.users.remove(&uid);
                    if entry.users.is_empty()
                        && let Some(Entry {
                            source: Source::Watched { informer, .. },
                            ..
                        }) = state.entries.remove(object)
                    {
                        stopped.push(informer);
                    }
                }
            }
            for object in new.difference(&old) {
                let entry = state
                    .entries
                    .entry(object.clone())
                    .or_insert_with(|| Entry {
                        users: BTreeSet::new(),
                        last_read: self.env.now(),
                        missed: false,
                        source: Source::Idle,
                    });
                entry.users.insert(uid.clone());
            }
            if !new.is_empty() {
                state.pods.insert(uid, new);
            }
        }
        for informer in stopped {
            informer.stop();
        }
    }

    async fn read(self: &Arc<Self>, object: &ObjectRef) -> Result<Option<Object>, Status> {
        let Some(informer) = self.source(object) else {
            return self.ask(object).await;
        };
        let informer = match informer {
            Ok(informer) => informer,
            Err(fixed) => return Ok(Some(fixed)),
        };
        if self
            .env
            .timeout(SYNC_LIMIT, informer.synced())
            .await
            .is_err()
        {
            if let Some(entry) = self.state.lock().entries.get_mut(object) {
                entry.missed = true;
            }
            // The API says why, where the watch only tries again.
            return self.ask(object).await;
        }
        let key = ObjectKey::new(&object.namespace, &object.name);
        Ok(informer.indexer().get(&key))
    }

    async fn ask(&self, object: &ObjectRef) -> Result<Option<Object>, Status> {
        let objects = self.client.resource(&object.kind.resource());
        let objects = objects.namespace(&object.namespace);
        let asked = self.env.timeout(ANSWER_LIMIT, objects.find(&object.name));
        asked.await.unwrap_or_else(|_| {
            let what = object.kind.resource().plural;
            let message = format!("no answer about {what} {:?} in time", object.name);
            Err(Status::timeout(message, 1))
        })
    }

    /// The watch of an object, begun if need be, or the object if it never changes; `None` if no pod names it.
    fn source(self: &Arc<Self>, object: &ObjectRef) -> Option<Result<SharedInformer, Object>> {
        let mut state = self.state.lock();
        let number = state.watches + 1;
        let entry = state.entries.get_mut(object)?;
        entry.last_read = self.env.now();
        match &entry.source {
            Source::Fixed(object) => return Some(Err(object.clone())),
            Source::Watched { informer, .. } => return Some(Ok(informer.clone())),
            Source::Idle => {}
        }
        let informer = SharedInformer::new(
            self.client.clone(),
            self.env.clone(),
            Scope {
                namespace: object.namespace.clone(),
                field_selector: format!("metadata.name={}", object.name),
                ..Scope::all(&object.kind.resource())
            },
            InformerOptions::default(),
        );
        entry.source = Source::Watched {
            informer: informer.clone(),
            number,
        };
        entry.missed = false;
        state.watches = number;
        drop(state);
        let notices = informer.subscribe();
        informer.start(&self.group);
        let follow = follow(
            Arc::downgrade(self),
            self.env.clone(),
            object.clone(),
            number,
            notices,
        );
        self.group.spawn_until_cancelled("object-watch", follow);
        Some(Ok(informer))
    }

    /// The entry of an object, if it still is as the watch of this number left it.
    fn entry<'a>(state: &'a mut State, object: &ObjectRef, watch: u64) -> Option<&'a mut Entry> {
        let entry = state.entries.get_mut(object)?;
        matches!(entry.source, Source::Watched { number, .. } if number == watch).then_some(entry)
    }

    fn changed(&self, object: &ObjectRef, watch: u64, notice: &Notice) {
        let (users, wake, stopped) = {
            let mut state = self.state.lock();
            let wake = state.wake.clone();
            let Some(entry) = Self::entry(&mut state, object, watch) else {
                return;
            };
            let initial = matches!(notice, Notice::Added { initial: true, .. });
            let tell = !initial || std::mem::take(&mut entry.missed);
            let gone = matches!(notice, Notice::Deleted { .. });
            let mut stopped = None;
            if !gone && is_immutable(notice.object()) {
                let fixed = Source::Fixed(notice.object().clone());
                if let Source::Watched { informer, .. } =
                    std::mem::replace(&mut entry.source, fixed)
                {
                    stopped = Some(informer);
                }
            }
            let users: Vec<String> = if tell {
                entry.users.iter().cloned().collect()
            } else {
                Vec::new()
            };
            (users, wake, stopped)
        };
        if let Some(informer) = stopped {
            informer.stop();
        }
        if let Some(wake) = wake {
            users.iter().for_each(|uid| wake(uid));
        }
    }

    /// Ends a watch if nobody has read its object for long; else says when to look again.
    fn idle(&self, object: &ObjectRef, watch: u64) -> Option<Moment> {
        let informer = {
            let mut state = self.state.lock();
            let entry = Self::entry(&mut state, object, watch)?;
            let limit = entry.last_read + IDLE_LIMIT;
            if limit > self.env.now() {
                return Some(limit);
            }
            std::mem::replace(&mut entry.source, Source::Idle)
        };
        if let Source::Watched { informer, .. } = informer {
            informer.stop();
        }
        None
    }
}

fn is_immutable(object: &Object) -> bool {
    let value = object.value();
    value.is_ok_and(|value| value["immutable"] == serde_json::Value::Bool(true))
}

async fn follow(
    cache: Weak<Inner>,
    env: Env,
    object: ObjectRef,
    watch: u64,
    mut notices: Subscription,
) {
    let mut limit = env.now() + IDLE_LIMIT;
    loop {
        let next = {
            let next = std::pin::pin!(notices.next());
            match select(next, env.sleep_until(limit)).await {
                Either::Left((None, _)) => return,
                Either::Left((Some(notice), _)) => Some(notice),
                Either::Right(((), _)) => None,
            }
        };
        let Some(cache) = cache.upgrade() else {
            return;
        };
        match next {
            Some(notice) => cache.changed(&object, watch, &notice),
            None => match cache.idle(&object, watch) {
                Some(later) => limit = later,
                None => return,
            },
        }
    }
}
