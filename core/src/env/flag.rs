//! [`Flag`]: something that happens once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Something that happens once and can be waited for. Clones share it.
///
/// Who waits is woken in the order of waiting. That is why this is no `tokio::sync::watch`, which wakes its receivers in a random order: the
/// same seed would no longer give the same run.
#[derive(Clone, Debug, Default)]
pub struct Flag(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    set: AtomicBool,
    wake: Notify,
}

impl Flag {
    /// A flag that is not set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets it and wakes all who wait.
    pub fn set(&self) {
        if !self.0.set.swap(true, Ordering::AcqRel) {
            self.0.wake.notify_waiters();
        }
    }

    /// Whether it is set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.set.load(Ordering::Acquire)
    }

    /// Resolves when it is set.
    pub async fn wait(&self) {
        loop {
            let woken = self.0.wake.notified();
            let mut woken = std::pin::pin!(woken);
            // From here on no call of `set` is missed.
            woken.as_mut().enable();
            if self.is_set() {
                return;
            }
            woken.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;
    use crate::env::SimEnv;

    #[test]
    fn who_waits_is_woken_in_order() {
        let sim = SimEnv::new(1);
        let env = sim.env();
        let (flag, order) = (Flag::new(), Arc::new(Mutex::new(Vec::new())));
        for n in 0..20 {
            let (flag, order) = (flag.clone(), order.clone());
            env.spawn("waiter", async move {
                flag.wait().await;
                order.lock().push(n);
            });
        }
        let waker = env.clone();
        sim.block_on(async move {
            waker.sleep(std::time::Duration::from_secs(1)).await;
            flag.set();
            flag.wait().await;
            waker.sleep(std::time::Duration::from_secs(1)).await;
        });
        assert_eq!(*order.lock(), (0..20).collect::<Vec<_>>());
    }
}
