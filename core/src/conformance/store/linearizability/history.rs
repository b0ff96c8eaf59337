//! What clients asked of a store and what it answered, with the moments of both.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::revision::Revision;

/// A value at a key; `None` where there is none.
pub type Value = Option<Bytes>;

/// What a client asks of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Reads keys, all in one step.
    Read(Vec<Bytes>),
    /// Writes keys, all in one step, if other keys have the values that are expected.
    Write {
        /// The values that must stand at keys.
        expected: Vec<(Bytes, Value)>,
        /// What is written; `None` deletes.
        writes: Vec<(Bytes, Value)>,
    },
}

impl Call {
    pub(super) fn keys(&self) -> impl Iterator<Item = &Bytes> {
        let (read, expected, writes) = match self {
            Self::Read(keys) => (keys.as_slice(), [].as_slice(), [].as_slice()),
            Self::Write { expected, writes } => {
                ([].as_slice(), expected.as_slice(), writes.as_slice())
            }
        };
        let written = expected.iter().chain(writes).map(|(key, _)| key);
        read.iter().chain(written)
    }
}

/// What a store answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// What was read, in the order of the keys.
    Read {
        /// The values.
        values: Vec<Value>,
        /// The revision that they were read at, where it is known.
        revision: Option<Revision>,
    },
    /// The expected values stood there, and the writes took effect.
    Applied {
        /// Their revision, where it is known.
        revision: Option<Revision>,
    },
    /// An expected value did not stand there, and nothing was written.
    Refused {
        /// What stood at the expected keys instead, in their order; empty where that is not known.
        current: Vec<Value>,
        /// The revision of that state, where it is known.
        revision: Option<Revision>,
    },
    /// The answer was lost: the writes took effect at some moment after the call, or never will.
    Unknown,
}

/// One call and its answer.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Who called.
    pub client: usize,
    /// What was asked.
    pub call: Call,
    /// What was answered.
    pub outcome: Outcome,
    /// The moment of the call. Moments are numbers that grow; how fast does not matter.
    pub called: u64,
    /// The moment of the answer; ignored when there was none.
    pub answered: u64,
}

impl Operation {
    /// The moment by which it has taken effect, if it has at all.
    pub(super) fn deadline(&self) -> u64 {
        match self.outcome {
            Outcome::Unknown => u64::MAX,
            _ => self.answered,
        }
    }

    /// The revision that it tells of.
    pub(super) fn revision(&self) -> Option<Revision> {
        match &self.outcome {
            Outcome::Read { revision, .. }
            | Outcome::Applied { revision }
            | Outcome::Refused { revision, .. } => *revision,
            Outcome::Unknown => None,
        }
    }
}

/// What clients did to a store over a while, beginning with what stood there.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The values that stood at keys before; what is not named was not there.
    pub initial: Vec<(Bytes, Bytes)>,
    /// What was done, in any order.
    pub operations: Vec<Operation>,
}

/// Takes down what clients do, while they do it. Clones write into the same history.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Arc<Recorded>);

#[derive(Debug, Default)]
struct Recorded {
    /// Counts moments: between two calls of it something happened.
    clock: AtomicU64,
    operations: Mutex<Vec<Operation>>,
}

impl Recorder {
    /// A recorder with an empty history.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Call it before a client asks, and tell what it asks.
    #[must_use]
    pub fn begin(&self, client: usize, call: Call) -> Recording {
        Recording {
            recorder: self.clone(),
            client,
            called: self.moment(),
            call: Some(call),
        }
    }

    /// What has been recorded up to now. Calls without an answer are not in it until their [`Recording`] is dropped.
    #[must_use]
    pub fn history(&self) -> History {
        History {
            initial: Vec::new(),
            operations: self.0.operations.lock().clone(),
        }
    }

    fn moment(&self) -> u64 {
        self.0.clock.fetch_add(1, Ordering::SeqCst)
    }
}

/// A call whose answer is to come. When it is dropped without one, the outcome is unknown.
#[derive(Debug)]
pub struct Recording {
    recorder: Recorder,
    client: usize,
    called: u64,
    call: Option<Call>,
}

impl Recording {
    /// Call it as soon as the answer is there.
    pub fn end(mut self, outcome: Outcome) {
        self.finish(outcome);
    }

    /// As [`end`](Self::end), where the answer shows that the call came to the same as another would have.
    pub fn end_as(mut self, call: Call, outcome: Outcome) {
        self.call = Some(call);
        self.finish(outcome);
    }

    /// Forgets the call: it is certain that it had no effect.
    pub fn forget(mut self) {
        self.call = None;
    }

    fn finish(&mut self, outcome: Outcome) {
        let Some(call) = self.call.take() else { return };
        let operation = Operation {
            client: self.client,
            call,
            outcome,
            called: self.called,
            answered: self.recorder.moment(),
        };
        self.recorder.0.operations.lock().push(operation);
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.finish(Outcome::Unknown);
    }
}
