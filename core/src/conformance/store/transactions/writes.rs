//! What the steps of a transaction write, and at which revision.

use bytes::Bytes;

use super::{
    always, as_delete, as_put, as_read, delete, keep_value, never, put, put_back, read, transact,
    without, without_ranges,
};
use crate::conformance::store::{Checked, Context, checks, ensure, same, sketch, text, wanted};
use crate::revision::Revision;
use crate::store::{KeyRange, PutLease, RangeRequest, Step, StoreError, Transaction};

checks!(
    previous_values,
    kept_values,
    kept_leases,
    deletions,
    what_changes_nothing,
    come_at_one_revision,
);

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
            kv.map(|kv| (text(&kv.value), kv.lease)),
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

async fn come_at_one_revision(c: &Context) -> Checked {
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
