//! What the steps of a transaction read and give.

use super::{
    always, as_delete, as_nested, as_put, as_read, delete, put, read, transact, without,
    without_ranges,
};
use crate::conformance::store::{Checked, Context, checks, ensure, same, text};
use crate::revision::Revision;
use crate::store::{KeyRange, RangeRequest, Step, StepResult};

checks!(
    beside_other_steps,
    see_what_was_written,
    of_ranges_among_writes,
    of_the_past,
);

async fn beside_other_steps(c: &Context) -> Checked {
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

async fn see_what_was_written(c: &Context) -> Checked {
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

async fn of_ranges_among_writes(c: &Context) -> Checked {
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

async fn of_the_past(c: &Context) -> Checked {
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
                .map(|kv| format!("{}={}", c.name(&kv.key), text(&kv.value)))
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
