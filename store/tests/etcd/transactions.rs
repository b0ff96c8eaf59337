//! Transactions with branches and leases, beside the store in memory: both must come to the same.

use orlop_core::env::Env;
use orlop_core::revision::Revision;
use orlop_core::store::{
    Condition, KeyRange, LeaseId, Operand, PutLease, RangeRequest, Relation, Step, StepResult,
    Store, StoreError, Transaction, TransactionResult,
};
use orlop_store::MemoryStore;

use crate::support::{Cluster, put};

/// A small random sequence, the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn key(&mut self) -> String {
        format!("/t/{}", self.below(6))
    }

    fn keys(&mut self) -> KeyRange {
        let (a, b) = (self.key(), self.key());
        match self.below(6) {
            0 | 1 => KeyRange::key(a),
            2 => KeyRange::prefix("/t/"),
            3 => KeyRange::prefix(a),
            4 => KeyRange::Span(a.into(), b.into()),
            _ => KeyRange::From(a.into()),
        }
    }

    fn condition(&mut self, newest: u64) -> Condition {
        let revision = Revision(newest.saturating_sub(self.below(8)));
        let relation = match self.below(4) {
            0 => Relation::Equal,
            1 => Relation::NotEqual,
            2 => Relation::Greater,
            _ => Relation::Less,
        };
        let operand = match self.below(5) {
            0 => Operand::ModRevision(revision),
            1 => Operand::CreateRevision(revision),
            2 => Operand::Version(self.below(4)),
            3 => Operand::Value(self.below(3).to_string().into()),
            _ => Operand::Lease(i64::try_from(self.below(3)).unwrap()),
        };
        Condition {
            keys: self.keys(),
            relation,
            operand,
        }
    }

    fn step(&mut self, depth: u64, newest: u64) -> Step {
        match self.below(if depth == 0 { 6 } else { 7 }) {
            0 | 1 => Step::Read(RangeRequest {
                limit: self.below(3) as usize,
                after: (self.below(4) == 0).then(|| self.key().into()),
                count_only: self.below(4) == 0,
                ..RangeRequest::new(self.keys())
            }),
            2..=4 => Step::Put {
                key: self.key().into(),
                value: (self.below(4) > 0).then(|| self.below(3).to_string().into()),
                lease: match self.below(5) {
                    0 => PutLease::Keep,
                    1 => PutLease::Set(Some(LeaseId(1))),
                    2 if self.below(6) == 0 => PutLease::Set(Some(LeaseId(99))),
                    _ => PutLease::Set(None),
                },
                previous: self.below(2) == 0,
            },
            5 => Step::Delete {
                keys: self.keys(),
                previous: self.below(2) == 0,
            },
            _ => Step::Nested(self.transaction(depth - 1, newest)),
        }
    }

    fn transaction(&mut self, depth: u64, newest: u64) -> Transaction {
        let some = |dice: &mut Self| dice.below(3);
        let conditions = some(self);
        let (success, failure) = (some(self), some(self));
        Transaction {
            conditions: (0..conditions).map(|_| self.condition(newest)).collect(),
            success: (0..success).map(|_| self.step(depth, newest)).collect(),
            failure: (0..failure).map(|_| self.step(depth, newest)).collect(),
        }
    }
}

/// Nested transactions take the revision of the whole. etcd tells none of them.
fn level(mut result: TransactionResult, revision: Revision) -> TransactionResult {
    result.revision = revision;
    result.steps = result
        .steps
        .into_iter()
        .map(|step| match step {
            StepResult::Nested(nested) => StepResult::Nested(level(nested, revision)),
            other => other,
        })
        .collect();
    result
}

