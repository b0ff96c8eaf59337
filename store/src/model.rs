//! The simplest store that can be right, to compare the others with.

use std::collections::BTreeMap;

use bytes::Bytes;
use orlop_core::revision::Revision;
use orlop_core::store::{
    Change, Commit, Condition, KeyRange, KeyValue, Op, Operand, PutLease, RangeRequest,
    RangeResult, Relation, Step, StepResult, Store, StoreError, Transaction, TransactionResult,
    Txn,
};
use proptest::prelude::*;

type State = BTreeMap<Bytes, KeyValue>;

/// Every state that there was.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    states: Vec<State>,
    pub(crate) changes: Vec<Vec<Change>>,
}

impl Model {
    pub(crate) fn new() -> Self {
        // Revision zero is none, and one is the empty store.
        Self {
            states: vec![State::new(); 2],
            changes: vec![Vec::new(); 2],
        }
    }

    pub(crate) fn revision(&self) -> Revision {
        Revision(self.states.len() as u64 - 1)
    }

    pub(crate) fn at(&self, revision: Revision) -> &State {
        &self.states[revision.0 as usize]
    }

    /// What the store must answer.
    pub(crate) fn commit(&mut self, txn: &Txn) -> Commit {
        let mut state = self.at(self.revision()).clone();
        if !txn
            .compare
            .iter()
            .all(|compare| compare.holds(state.get(compare.key())))
        {
            let current = txn
                .compare
                .iter()
                .map(|compare| state.get(compare.key()).cloned())
                .collect();
            return Commit::Refused {
                revision: self.revision(),
                current,
            };
        }
        let revision = self.revision().next();
        let mut changes = Vec::new();
        let mut deleted = 0;
        for op in &txn.ops {
            match op {
                Op::Put { key, value, lease } => {
                    let prev = state.get(key).cloned();
                    let kv = KeyValue {
                        key: key.clone(),
                        value: value.clone(),
                        create_revision: prev
                            .as_ref()
                            .map_or(revision, |prev| prev.create_revision),
                        mod_revision: revision,
                        version: prev.as_ref().map_or(1, |prev| prev.version + 1),
                        lease: *lease,
                    };
                    state.insert(key.clone(), kv.clone());
                    changes.push(Change::Put { kv, prev });
                }
                Op::Delete(keys) => {
                    for (key, prev) in state.extract_if(.., |key, _| keys.contains(key)) {
                        changes.push(Change::Delete {
                            key,
                            revision,
                            prev: Some(prev),
                        });
                        deleted += 1;
                    }
                }
            }
        }
        if changes.is_empty() {
            return Commit::Applied {
                revision: self.revision(),
                deleted,
            };
        }
        self.states.push(state);
        self.changes.push(changes);
        Commit::Applied { revision, deleted }
    }

    /// What the store must answer when it has compacted to `oldest`.
    pub(crate) fn transact(
        &mut self,
        transaction: &Transaction,
        oldest: Revision,
    ) -> Result<TransactionResult, StoreError> {
        let before = self.at(self.revision()).clone();
        let mut work = Work {
            past: self,
            oldest,
            state: before.clone(),
            before,
            changes: Vec::new(),
            failure: None,
        };
        let result = work.run(transaction);
        let (state, changes, failure) = (work.state, work.changes, work.failure);
        if let Some(failure) = failure {
            return Err(failure);
        }
        if !changes.is_empty() {
            self.states.push(state);
            self.changes.push(changes);
        }
        Ok(result)
    }

