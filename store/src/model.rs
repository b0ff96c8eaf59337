//! The simplest store that can be right, to compare the others with.

use std::collections::BTreeMap;

use bytes::Bytes;
use orlop_core::revision::Revision;
use orlop_core::store::{
    Change, Commit, KeyRange, KeyValue, Op, RangeRequest, Store, StoreError, Txn,
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
