//! How revisions and versions are counted.

use super::{Checked, Context, checks, ensure, same, wanted};
use crate::revision::Revision;
use crate::store::{Commit, Compare, KeyRange, Op, RangeRequest, Txn};

checks!(
    begin_at_one,
    rise_by_one,
    stand_still_for_nothing,
    are_kept_with_keys,
    are_shared_by_a_transaction
);

async fn begin_at_one(c: &Context) -> Checked {
    if !c.subject.fresh {
        return Ok(());
    }
    same!(
        c.store().revision().await?,
        Revision(1),
        "the revision of an empty store"
    );
    same!(
        c.put("a", "1").await?,
        Revision(2),
        "the first commit's revision"
    );
    let whole = c.read(RangeRequest::new(KeyRange::prefix(""))).await?;
    same!(
        c.short(&whole.items),
        [("a".to_owned(), "1".to_owned())],
        "the whole store"
    );
    Ok(())
}

async fn rise_by_one(c: &Context) -> Checked {
    let mut last = c.store().revision().await?;
    for turn in 0..20 {
        let revision = if turn % 3 == 2 {
            c.delete("a").await?
        } else {
            c.put("a", "x").await?
        };
        same!(revision, last.next(), "a commit's revision");
        same!(
            c.store().revision().await?,
            revision,
            "the store's revision after a commit"
        );
        last = revision;
    }
    Ok(())
}

async fn stand_still_for_nothing(c: &Context) -> Checked {
    let before = c.put("a", "1").await?;
    let nothing = [
        Txn::default(),
        Txn {
            compare: vec![Compare::Value(c.key("a"), "1".into())],
            ops: Vec::new(),
        },
        Txn {
            compare: Vec::new(),
            ops: vec![Op::Delete(KeyRange::Key(c.key("none")))],
        },
        Txn {
            compare: Vec::new(),
            ops: vec![Op::Delete(KeyRange::Prefix(c.key("none/")))],
        },
    ];
    for txn in nothing {
        let (revision, deleted) = wanted!(
            c.store().commit(txn).await,
            Ok(Commit::Applied { revision, deleted }) => (revision, deleted),
            "a transaction without effect"
        );
        same!(
            revision,
            before,
            "the revision of a transaction without effect"
        );
        same!(deleted, 0, "the keys that it deleted");
    }
    let refused = c.store().commit(Txn::create(c.key("a"), "2")).await?;
    ensure!(
        matches!(refused, Commit::Refused { .. }),
        "a key was created twice"
    );
    same!(
        c.store().revision().await?,
        before,
        "the revision after a refusal"
    );
    same!(
        c.put("b", "1").await?,
        before.next(),
        "the revision of the next commit"
    );
    Ok(())
}

async fn are_kept_with_keys(c: &Context) -> Checked {
    let first = c.put("a", "1").await?;
    let second = c.put("a", "2").await?;
    let third = c.put("a", "2").await?;
    let kv = c.get("a").await?;
    let counted = kv.map(|kv| (kv.create_revision, kv.mod_revision, kv.version));
    same!(
        counted,
        Some((first, third, 3)),
        "create revision, mod revision and version after three writes"
    );
    same!(
        third,
        second.next(),
        "the revision of a write that changes no byte"
    );
    c.delete("a").await?;
    same!(c.get("a").await?, None, "a deleted key");
    let again = c.put("a", "3").await?;
    let counted = c
        .get("a")
        .await?
        .map(|kv| (kv.create_revision, kv.mod_revision, kv.version));
    same!(
        counted,
        Some((again, again, 1)),
        "create revision, mod revision and version of a key made again"
    );
    Ok(())
}

async fn are_shared_by_a_transaction(c: &Context) -> Checked {
    c.put("old", "1").await?;
    let ops = ["a", "b", "c"].map(|name| Op::Put {
        key: c.key(name),
        value: "x".into(),
        lease: None,
    });
    let mut txn = Txn {
        compare: Vec::new(),
        ops: ops.to_vec(),
    };
    txn.ops.push(Op::Delete(KeyRange::Key(c.key("old"))));
    let revision = c.apply(txn).await?;
    for name in ["a", "b", "c"] {
        let found = c.get(name).await?.map(|kv| kv.mod_revision);
        same!(
            found,
            Some(revision),
            "the mod revision of a key of a transaction"
        );
    }
    same!(
        c.get("old").await?,
        None,
        "the key that the transaction deleted"
    );
    same!(
        c.store().revision().await?,
        revision,
        "the store's revision after the transaction"
    );
    Ok(())
}
