//! Telling a client how far its watches are, when nothing of interest happens.
//!
//! A client may ask to be told now and then for one watch (`progress_notify`), or at once for all watches of a stream. Both are answered with what
//! is true: the store says of each watch how far it has got. Watches that nobody asks about run without these marks, which cost a
//! wake-up for every batch of commits; where a client begins to ask, they are opened again with them.

use std::task::Context;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http_body::Body;
use orlop_core::env::{Env, Moment};
use orlop_core::revision::Revision;
use orlop_wire::body::BoxError;

use super::super::Inner;
use super::super::error::GrpcError;
use super::{NO_WATCH, Outcome, Watches};
use crate::etcd::proto::watch::WatchResponse;

/// What is to be told.
pub(super) struct Progress {
    env: Env,
    /// How long there is between two notifications.
    interval: std::time::Duration,
    timer: Option<BoxFuture<'static, ()>>,
    /// Whether watches are opened with marks although nobody asked for notifications.
    pub(super) marks: bool,
    /// The client waits to be told that all watches have reached this revision.
    target: Option<Revision>,
}

impl Progress {
    pub(super) fn new(server: &Inner) -> Self {
        let interval = server.options.progress_interval;
        Self {
            env: server.env.clone(),
            // Apart from each other, so that streams that began together do not all do it at once.
            interval: server.env.jitter(interval, 0.1),
            timer: None,
            marks: false,
            target: None,
        }
    }

    /// The client has asked, when the store was at a revision.
    pub(super) fn asked(&mut self, revision: Revision) {
        self.target = Some(self.target.map_or(revision, |known| known.max(revision)));
    }

    /// Gives up what cannot be told. As with etcd, there is no answer then.
    pub(super) fn cannot_tell(&mut self) {
        self.target = None;
    }

    /// Whether it is time for notifications.
    fn is_time(&mut self, cx: &mut Context<'_>) -> bool {
        let next = || {
            let at: Moment = self.env.now() + self.interval;
            self.env.sleep_until(at)
        };
        let timer = self.timer.get_or_insert_with(next);
        if timer.poll_unpin(cx).is_pending() {
            return false;
        }
        self.timer = None;
        true
    }
}

impl<B> Watches<B>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    /// The client wants to know how far all its watches are.
    pub(super) fn ask_for_progress(&mut self) {
        self.progress.marks = true;
        let without: Vec<i64> = self
            .watches
            .iter()
            .filter(|(_, watch)| !watch.marks)
            .map(|(&id, _)| id)
            .collect();
        for id in without {
            self.reopen(id, true);
        }
        let store = self.server.store.clone();
        self.requesting = true;
        self.busy.push(
            async move {
                match store.revision().await {
                    Ok(revision) => Outcome::Target(revision),
                    Err(error) => Outcome::Failed(error),
                }
            }
            .boxed(),
        );
    }

    /// Tells what is to be told.
    pub(super) fn tell_progress(&mut self, cx: &mut Context<'_>) -> Result<(), GrpcError> {
        if let Some(target) = self.progress.target
            && self.watches.values().all(|watch| watch.served >= target)
        {
            self.progress.target = None;
            let answer = WatchResponse {
                watch_id: NO_WATCH,
                ..WatchResponse::default()
            };
            self.send(answer, target)?;
        }
        if !self.watches.values().any(|watch| watch.notify) {
            return Ok(());
        }
        while self.progress.is_time(cx) {
            let mut due = Vec::new();
            for (&id, watch) in &mut self.watches {
                if watch.notify && std::mem::replace(&mut watch.quiet, true) {
                    due.push((id, watch.served.min(watch.seen)));
                }
            }
            for (id, served) in due {
                let answer = WatchResponse {
                    watch_id: id,
                    ..WatchResponse::default()
                };
                self.send(answer, served)?;
            }
        }
        Ok(())
    }
}
