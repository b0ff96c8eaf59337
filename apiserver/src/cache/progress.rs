//! How far the cache has come.

use std::sync::atomic::{AtomicU64, Ordering};

use orlop_core::revision::Revision;
use tokio::sync::Notify;

/// The revision up to which everything has been applied, and who waits for it.
///
/// Who waits is woken in the order of waiting. That is why this is no `tokio::sync::watch`, which wakes its receivers in a random order:
/// the same seed would no longer give the same run.
#[derive(Debug, Default)]
pub(super) struct Progress {
    at: AtomicU64,
    moved: Notify,
}

impl Progress {
    pub(super) fn get(&self) -> Revision {
        Revision(self.at.load(Ordering::Acquire))
    }

    /// Takes note of a revision, and wakes all who wait.
    pub(super) fn set(&self, revision: Revision) {
        self.at.store(revision.0, Ordering::Release);
        self.moved.notify_waiters();
    }

    /// Resolves when the condition holds, which is looked at now and whenever the cache has moved.
    pub(super) async fn wait_for(&self, mut reached: impl FnMut(Revision) -> bool) {
        loop {
            let mut moved = std::pin::pin!(self.moved.notified());
            // From here on no move is missed.
            moved.as_mut().enable();
            if reached(self.get()) {
                return;
            }
            moved.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use orlop_core::env::SimEnv;
    use parking_lot::Mutex;

    use super::*;

    #[test]
    fn who_waits_goes_on_in_order_and_not_too_early() {
        let sim = SimEnv::new(1);
        let env = sim.env();
        let (progress, order) = (
            Arc::new(Progress::default()),
            Arc::new(Mutex::new(Vec::new())),
        );
        for n in 0..20 {
            let (progress, order) = (progress.clone(), order.clone());
            env.spawn("waiter", async move {
                progress.wait_for(|now| now >= Revision(5 + n / 10)).await;
                order.lock().push(n);
            });
        }
        for (revision, gone_on) in [(4, 0), (5, 10), (7, 20)] {
            sim.run_for(Duration::from_secs(1));
            progress.set(Revision(revision));
            sim.run_for(Duration::from_secs(1));
            assert_eq!(*order.lock(), (0..gone_on).collect::<Vec<_>>());
        }
    }
}
