//! Leases.

use std::time::Duration;

use super::{Checked, Context, Failure, checks, ensure, same, wanted};
use crate::revision::Revision;
use crate::store::{Change, LeaseId, Op, RangeRequest, StoreError, Txn};

checks!(
    revocation,
    ids,
    what_is_known_of_a_lease,
    unknown_leases,
    a_key_leaves_its_lease,
    expiry,
    renewal
);

/// Long enough not to run out during a check.
const LONG: u64 = 3600;

fn hang(c: &Context, name: &str, lease: LeaseId) -> Txn {
    let op = Op::Put {
        key: c.key(name),
        value: "x".into(),
        lease: Some(lease),
    };
    Txn {
        compare: Vec::new(),
        ops: vec![op],
    }
}

async fn names(c: &Context) -> Result<Vec<String>, Failure> {
    let read = c.read(RangeRequest::new(c.all())).await?;
    Ok(read.items.iter().map(|kv| c.name(&kv.key)).collect())
}

async fn revocation(c: &Context) -> Checked {
    if !c.subject.leases {
        return Ok(());
    }
    let lease = c.store().grant_lease(None, LONG).await?;
    let other = c.store().grant_lease(None, LONG).await?;
    ensure!(lease != other, "two leases have the same id {lease}");
    for (name, lease) in [("a", lease), ("b", lease), ("c", other)] {
        c.apply(hang(c, name, lease)).await?;
    }
    let last = c.put("free", "x").await?;
    same!(
        c.get("a").await?.and_then(|kv| kv.lease),
        Some(lease),
        "the lease of a key"
    );
    same!(
        c.get("free").await?.and_then(|kv| kv.lease),
        None,
        "the lease of a key without one"
    );
    let mut watch = c.watch(c.all(), last.next()).await?;
    c.store().revoke_lease(lease).await?;
    same!(
        names(c).await?,
        ["c", "free"],
        "the keys after a revocation"
    );
    same!(
        c.store().revision().await?,
        last.next(),
        "the revision after a revocation"
    );
    let found: Vec<_> = watch
        .changes(2)
        .await?
        .iter()
        .map(Change::revision)
        .collect();
    same!(found, [last.next(); 2], "the revisions of the deletions");
    let again = c.store().revoke_lease(lease).await;
    wanted!(again, Err(StoreError::LeaseNotFound(_)) => (), "a lease revoked twice");
    c.store().revoke_lease(other).await?;
    let empty = c.store().grant_lease(None, LONG).await?;
    let before = c.store().revision().await?;
    c.store().revoke_lease(empty).await?;
    same!(
        c.store().revision().await?,
        before,
        "the revision after the revocation of a lease without keys"
    );
    Ok(())
}

async fn ids(c: &Context) -> Checked {
    if !c.subject.leases {
        return Ok(());
    }
    let id = LeaseId(0x0dec_0de5);
    // Left over from an earlier run, where the store is shared.
    let _ = c.store().revoke_lease(id).await;
    same!(
        c.store().grant_lease(Some(id), LONG).await?,
        id,
        "the id that was asked for"
    );
    let again = c.store().grant_lease(Some(id), LONG).await;
    wanted!(again, Err(StoreError::LeaseExists(_)) => (), "an id granted twice");
    c.store().revoke_lease(id).await?;
    same!(
        c.store().grant_lease(Some(id), LONG).await?,
        id,
        "an id that is free again"
    );
    c.store().revoke_lease(id).await?;
    Ok(())
}

async fn what_is_known_of_a_lease(c: &Context) -> Checked {
    if !c.subject.leases {
        return Ok(());
    }
    let lease = c.store().grant_lease(None, LONG).await?;
    let other = c.store().grant_lease(None, LONG + 60).await?;
    for name in ["b", "a", "gone", "moved"] {
        c.apply(hang(c, name, lease)).await?;
    }
    c.delete("gone").await?;
    c.apply(hang(c, "moved", other)).await?;
    let all = c.store().leases().await?;
    ensure!(all.is_sorted(), "the leases are out of order: {all:?}");
    for (id, seconds, keys) in [
        (lease, LONG, vec![c.key("a"), c.key("b")]),
        (other, LONG + 60, vec![c.key("moved")]),
    ] {
        ensure!(all.contains(&id), "{id} is not among the leases {all:?}");
        let info = c.store().lease(id, true).await?;
        same!(info.granted_seconds, seconds, "the time to live granted");
        ensure!(
            info.remaining_seconds <= seconds && info.remaining_seconds + 300 > seconds,
            "{} seconds remain of {seconds}",
            info.remaining_seconds
        );
        same!(info.keys, keys, "the keys that hang on a lease");
        let info = c.store().lease(id, false).await?;
        same!(
            info.keys,
            Vec::<bytes::Bytes>::new(),
            "keys that nobody asked for"
        );
    }
    c.store().revoke_lease(lease).await?;
    let gone = c.store().lease(lease, false).await;
    wanted!(gone, Err(StoreError::LeaseNotFound(_)) => (), "what is known of no lease");
    let left = c.store().leases().await?;
    ensure!(
        !left.contains(&lease) && left.contains(&other),
        "{lease} was revoked, {other} was not, and the leases are {left:?}"
    );
    c.store().revoke_lease(other).await?;
    Ok(())
}

