//! Transactions.

use super::{Checked, Context, checks, ensure, same, wanted};
use crate::revision::Revision;
use crate::store::{Commit, Compare, KeyRange, Op, RangeRequest, StoreError, Txn};

checks!(
    conditions,
    refusals_tell_what_stands,
    all_or_nothing,
    create_update_delete,
    deleted_ranges,
    deleted_to_the_end,
    writes_beside_deletions,
    no_key_twice,
    many_writes,
);

async fn conditions(c: &Context) -> Checked {
    let created = c.put("a", "1").await?;
    let modified = c.put("a", "2").await?;
    let (a, none) = (c.key("a"), c.key("none"));
    let cases = [
        (Compare::ModRevision(a.clone(), modified), true),
        (Compare::ModRevision(a.clone(), created), false),
        (Compare::ModRevision(a.clone(), Revision::ZERO), false),
        (Compare::ModRevision(none.clone(), Revision::ZERO), true),
        (Compare::ModRevision(none.clone(), modified), false),
        (Compare::CreateRevision(a.clone(), created), true),
        (Compare::CreateRevision(a.clone(), modified), false),
        (Compare::CreateRevision(a.clone(), Revision::ZERO), false),
        (Compare::CreateRevision(none.clone(), Revision::ZERO), true),
        (Compare::CreateRevision(none.clone(), created), false),
        (Compare::Version(a.clone(), 2), true),
        (Compare::Version(a.clone(), 1), false),
        (Compare::Version(a.clone(), 0), false),
        (Compare::Version(none.clone(), 0), true),
        (Compare::Version(none.clone(), 1), false),
        (Compare::Value(a.clone(), "2".into()), true),
        (Compare::Value(a.clone(), "1".into()), false),
        (Compare::Value(none.clone(), "".into()), false),
    ];
    for (compare, wanted) in cases {
        let commit = c
            .store()
            .commit(Txn {
                compare: vec![compare.clone()],
                ops: Vec::new(),
            })
            .await?;
        same!(
            matches!(commit, Commit::Applied { .. }),
            wanted,
            format!("whether {compare:?} holds")
        );
    }
    let compare = vec![
        Compare::Version(a.clone(), 2),
        Compare::Version(none, 0),
        Compare::Value(a, "1".into()),
    ];
    let commit = c
        .store()
        .commit(Txn {
            compare,
            ops: Vec::new(),
        })
        .await?;
    ensure!(
        matches!(commit, Commit::Refused { .. }),
        "one of three conditions does not hold, and yet it was applied"
    );
    Ok(())
}

async fn refusals_tell_what_stands(c: &Context) -> Checked {
    c.put("a", "1").await?;
    let newest = c.put("b", "2").await?;
    let txn = Txn {
        compare: vec![
            Compare::Value(c.key("b"), "2".into()),
            Compare::Version(c.key("none"), 0),
            Compare::Value(c.key("a"), "other".into()),
        ],
        ops: vec![Op::Put {
            key: c.key("a"),
            value: "3".into(),
            lease: None,
        }],
    };
    let (revision, current) = wanted!(
        c.store().commit(txn).await,
        Ok(Commit::Refused { revision, current }) => (revision, current),
        "a transaction with a condition that does not hold"
    );
    same!(revision, newest, "the store's revision with a refusal");
    same!(
        current,
        [c.get("b").await?, None, c.get("a").await?],
        "what stands at the keys of the conditions"
    );
    same!(
        c.get("a").await?.map(|kv| kv.version),
        Some(1),
        "the version of a key after a refused write"
    );
    Ok(())
}

async fn all_or_nothing(c: &Context) -> Checked {
    c.put("a", "1").await?;
    let before = c.read(RangeRequest::new(c.all())).await?;
    let txn = Txn {
        compare: vec![Compare::Version(c.key("a"), 7)],
        ops: vec![
            Op::Put {
                key: c.key("b"),
                value: "2".into(),
                lease: None,
            },
            Op::Delete(KeyRange::Key(c.key("a"))),
        ],
    };
    ensure!(
        matches!(c.store().commit(txn).await?, Commit::Refused { .. }),
        "a wrong version was taken for right"
    );
    let after = c.read(RangeRequest::new(c.all())).await?;
    same!(after.items, before.items, "the keys after a refusal");
    same!(
        after.revision,
        before.revision,
        "the revision after a refusal"
    );
    Ok(())
}

async fn create_update_delete(c: &Context) -> Checked {
    let key = c.key("a");
    let first = c.apply(Txn::create(key.clone(), "1")).await?;
    ensure!(
        matches!(
            c.store().commit(Txn::create(key.clone(), "x")).await?,
            Commit::Refused { .. }
        ),
        "created twice"
    );
    let second = c.apply(Txn::update(key.clone(), "2", first)).await?;
    let stale = c
        .store()
        .commit(Txn::update(key.clone(), "x", first))
        .await?;
    ensure!(
        matches!(stale, Commit::Refused { .. }),
        "updated from a stale revision"
    );
    let stale = c.store().commit(Txn::delete(key.clone(), first)).await?;
    ensure!(
        matches!(stale, Commit::Refused { .. }),
        "deleted from a stale revision"
    );
    same!(
        c.get("a").await?.map(|kv| kv.value),
        Some("2".into()),
        "the value that stands"
    );
    let deleted = wanted!(
        c.store().commit(Txn::delete(key.clone(), second)).await,
        Ok(Commit::Applied { deleted, .. }) => deleted,
        "a delete at the right revision"
    );
    same!(deleted, 1, "the keys that a delete met");
    let gone = c.store().commit(Txn::delete(key.clone(), second)).await?;
    ensure!(matches!(gone, Commit::Refused { .. }), "deleted twice");
    c.apply(Txn::create(key, "again")).await?;
    Ok(())
}

