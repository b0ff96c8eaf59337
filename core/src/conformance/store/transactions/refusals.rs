//! Transactions that cannot be done, of which nothing may be left.

use bytes::Bytes;

use super::{always, delete, keep_value, never, put, transact, without};
use crate::conformance::store::{Checked, Context, checks, ensure, same, sketch, wanted};
use crate::store::{KeyRange, LeaseId, PutLease, RangeRequest, Step, StoreError, Transaction};

checks!(no_key_twice, leave_nothing,);

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

async fn leave_nothing(c: &Context) -> Checked {
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