    /// Compares all that can be read with the model, and returns the oldest revision that could be.
    pub(crate) async fn check(&self, store: &dyn Store) -> Revision {
        assert_eq!(
            store.revision().await.expect("the revision"),
            self.revision()
        );
        let mut oldest = self.revision();
        for revision in (1..self.states.len() as u64).rev().map(Revision) {
            let request = RangeRequest::new(KeyRange::prefix("")).at(revision);
            match store.range(request).await {
                Ok(read) => {
                    assert!(
                        oldest.0 - revision.0 <= 1,
                        "{revision} can be read, and a later one cannot"
                    );
                    let wanted: Vec<_> = self.at(revision).values().cloned().collect();
                    assert_eq!(read.items, wanted, "at {revision}");
                    oldest = revision;
                }
                Err(StoreError::Compacted { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        for (key, kv) in self.at(self.revision()) {
            let read = store
                .range(RangeRequest::new(KeyRange::Key(key.clone())))
                .await
                .expect("a key");
            assert_eq!(read.items.as_slice(), std::slice::from_ref(kv));
        }
        oldest
    }
}

/// A transaction in the making.
struct Work<'a> {
    past: &'a Model,
    oldest: Revision,
    before: State,
    state: State,
    changes: Vec<Change>,
    /// The first reason why it cannot be done: what is put is looked at before what is read.
    failure: Option<StoreError>,
}

impl Work<'_> {
    fn revision(&self) -> Revision {
        Revision(self.past.revision().0 + u64::from(!self.changes.is_empty()))
    }

    fn run(&mut self, transaction: &Transaction) -> TransactionResult {
        let succeeded = transaction.conditions.iter().all(|condition| {
            let found = self.before.values();
            condition.holds_for_all(found.filter(|kv| condition.keys.contains(&kv.key)))
        });
        let steps = if succeeded {
            &transaction.success
        } else {
            &transaction.failure
        };
        let steps = steps.iter().map(|step| self.step(step)).collect();
        TransactionResult {
            revision: self.revision(),
            succeeded,
            steps,
        }
    }

    fn step(&mut self, step: &Step) -> StepResult {
        match step {
            Step::Read(request) => StepResult::Read(self.read(request)),
            Step::Put {
                key,
                value,
                lease,
                previous,
            } => {
                let prev = self.state.get(key).cloned();
                if prev.is_none() && (value.is_none() || *lease == PutLease::Keep) {
                    let read =
                        |failure: &StoreError| !matches!(failure, StoreError::KeyNotFound(_));
                    if self.failure.as_ref().is_none_or(read) {
                        self.failure = Some(StoreError::KeyNotFound(key.clone()));
                    }
                }
                let revision = self.past.revision().next();
                let kept = prev.as_ref();
                let kv = KeyValue {
                    key: key.clone(),
                    value: value
                        .as_ref()
                        .or(kept.map(|prev| &prev.value))
                        .cloned()
                        .unwrap_or_default(),
                    create_revision: kept.map_or(revision, |prev| prev.create_revision),
                    mod_revision: revision,
                    version: kept.map_or(1, |prev| prev.version + 1),
                    lease: match lease {
                        PutLease::Set(lease) => *lease,
                        PutLease::Keep => kept.and_then(|prev| prev.lease),
                    },
                };
                self.state.insert(key.clone(), kv.clone());
                self.changes.push(Change::Put {
                    kv,
                    prev: prev.clone(),
                });
                StepResult::Put {
                    previous: prev.filter(|_| *previous),
                }
            }
            Step::Delete { keys, previous } => {
                let revision = self.past.revision().next();
                let gone: State = self
                    .state
                    .extract_if(.., |key, _| keys.contains(key))
                    .collect();
                let deleted = gone.len() as u64;
                for (key, prev) in &gone {
                    self.changes.push(Change::Delete {
                        key: key.clone(),
                        revision,
                        prev: Some(prev.clone()),
                    });
                }
                StepResult::Delete {
                    deleted,
                    previous: gone.into_values().filter(|_| *previous).collect(),
                }
            }
            Step::Nested(nested) => StepResult::Nested(self.run(nested)),
        }
    }

    fn read(&mut self, request: &RangeRequest) -> RangeResult {
        let newest = self.past.revision();
        let state = match request.revision {
            None | Some(Revision::ZERO) => &self.state,
            Some(requested) if requested > newest => {
                let failure = StoreError::FutureRevision { requested, newest };
                self.failure.get_or_insert(failure);
                &self.state
            }
            Some(requested) if requested < self.oldest => {
                let oldest = self.oldest;
                self.failure
                    .get_or_insert(StoreError::Compacted { requested, oldest });
                &self.state
            }
            Some(requested) => self.past.at(requested),
        };
        let mut items: Vec<_> = state
            .values()
            .filter(|kv| request.keys.contains(&kv.key))
            .filter(|kv| request.after.as_ref().is_none_or(|after| kv.key > *after))
            .cloned()
            .collect();
        let all = items.len();
        items.truncate(request.wanted());
        RangeResult {
            revision: self.revision(),
            remaining: (all - items.len()) as u64,
            items,
        }
    }
}

/// Whether two transactions came to the same.
pub(crate) fn same_results(
    a: &Result<TransactionResult, StoreError>,
    b: &Result<TransactionResult, StoreError>,
) -> bool {
    format!("{a:?}") == format!("{b:?}")
}

/// Answers do not compare by themselves.
pub(crate) fn same(a: &Commit, b: &Commit) -> bool {
    match (a, b) {
        (
            Commit::Applied { revision, deleted },
            Commit::Applied {
                revision: other,
                deleted: others,
            },
        ) => revision == other && deleted == others,
        (
            Commit::Refused { revision, current },
            Commit::Refused {
                revision: other,
                current: others,
            },
        ) => revision == other && current == others,
        _ => false,
    }
}

fn key() -> impl Strategy<Value = Bytes> {
    (0..3u8, 0..4u8).prop_map(|(a, b)| format!("/{a}/{b}").into())
}

fn keys() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        key().prop_map(KeyRange::Key),
        (0..3u8).prop_map(|a| KeyRange::prefix(format!("/{a}/"))),
        (key(), key()).prop_map(|(a, b)| KeyRange::Span(a, b)),
    ]
}

