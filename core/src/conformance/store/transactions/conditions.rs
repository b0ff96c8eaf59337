//! Conditions, and the branch that they choose.

use super::{always, condition, delete, never, put, transact, without};
use crate::conformance::store::{Checked, Context, checks, same};
use crate::revision::Revision;
use crate::store::{
    Condition, KeyRange, Operand, PutLease, RangeRequest, Relation, Step, Transaction,
};

checks!(on_a_key, on_ranges, all_must_hold, take_a_branch,);

const RELATIONS: [Relation; 4] = [
    Relation::Equal,
    Relation::NotEqual,
    Relation::Greater,
    Relation::Less,
];

/// Whether a relation holds where what stands there is less than, equal to, or greater than the operand.
fn holds(relation: Relation, order: std::cmp::Ordering) -> bool {
    match relation {
        Relation::Equal => order.is_eq(),
        Relation::NotEqual => order.is_ne(),
        Relation::Greater => order.is_gt(),
        Relation::Less => order.is_lt(),
    }
}

/// Asks about conditions one at a time.
async fn ask(c: &Context, cases: Vec<(Condition, bool)>) -> Checked {
    for (condition, wanted) in cases {
        let transaction = Transaction {
            conditions: vec![condition.clone()],
            ..Transaction::default()
        };
        same!(
            transact(c, transaction).await?.succeeded,
            wanted,
            format!("whether {condition:?} holds")
        );
    }
    Ok(())
}

async fn on_a_key(c: &Context) -> Checked {
    if without(c) {
        return Ok(());
    }
    let created = c.put("a", "m").await?;
    let modified = c.put("a", "mm").await?;
    let (a, none) = (KeyRange::Key(c.key("a")), KeyRange::Key(c.key("none")));
    let mut cases = Vec::new();
    for relation in RELATIONS {
        for other in [0, created.0 - 1, created.0, modified.0, modified.0 + 1] {
            let revision = Revision(other);
            for (keys, stands) in [(&a, modified.0), (&none, 0)] {
                let operand = Operand::ModRevision(revision);
                let wanted = holds(relation, stands.cmp(&other));
                cases.push((condition(keys.clone(), relation, operand), wanted));
            }
            for (keys, stands) in [(&a, created.0), (&none, 0)] {
                let operand = Operand::CreateRevision(revision);
                let wanted = holds(relation, stands.cmp(&other));
                cases.push((condition(keys.clone(), relation, operand), wanted));
            }
        }
        for other in 0..4u64 {
            for (keys, stands) in [(&a, 2), (&none, 0u64)] {
                let wanted = holds(relation, stands.cmp(&other));
                let operand = Operand::Version(other);
                cases.push((condition(keys.clone(), relation, operand), wanted));
            }
        }
        for other in ["", "m", "ml", "mm", "mm\0", "n"] {
            let operand = Operand::Value(other.into());
            let wanted = holds(relation, "mm".cmp(other));
            cases.push((condition(a.clone(), relation, operand.clone()), wanted));
            // Nothing has no value, so nothing can be said of it.
            cases.push((condition(none.clone(), relation, operand), false));
        }
    }
    ask(c, cases).await?;
    if !c.subject.leases {
        return Ok(());
    }
    let lease = c.store().grant_lease(None, 3600).await?;
    let hung = Step::Put {
        key: c.key("hung"),
        value: Some("x".into()),
        lease: PutLease::Set(Some(lease)),
        previous: false,
    };
    transact(c, always(vec![hung])).await?;
    let hung = KeyRange::Key(c.key("hung"));
    let mut cases = Vec::new();
    for relation in RELATIONS {
        for other in [0, lease.0 - 1, lease.0, lease.0.saturating_add(1)] {
            for (keys, stands) in [(&hung, lease.0), (&a, 0), (&none, 0)] {
                let wanted = holds(relation, stands.cmp(&other));
                let operand = Operand::Lease(other);
                cases.push((condition(keys.clone(), relation, operand), wanted));
            }
        }
    }
    ask(c, cases).await?;
    c.store().revoke_lease(lease).await?;
    Ok(())
}