async fn unknown_leases(c: &Context) -> Checked {
    if !c.subject.leases {
        return Ok(());
    }
    let lease = c.store().grant_lease(None, LONG).await?;
    c.store().revoke_lease(lease).await?;
    let before = c.store().revision().await?;
    wanted!(c.store().renew_lease(lease).await, Err(StoreError::LeaseNotFound(_)) => (), "the renewal of no lease");
    let put = c.store().commit(hang(c, "a", lease)).await;
    wanted!(put, Err(StoreError::LeaseNotFound(_)) => (), "a key hung on no lease");
    let mut two = hang(c, "a", lease);
    two.ops.insert(
        0,
        Op::Put {
            key: c.key("b"),
            value: "x".into(),
            lease: None,
        },
    );
    let put = c.store().commit(two).await;
    wanted!(put, Err(StoreError::LeaseNotFound(_)) => (), "one of two keys hung on no lease");
    same!(
        names(c).await?,
        Vec::<String>::new(),
        "the keys after refused writes"
    );
    same!(
        c.store().revision().await?,
        before,
        "the revision after refused writes"
    );
    Ok(())
}

async fn a_key_leaves_its_lease(c: &Context) -> Checked {
    if !c.subject.leases {
        return Ok(());
    }
    let one = c.store().grant_lease(None, LONG).await?;
    let two = c.store().grant_lease(None, LONG).await?;
    for name in ["freed", "moved", "deleted", "stays"] {
        c.apply(hang(c, name, one)).await?;
    }
    c.put("freed", "x").await?;
    c.apply(hang(c, "moved", two)).await?;
    c.delete("deleted").await?;
    c.put("deleted", "again").await?;
    c.store().revoke_lease(one).await?;
    same!(
        names(c).await?,
        ["deleted", "freed", "moved"],
        "the keys that do not hang on the lease any more"
    );
    c.store().revoke_lease(two).await?;
    same!(
        names(c).await?,
        ["deleted", "freed"],
        "the keys that hang on no lease"
    );
    Ok(())
}

async fn expiry(c: &Context) -> Checked {
    if !c.subject.leases {
        return Ok(());
    }
    let lease = c.store().grant_lease(None, 1).await?;
    c.apply(hang(c, "a", lease)).await?;
    c.apply(hang(c, "b", lease)).await?;
    let last = c.put("free", "x").await?;
    let mut watch = c.watch(c.all(), last.next()).await?;
    let changes = watch.changes(2).await?;
    ensure!(
        changes
            .iter()
            .all(|change| matches!(change, Change::Delete { .. })),
        "wanted deletions, got {changes:?}"
    );
    let revisions: Vec<Revision> = changes.iter().map(Change::revision).collect();
    same!(
        revisions,
        [last.next(); 2],
        "the revisions of the deletions"
    );
    same!(
        names(c).await?,
        ["free"],
        "the keys after the lease ran out"
    );
    wanted!(c.store().renew_lease(lease).await, Err(StoreError::LeaseNotFound(_)) => (), "a lease that ran out");
    Ok(())
}

async fn renewal(c: &Context) -> Checked {
    if !c.subject.leases {
        return Ok(());
    }
    let kept = c.store().grant_lease(None, 3).await?;
    let lost = c.store().grant_lease(None, 3).await?;
    c.apply(hang(c, "kept", kept)).await?;
    let last = c.apply(hang(c, "lost", lost)).await?;
    for _ in 0..4 {
        c.env().sleep(Duration::from_secs(1)).await;
        same!(
            c.store().renew_lease(kept).await?,
            3,
            "the time to live of a renewed lease"
        );
    }
    let mut watch = c.watch(c.all(), last.next()).await?;
    let gone = watch.changes(1).await?;
    same!(
        gone[0].key(),
        &c.key("lost"),
        "the key of the lease that was not renewed"
    );
    same!(
        names(c).await?,
        ["kept"],
        "the key of the lease that was renewed"
    );
    c.store().revoke_lease(kept).await?;
    Ok(())
}
