//! Transactions with two branches: the whole of what an etcd client can ask for in one step.
//!
//! [`Txn`](super::Txn) is what an API server needs: conditions, and writes when they hold. A [`Transaction`] is for those who speak etcd's
//! API to a store: conditions by more relations and over ranges, reads among the writes, a branch for when the conditions do not hold,
//! and branches within branches.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{KeyRange, KeyValue, LeaseId, RangeRequest, RangeResult, StoreError};
use crate::revision::Revision;

/// How what stands at a key must relate to what a condition names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// It is the same.
    Equal,
    /// It is not the same.
    NotEqual,
    /// It is greater.
    Greater,
    /// It is less.
    Less,
}

/// What of a key a condition looks at, and what it is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operand {
    /// The revision that wrote the key last. A key that is not there has [`Revision::ZERO`].
    ModRevision(Revision),
    /// The revision that made the key. A key that is not there has [`Revision::ZERO`].
    CreateRevision(Revision),
    /// How often the key was written. A key that is not there has zero.
    Version(u64),
    /// The value, compared byte by byte. No condition on the value of a key that is not there holds, whatever the relation.
    Value(Bytes),
    /// The lease that the key hangs on, as a number; zero for none, and for a key that is not there.
    Lease(i64),
}

/// A condition of a [`Transaction`]. Over a range it must hold for every key that is there; where none is, for one that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The keys.
    pub keys: KeyRange,
    /// How what stands there relates to the operand: `what stands there` `relation` `operand`.
    pub relation: Relation,
    /// What is compared.
    pub operand: Operand,
}

impl Condition {
    /// Whether the condition holds for one key, or for one that is not there.
    #[must_use]
    pub fn holds(&self, current: Option<&KeyValue>) -> bool {
        use std::cmp::Ordering;
        let order = match &self.operand {
            Operand::ModRevision(revision) => current
                .map_or(Revision::ZERO, |kv| kv.mod_revision)
                .cmp(revision),
            Operand::CreateRevision(revision) => current
                .map_or(Revision::ZERO, |kv| kv.create_revision)
                .cmp(revision),
            Operand::Version(version) => current.map_or(0, |kv| kv.version).cmp(version),
            Operand::Value(value) => match current {
                Some(kv) => kv.value.cmp(value),
                None => return false,
            },
            Operand::Lease(lease) => current
                .and_then(|kv| kv.lease)
                .map_or(0, |lease| lease.0)
                .cmp(lease),
        };
        match self.relation {
            Relation::Equal => order == Ordering::Equal,
            Relation::NotEqual => order != Ordering::Equal,
            Relation::Greater => order == Ordering::Greater,
            Relation::Less => order == Ordering::Less,
        }
    }

    /// Whether the condition holds for what was found in its range.
    #[must_use]
    pub fn holds_for_all<'a>(&self, found: impl IntoIterator<Item = &'a KeyValue>) -> bool {
        let mut found = found.into_iter().peekable();
        if found.peek().is_none() {
            return self.holds(None);
        }
        found.all(|kv| self.holds(Some(kv)))
    }
}

/// The lease that a written key is to hang on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutLease {
    /// This one; `None` for none.
    Set(Option<LeaseId>),
    /// The one that it hangs on. The key must be there.
    Keep,
}

/// One step of a branch. Steps are done in order, and each sees what those before it wrote.
#[derive(Clone, Debug)]
pub enum Step {
    /// Reads keys. A revision of the past may be named; without one the transaction's own state is read.
    Read(RangeRequest),
    /// Writes a key.
    Put {
        /// The key.
        key: Bytes,
        /// Its new value; `None` keeps the one that is there, and the key must be there.
        value: Option<Bytes>,
        /// Its lease.
        lease: PutLease,
        /// Whether to tell what was there before.
        previous: bool,
    },
    /// Deletes every key of a range that is there.
    Delete {
        /// The keys.
        keys: KeyRange,
        /// Whether to tell what was there before.
        previous: bool,
    },
    /// A transaction within this one, at the same revision.
    Nested(Transaction),
}

/// Conditions, what to do when all hold, and what to do otherwise: as one step, at one revision.
///
/// The conditions of nested transactions, too, look at the state before the whole transaction: all branches are chosen before the first
/// step is done. And all that can fail is looked at before the first write, so a transaction that fails has written nothing.
///
/// No branch may write a key twice, nor write a key that it also deletes, counting what is nested in it; this is checked for all
/// branches, taken or not. The two branches of one transaction exclude each other and may write the same key.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    /// All must hold. None always hold.
    pub conditions: Vec<Condition>,
    /// Done when they hold.
    pub success: Vec<Step>,
    /// Done when they do not.
    pub failure: Vec<Step>,
}

impl Transaction {
    /// Checks what can be checked without looking at a store: that no key is empty, and none is written twice.
    ///
    /// # Errors
    /// [`StoreError::InvalidRequest`].
    pub fn validate(&self) -> Result<(), StoreError> {
        writes(&self.success)?;
        writes(&self.failure)?;
        Ok(())
    }
}

/// What a step, or a whole branch, may write.
#[derive(Default)]
struct Writes<'a> {
    puts: BTreeSet<&'a Bytes>,
    deletes: Vec<&'a KeyRange>,
}

