//! The one watch that feeds all others.
//!
//! Every revision of etcd changes some key. So a watch of all keys that has seen a revision has seen all before it, on every version
//! of etcd; that is how watchers of this store are told at once how far they have come, where etcd itself would say so every ten minutes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::{Either, select};
use futures::stream::BoxStream;
use orlop_core::env::CancelToken;
use orlop_core::revision::Revision;
use orlop_core::store::{Change, KeyRange, StoreError, WatchRequest, WatchStream};
use parking_lot::RwLock;
use tokio::sync::Notify;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::cluster::{Cluster, Kind, Shared};
use super::convert::{change, count, wire_range};
use super::history::History;
use super::refusal::{Refusal, Verdict, verdict};
use crate::etcd::proto::kv::{RangeRequest, RangeResponse};
use crate::etcd::proto::watch::{
    WatchCreateRequest, WatchProgressRequest, WatchRequest as Message, WatchRequestRequestUnion,
    WatchResponse,
};
use crate::watch::{Hub, Published};

const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// How often it is looked whether the watch keeps up; of a part of the keys, how often etcd is asked.
const TICK: Duration = Duration::from_secs(1);
const ASKING_TICK: Duration = Duration::from_millis(200);

/// How long the watch may stand still behind what is known to have happened.
const PATIENCE: Duration = Duration::from_secs(3);

/// The wait before the watch is opened again; doubled with every failure until the longest.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// An open watch of etcd.
pub(super) struct Opened {
    stream: Streaming<WatchResponse>,
    /// Asks etcd how far it has come.
    ask: mpsc::Sender<Message>,
    member: usize,
    login: u64,
}

/// Why a watch of etcd ended.
#[derive(Debug)]
pub(super) enum End {
    /// Its revision was compacted; the oldest that is still there.
    Compacted(u64),
    LogIn(u64),
    Refused(StoreError),
    Broken(String),
}

/// Puts the events of a watch together to whole commits. etcd may send one in pieces.
#[derive(Debug, Default)]
pub(super) struct Collator {
    pending: Vec<Change>,
}

impl Collator {
    /// The commits that are whole with this message.
    pub(super) fn take(&mut self, response: &WatchResponse) -> Vec<Arc<[Change]>> {
        let mut whole = Vec::new();
        for change in response.events.iter().filter_map(change) {
            if self
                .pending
                .last()
                .is_some_and(|last| last.revision() != change.revision())
            {
                whole.push(std::mem::take(&mut self.pending).into());
            }
            self.pending.push(change);
        }
        if !response.fragment && !self.pending.is_empty() {
            whole.push(std::mem::take(&mut self.pending).into());
        }
        whole
    }
}

/// Opens a watch of etcd on all keys that the store may see.
pub(super) async fn open(
    cluster: &Cluster,
    member: usize,
    keys: &KeyRange,
    from: u64,
) -> Result<Opened, Status> {
    let login = cluster.login();
    let range = wire_range(keys, None)
        .ok_or_else(|| Status::invalid_argument("no key can be in the range to watch"))?;
    let create = WatchCreateRequest {
        key: range.key,
        range_end: range.range_end,
        start_revision: i64::try_from(from).unwrap_or(i64::MAX),
        progress_notify: true,
        prev_kv: true,
        // So that no message is much larger than a request may be.
        fragment: true,
        ..WatchCreateRequest::default()
    };
    let (ask, asked) = mpsc::channel::<Message>(1);
    let first = Message {
        request_union: Some(WatchRequestRequestUnion::Create(create)),
    };
    let rest = futures::stream::unfold(asked, |mut asked| async move {
        asked.recv().await.map(|message| (message, asked))
    });
    // The stream of requests stays open for as long as somebody could ask.
    let messages: BoxStream<'static, Message> = futures::stream::iter([first]).chain(rest).boxed();
    let stream = cluster.open(member, WATCH, messages).await?;
    Ok(Opened {
        stream,
        ask,
        member,
        login,
    })
}

