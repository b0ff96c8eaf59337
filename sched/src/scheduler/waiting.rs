//! The bindings that wait for somebody's permission.

use std::collections::BTreeMap;
use std::sync::Arc;

use orlop_core::scheduling::{PodInfo, WaitingPod};
use parking_lot::Mutex;
use tokio::sync::watch;

/// What became of a waiting binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Wait,
    Go,
    /// Which plug-in refused, and why.
    Stop(String, String),
    /// The scheduler ends.
    Closed,
}

#[derive(Debug)]
struct Entry {
    pod: WaitingPod,
    word: watch::Sender<Word>,
}

/// By uid.
#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<BTreeMap<Arc<str>, Entry>>);

impl Waiting {
    /// A pod waits for the permission of some plug-ins.
    pub(super) fn add(
        &self,
        pod: &Arc<PodInfo>,
        node: &Arc<str>,
        plugins: impl Iterator<Item = String>,
    ) {
        let waiting = WaitingPod {
            pod: pod.clone(),
            node: node.clone(),
            pending: plugins.collect(),
        };
        let entry = Entry {
            pod: waiting,
            word: watch::Sender::new(Word::Wait),
        };
        self.0.lock().insert(pod.uid().clone(), entry);
    }

    /// Where the word on a pod will come.
    pub(super) fn listen(&self, uid: &str) -> Option<watch::Receiver<Word>> {
        self.0.lock().get(uid).map(|entry| entry.word.subscribe())
    }

    pub(super) fn list(&self) -> Vec<WaitingPod> {
        let mut pods: Vec<WaitingPod> = self
            .0
            .lock()
            .values()
            .map(|entry| entry.pod.clone())
            .collect();
        pods.sort_by(|a, b| a.pod.key().cmp(b.pod.key()));
        pods
    }

    pub(super) fn allow(&self, uid: &str, plugin: &str) -> bool {
        let mut waiting = self.0.lock();
        let Some(entry) = waiting.get_mut(uid) else {
            return false;
        };
        entry.pod.pending.retain(|pending| pending != plugin);
        if entry.pod.pending.is_empty() {
            entry.word.send_if_modified(|word| {
                let waits = *word == Word::Wait;
                if waits {
                    *word = Word::Go;
                }
                waits
            });
        }
        true
    }

    pub(super) fn reject(&self, uid: &str, plugin: &str, reason: String) -> bool {
        let waiting = self.0.lock();
        let Some(entry) = waiting.get(uid) else {
            return false;
        };
        entry
            .word
            .send_replace(Word::Stop(plugin.to_owned(), reason));
        true
    }

    /// The pod waits no longer.
    pub(super) fn remove(&self, uid: &str) {
        self.0.lock().remove(uid);
    }

    /// The scheduler stops: nobody will give a permission any more.
    pub(super) fn close(&self) {
        for entry in self.0.lock().values() {
            entry.word.send_replace(Word::Closed);
        }
    }
}
