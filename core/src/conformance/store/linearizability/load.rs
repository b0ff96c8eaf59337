//! Clients that do all kinds of things to a few keys, and take down what they did.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::history::{Call, History, Outcome, Recorder, Value};
use crate::env::Env;
use crate::revision::Revision;
use crate::store::{
    Commit, Compare, Condition, KeyRange, KeyValue, Op, Operand, PutLease, RangeRequest, Relation,
    Step, StepResult, Store, StoreError, Transaction, Txn,
};

/// How long a client rests after the store could not be reached.
const REST: Duration = Duration::from_millis(20);

/// How much clients do. Begin with the [`Default`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Load {
    /// How many clients there are: 8.
    pub clients: usize,
    /// How many operations each does: 40.
    pub operations: usize,
    /// How many keys they do it to: 4.
    pub keys: usize,
    /// Whether to use transactions with branches, too: yes.
    pub transactions: bool,
    /// How long a client rests between two operations: not at all.
    pub pause: Duration,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            clients: 8,
            operations: 40,
            keys: 4,
            transactions: true,
            pause: Duration::ZERO,
        }
    }
}

/// Lets clients read and write keys below a prefix, which nobody else does meanwhile, and takes down what they did. A store that cannot
/// be reached for a while is no failure: what was asked meanwhile has an unknown outcome.
///
/// # Errors
/// What the store refused though it must not refuse it.
pub async fn record(
    store: Arc<dyn Store>,
    env: Env,
    prefix: &str,
    load: &Load,
) -> Result<History, StoreError> {
    let keys: Vec<Bytes> = (0..load.keys)
        .map(|n| format!("{prefix}{n}").into())
        .collect();
    let before = store
        .range(RangeRequest::new(KeyRange::prefix(prefix.to_owned())))
        .await?;
    let recorder = Recorder::new();
    let mut ends = Vec::new();
    for number in 0..load.clients {
        let client = Client {
            number,
            store: store.clone(),
            env: env.clone(),
            recorder: recorder.clone(),
            keys: keys.clone(),
            all: KeyRange::prefix(prefix.to_owned()),
            transactions: load.transactions,
            // No two histories write the same values.
            mark: env.random_u64(),
            written: 0,
            seen: BTreeMap::new(),
        };
        let (operations, pause) = (load.operations, load.pause);
        let (send, receive) = tokio::sync::oneshot::channel();
        env.spawn("conformance-client", async move {
            let _ = send.send(client.run(operations, pause).await);
        });
        ends.push(receive);
    }
    for end in ends {
        end.await
            .map_err(|_| StoreError::Unavailable("a client panicked".to_owned()))??;
    }
    let mut history = recorder.history();
    history.initial = before
        .items
        .into_iter()
        .map(|kv| (kv.key, kv.value))
        .collect();
    Ok(history)
}

struct Client {
    number: usize,
    store: Arc<dyn Store>,
    env: Env,
    recorder: Recorder,
    keys: Vec<Bytes>,
    all: KeyRange,
    transactions: bool,
    mark: u64,
    written: u64,
    /// What it saw last at the keys, which may be long gone.
    seen: BTreeMap<Bytes, Option<KeyValue>>,
}

/// What is expected at a key: its value, and the revision that wrote it where the client saw that.
type Expected = (Bytes, Option<KeyValue>);

impl Client {
    async fn run(mut self, operations: usize, pause: Duration) -> Result<(), StoreError> {
        for _ in 0..operations {
            let done = match self.env.random_below(10) {
                0..=2 => self.read().await,
                3 => self.read_all().await,
                4 => self.delete().await,
                5 | 6 => self.put(1, false).await,
                7 => self.put(2, false).await,
                8 => self.put(1, true).await,
                _ => self.put(2, true).await,
            };
            match done {
                Ok(()) | Err(StoreError::NoSpace(_)) => {}
                Err(StoreError::Unavailable(_) | StoreError::OutcomeUnknown(_)) => {
                    self.env.sleep(REST).await;
                }
                Err(error) => return Err(error),
            }
            if !pause.is_zero() {
                self.env.sleep(pause).await;
            }
        }
        Ok(())
    }

    fn any_key(&self) -> Bytes {
        let bound = self.keys.len() as u64;
        self.keys[usize::try_from(self.env.random_below(bound)).unwrap_or(0)].clone()
    }

    fn value(&mut self) -> Bytes {
        self.written += 1;
        format!("{:x}-{}-{}", self.mark, self.number, self.written).into()
    }

    async fn read(&mut self) -> Result<(), StoreError> {
        let key = self.any_key();
        let recording = self
            .recorder
            .begin(self.number, Call::Read(vec![key.clone()]));
        let read = self
            .store
            .range(RangeRequest::new(KeyRange::Key(key.clone())))
            .await;
        match read {
            Ok(mut read) => {
                let kv = read.items.pop();
                recording.end(Outcome::Read {
                    values: vec![value(kv.as_ref())],
                    revision: Some(read.revision),
                });
                self.seen.insert(key, kv);
                Ok(())
            }
            Err(error) => {
                recording.forget();
                Err(error)
            }
        }
    }

    async fn read_all(&mut self) -> Result<(), StoreError> {
        let recording = self
            .recorder
            .begin(self.number, Call::Read(self.keys.clone()));
        match self.store.range(RangeRequest::new(self.all.clone())).await {
            Ok(read) => {
                for key in &self.keys {
                    let kv = read.items.iter().find(|kv| kv.key == key);
                    self.seen.insert(key.clone(), kv.cloned());
                }
                let values = self.keys.iter().map(|key| value(self.seen[key].as_ref()));
                recording.end(Outcome::Read {
                    values: values.collect(),
                    revision: Some(read.revision),
                });
                Ok(())
            }
            Err(error) => {
                recording.forget();
                Err(error)
            }
        }
    }

