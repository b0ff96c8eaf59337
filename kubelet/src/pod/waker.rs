//! [`Waker`]: how anybody tells a pod's worker that something about the pod may have changed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Wakes the workers of pods. Clones share one set of workers.
///
/// It says nothing about what has changed: a worker that is woken looks. Many calls before it looks are one.
#[derive(Clone, Default)]
pub struct Waker(Arc<Mutex<BTreeMap<String, Arc<Notify>>>>);

impl Waker {
    /// A waker that knows no worker yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Wakes the worker of the pod with this uid. Nothing happens if there is none.
    pub fn wake(&self, uid: &str) {
        if let Some(bell) = self.0.lock().get(uid) {
            bell.notify_one();
        }
    }

    /// Wakes all workers.
    pub fn wake_all(&self) {
        for bell in self.0.lock().values() {
            bell.notify_one();
        }
    }

    /// The bell of a worker, under which it is woken from now on.
    pub(crate) fn bell(&self, uid: &str) -> Arc<Notify> {
        let mut bells = self.0.lock();
        bells.entry(uid.to_owned()).or_default().clone()
    }

    /// Forgets a worker that has ended.
    pub(crate) fn forget(&self, uid: &str) {
        self.0.lock().remove(uid);
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Waker({} workers)", self.0.lock().len())
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn many_calls_wake_once_and_only_who_is_meant() {
        let waker = Waker::new();
        waker.wake("a");
        let (a, b) = (waker.bell("a"), waker.bell("b"));
        assert!(
            a.notified().now_or_never().is_none(),
            "it was not there yet"
        );
        waker.wake("a");
        waker.clone().wake("a");
        assert!(a.notified().now_or_never().is_some());
        assert!(a.notified().now_or_never().is_none());
        assert!(b.notified().now_or_never().is_none());
        waker.wake_all();
        assert!(b.notified().now_or_never().is_some());
        waker.forget("b");
        waker.wake("b");
        assert!(b.notified().now_or_never().is_none());
    }
}