impl Opened {
    /// The next message that is not the end.
    pub(super) async fn next(&mut self) -> Result<WatchResponse, End> {
        match self.stream.message().await {
            Ok(Some(response)) if response.compact_revision != 0 => {
                Err(End::Compacted(count(response.compact_revision)))
            }
            Ok(Some(response)) if response.canceled => {
                let why = response.cancel_reason;
                Err(
                    if why.contains("invalid auth token") || why.contains("auth store is old") {
                        End::LogIn(self.login)
                    } else if why.contains("permission denied")
                        || why.contains("user name is empty")
                    {
                        End::Refused(StoreError::InvalidRequest(why))
                    } else {
                        End::Broken(format!("the watch was cancelled: {why}"))
                    },
                )
            }
            Ok(Some(response)) => Ok(response),
            Ok(None) => Err(End::Broken("the stream ended".to_owned())),
            Err(status) => Err(end(&status, self.login)),
        }
    }
}

/// What an error of a stream means.
pub(super) fn end(status: &Status, login: u64) -> End {
    match verdict(status) {
        Verdict::Refused(Refusal::Other(error @ StoreError::InvalidRequest(_))) => {
            End::Refused(error)
        }
        Verdict::LogIn => End::LogIn(login),
        Verdict::NotDone(why) | Verdict::Unknown(why) => End::Broken(why),
        Verdict::Refused(refusal) => End::Broken(refusal.into_error().to_string()),
    }
}

/// What is told to watchers, and the task that hears it from etcd.
pub(super) struct Feed {
    cluster: Shared,
    pub(super) history: Arc<RwLock<History>>,
    pub(super) hub: Arc<Hub>,
    /// Rings when history has grown.
    grown: Notify,
    /// Rings when somebody waits for a revision.
    wanted: Notify,
    /// All that the store may see.
    keys: KeyRange,
    whole: bool,
    prefix: Bytes,
}

impl Feed {
    /// A feed that begins after a revision.
    pub(super) fn new(cluster: Shared, prefix: &Bytes, revision: u64, budget: usize) -> Self {
        Self {
            cluster,
            history: Arc::new(RwLock::new(History::after(revision, budget))),
            hub: Arc::new(Hub::new(revision)),
            grown: Notify::new(),
            wanted: Notify::new(),
            keys: KeyRange::Prefix(prefix.clone()),
            whole: prefix.is_empty(),
            prefix: prefix.clone(),
        }
    }

    pub(super) fn cluster(&self) -> &Shared {
        &self.cluster
    }

    /// All keys that the store may see.
    pub(super) fn keys(&self) -> &KeyRange {
        &self.keys
    }

    pub(super) fn prefix(&self) -> &Bytes {
        &self.prefix
    }

    /// A key to read when only the answer's revision matters.
    pub(super) fn probe(&self) -> Bytes {
        probe(&self.prefix)
    }

    /// The newest revision, by a read that asks the leader.
    pub(super) async fn revision(&self, limit: Duration) -> Result<Revision, StoreError> {
        let request = RangeRequest {
            key: self.probe(),
            count_only: true,
            ..RangeRequest::default()
        };
        let answer: RangeResponse = self
            .cluster
            .call_within(limit, super::RANGE, Kind::Read, request)
            .await
            .map_err(Refusal::into_error)?;
        Ok(Revision(
            answer.header.map_or(0, |header| count(header.revision)),
        ))
    }

    /// Waits until everything up to a revision has been heard of.
    async fn reach(&self, revision: u64) -> Result<(), StoreError> {
        let env = self.cluster.env();
        let reached = env.timeout(self.cluster.timeout(), async {
            loop {
                let mut grown = std::pin::pin!(self.grown.notified());
                grown.as_mut().enable();
                if self.history.read().newest() >= revision {
                    return;
                }
                self.wanted.notify_one();
                grown.await;
            }
        });
        reached.await.map_err(|_| {
            StoreError::Unavailable(format!(
                "the watch of etcd has not come to revision {revision} in time"
            ))
        })
    }

