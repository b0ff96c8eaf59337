//! A watch from before the history of this process: served by etcd until it has caught up, then by the feed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use orlop_core::revision::Revision;
use orlop_core::store::{Change, KeyRange, StoreError, WatchItem, WatchRequest, WatchStream};

use super::feed::{Collator, End, Feed, Opened, end, open};

/// How often it tries to reach etcd before it gives up.
const TRIES: u32 = 10;
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

struct CatchUp {
    feed: Arc<Feed>,
    request: WatchRequest,
    /// The next revision that is due.
    cursor: u64,
    opened: Option<Opened>,
    member: usize,
    collator: Collator,
    ready: VecDeque<Arc<[Change]>>,
    failed: u32,
    /// The newest revision of which the reader was given changes.
    told: Revision,
}

enum State {
    Behind(Box<CatchUp>),
    /// With the newest revision that the reader knows of from before.
    Level(WatchStream, Revision),
    Ended,
}

/// Opens such a watch.
pub(super) fn watch(feed: Arc<Feed>, request: WatchRequest) -> WatchStream {
    let member = feed.cluster().current();
    let state = State::Behind(Box::new(CatchUp {
        cursor: request.from.0,
        feed,
        request,
        opened: None,
        member,
        collator: Collator::default(),
        ready: VecDeque::new(),
        failed: 0,
        told: Revision::ZERO,
    }));
    futures::stream::unfold(state, |mut state| async move {
        loop {
            match state {
                State::Behind(mut behind) => match behind.next().await {
                    Ok(Some(changes)) => {
                        behind.told = changes.first().map_or(behind.told, Change::revision);
                        let item = Ok(WatchItem::Changes(changes));
                        return Some((item, State::Behind(behind)));
                    }
                    Ok(None) => {
                        let request = WatchRequest {
                            from: Revision(behind.cursor),
                            ..behind.request
                        };
                        match behind.feed.hub.watch(&behind.feed.history, request) {
                            Ok(stream) => state = State::Level(stream, behind.told),
                            Err(error) => return Some((Err(error), State::Ended)),
                        }
                    }
                    Err(error) => return Some((Err(error), State::Ended)),
                },
                State::Level(mut stream, told) => {
                    let item = stream.next().await?;
                    let known = matches!(item, Ok(WatchItem::Progress(at)) if at <= told);
                    state = State::Level(stream, told);
                    if !known {
                        return Some((item, state));
                    }
                }
                State::Ended => return None,
            }
        }
    })
    .boxed()
}

impl CatchUp {
    /// The next changes of interest; `None` when the history of the feed goes on from here.
    async fn next(&mut self) -> Result<Option<Arc<[Change]>>, StoreError> {
        loop {
            if let Some(changes) = self.ready.pop_front() {
                return Ok(Some(changes));
            }
            if self.feed.watchable() <= self.cursor {
                return Ok(None);
            }
            let ended = match &mut self.opened {
                Some(opened) => match opened.next().await {
                    Ok(response) => {
                        for commit in self.collator.take(&response) {
                            let Some(revision) = commit.first().map(|c| c.revision().0) else {
                                continue;
                            };
                            if revision >= self.cursor {
                                self.cursor = revision + 1;
                                self.failed = 0;
                                self.ready.extend(select(&commit, &self.request.keys));
                            }
                        }
                        continue;
                    }
                    Err(end) => end,
                },
                None => {
                    let cluster = self.feed.cluster();
                    let login = cluster.login();
                    match open(cluster, self.member, self.feed.keys(), self.cursor).await {
                        Ok(opened) => {
                            self.opened = Some(opened);
                            continue;
                        }
                        Err(status) => end(&status, login),
                    }
                }
            };
            self.opened = None;
            self.collator = Collator::default();
            self.recover(ended).await?;
        }
    }

    async fn recover(&mut self, ended: End) -> Result<(), StoreError> {
        let cluster = self.feed.cluster();
        match ended {
            End::Compacted(oldest) => {
                self.feed.set_compacted(oldest);
                return Err(StoreError::Compacted {
                    requested: Revision(self.cursor),
                    oldest: Revision(oldest),
                });
            }
            End::Refused(error) => return Err(error),
            End::LogIn(login) => {
                let logged_in = cluster.log_in(login, cluster.timeout()).await;
                logged_in.map_err(super::refusal::Refusal::into_error)?;
            }
            End::Broken(why) => {
                if self.failed == TRIES {
                    return Err(StoreError::Unavailable(why));
                }
                self.member = cluster.next(self.member);
            }
        }
        let wait = (FIRST_WAIT * 2u32.saturating_pow(self.failed)).min(LONGEST_WAIT);
        self.failed += 1;
        let env = cluster.env();
        env.sleep(env.jitter(wait, 0.5)).await;
        Ok(())
    }
}

/// The changes of a commit that lie in a range.
fn select(commit: &Arc<[Change]>, keys: &KeyRange) -> Option<Arc<[Change]>> {
    let of_interest: Arc<[Change]> = commit
        .iter()
        .filter(|change| keys.contains(change.key()))
        .cloned()
        .collect();
    (!of_interest.is_empty()).then_some(of_interest)
}