/// Transactions over a few keys, most of which change something. Conditions are wrong as often as right.
pub(crate) fn txn() -> impl Strategy<Value = Txn> {
    let put = (key(), 0..700usize, any::<u8>()).prop_map(|(key, length, byte)| Op::Put {
        key,
        value: vec![byte; length].into(),
        lease: None,
    });
    let op = prop_oneof![4 => put, 1 => keys().prop_map(Op::Delete)];
    let compare = prop_oneof![
        (key(), 0..4u64)
            .prop_map(|(key, version)| orlop_core::store::Compare::Version(key, version)),
        (key(), 0..40u64)
            .prop_map(|(key, at)| orlop_core::store::Compare::ModRevision(key, Revision(at))),
    ];
    (
        proptest::collection::vec(op, 1..4),
        proptest::option::weighted(0.2, compare),
    )
        .prop_map(|(mut ops, compare)| {
            // No key twice.
            let mut seen: Vec<Op> = Vec::new();
            ops.retain(|op| {
                let clash = seen.iter().any(|before| match (before, op) {
                    (Op::Put { key: a, .. }, Op::Put { key: b, .. }) => a == b,
                    (Op::Put { key, .. }, Op::Delete(keys))
                    | (Op::Delete(keys), Op::Put { key, .. }) => keys.contains(key),
                    (Op::Delete(_), Op::Delete(_)) => false,
                });
                if !clash {
                    seen.push(op.clone());
                }
                !clash
            });
            Txn {
                compare: compare.into_iter().collect(),
                ops,
            }
        })
}

fn condition() -> impl Strategy<Value = Condition> {
    let relation = prop_oneof![
        Just(Relation::Equal),
        Just(Relation::NotEqual),
        Just(Relation::Greater),
        Just(Relation::Less),
    ];
    let operand = prop_oneof![
        (0..40u64).prop_map(|at| Operand::ModRevision(Revision(at))),
        (0..40u64).prop_map(|at| Operand::CreateRevision(Revision(at))),
        (0..4u64).prop_map(Operand::Version),
        any::<u8>().prop_map(|byte| Operand::Value(vec![byte; 3].into())),
        Just(Operand::Lease(0)),
    ];
    let keys = prop_oneof![3 => key().prop_map(KeyRange::Key), 1 => keys()];
    (keys, relation, operand).prop_map(|(keys, relation, operand)| Condition {
        keys,
        relation,
        operand,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let keys = || {
        prop_oneof![
            3 => key().prop_map(KeyRange::Key),
            2 => keys(),
            1 => key().prop_map(KeyRange::From),
        ]
    };
    let past = prop_oneof![4 => Just(None), 1 => (0..30u64).prop_map(|at| Some(Revision(at)))];
    let read = (
        keys(),
        past,
        0..4usize,
        proptest::option::of(key()),
        any::<bool>(),
    )
        .prop_map(|(keys, revision, limit, after, count_only)| {
            Step::Read(RangeRequest {
                keys,
                revision,
                limit,
                after,
                count_only,
            })
        });
    let value = proptest::option::weighted(0.9, (0..100usize, any::<u8>()));
    let lease = prop_oneof![5 => Just(PutLease::Set(None)), 1 => Just(PutLease::Keep)];
    let put =
        (key(), value, lease, any::<bool>()).prop_map(|(key, value, lease, previous)| Step::Put {
            key,
            value: value.map(|(length, byte)| vec![byte; length].into()),
            lease,
            previous,
        });
    let delete =
        (keys(), any::<bool>()).prop_map(|(keys, previous)| Step::Delete { keys, previous });
    prop_oneof![2 => read, 4 => put, 1 => delete]
}

/// Transactions with branches over a few keys, which break no rule.
pub(crate) fn transaction() -> impl Strategy<Value = Transaction> {
    let flat = transaction_of(step().boxed());
    let nested = prop_oneof![4 => step(), 1 => flat.prop_map(Step::Nested)].boxed();
    transaction_of(nested)
}

fn transaction_of(step: BoxedStrategy<Step>) -> BoxedStrategy<Transaction> {
    let steps = move || proptest::collection::vec(step.clone(), 0..4);
    let conditions = proptest::collection::vec(condition(), 0..2);
    (conditions, steps(), steps())
        .prop_map(|(conditions, success, failure)| {
            let mut transaction = Transaction {
                conditions,
                ..Transaction::default()
            };
            // Steps that would write a key twice are left out.
            for step in success {
                transaction.success.push(step);
                if transaction.validate().is_err() {
                    transaction.success.pop();
                }
            }
            for step in failure {
                transaction.failure.push(step);
                if transaction.validate().is_err() {
                    transaction.failure.pop();
                }
            }
            transaction
        })
        .boxed()
}