    /// Opens a watch. It begins when all that had happened before is known here, as if the store were in this process.
    pub(super) async fn watch(
        self: &Arc<Self>,
        mut request: WatchRequest,
    ) -> Result<WatchStream, StoreError> {
        let now = self.revision(self.cluster.timeout()).await?;
        self.reach(now.0).await?;
        if request.from.is_zero() {
            request.from = now.next();
        }
        let compacted = self.history.read().compacted();
        if request.from.0 < compacted {
            return Err(StoreError::Compacted {
                requested: request.from,
                oldest: Revision(compacted),
            });
        }
        match self.hub.watch(&self.history, request.clone()) {
            // etcd may still have what is forgotten here.
            Err(StoreError::Compacted { .. }) => Ok(super::catch_up::watch(self.clone(), request)),
            opened => opened,
        }
    }

    /// Feeds watchers until it is cancelled.
    pub(super) async fn run(&self, first: Opened, token: CancelToken) {
        token.run(self.feed(first)).await;
        self.hub.close();
    }

    async fn feed(&self, first: Opened) {
        let env = self.cluster.env().clone();
        let mut opened = Some(first);
        let mut member = self.cluster.current();
        let mut wait = FIRST_WAIT;
        loop {
            let end = match opened.take() {
                Some(mut stream) => {
                    let (heard, began) = (self.history.read().newest(), env.now());
                    let end = self.follow(&mut stream).await;
                    let lasted = env.now().since(began) > LONGEST_WAIT;
                    if lasted || self.history.read().newest() > heard {
                        wait = FIRST_WAIT;
                    }
                    member = stream.member;
                    end
                }
                None => {
                    // From the newest that is known, not from the one after: if that is compacted, the next may be so in part.
                    let from = self.history.read().newest();
                    match self.revision(self.cluster.timeout()).await {
                        Ok(now) if now.0 < from => {
                            self.cluster.fail(format!(
                                "etcd went back from revision {from} to {now}, as after a restore from a backup; what was read from it no longer holds"
                            ));
                            return;
                        }
                        Ok(_) => {}
                        Err(error) => {
                            tracing::debug!(%error, "etcd is out of reach");
                            env.sleep(env.jitter(wait, 0.5)).await;
                            wait = (wait * 2).min(LONGEST_WAIT);
                            continue;
                        }
                    }
                    let login = self.cluster.login();
                    match open(&self.cluster, member, &self.keys, from).await {
                        Ok(stream) => {
                            opened = Some(stream);
                            continue;
                        }
                        Err(status) => end(&status, login),
                    }
                }
            };
            tracing::debug!(
                member = self.cluster.url(member),
                ?end,
                "the watch of etcd ended"
            );
            match end {
                End::LogIn(login) => {
                    if let Err(refusal) = self.cluster.log_in(login, self.cluster.timeout()).await {
                        tracing::warn!(error = %refusal.into_error(), "etcd refused the login");
                    }
                }
                End::Compacted(oldest) => {
                    // What was missed is gone, so watchers have to be told that they missed something.
                    if let Ok(revision) = self.revision(self.cluster.timeout()).await {
                        tracing::warn!(%revision, "etcd was compacted while it was out of reach");
                        let mut history = self.history.write();
                        history.set_compacted(oldest);
                        history.begin_after(revision.0);
                        drop(history);
                        self.published();
                    }
                }
                End::Refused(error) => {
                    tracing::warn!(%error, "etcd refused the watch");
                    member = self.cluster.next(member);
                }
                End::Broken(_) => {
                    self.cluster.leave(member);
                    member = self.cluster.next(member);
                }
            }
            env.sleep(env.jitter(wait, 0.5)).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// Tells everybody that history has grown.
    fn published(&self) {
        self.hub.ring();
        self.grown.notify_waiters();
    }

    /// Takes in what a watch tells, until it ends.
    async fn follow(&self, opened: &mut Opened) -> End {
        let env = self.cluster.env();
        let pause = if self.whole { TICK } else { ASKING_TICK };
        let mut collator = Collator::default();
        let mut tick = env.sleep(pause);
        let mut stood = (self.history.read().newest(), env.now());
        loop {
            let heard = {
                let next = std::pin::pin!(opened.next());
                let wanted = std::pin::pin!(self.wanted.notified());
                let waits = select(&mut tick, wanted);
                match select(next, waits).await {
                    Either::Left((next, _)) => Some(next),
                    Either::Right((Either::Left(_), _)) => {
                        tick = env.sleep(pause);
                        None
                    }
                    Either::Right((Either::Right(_), _)) => None,
                }
            };
            match heard {
                Some(Ok(response)) => {
                    let header = response.header.as_ref();
                    if let Err(error) = self.cluster.learn(opened.member, header) {
                        return End::Refused(error);
                    }
                    self.hear(&mut collator, &response);
                    continue;
                }
                Some(Err(end)) => return end,
                None => {}
            }
            let (newest, known) = (self.history.read().newest(), self.cluster.known());
            if newest >= known || newest > stood.0 {
                stood = (newest, env.now());
            } else if env.now().since(stood.1) >= PATIENCE {
                return End::Broken(format!(
                    "nothing after revision {newest}, though {known} is"
                ));
            }
            if !self.whole && newest < known {
                // One question at a time is enough.
                let _ = opened.ask.try_send(Message {
                    request_union: Some(WatchRequestRequestUnion::Progress(
                        WatchProgressRequest {},
                    )),
                });
            }
        }
    }

    fn hear(&self, collator: &mut Collator, response: &WatchResponse) {
        let commits = collator.take(response);
        let mut history = self.history.write();
        for commit in commits {
            let Some(revision) = commit.first().map(|change| change.revision().0) else {
                continue;
            };
            let next = history.newest() + 1;
            if revision < next {
                // Known from before the watch was opened again.
                continue;
            }
            if revision > next {
                if self.whole {
                    tracing::error!(revision, next, "etcd left out revisions");
                    history.begin_after(revision - 1);
                } else {
                    history.pad(revision - 1);
                }
            }
            history.push(commit);
        }
        // A message without events, and no answer to the opening, says how far the watch has come.
        let progress = response.events.is_empty() && !response.created && !response.fragment;
        if !self.whole && progress {
            history.pad(response.header.as_ref().map_or(0, |h| count(h.revision)));
        }
        drop(history);
        self.published();
    }

    /// Remembers that etcd was compacted.
    pub(super) fn set_compacted(&self, revision: u64) {
        self.history.write().set_compacted(revision);
    }

    /// Where the history of this process begins.
    pub(super) fn watchable(&self) -> u64 {
        self.history.read().watchable()
    }
}

/// A key to read when only the answer's revision matters.
pub(super) fn probe(prefix: &Bytes) -> Bytes {
    if prefix.is_empty() {
        Bytes::from_static(b"\0")
    } else {
        prefix.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::proto::kv::{Event, KeyValue};

    fn response(revisions: &[i64], fragment: bool) -> WatchResponse {
        let events = revisions.iter().map(|&revision| Event {
            kv: Some(KeyValue {
                key: "k".into(),
                mod_revision: revision,
                ..KeyValue::default()
            }),
            ..Event::default()
        });
        WatchResponse {
            events: events.collect(),
            fragment,
            ..WatchResponse::default()
        }
    }

    #[test]
    fn commits_in_pieces_are_put_together() {
        let mut collator = Collator::default();
        let mut take = |revisions: &[i64], fragment| -> Vec<(u64, usize)> {
            let whole = collator.take(&response(revisions, fragment));
            whole
                .iter()
                .map(|commit| (commit[0].revision().0, commit.len()))
                .collect()
        };
        assert_eq!(take(&[2, 3, 3], false), [(2, 1), (3, 2)]);
        assert_eq!(take(&[4, 5], true), [(4, 1)]);
        assert_eq!(take(&[5, 5], true), []);
        assert_eq!(take(&[5, 6], true), [(5, 4)]);
        assert_eq!(take(&[], false), [(6, 1)]);
        assert_eq!(take(&[], false), []);
    }
}
