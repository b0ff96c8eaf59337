//! [`Reflector`]: list, then watch, for ever.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{Either, select};
use parking_lot::Mutex;

use super::delta_fifo::DeltaFifo;
use super::factory::Scope;
use crate::client::{Client, Freshness, ListOptions, ResourceClient, WatchEvent, WatchOptions};
use crate::env::{Env, Moment};
use crate::object::Object;
use crate::revision::Revision;
use crate::status::{Status, reason};

/// How a [`Reflector`] works.
#[derive(Clone, Debug)]
pub struct ReflectorOptions {
    /// Objects a page, where the list is paged; zero for whole lists. A list that may be served from a cache is not paged.
    pub page_size: usize,
    /// Whether to ask for a streaming list first: one watch that begins with what is there. Where the server refuses that, it lists.
    pub streaming_list: bool,
    /// How often to show all known objects again; `None` for never, which is right for who trusts the watch.
    pub resync: Option<Duration>,
    /// The shortest time that a watch is asked to live. The longest is twice as much.
    pub watch_timeout: Duration,
}

impl Default for ReflectorOptions {
    fn default() -> Self {
        Self {
            page_size: 500,
            streaming_list: false,
            resync: None,
            watch_timeout: Duration::from_secs(300),
        }
    }
}

/// Keeps a [`DeltaFifo`] fed with what happens to a collection.
pub struct Reflector {
    client: Arc<dyn Client>,
    env: Env,
    scope: Scope,
    options: ReflectorOptions,
    fifo: Arc<DeltaFifo>,
    state: Mutex<State>,
}

struct State {
    last: Option<Revision>,
    /// The last revision turned out to be too old, or too new, for the server.
    unusable: bool,
    streaming: bool,
}

/// Waits that grow from 0.8 s to 30 s, doubled each time and lengthened by chance; as good as new after two quiet minutes.
struct Backoff {
    env: Env,
    next: Duration,
    last: Option<Moment>,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(800);
    const LONGEST: Duration = Duration::from_secs(30);
    const QUIET: Duration = Duration::from_secs(120);

    fn new(env: Env) -> Self {
        Self {
            env,
            next: Self::FIRST,
            last: None,
        }
    }

    async fn wait(&mut self) {
        let now = self.env.now();
        if self.last.is_some_and(|last| now.since(last) > Self::QUIET) {
            self.next = Self::FIRST;
        }
        let wait = self.env.jitter(self.next, 1.0);
        self.last = Some(now + wait);
        self.next = (self.next * 2).min(Self::LONGEST);
        self.env.sleep(wait).await;
    }
}

impl std::fmt::Debug for Reflector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reflector")
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

impl Reflector {
    /// A reflector of a collection into a queue.
    #[must_use]
    pub fn new(
        client: Arc<dyn Client>,
        env: Env,
        scope: Scope,
        options: ReflectorOptions,
        fifo: Arc<DeltaFifo>,
    ) -> Self {
        let state = State {
            last: None,
            unusable: false,
            streaming: options.streaming_list,
        };
        Self {
            client,
            env,
            scope,
            options,
            fifo,
            state: Mutex::new(state),
        }
    }

    /// The revision up to which the queue has been fed.
    #[must_use]
    pub fn last_revision(&self) -> Option<Revision> {
        self.state.lock().last
    }

    /// Lists and watches until it is dropped.
    pub async fn run(&self) {
        let mut backoff = Backoff::new(self.env.clone());
        let feed = async {
            loop {
                let listed = if self.state.lock().streaming {
                    self.stream_list().await
                } else {
                    self.list().await
                };
                match listed {
                    Ok(()) => self.watch(&mut backoff).await,
                    Err(status) => {
                        tracing::warn!(resource = %self.scope.resource.qualified(), error = %status, "cannot list");
                        backoff.wait().await;
                    }
                }
            }
        };
        let resync = async {
            let Some(period) = self.options.resync else {
                return std::future::pending().await;
            };
            loop {
                self.env.sleep(period).await;
                self.fifo.resync();
            }
        };
        let (feed, resync) = (std::pin::pin!(feed), std::pin::pin!(resync));
        match select(feed, resync).await {
            Either::Left(((), _)) | Either::Right(((), _)) => {}
        }
    }

