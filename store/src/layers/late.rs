//! A stream whose items come late.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{Stream, StreamExt};
use orlop_core::env::{Env, Moment};
use orlop_core::store::{StoreError, WatchItem, WatchStream};

/// How many items may be under way. The stream below is not read further while there are more.
const UNDER_WAY: usize = 1_024;

/// Delivers the items of a watch in their order, each some time after the store gave it.
pub(super) struct Late<D> {
    inner: WatchStream,
    env: Env,
    delay: D,
    under_way: VecDeque<(Moment, Result<WatchItem, StoreError>)>,
    ended: bool,
    sleep: Option<BoxFuture<'static, ()>>,
}

impl<D: FnMut(&Env) -> Duration + Send + Unpin> Late<D> {
    pub(super) fn new(inner: WatchStream, env: Env, delay: D) -> Self {
        Self {
            inner,
            env,
            delay,
            under_way: VecDeque::new(),
            ended: false,
            sleep: None,
        }
    }
}

impl<D: FnMut(&Env) -> Duration + Send + Unpin> Stream for Late<D> {
    type Item = Result<WatchItem, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        while !this.ended && this.under_way.len() < UNDER_WAY {
            match this.inner.poll_next_unpin(cx) {
                Poll::Ready(Some(item)) => {
                    let arrives = this.env.now() + (this.delay)(&this.env);
                    // Nothing overtakes what went before it.
                    let after = this.under_way.back().map_or(Moment::START, |(at, _)| *at);
                    this.under_way.push_back((arrives.max(after), item));
                }
                Poll::Ready(None) => this.ended = true,
                Poll::Pending => break,
            }
        }
        loop {
            let Some((at, _)) = this.under_way.front() else {
                return if this.ended {
                    Poll::Ready(None)
                } else {
                    Poll::Pending
                };
            };
            if *at <= this.env.now() {
                this.sleep = None;
                return Poll::Ready(this.under_way.pop_front().map(|(_, item)| item));
            }
            let at = *at;
            let sleep = this.sleep.get_or_insert_with(|| this.env.sleep_until(at));
            match sleep.as_mut().poll(cx) {
                Poll::Ready(()) => this.sleep = None,
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
