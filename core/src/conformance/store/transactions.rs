//! Transactions with branches.

use bytes::Bytes;

use super::{Checked, Context, Failure, Transactions, checks, ensure, same, sketch, wanted};
use crate::revision::Revision;
use crate::store::{
    Condition, KeyRange, KeyValue, LeaseId, Operand, PutLease, RangeRequest, RangeResult, Relation,
    Step, StepResult, StoreError, Transaction, TransactionResult,
};

checks!(
    conditions_on_a_key,
    conditions_on_ranges,
    all_conditions_must_hold,
    branches,
    results_of_steps,
    reads_see_what_was_written,
    reads_of_ranges_among_writes,
    reads_of_the_past,
    previous_values,
    kept_values,
    kept_leases,
    deletions,
    nested,
    nested_conditions_look_at_the_state_before,
    what_changes_nothing,
    no_key_twice,
    a_failure_leaves_nothing,
    one_revision,
);

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

fn condition(keys: KeyRange, relation: Relation, operand: Operand) -> Condition {
    Condition {
        keys,
        relation,
        operand,
    }
}

fn put(key: Bytes, value: &'static str) -> Step {
    Step::Put {
        key,
        value: Some(value.into()),
        lease: PutLease::Set(None),
        previous: false,
    }
}

fn put_back(key: Bytes, value: &'static str) -> Step {
    Step::Put {
        key,
        value: Some(value.into()),
        lease: PutLease::Set(None),
        previous: true,
    }
}

fn keep_value(key: Bytes, lease: PutLease) -> Step {
    Step::Put {
        key,
        value: None,
        lease,
        previous: false,
    }
}

fn delete(keys: KeyRange) -> Step {
    Step::Delete {
        keys,
        previous: false,
    }
}

fn read(key: Bytes) -> Step {
    Step::Read(RangeRequest::new(KeyRange::Key(key)))
}

fn always(success: Vec<Step>) -> Transaction {
    Transaction {
        success,
        ..Transaction::default()
    }
}

/// A condition that never holds.
fn never(c: &Context) -> Condition {
    condition(
        KeyRange::Key(c.key("never")),
        Relation::Greater,
        Operand::Version(0),
    )
}

async fn transact(c: &Context, transaction: Transaction) -> Result<TransactionResult, Failure> {
    Ok(c.store().transact(transaction).await?)
}

fn as_read(step: &StepResult) -> Result<&RangeResult, Failure> {
    match step {
        StepResult::Read(read) => Ok(read),
        other => Err(Failure(format!("wanted what was read, got {other:?}"))),
    }
}

fn as_put(step: &StepResult) -> Result<Option<&KeyValue>, Failure> {
    match step {
        StepResult::Put { previous } => Ok(previous.as_ref()),
        other => Err(Failure(format!("wanted what was put, got {other:?}"))),
    }
}

fn as_delete(step: &StepResult) -> Result<(u64, &[KeyValue]), Failure> {
    match step {
        StepResult::Delete { deleted, previous } => Ok((*deleted, previous)),
        other => Err(Failure(format!("wanted what was deleted, got {other:?}"))),
    }
}

fn as_nested(step: &StepResult) -> Result<&TransactionResult, Failure> {
    match step {
        StepResult::Nested(result) => Ok(result),
        other => Err(Failure(format!(
            "wanted a nested transaction's result, got {other:?}"
        ))),
    }
}

fn without(c: &Context) -> bool {
    c.subject.transactions == Transactions::None
}