#[tokio::test]
async fn etcd_and_memory_agree() {
    let Some(cluster) = Cluster::start("etcd_and_memory_agree", 1) else {
        return;
    };
    let (etcd, memory) = (cluster.connect().await, MemoryStore::new(Env::tokio()));
    for lease in [LeaseId(1), LeaseId(2)] {
        etcd.grant_lease(Some(lease), 3600).await.unwrap();
        memory.grant_lease(Some(lease), 3600).await.unwrap();
    }
    let mut dice = Dice(20_260_101);
    let (mut done, mut refused) = (0, 0);
    for turn in 0..800 {
        let newest = memory.revision().await.unwrap().0;
        let transaction = dice.transaction(2, newest);
        let shown = format!("turn {turn}: {transaction:?}");
        let wanted = memory.transact(transaction.clone()).await;
        let got = etcd.transact(transaction).await;
        match (&wanted, &got) {
            (Ok(wanted), Ok(got)) => {
                done += 1;
                assert_eq!(got.revision, wanted.revision, "{shown}");
                let whole = wanted.revision;
                let (got, wanted) = (level(got.clone(), whole), level(wanted.clone(), whole));
                assert_eq!(format!("{got:?}"), format!("{wanted:?}"), "{shown}");
            }
            (Err(wanted), Err(got)) => {
                refused += 1;
                assert_eq!(
                    std::mem::discriminant(got),
                    std::mem::discriminant(wanted),
                    "{shown}: {got} instead of {wanted}"
                );
            }
            _ => panic!("{shown}: wanted {wanted:?}, got {got:?}"),
        }
    }
    assert!(done > 300 && refused > 50, "{done} done, {refused} refused");
    let all = RangeRequest::new(KeyRange::prefix(""));
    assert_eq!(
        etcd.range(all.clone()).await.unwrap().items,
        memory.range(all).await.unwrap().items
    );
    for lease in [LeaseId(1), LeaseId(2)] {
        let (etcd, memory) = (
            etcd.lease(lease, true).await.unwrap(),
            memory.lease(lease, true).await.unwrap(),
        );
        assert_eq!(etcd.keys, memory.keys);
        assert_eq!(etcd.granted_seconds, 3600);
    }
    assert_eq!(etcd.leases().await.unwrap(), [LeaseId(1), LeaseId(2)]);
    etcd.close().await;
}

#[tokio::test]
async fn reads_of_the_past_within() {
    let Some(cluster) = Cluster::start("reads_of_the_past_within", 1) else {
        return;
    };
    let store = cluster.connect().await;
    let first = put(&store, "/a", "1").await.unwrap();
    let second = put(&store, "/a", "2").await.unwrap();
    let read = |at| Transaction {
        success: vec![Step::Read(RangeRequest::new(KeyRange::key("/a")).at(at))],
        ..Transaction::default()
    };
    let result = store.transact(read(first)).await.unwrap();
    assert!(format!("{result:?}").contains("b\"1\""), "{result:?}");
    let ahead = store.transact(read(second.next())).await.unwrap_err();
    assert!(
        matches!(ahead, StoreError::FutureRevision { requested, newest } if (requested, newest) == (second.next(), second)),
        "{ahead}"
    );
    store.compact(second).await.unwrap();
    let gone = store.transact(read(first)).await.unwrap_err();
    assert!(
        matches!(gone, StoreError::Compacted { requested, oldest } if (requested, oldest) == (first, second)),
        "{gone}"
    );
    let keep = Transaction {
        success: ["/a", "/none"]
            .map(|key| Step::Put {
                key: key.into(),
                value: None,
                lease: PutLease::Set(None),
                previous: false,
            })
            .to_vec(),
        ..Transaction::default()
    };
    let missing = store.transact(keep).await.unwrap_err();
    assert!(
        matches!(&missing, StoreError::KeyNotFound(key) if key == "/none"),
        "{missing}"
    );
    // Nothing at all is a read of the revision.
    let nothing = store.transact(Transaction::default()).await.unwrap();
    assert_eq!((nothing.revision, nothing.succeeded), (second, true));
    assert!(nothing.steps.is_empty());
    store.close().await;
}
