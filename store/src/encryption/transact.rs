//! Transactions with branches over ciphertexts.
//!
//! Conditions are checked before anything is written, those of nested transactions too, so all conditions on values can be checked here: each
//! becomes one that always or never holds, and the whole is done on the condition that the keys it looked at are still as they were.

use bytes::Bytes;
use orlop_core::revision::Revision;
use orlop_core::store::{
    Condition, KeyRange, Operand, RangeRequest, Relation, Step, StepResult, Store, StoreError,
    Transaction, TransactionResult,
};

use super::layer::{TRIES, contended};
use super::transform::Transformers;

pub(super) async fn transact(
    store: &dyn Store,
    transformers: &Transformers,
    mut transaction: Transaction,
) -> Result<TransactionResult, StoreError> {
    if transformers.is_empty() {
        let mut result = store.transact(transaction).await?;
        open(transformers, &mut result.steps)?;
        return Ok(result);
    }
    seal(transformers, &mut transaction)?;
    let mut by_value = Vec::new();
    find(&transaction, &mut by_value);
    if by_value.is_empty() {
        let mut result = store.transact(transaction).await?;
        open(transformers, &mut result.steps)?;
        return Ok(result);
    }
    for _ in 0..TRIES {
        let mut guards = Vec::new();
        let mut verdicts = Vec::with_capacity(by_value.len());
        for condition in &by_value {
            let found = store
                .range(RangeRequest::new(condition.keys.clone()))
                .await?;
            let mut items = found.items;
            // No key has come or changed since …
            guards.push(Condition {
                keys: condition.keys.clone(),
                relation: Relation::Less,
                operand: Operand::ModRevision(found.revision.next()),
            });
            for kv in &mut items {
                // … and none of them has gone.
                guards.push(Condition {
                    keys: KeyRange::Key(kv.key.clone()),
                    relation: Relation::Greater,
                    operand: Operand::ModRevision(Revision::ZERO),
                });
                transformers.open(kv)?;
            }
            verdicts.push(condition.holds_for_all(&items));
        }
        let mut decided = transaction.clone();
        decide(&mut decided, &mut verdicts.into_iter());
        let guarded = Transaction {
            conditions: guards,
            success: vec![Step::Nested(decided)],
            failure: Vec::new(),
        };
        let mut outcome = store.transact(guarded).await?;
        if !outcome.succeeded {
            continue;
        }
        let Some(StepResult::Nested(mut result)) = outcome.steps.pop() else {
            return Err(StoreError::Corrupt(
                "the store answered a nested transaction with something else".to_owned(),
            ));
        };
        open(transformers, &mut result.steps)?;
        return Ok(result);
    }
    Err(contended())
}

/// Encrypts what is to be written.
fn seal(transformers: &Transformers, transaction: &mut Transaction) -> Result<(), StoreError> {
    let branches = [&mut transaction.success, &mut transaction.failure];
    for step in branches.into_iter().flatten() {
        match step {
            Step::Put {
                key,
                value: Some(value),
                ..
            } => *value = transformers.seal(key, std::mem::take(value))?,
            Step::Nested(inner) => seal(transformers, inner)?,
            Step::Read(_) | Step::Put { .. } | Step::Delete { .. } => {}
        }
    }
    Ok(())
}

/// Decrypts what was read.
fn open(transformers: &Transformers, steps: &mut [StepResult]) -> Result<(), StoreError> {
    for step in steps {
        match step {
            StepResult::Read(found) => {
                for kv in &mut found.items {
                    transformers.open(kv)?;
                }
            }
            StepResult::Put { previous } => {
                if let Some(kv) = previous {
                    transformers.open(kv)?;
                }
            }
            StepResult::Delete { previous, .. } => {
                for kv in previous {
                    transformers.open(kv)?;
                }
            }
            StepResult::Nested(inner) => open(transformers, &mut inner.steps)?,
        }
    }
    Ok(())
}

/// All conditions on values, in the order in which [`decide`] comes to them.
fn find(transaction: &Transaction, found: &mut Vec<Condition>) {
    let by_value = |condition: &&Condition| matches!(condition.operand, Operand::Value(_));
    found.extend(transaction.conditions.iter().filter(by_value).cloned());
    for step in transaction.success.iter().chain(&transaction.failure) {
        if let Step::Nested(inner) = step {
            find(inner, found);
        }
    }
}

/// Puts verdicts in the place of conditions on values.
fn decide(transaction: &mut Transaction, verdicts: &mut impl Iterator<Item = bool>) {
    for condition in &mut transaction.conditions {
        if matches!(condition.operand, Operand::Value(_)) {
            *condition = verdict(verdicts.next().unwrap_or(false));
        }
    }
    let branches = [&mut transaction.success, &mut transaction.failure];
    for step in branches.into_iter().flatten() {
        if let Step::Nested(inner) = step {
            decide(inner, verdicts);
        }
    }
}

/// A condition that always holds, or never does: no version is below zero.
fn verdict(holds: bool) -> Condition {
    let (relation, version) = if holds {
        (Relation::NotEqual, u64::MAX)
    } else {
        (Relation::Less, 0)
    };
    Condition {
        keys: KeyRange::Key(Bytes::from_static(b"\0")),
        relation,
        operand: Operand::Version(version),
    }
}