async fn on_ranges(c: &Context) -> Checked {
    if without(c) {
        return Ok(());
    }
    let first = c.put("r/1", "b").await?;
    c.put("r/2", "b").await?;
    let last = c.put("r/3", "c").await?;
    c.put("gone", "x").await?;
    c.delete("gone").await?;
    let all = KeyRange::Prefix(c.key("r/"));
    let span = |from: &str, to: &str| KeyRange::Span(c.key(from), c.key(to));
    let none = KeyRange::Prefix(c.key("g"));
    let value = |value: &'static str| Operand::Value(value.into());
    let at = Operand::ModRevision;
    let (equal, not_equal, greater, less) = (
        Relation::Equal,
        Relation::NotEqual,
        Relation::Greater,
        Relation::Less,
    );
    let cases = vec![
        (condition(all.clone(), greater, value("a")), true),
        (condition(all.clone(), greater, value("b")), false),
        (condition(all.clone(), less, value("c")), false),
        (condition(all.clone(), less, value("d")), true),
        (condition(all.clone(), not_equal, value("c")), false),
        (condition(all.clone(), not_equal, value("x")), true),
        (condition(all.clone(), equal, value("b")), false),
        (condition(span("r/1", "r/3"), equal, value("b")), true),
        (condition(span("r/1", "r/30"), equal, value("b")), false),
        (condition(span("r/3", "r/1"), equal, value("b")), false),
        (
            condition(span("r/3", "r/1"), equal, at(Revision::ZERO)),
            true,
        ),
        (condition(all.clone(), equal, Operand::Version(1)), true),
        (
            condition(all.clone(), greater, at(Revision(first.0 - 1))),
            true,
        ),
        (condition(all.clone(), greater, at(first)), false),
        (condition(all.clone(), less, at(last.next())), true),
        (condition(all.clone(), less, at(last)), false),
        (
            condition(KeyRange::From(c.key("r/3")), equal, at(last)),
            true,
        ),
        // A range without keys is like a key that is not there.
        (condition(none.clone(), equal, Operand::Version(0)), true),
        (condition(none.clone(), greater, Operand::Version(0)), false),
        (
            condition(none.clone(), equal, Operand::CreateRevision(Revision::ZERO)),
            true,
        ),
        (condition(none.clone(), equal, Operand::Lease(0)), true),
        (condition(none.clone(), not_equal, value("x")), false),
        (condition(none, equal, value("")), false),
    ];
    if c.subject.fresh {
        return ask(c, cases).await;
    }
    // Others may have left keys after this check's.
    let cases = cases
        .into_iter()
        .filter(|(condition, _)| !matches!(condition.keys, KeyRange::From(_)));
    ask(c, cases.collect()).await
}

async fn all_must_hold(c: &Context) -> Checked {
    if without(c) {
        return Ok(());
    }
    c.put("a", "1").await?;
    let right = condition(
        KeyRange::Key(c.key("a")),
        Relation::Equal,
        Operand::Value("1".into()),
    );
    let cases = [
        (vec![], true),
        (vec![right.clone()], true),
        (vec![right.clone(), right.clone()], true),
        (vec![right.clone(), never(c)], false),
        (vec![never(c), right], false),
        (vec![never(c)], false),
    ];
    for (conditions, wanted) in cases {
        let transaction = Transaction {
            conditions,
            ..Transaction::default()
        };
        same!(
            transact(c, transaction.clone()).await?.succeeded,
            wanted,
            format!("whether {transaction:?} succeeds")
        );
    }
    Ok(())
}

async fn take_a_branch(c: &Context) -> Checked {
    if without(c) {
        return Ok(());
    }
    let start = c.put("a", "1").await?;
    for (n, conditions) in [(1, vec![]), (2, vec![never(c)])] {
        let succeeds = conditions.is_empty();
        let transaction = Transaction {
            conditions,
            success: vec![put(c.key("a"), "yes"), put(c.key("b"), "yes")],
            failure: vec![delete(KeyRange::Key(c.key("b"))), put(c.key("a"), "no")],
        };
        let result = transact(c, transaction).await?;
        same!(result.succeeded, succeeds, "the branch that was taken");
        same!(
            result.revision,
            Revision(start.0 + n),
            "the revision of a transaction"
        );
        same!(result.steps.len(), 2, "the number of results");
        let found = c.short(&c.read(RangeRequest::new(c.all())).await?.items);
        let wanted = if succeeds {
            vec![("a", "yes"), ("b", "yes")]
        } else {
            vec![("a", "no")]
        };
        let wanted: Vec<_> = wanted
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        same!(found, wanted, "what stands after a transaction");
    }
    Ok(())
}
