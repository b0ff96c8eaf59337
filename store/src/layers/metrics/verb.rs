//! What a call does, and with which resource's keys.

use orlop_core::revision::Revision;
use orlop_core::store::{Compare, KeyRange, Op, RangeRequest, Step, Transaction, Txn};

use crate::layers::resource;

/// What is done, by kube-apiserver's names where it has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    List,
    Count,
    Create,
    Update,
    Delete,
    Txn,
    Watch,
    Compact,
    Revision,
    GrantLease,
    RenewLease,
    RevokeLease,
    Lease,
    Leases,
}

impl Verb {
    pub(super) const COUNT: usize = 15;

    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Count => "count",
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Txn => "txn",
            Self::Watch => "watch",
            Self::Compact => "compact",
            Self::Revision => "revision",
            Self::GrantLease => "leaseGrant",
            Self::RenewLease => "leaseRenew",
            Self::RevokeLease => "leaseRevoke",
            Self::Lease => "lease",
            Self::Leases => "leases",
        }
    }

    pub(super) fn of_range(request: &RangeRequest) -> Self {
        match request.keys {
            _ if request.count_only => Self::Count,
            KeyRange::Key(_) => Self::Get,
            _ => Self::List,
        }
    }

    pub(super) fn of_txn(txn: &Txn) -> Self {
        match txn.ops.as_slice() {
            [Op::Put { key, .. }] => {
                let absent = |compare: &Compare| match compare {
                    Compare::ModRevision(at, Revision::ZERO)
                    | Compare::CreateRevision(at, Revision::ZERO)
                    | Compare::Version(at, 0) => at == key,
                    _ => false,
                };
                if txn.compare.iter().any(absent) {
                    Self::Create
                } else {
                    Self::Update
                }
            }
            [Op::Delete(_)] => Self::Delete,
            _ => Self::Txn,
        }
    }
}

pub(super) fn key_of_txn(txn: &Txn) -> &[u8] {
    match (txn.ops.first(), txn.compare.first()) {
        (Some(Op::Put { key, .. }), _) => key,
        (Some(Op::Delete(keys)), _) => resource::first_key(keys),
        (None, Some(compare)) => compare.key(),
        (None, None) => b"",
    }
}

fn key_of_steps(steps: &[Step]) -> Option<&[u8]> {
    steps.iter().find_map(|step| match step {
        Step::Read(request) => Some(resource::first_key(&request.keys)),
        Step::Put { key, .. } => Some(key.as_ref()),
        Step::Delete { keys, .. } => Some(resource::first_key(keys)),
        Step::Nested(inner) => key_of_transaction(inner),
    })
}

pub(super) fn key_of_transaction(transaction: &Transaction) -> Option<&[u8]> {
    key_of_steps(&transaction.success)
        .or_else(|| key_of_steps(&transaction.failure))
        .or_else(|| {
            let condition = transaction.conditions.first()?;
            Some(resource::first_key(&condition.keys))
        })
}