fn without_ranges(c: &Context) -> bool {
    c.subject.transactions != Transactions::All
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

async fn conditions_on_a_key(c: &Context) -> Checked {
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

async fn conditions_on_ranges(c: &Context) -> Checked {
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

async fn all_conditions_must_hold(c: &Context) -> Checked {
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

async fn branches(c: &Context) -> Checked {
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

async fn results_of_steps(c: &Context) -> Checked {
    if without(c) {
        return Ok(());
    }
    let a = c.put("a", "1").await?;
    let steps = vec![
        read(c.key("a")),
        put(c.key("b"), "2"),
        delete(KeyRange::Key(c.key("none"))),
        read(c.key("none")),
        Step::Nested(always(vec![])),
    ];
    let result = transact(c, always(steps)).await?;
    same!(result.steps.len(), 5, "the number of results");
    let found = as_read(&result.steps[0])?;
    same!(
        c.short(&found.items),
        [("a".to_owned(), "1".to_owned())],
        "what was read"
    );
    same!(
        found.items.first().map(|kv| kv.mod_revision),
        Some(a),
        "the revision of what was read"
    );
    same!(as_put(&result.steps[1])?, None, "what nobody asked for");
    same!(
        as_delete(&result.steps[2])?,
        (0, [].as_slice()),
        "a deletion of nothing"
    );
    ensure!(
        as_read(&result.steps[3])?.items.is_empty(),
        "a key that is not there was read"
    );
    let nested = as_nested(&result.steps[4])?;
    ensure!(
        nested.succeeded && nested.steps.is_empty(),
        "an empty transaction came to {nested:?}"
    );
    Ok(())
}

async fn reads_see_what_was_written(c: &Context) -> Checked {
    if without(c) {
        return Ok(());
    }
    let made = c.put("a", "1").await?;
    c.put("gone", "1").await?;
    let steps = vec![
        read(c.key("a")),
        put(c.key("a"), "2"),
        read(c.key("a")),
        put(c.key("new"), "3"),
        read(c.key("new")),
        delete(KeyRange::Key(c.key("gone"))),
        read(c.key("gone")),
        Step::Nested(always(vec![read(c.key("a"))])),
        Step::Read(RangeRequest {
            count_only: true,
            ..RangeRequest::new(KeyRange::Key(c.key("new")))
        }),
    ];
    let result = transact(c, always(steps)).await?;
    let kv = |step: &StepResult| as_read(step).map(|read| read.items.first().cloned());
    let before = kv(&result.steps[0])?;
    same!(
        before.map(|kv| (kv.value, kv.mod_revision, kv.version)),
        Some(("1".into(), made, 1)),
        "a key before it was written"
    );
    let own = kv(&result.steps[2])?;
    same!(
        own.as_ref()
            .map(|kv| (&*kv.value, kv.create_revision, kv.mod_revision, kv.version)),
        Some((b"2".as_slice(), made, result.revision, 2)),
        "a key after it was written"
    );
    let new = kv(&result.steps[4])?;
    same!(
        new.map(|kv| (kv.value, kv.create_revision, kv.mod_revision, kv.version)),
        Some(("3".into(), result.revision, result.revision, 1)),
        "a key after it was made"
    );
    same!(kv(&result.steps[6])?, None, "a key after it was deleted");
    same!(
        kv(&as_nested(&result.steps[7])?.steps[0])?,
        own,
        "a key that a nested transaction reads"
    );
    same!(
        as_read(&result.steps[8])?.remaining,
        1,
        "the count of a key that was made"
    );
    Ok(())
}

async fn reads_of_ranges_among_writes(c: &Context) -> Checked {
    if without_ranges(c) {
        return Ok(());
    }
    for name in ["a", "b", "c"] {
        c.put(name, "1").await?;
    }
    let all = || Step::Read(RangeRequest::new(c.all()));
    let result = transact(
        c,
        always(vec![
            all(),
            put(c.key("b2"), "2"),
            delete(KeyRange::Span(c.key("a"), c.key("b"))),
            all(),
            Step::Read(RangeRequest::new(c.all()).page(1, Some(c.key("b")))),
            Step::Read(RangeRequest {
                count_only: true,
                ..RangeRequest::new(c.all())
            }),
            delete(KeyRange::Span(c.key("c"), c.key("d"))),
        ]),
    )
    .await?;
    let names = |step: &StepResult| {
        as_read(step).map(|read| {
            let names: Vec<_> = read.items.iter().map(|kv| c.name(&kv.key)).collect();
            (names.join(" "), read.remaining)
        })
    };
    same!(
        names(&result.steps[0])?,
        ("a b c".to_owned(), 0),
        "a range before it was written"
    );
    same!(
        names(&result.steps[3])?,
        ("b b2 c".to_owned(), 0),
        "a range after it was written"
    );
    same!(
        names(&result.steps[4])?,
        ("b2".to_owned(), 1),
        "a page of a range after it was written"
    );
    same!(
        names(&result.steps[5])?,
        (String::new(), 3),
        "a count of a range after it was written"
    );
    same!(
        as_delete(&result.steps[6])?.0,
        1,
        "a deletion beside other writes"
    );
    Ok(())
}

async fn reads_of_the_past(c: &Context) -> Checked {
    if without(c) {
        return Ok(());
    }
    let old = c.put("a", "old").await?;
    c.put("b", "old").await?;
    let newest = c.put("a", "new").await?;
    let at = |revision| Step::Read(RangeRequest::new(c.all()).at(revision));
    let steps = vec![
        put(c.key("a"), "newer"),
        at(old),
        at(newest),
        Step::Read(RangeRequest::new(KeyRange::Key(c.key("a"))).at(Revision::ZERO)),
    ];
    let result = transact(c, always(steps)).await?;
    let found = |step: &StepResult| {
        as_read(step).map(|read| {
            let items = read.items.iter();
            let items: Vec<_> = items
                .map(|kv| format!("{}={}", c.name(&kv.key), super::text(&kv.value)))
                .collect();
            items.join(" ")
        })
    };
    same!(found(&result.steps[1])?, "a=old", "the past");
    same!(found(&result.steps[2])?, "a=new b=old", "what stood before");
    same!(
        found(&result.steps[3])?,
        "a=newer",
        "revision zero, which is the transaction's own state"
    );
    Ok(())
}

async fn previous_values(c: &Context) -> Checked {
    if without(c) {
        return Ok(());
    }
    let made = c.put("a", "1").await?;
    c.put("d", "1").await?;
    let steps = vec![
        put_back(c.key("a"), "2"),
        put_back(c.key("new"), "1"),
        Step::Delete {
            keys: KeyRange::Key(c.key("d")),
            previous: true,
        },
        Step::Delete {
            keys: KeyRange::Key(c.key("none")),
            previous: true,
        },
    ];
    let result = transact(c, always(steps)).await?;
    let previous = as_put(&result.steps[0])?;
    same!(
        previous.map(|kv| (&*kv.key, &*kv.value, kv.mod_revision, kv.version)),
        Some((&*c.key("a"), b"1".as_slice(), made, 1)),
        "what was there before a write"
    );
    same!(
        as_put(&result.steps[1])?,
        None,
        "what was there before a key was made"
    );
    let (count, previous) = as_delete(&result.steps[2])?;
    same!(
        (count, c.short(previous)),
        (1, vec![("d".to_owned(), "1".to_owned())]),
        "what was there before a deletion"
    );
    same!(
        as_delete(&result.steps[3])?,
        (0, [].as_slice()),
        "what was there before a deletion of nothing"
    );
    Ok(())
}

async fn kept_values(c: &Context) -> Checked {
    if without(c) {
        return Ok(());
    }
    let made = c.put("a", "kept").await?;
    let steps = vec![
        keep_value(c.key("a"), PutLease::Set(None)),
        read(c.key("a")),
    ];
    let result = transact(c, always(steps)).await?;
    let found = as_read(&result.steps[1])?.items.first();
    same!(
        found.map(|kv| (&*kv.value, kv.create_revision, kv.mod_revision, kv.version)),
        Some((b"kept".as_slice(), made, result.revision, 2)),
        "a key whose value was kept"
    );
    for lease in [PutLease::Set(None), PutLease::Keep] {
        let before = c.store().revision().await?;
        let steps = vec![put(c.key("b"), "x"), keep_value(c.key("none"), lease)];
        let kept = c.store().transact(always(steps)).await;
        let key =
            wanted!(kept, Err(StoreError::KeyNotFound(key)) => key, "the value of no key kept");
        same!(key, c.key("none"), "the key that was not found");
        same!(
            c.get("b").await?,
            None,
            "a key beside the one that was not found"
        );
        same!(
            c.store().revision().await?,
            before,
            "the revision after a transaction that failed"
        );
    }
    Ok(())
}

async fn kept_leases(c: &Context) -> Checked {
    if without(c) || !c.subject.leases {
        return Ok(());
    }
    let lease = c.store().grant_lease(None, 3600).await?;
    let hung = |name: &str| Step::Put {
        key: c.key(name),
        value: Some("1".into()),
        lease: PutLease::Set(Some(lease)),
        previous: false,
    };
    let keeping = |name: &str, value: Option<&'static str>| Step::Put {
        key: c.key(name),
        value: value.map(Bytes::from),
        lease: PutLease::Keep,
        previous: false,
    };
    c.put("free", "1").await?;
    let all = ["stays", "goes", "moves"];
    transact(c, always(all.map(hung).to_vec())).await?;
    let other = c.store().grant_lease(None, 3600).await?;
    let steps = vec![
        keeping("stays", Some("2")),
        put(c.key("goes"), "2"),
        keep_value(c.key("moves"), PutLease::Set(Some(other))),
        keeping("free", None),
    ];
    transact(c, always(steps)).await?;
    let cases = [
        ("stays", "2", Some(lease)),
        ("goes", "2", None),
        ("moves", "1", Some(other)),
        ("free", "1", None),
    ];
    for (name, value, lease) in cases {
        let kv = c.get(name).await?;
        same!(
            kv.map(|kv| (super::text(&kv.value), kv.lease)),
            Some((value.to_owned(), lease)),
            format!("the value and the lease of {name}")
        );
    }
    c.store().revoke_lease(lease).await?;
    c.store().revoke_lease(other).await?;
    let left = c.short(&c.read(RangeRequest::new(c.all())).await?.items);
    let left: Vec<_> = left.iter().map(|(key, _)| key.as_str()).collect();
    same!(left, ["free", "goes"], "the keys that hang on no lease");
    let gone = Step::Put {
        key: c.key("a"),
        value: Some("x".into()),
        lease: PutLease::Set(Some(lease)),
        previous: false,
    };
    let put = c
        .store()
        .transact(always(vec![put(c.key("b"), "x"), gone]))
        .await;
    let id = wanted!(put, Err(StoreError::LeaseNotFound(id)) => id, "a key hung on no lease");
    same!(id, lease, "the lease that was not found");
    same!(
        c.get("b").await?,
        None,
        "a key beside the one that was refused"
    );
    Ok(())
}

async fn deletions(c: &Context) -> Checked {
    if without_ranges(c) {
        return Ok(());
    }
    for name in ["a/1", "a/2", "a/3", "b"] {
        c.put(name, "x").await?;
    }
    let steps = vec![
        Step::Delete {
            keys: KeyRange::Key(c.key("a/2")),
            previous: true,
        },
        // What is gone already is not met again.
        Step::Delete {
            keys: KeyRange::Prefix(c.key("a/")),
            previous: true,
        },
        Step::Delete {
            keys: KeyRange::Span(c.key("a/"), c.key("a/3")),
            previous: true,
        },
        delete(KeyRange::Span(c.key("z"), c.key("a"))),
        Step::Read(RangeRequest::new(c.all())),
    ];
    let result = transact(c, always(steps)).await?;
    let found = |step| {
        as_delete(step).map(|(count, previous)| {
            let names: Vec<_> = previous.iter().map(|kv| c.name(&kv.key)).collect();
            (count, names.join(" "))
        })
    };
    same!(
        found(&result.steps[0])?,
        (1, "a/2".to_owned()),
        "the deletion of a key"
    );
    same!(
        found(&result.steps[1])?,
        (2, "a/1 a/3".to_owned()),
        "the deletion of a prefix"
    );
    same!(
        found(&result.steps[2])?,
        (0, String::new()),
        "the deletion of what is gone"
    );
    same!(
        found(&result.steps[3])?,
        (0, String::new()),
        "the deletion of an empty span"
    );
    let left = &as_read(&result.steps[4])?.items;
    same!(
        c.short(left),
        [("b".to_owned(), "x".to_owned())],
        "what is left"
    );
    Ok(())
}

async fn nested(c: &Context) -> Checked {
    if without(c) {
        return Ok(());
    }
    c.put("a", "1").await?;
    let has = |value: &'static str| {
        let value = Operand::Value(value.into());
        condition(KeyRange::Key(c.key("a")), Relation::Equal, value)
    };
    let inner = |value: &'static str, name: &str| {
        Step::Nested(Transaction {
            conditions: vec![has(value)],
            success: vec![put(c.key(name), "yes")],
            failure: vec![
                put(c.key(name), "no"),
                Step::Nested(Transaction {
                    conditions: vec![never(c)],
                    success: vec![put(c.key(&format!("{name}/deep")), "yes")],
                    failure: vec![put_back(c.key(&format!("{name}/deep")), "no")],
                }),
            ],
        })
    };
    let transaction = Transaction {
        conditions: vec![has("1")],
        success: vec![inner("1", "x"), inner("2", "y"), put(c.key("z"), "z")],
        failure: vec![put(c.key("a"), "wrong")],
    };
    let result = transact(c, transaction).await?;
    ensure!(result.succeeded, "the outer condition did not hold");
    let (x, y) = (as_nested(&result.steps[0])?, as_nested(&result.steps[1])?);
    same!(
        (x.succeeded, x.steps.len()),
        (true, 1),
        "the first nested transaction"
    );
    same!(
        (y.succeeded, y.steps.len()),
        (false, 2),
        "the second nested transaction"
    );
    let deep = as_nested(&y.steps[1])?;
    same!(
        (deep.succeeded, deep.steps.len()),
        (false, 1),
        "the deepest transaction"
    );
    same!(as_put(&deep.steps[0])?, None, "what was there in the deep");
    let found = c.read(RangeRequest::new(c.all())).await?;
    let revisions: Vec<_> = found
        .items
        .iter()
        .skip(1)
        .map(|kv| kv.mod_revision)
        .collect();
    same!(
        revisions,
        [result.revision; 4],
        "the revisions of all writes"
    );
    let wanted = [
        ("a", "1"),
        ("x", "yes"),
        ("y", "no"),
        ("y/deep", "no"),
        ("z", "z"),
    ];
    let wanted = wanted.map(|(key, value)| (key.to_owned(), value.to_owned()));
    same!(
        c.short(&found.items),
        wanted,
        "what stands after nested transactions"
    );
    Ok(())
}

async fn nested_conditions_look_at_the_state_before(c: &Context) -> Checked {
    if without(c) {
        return Ok(());
    }
    c.put("a", "1").await?;
    let transaction = always(vec![
        put(c.key("a"), "2"),
        Step::Nested(Transaction {
            conditions: vec![condition(
                KeyRange::Key(c.key("a")),
                Relation::Equal,
                Operand::Value("1".into()),
            )],
            success: vec![read(c.key("a"))],
            failure: vec![],
        }),
    ]);
    let result = transact(c, transaction).await?;
    let nested = as_nested(&result.steps[1])?;
    ensure!(
        nested.succeeded,
        "the condition of a nested transaction saw what the outer one wrote"
    );
    same!(
        c.short(&as_read(&nested.steps[0])?.items),
        [("a".to_owned(), "2".to_owned())],
        "what a nested transaction reads"
    );
    Ok(())
}

async fn what_changes_nothing(c: &Context) -> Checked {
    if without(c) {
        return Ok(());
    }
    let newest = c.put("a", "1").await?;
    let transactions = [
        Transaction::default(),
        always(vec![read(c.key("a"))]),
        always(vec![Step::Read(RangeRequest::new(c.all()))]),
        always(vec![delete(KeyRange::Key(c.key("none")))]),
        always(vec![delete(KeyRange::Prefix(c.key("none/")))]),
        Transaction {
            conditions: vec![never(c)],
            success: vec![put(c.key("a"), "2")],
            failure: vec![],
        },
    ];
    for transaction in transactions {
        let result = transact(c, transaction.clone()).await?;
        same!(
            result.revision,
            newest,
            format!("the revision after {transaction:?}")
        );
        let result = transact(c, always(vec![Step::Nested(transaction)])).await?;
        same!(result.revision, newest, "the revision after a nested one");
    }
    same!(
        c.store().revision().await?,
        newest,
        "the revision after transactions that changed nothing"
    );
    Ok(())
}

async fn no_key_twice(c: &Context) -> Checked {
    if without(c) {
        return Ok(());
    }
    let (a, range) = (c.key("a"), KeyRange::Prefix(c.key("a")));
    let nest = |success, failure| {
        Step::Nested(Transaction {
            conditions: vec![],
            success,
            failure,
        })
    };
    let write = || put(a.clone(), "1");
    let wrong = [
        vec![write(), write()],
        vec![write(), delete(range.clone())],
        vec![delete(range.clone()), write()],
        vec![write(), delete(KeyRange::Key(a.clone()))],
        vec![write(), nest(vec![write()], vec![])],
        vec![write(), nest(vec![], vec![write()])],
        vec![nest(vec![write()], vec![]), nest(vec![], vec![write()])],
        vec![delete(range.clone()), nest(vec![], vec![write()])],
        vec![nest(vec![delete(range.clone())], vec![]), write()],
        vec![nest(vec![nest(vec![write()], vec![])], vec![]), write()],
    ];
    let before = c.store().revision().await?;
    for steps in wrong {
        // Also where the branch is not taken.
        for taken in [true, false] {
            let transaction = Transaction {
                conditions: if taken { vec![] } else { vec![never(c)] },
                success: steps.clone(),
                failure: vec![],
            };
            let done = c.store().transact(transaction).await;
            wanted!(done, Err(StoreError::InvalidRequest(_)) => (), format!("{steps:?}"));
        }
    }
    let empty = c
        .store()
        .transact(always(vec![put(Bytes::new(), "x")]))
        .await;
    wanted!(empty, Err(StoreError::InvalidRequest(_)) => (), "a write of the empty key");
    same!(
        c.store().revision().await?,
        before,
        "the revision after transactions that were refused"
    );
    let either = Transaction {
        conditions: vec![never(c)],
        success: vec![write()],
        failure: vec![nest(vec![write()], vec![write()])],
    };
    let result = transact(c, either).await?;
    same!(
        result.revision,
        before.next(),
        "the revision of a transaction whose branches write the same key"
    );
    Ok(())
}

async fn a_failure_leaves_nothing(c: &Context) -> Checked {
    if without(c) {
        return Ok(());
    }
    c.put("a", "1").await?;
    c.put("d", "1").await?;
    let newest = c.put("a", "2").await?;
    let past = |revision| Step::Read(RangeRequest::new(KeyRange::Key(c.key("a"))).at(revision));
    let future = newest.next();
    let mut cases = vec![
        vec![past(future)],
        vec![Step::Nested(always(vec![past(future)]))],
        vec![keep_value(c.key("none"), PutLease::Set(None))],
    ];
    if c.subject.leases {
        let lease = c.store().grant_lease(None, 3600).await?;
        c.store().revoke_lease(lease).await?;
        cases.push(vec![Step::Put {
            key: c.key("hung"),
            value: Some("x".into()),
            lease: PutLease::Set(Some(LeaseId(lease.0))),
            previous: false,
        }]);
    }
    let mut watch = c.watch(c.all(), future).await?;
    for last in cases {
        let mut steps = vec![
            put(c.key("a"), "3"),
            put(c.key("b"), "3"),
            delete(KeyRange::Key(c.key("d"))),
        ];
        steps.extend(last);
        let done = c.store().transact(always(steps.clone())).await;
        ensure!(
            matches!(
                done,
                Err(StoreError::FutureRevision { .. }
                    | StoreError::KeyNotFound(_)
                    | StoreError::LeaseNotFound(_))
            ),
            "wanted an error from {steps:?}, got {done:?}"
        );
    }
    // The branch that is not taken may hold what cannot be done.
    let transaction = Transaction {
        conditions: vec![never(c)],
        success: vec![past(future), keep_value(c.key("none"), PutLease::Keep)],
        failure: vec![],
    };
    ensure!(
        !transact(c, transaction).await?.succeeded,
        "a condition held that never does"
    );
    let found = c.short(&c.read(RangeRequest::new(c.all())).await?.items);
    let wanted = [("a", "2"), ("d", "1")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    same!(found, wanted, "what stands after transactions that failed");
    same!(
        c.store().revision().await?,
        newest,
        "the revision after transactions that failed"
    );
    let next = c.put("e", "1").await?;
    same!(next, future, "the revision of the next commit");
    same!(
        sketch(c, &watch.changes(1).await?),
        ["+e=1"],
        "what a watch saw of transactions that failed"
    );
    let compacted = c.store().compact(next).await;
    if compacted.is_ok() {
        let steps = vec![put(c.key("a"), "4"), past(newest)];
        let done = c.store().transact(always(steps)).await;
        wanted!(done, Err(StoreError::Compacted { .. }) => (), "a read of what was compacted");
        same!(
            c.store().revision().await?,
            next,
            "the revision after a read of what was compacted"
        );
    }
    Ok(())
}

async fn one_revision(c: &Context) -> Checked {
    if without(c) {
        return Ok(());
    }
    c.put("d", "1").await?;
    let from = c.put("a", "1").await?.next();
    let mut watch = c.watch(c.all(), from).await?;
    let steps = vec![
        put(c.key("b"), "2"),
        delete(KeyRange::Key(c.key("d"))),
        Step::Nested(always(vec![put(c.key("a"), "2"), put(c.key("c"), "2")])),
    ];
    let result = transact(c, always(steps)).await?;
    same!(result.revision, from, "the revision of a transaction");
    let batches = watch.batches(4).await?;
    same!(
        batches.len(),
        1,
        "the number of items that a transaction makes"
    );
    same!(
        sketch(c, &batches[0]),
        ["+b=2", "-d", "+a=2", "+c=2"],
        "the changes of a transaction, in the order of its steps"
    );
    ensure!(
        batches[0].iter().all(|change| change.revision() == from),
        "a change of a transaction has another revision: {batches:?}"
    );
    let before = c
        .read(RangeRequest::new(c.all()).at(Revision(from.0 - 1)))
        .await?;
    let wanted = [("a", "1"), ("d", "1")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    same!(
        c.short(&before.items),
        wanted,
        "the state before a transaction"
    );
    Ok(())
}