    async fn delete(&mut self) -> Result<(), StoreError> {
        let key = self.any_key();
        let call = Call::Write {
            expected: Vec::new(),
            writes: vec![(key.clone(), None)],
        };
        let recording = self.recorder.begin(self.number, call);
        let txn = Txn {
            compare: Vec::new(),
            ops: vec![Op::Delete(KeyRange::Key(key.clone()))],
        };
        match self.store.commit(txn).await {
            // It met nothing, so it is as if it had read that there is nothing.
            Ok(Commit::Applied {
                revision,
                deleted: 0,
            }) => {
                let read = Outcome::Read {
                    values: vec![None],
                    revision: Some(revision),
                };
                recording.end_as(Call::Read(vec![key]), read);
                Ok(())
            }
            done => settle(recording, done),
        }
    }

    /// Writes one or more keys, on condition that the first is as it was last seen or not at all.
    async fn put(&mut self, count: usize, conditional: bool) -> Result<(), StoreError> {
        let mut keys = vec![self.any_key()];
        while keys.len() < count.min(self.keys.len()) {
            let key = self.any_key();
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        let expected: Vec<Expected> = if conditional {
            let key = keys[0].clone();
            let seen = self.seen.get(&key).cloned().flatten();
            vec![(key, seen)]
        } else {
            Vec::new()
        };
        let writes: Vec<(Bytes, Bytes)> = keys.into_iter().map(|key| (key, self.value())).collect();
        let call = Call::Write {
            expected: expected
                .iter()
                .map(|(key, kv)| (key.clone(), value(kv.as_ref())))
                .collect(),
            writes: writes
                .iter()
                .map(|(key, value)| (key.clone(), Some(value.clone())))
                .collect(),
        };
        // Every value is written once, so a value and its revision say the same.
        let by_value = self.env.random_below(2) == 0;
        if self.transactions && self.env.random_below(2) == 0 {
            let transaction = transaction(&expected, &writes, by_value);
            let recording = self.recorder.begin(self.number, call);
            return match self.store.transact(transaction).await {
                Ok(result) if result.succeeded => {
                    recording.end(Outcome::Applied {
                        revision: Some(result.revision),
                    });
                    Ok(())
                }
                Ok(result) => {
                    let current = result.steps.iter().map(|step| match step {
                        StepResult::Read(read) => value(read.items.first()),
                        _ => None,
                    });
                    recording.end(Outcome::Refused {
                        current: current.collect(),
                        revision: Some(result.revision),
                    });
                    Ok(())
                }
                Err(error) => Err(lost(recording, error)),
            };
        }
        let compare = expected
            .iter()
            .map(|(key, kv)| match kv {
                Some(kv) if by_value => Compare::Value(key.clone(), kv.value.clone()),
                kv => {
                    let at = kv.as_ref().map_or(Revision::ZERO, |kv| kv.mod_revision);
                    Compare::ModRevision(key.clone(), at)
                }
            })
            .collect();
        let ops = writes
            .into_iter()
            .map(|(key, value)| Op::Put {
                key,
                value,
                lease: None,
            })
            .collect();
        let recording = self.recorder.begin(self.number, call);
        let done = self.store.commit(Txn { compare, ops }).await;
        settle(recording, done)
    }
}

fn transaction(expected: &[Expected], writes: &[(Bytes, Bytes)], by_value: bool) -> Transaction {
    Transaction {
        conditions: expected
            .iter()
            .map(|(key, kv)| Condition {
                keys: KeyRange::Key(key.clone()),
                relation: Relation::Equal,
                operand: match kv {
                    Some(kv) if by_value => Operand::Value(kv.value.clone()),
                    Some(kv) => Operand::ModRevision(kv.mod_revision),
                    None => Operand::Version(0),
                },
            })
            .collect(),
        success: writes
            .iter()
            .map(|(key, value)| Step::Put {
                key: key.clone(),
                value: Some(value.clone()),
                lease: PutLease::Set(None),
                previous: false,
            })
            .collect(),
        failure: expected
            .iter()
            .map(|(key, _)| Step::Read(RangeRequest::new(KeyRange::Key(key.clone()))))
            .collect(),
    }
}

fn value(kv: Option<&KeyValue>) -> Value {
    kv.map(|kv| kv.value.clone())
}

fn settle(
    recording: super::history::Recording,
    done: Result<Commit, StoreError>,
) -> Result<(), StoreError> {
    match done {
        Ok(Commit::Applied { revision, .. }) => {
            recording.end(Outcome::Applied {
                revision: Some(revision),
            });
            Ok(())
        }
        Ok(Commit::Refused { revision, current }) => {
            recording.end(Outcome::Refused {
                current: current.iter().map(|kv| value(kv.as_ref())).collect(),
                revision: Some(revision),
            });
            Ok(())
        }
        Err(error) => Err(lost(recording, error)),
    }
}

/// What became of a write that was not answered. A store that cannot be reached may have been reached nevertheless.
fn lost(recording: super::history::Recording, error: StoreError) -> StoreError {
    match error {
        StoreError::OutcomeUnknown(_) | StoreError::Unavailable(_) => drop(recording),
        _ => recording.forget(),
    }
    error
}