    fn resource(&self) -> ResourceClient<'_> {
        let client = self.client.resource(&self.scope.resource);
        if self.scope.namespace.is_empty() {
            client
        } else {
            client.namespace(&self.scope.namespace)
        }
    }

    /// What a list may be served from: anything at first, then nothing older than what was seen, and the newest state when that
    /// revision is of no use.
    fn freshness(&self) -> Freshness {
        let state = self.state.lock();
        match state.last {
            _ if state.unusable => Freshness::Consistent,
            None => Freshness::Any,
            Some(last) => Freshness::NotOlderThan(last),
        }
    }

    async fn list(&self) -> Result<(), Status> {
        let freshness = self.freshness();
        let listed = match self.list_pages(freshness).await {
            Err(status) if status.is_expired() || is_too_large_revision(&status) => {
                self.state.lock().unusable = true;
                self.list_pages(Freshness::Consistent).await
            }
            other => other,
        };
        let (objects, revision) = listed?;
        self.fifo.replace(objects);
        let mut state = self.state.lock();
        state.last = Some(revision);
        state.unusable = false;
        Ok(())
    }

    async fn list_pages(&self, freshness: Freshness) -> Result<(Vec<Object>, Revision), Status> {
        // A list from the cache costs the server nothing extra when it is whole.
        let limit = if freshness == Freshness::Consistent {
            self.options.page_size
        } else {
            0
        };
        let mut options = ListOptions {
            label_selector: self.scope.label_selector.clone(),
            field_selector: self.scope.field_selector.clone(),
            limit,
            freshness,
            ..ListOptions::default()
        };
        let mut objects = Vec::new();
        loop {
            let page = match self.resource().list(options.clone()).await {
                // The snapshot went away between two pages: start over with one whole list.
                Err(status) if status.is_expired() && !options.continue_token.is_empty() => {
                    objects.clear();
                    options.limit = 0;
                    options.continue_token.clear();
                    continue;
                }
                other => other?,
            };
            objects.extend(page.items);
            if page.continue_token.is_empty() {
                return Ok((objects, page.revision));
            }
            options.continue_token = page.continue_token;
            // The token says what to read.
            options.freshness = Freshness::Consistent;
        }
    }

    fn watch_options(&self) -> WatchOptions {
        let timeout = self.env.jitter(self.options.watch_timeout, 1.0);
        WatchOptions {
            label_selector: self.scope.label_selector.clone(),
            field_selector: self.scope.field_selector.clone(),
            bookmarks: true,
            timeout_seconds: u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX),
            ..WatchOptions::default()
        }
    }

    /// A list by way of a watch that begins with what is there.
    async fn stream_list(&self) -> Result<(), Status> {
        let from = if self.state.lock().unusable {
            None
        } else {
            self.last_revision()
        };
        let options = WatchOptions {
            initial_events: true,
            from,
            ..self.watch_options()
        };
        let mut watch = match self.resource().watch(options).await {
            Ok(watch) => watch,
            Err(status) if matches!(status.code, 400 | 405 | 422) => {
                // An older server, or one without the feature.
                self.state.lock().streaming = false;
                return self.list().await;
            }
            Err(status) => {
                if status.is_expired() || is_too_large_revision(&status) {
                    self.state.lock().unusable = true;
                }
                return Err(status);
            }
        };
        let mut objects = std::collections::BTreeMap::new();
        while let Some(event) = watch.next().await {
            match event? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    objects.insert(object.key(), object);
                }
                WatchEvent::Deleted(object) => {
                    objects.remove(&object.key());
                }
                WatchEvent::Bookmark {
                    revision,
                    initial_events_end: true,
                } => {
                    self.fifo.replace(objects.into_values().collect());
                    let mut state = self.state.lock();
                    state.last = Some(revision);
                    state.unusable = false;
                    return Ok(());
                }
                WatchEvent::Bookmark { .. } => {}
            }
        }
        Err(Status::unavailable(
            "the watch ended before its initial events did",
        ))
    }

    /// Watches, again and again from where the last watch ended, until only a list can help.
    async fn watch(&self, backoff: &mut Backoff) {
        loop {
            let began = self.env.now();
            let options = WatchOptions {
                from: self.last_revision(),
                ..self.watch_options()
            };
            let mut told = 0usize;
            let ended = match self.resource().watch(options).await {
                Ok(mut watch) => loop {
                    match watch.next().await {
                        Some(Ok(event)) => {
                            told += 1;
                            self.feed(event);
                        }
                        Some(Err(status)) => break Err(status),
                        None => break Ok(()),
                    }
                },
                Err(status) => Err(status),
            };
            match ended {
                Ok(()) if told > 0 || self.env.now().since(began) >= Duration::from_secs(1) => {}
                Ok(()) => {
                    tracing::debug!(resource = %self.scope.resource.qualified(), "a watch ended at once, without an event");
                    backoff.wait().await;
                    return;
                }
                Err(status) if status.is_expired() => {
                    tracing::debug!(resource = %self.scope.resource.qualified(), "the revision is gone, listing again");
                    self.state.lock().unusable = true;
                    return;
                }
                // The server is there but busy, or is not there: what was seen stays good.
                Err(status) if matches!(status.code, 429 | 500 | 503 | 504) => {
                    tracing::debug!(resource = %self.scope.resource.qualified(), error = %status, "a watch was cut");
                    backoff.wait().await;
                }
                Err(status) => {
                    tracing::warn!(resource = %self.scope.resource.qualified(), error = %status, "cannot watch");
                    backoff.wait().await;
                    return;
                }
            }
        }
    }

    fn feed(&self, event: WatchEvent) {
        let revision = match event {
            WatchEvent::Added(object) => {
                let revision = object.revision();
                self.fifo.add(object);
                revision
            }
            WatchEvent::Modified(object) => {
                let revision = object.revision();
                self.fifo.update(object);
                revision
            }
            WatchEvent::Deleted(object) => {
                let revision = object.revision();
                self.fifo.delete(object);
                revision
            }
            WatchEvent::Bookmark { revision, .. } => revision,
        };
        self.state.lock().last = Some(revision);
    }
}

/// Whether the server says that it has not come as far as the revision asked for.
fn is_too_large_revision(status: &Status) -> bool {
    status.reason == reason::TIMEOUT
        && status.details.as_ref().is_some_and(|details| {
            details
                .causes
                .iter()
                .any(|cause| cause.reason == "ResourceVersionTooLarge")
        })
}
