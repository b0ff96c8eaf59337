//! Transactions as steps of transactions.

use super::{
    always, as_nested, as_put, as_read, condition, never, put, put_back, read, transact, without,
};
use crate::conformance::store::{Checked, Context, checks, ensure, same};
use crate::store::{KeyRange, Operand, RangeRequest, Relation, Step, Transaction};

checks!(
    transactions_within_transactions,
    conditions_look_at_the_state_before,
);

async fn transactions_within_transactions(c: &Context) -> Checked {
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

async fn conditions_look_at_the_state_before(c: &Context) -> Checked {
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
