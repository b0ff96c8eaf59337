//! How those who wait for a batch hear of it: one answer for all of them.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use orlop_core::store::StoreError;
use parking_lot::Mutex;

/// The answer to all who wait for one batch. When it is dropped without being given, the writer has died.
#[derive(Debug, Default)]
pub(super) struct Answer(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    outcome: OnceLock<Result<(), StoreError>>,
    waiting: Mutex<Vec<Waker>>,
}

impl Answer {
    /// Something to wait with.
    pub(super) fn done(&self) -> Done {
        Done {
            shared: self.0.clone(),
            place: None,
        }
    }

    /// Tells everybody who waits.
    pub(super) fn give(&self, outcome: Result<(), StoreError>) {
        if self.0.outcome.set(outcome).is_ok() {
            // Whoever comes later sees the outcome.
            let waiting = std::mem::take(&mut *self.0.waiting.lock());
            for waker in waiting {
                waker.wake();
            }
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if self.0.outcome.get().is_none() {
            self.give(Err(StoreError::OutcomeUnknown(
                "the store's writer has died".to_owned(),
            )));
        }
    }
}

/// Resolves when what was queued is on disk, or with the reason why it is not.
#[derive(Debug)]
pub(super) struct Done {
    shared: Arc<Shared>,
    /// Where the waker is, once it has been asked for.
    place: Option<usize>,
}

impl Future for Done {
    type Output = Result<(), StoreError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(outcome) = self.shared.outcome.get() {
            return Poll::Ready(outcome.clone());
        }
        let shared = self.shared.clone();
        let mut waiting = shared.waiting.lock();
        // It may have been given just now, and then nobody looks at the wakers any more.
        if let Some(outcome) = shared.outcome.get() {
            return Poll::Ready(outcome.clone());
        }
        match self.place {
            Some(place) => waiting[place].clone_from(cx.waker()),
            None => {
                self.place = Some(waiting.len());
                waiting.push(cx.waker().clone());
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::future::join3;
    use futures::poll;

    use super::*;

    #[tokio::test]
    async fn everybody_hears_of_it_once_it_is_given() {
        let answer = Answer::default();
        let (mut first, second, late) = (pin!(answer.done()), answer.done(), answer.done());
        assert!(poll!(first.as_mut()).is_pending());
        assert!(poll!(first.as_mut()).is_pending());
        let give = async { answer.give(Ok(())) };
        let (first, second, ()) = join3(first, second, give).await;
        assert!(first.is_ok() && second.is_ok());
        answer.give(Err(StoreError::NoSpace("too late".to_owned())));
        drop(answer);
        assert!(late.await.is_ok());
    }

    #[tokio::test]
    async fn an_answer_that_is_never_given_is_an_error() {
        let answer = Answer::default();
        let done = answer.done();
        std::thread::spawn(move || drop(answer));
        assert!(matches!(done.await, Err(StoreError::OutcomeUnknown(_))));
    }
}