impl<'a> Writes<'a> {
    /// Adds what happens beside it.
    fn beside(&mut self, other: Writes<'a>) -> Result<(), StoreError> {
        let name = |key: &Bytes| key.escape_ascii().to_string();
        if let Some(key) = other.puts.iter().find(|key| self.puts.contains(**key)) {
            return Err(StoreError::InvalidRequest(format!(
                "key {:?} is written twice",
                name(key)
            )));
        }
        let mine = self
            .puts
            .iter()
            .find(|key| other.deletes.iter().any(|keys| keys.contains(key)));
        let others = other
            .puts
            .iter()
            .find(|key| self.deletes.iter().any(|keys| keys.contains(key)));
        if let Some(key) = mine.or(others) {
            return Err(StoreError::InvalidRequest(format!(
                "key {:?} is both written and deleted",
                name(key)
            )));
        }
        self.instead(other);
        Ok(())
    }

    /// Adds what happens only where this does not.
    fn instead(&mut self, other: Writes<'a>) {
        self.puts.extend(other.puts);
        self.deletes.extend(other.deletes);
    }
}

fn writes(steps: &[Step]) -> Result<Writes<'_>, StoreError> {
    let mut all = Writes::default();
    for step in steps {
        match step {
            Step::Read(_) => {}
            Step::Put { key, .. } if key.is_empty() => {
                return Err(StoreError::InvalidRequest(
                    "a key must not be empty".to_owned(),
                ));
            }
            Step::Put { key, .. } => all.beside(Writes {
                puts: BTreeSet::from([key]),
                deletes: Vec::new(),
            })?,
            Step::Delete { keys, .. } => all.beside(Writes {
                puts: BTreeSet::new(),
                deletes: vec![keys],
            })?,
            Step::Nested(nested) => {
                let mut either = writes(&nested.success)?;
                either.instead(writes(&nested.failure)?);
                all.beside(either)?;
            }
        }
    }
    Ok(all)
}

/// What a [`Transaction`] came to.
#[derive(Clone, Debug)]
pub struct TransactionResult {
    /// The store's revision after it: that of its writes, or the current one when it changed nothing.
    pub revision: Revision,
    /// Whether its conditions held.
    pub succeeded: bool,
    /// What the steps of the branch taken came to, in their order.
    pub steps: Vec<StepResult>,
}

/// What a [`Step`] came to.
#[derive(Clone, Debug)]
pub enum StepResult {
    /// What was read.
    Read(RangeResult),
    /// The key was written.
    Put {
        /// What was there before, when that was asked for.
        previous: Option<KeyValue>,
    },
    /// Keys were deleted.
    Delete {
        /// How many.
        deleted: u64,
        /// What was there before, in the order of the keys, when that was asked for.
        previous: Vec<KeyValue>,
    },
    /// A transaction within.
    Nested(TransactionResult),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &'static str) -> Step {
        Step::Put {
            key: key.into(),
            value: Some("x".into()),
            lease: PutLease::Set(None),
            previous: false,
        }
    }

    fn delete(prefix: &'static str) -> Step {
        Step::Delete {
            keys: KeyRange::prefix(prefix),
            previous: false,
        }
    }

    fn nested(success: Vec<Step>, failure: Vec<Step>) -> Step {
        Step::Nested(Transaction {
            conditions: Vec::new(),
            success,
            failure,
        })
    }

    #[test]
    fn no_branch_writes_a_key_twice() {
        let twice = "invalid request: key \"a/1\" is written twice";
        let both = "invalid request: key \"a/1\" is both written and deleted";
        let cases = [
            (vec![put("a/1"), put("a/2")], None),
            (vec![put("a/1"), put("a/1")], Some(twice)),
            (vec![put("a/1"), delete("a/")], Some(both)),
            (vec![delete("a/"), put("a/1")], Some(both)),
            (vec![delete("a/"), delete("a/"), put("b")], None),
            (
                vec![put("a/1"), nested(vec![put("a/1")], vec![])],
                Some(twice),
            ),
            (
                vec![nested(vec![], vec![put("a/1")]), put("a/1")],
                Some(twice),
            ),
            (vec![nested(vec![put("a/1")], vec![put("a/1")])], None),
            (vec![nested(vec![put("a/1")], vec![delete("a/")])], None),
            (
                vec![
                    nested(vec![put("a/1")], vec![]),
                    nested(vec![], vec![put("a/1")]),
                ],
                Some(twice),
            ),
            (
                vec![
                    nested(vec![put("a/1")], vec![]),
                    nested(vec![delete("a/")], vec![]),
                ],
                Some(both),
            ),
            (
                vec![
                    nested(vec![nested(vec![put("a/1")], vec![])], vec![]),
                    delete("a/"),
                ],
                Some(both),
            ),
            (
                vec![put("")],
                Some("invalid request: a key must not be empty"),
            ),
        ];
        for (steps, wanted) in cases {
            for (success, failure) in [(steps.clone(), vec![]), (vec![], steps)] {
                let transaction = Transaction {
                    conditions: Vec::new(),
                    success,
                    failure,
                };
                let got = transaction.validate().err().map(|error| error.to_string());
                assert_eq!(got.as_deref(), wanted, "{transaction:?}");
            }
        }
        let either = Transaction {
            conditions: Vec::new(),
            success: vec![put("a/1")],
            failure: vec![put("a/1"), delete("b")],
        };
        assert!(either.validate().is_ok());
    }
}