async fn deleted_to_the_end(c: &Context) -> Checked {
    // The keys behind this check's may be somebody's where the store is shared.
    if !c.subject.fresh {
        return Ok(());
    }
    for name in ["a", "b", "b/1", "c"] {
        c.put(name, "x").await?;
    }
    let txn = Txn {
        compare: Vec::new(),
        ops: vec![Op::Delete(KeyRange::From(c.key("b")))],
    };
    let commit = c.store().commit(txn).await?;
    ensure!(
        matches!(commit, Commit::Applied { deleted: 3, .. }),
        "wanted three keys deleted, got {commit:?}"
    );
    let left = c.short(&c.read(RangeRequest::new(c.all())).await?.items);
    same!(left, [("a".to_owned(), "x".to_owned())], "what is left");
    Ok(())
}

async fn deleted_ranges(c: &Context) -> Checked {
    for name in ["a/1", "a/2", "a/3", "b/1", "b/2", "c"] {
        c.put(name, "x").await?;
    }
    c.delete("a/2").await?;
    let cases = [
        (KeyRange::Prefix(c.key("a/")), 2, "b/1 b/2 c"),
        (KeyRange::Span(c.key("b/1"), c.key("b/2")), 1, "b/2 c"),
        (KeyRange::Span(c.key("z"), c.key("a")), 0, "b/2 c"),
        (KeyRange::Key(c.key("c")), 1, "b/2"),
        (c.all(), 1, ""),
        (c.all(), 0, ""),
    ];
    for (keys, wanted, left) in cases {
        let before = c.store().revision().await?;
        let deleted = wanted!(
            c.store().commit(Txn { compare: Vec::new(), ops: vec![Op::Delete(keys.clone())] }).await,
            Ok(Commit::Applied { deleted, .. }) => deleted,
            "a delete of a range"
        );
        same!(
            deleted,
            wanted,
            format!("the keys that the delete of {keys:?} met")
        );
        let read = c.read(RangeRequest::new(c.all())).await?;
        let names: Vec<_> = read.items.iter().map(|kv| c.name(&kv.key)).collect();
        same!(
            names.join(" "),
            left,
            format!("the keys after the delete of {keys:?}")
        );
        let after = if wanted == 0 { before } else { before.next() };
        same!(
            read.revision,
            after,
            "the revision after a delete of a range"
        );
    }
    Ok(())
}

async fn writes_beside_deletions(c: &Context) -> Checked {
    c.put("a/1", "x").await?;
    c.put("a/2", "x").await?;
    let txn = Txn {
        compare: vec![Compare::Version(c.key("a/1"), 1)],
        ops: vec![
            Op::Put {
                key: c.key("b"),
                value: "y".into(),
                lease: None,
            },
            Op::Delete(KeyRange::Prefix(c.key("a/"))),
            Op::Delete(KeyRange::Key(c.key("none"))),
        ],
    };
    let (revision, deleted) = wanted!(
        c.store().commit(txn).await,
        Ok(Commit::Applied { revision, deleted }) => (revision, deleted),
        "a write beside a deletion"
    );
    same!(deleted, 2, "the keys that were deleted");
    let read = c.read(RangeRequest::new(c.all())).await?;
    same!(
        c.short(&read.items),
        [("b".to_owned(), "y".to_owned())],
        "what is left"
    );
    same!(
        read.items.first().map(|kv| kv.mod_revision),
        Some(revision),
        "its revision"
    );
    Ok(())
}

async fn no_key_twice(c: &Context) -> Checked {
    let before = c.put("a/1", "x").await?;
    let put = |name: &str| Op::Put {
        key: c.key(name),
        value: "y".into(),
        lease: None,
    };
    let cases = [
        vec![put("b"), put("c"), put("b")],
        vec![put("b"), Op::Delete(KeyRange::Key(c.key("b")))],
        vec![Op::Delete(KeyRange::Prefix(c.key("a/"))), put("a/1")],
        vec![
            put("a/9"),
            Op::Delete(KeyRange::Span(c.key("a/1"), c.key("b"))),
        ],
        vec![Op::Put {
            key: "".into(),
            value: "y".into(),
            lease: None,
        }],
    ];
    for ops in cases {
        let what = format!("{ops:?}");
        wanted!(
            c.store().commit(Txn { compare: Vec::new(), ops }).await,
            Err(StoreError::InvalidRequest(_)) => (),
            format!("a transaction that breaks the rules, {what}")
        );
    }
    same!(
        c.store().revision().await?,
        before,
        "the revision after refused requests"
    );
    let read = c.read(RangeRequest::new(c.all())).await?;
    same!(
        c.short(&read.items),
        [("a/1".to_owned(), "x".to_owned())],
        "the keys after refused requests"
    );
    // Side by side is not twice.
    c.apply(Txn {
        compare: Vec::new(),
        ops: vec![
            put("b"),
            Op::Delete(KeyRange::Prefix(c.key("a/"))),
            put("a"),
        ],
    })
    .await?;
    Ok(())
}

async fn many_writes(c: &Context) -> Checked {
    let ops: Vec<_> = (0..100)
        .map(|n| Op::Put {
            key: c.key(&format!("k{n:03}")),
            value: n.to_string().into(),
            lease: None,
        })
        .collect();
    let revision = c
        .apply(Txn {
            compare: Vec::new(),
            ops,
        })
        .await?;
    let read = c.read(RangeRequest::new(c.all())).await?;
    same!(
        read.items.len(),
        100,
        "the keys of a transaction of 100 writes"
    );
    ensure!(
        read.items
            .iter()
            .all(|kv| kv.mod_revision == revision && kv.version == 1),
        "they differ in revision"
    );
    Ok(())
}
