//! Doing many alike things: a few at first, more when they go well.

use std::future::Future;

use futures::future::join_all;

/// The most that a controller makes or deletes in one reconcile.
pub(crate) const BURST: usize = 500;

/// Does something `count` times, in batches of 1, 2, 4, …; stops after the first batch with a failure. So a thing that cannot work (a quota
/// that is used up) costs one request and not a thousand.
///
/// Returns how many went well, and the first failure.
pub(crate) async fn slow_start<F, Fut, E>(count: usize, mut one: F) -> (usize, Option<E>)
where
    F: FnMut(usize) -> Fut,
    Fut: Future<Output = Result<(), E>>,
{
    let (mut begun, mut well, mut size) = (0, 0, 1);
    while begun < count {
        let batch = size.min(count - begun);
        let results = join_all((begun..begun + batch).map(&mut one)).await;
        begun += batch;
        let mut failure = None;
        for result in results {
            match result {
                Ok(()) => well += 1,
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        if failure.is_some() {
            return (well, failure);
        }
        size *= 2;
    }
    (well, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(count: usize, fails_from: usize) -> (usize, (usize, Option<usize>)) {
        let mut tried = 0;
        let result = slow_start(count, |n| {
            tried += 1;
            async move { if n >= fails_from { Err(n) } else { Ok(()) } }
        })
        .await;
        (tried, result)
    }

    #[tokio::test]
    async fn batches_double_and_stop_at_a_failure() {
        assert_eq!(run(10, 99).await, (10, (10, None)));
        // 1, 2, then 4 of which the second fails.
        assert_eq!(run(100, 4).await, (7, (4, Some(4))));
        assert_eq!(run(100, 0).await, (1, (0, Some(0))));
        assert_eq!(run(0, 0).await, (0, (0, None)));
    }
}
