//! The operations of a store, by name.

/// An operation of a [`Store`](orlop_core::store::Store).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// [`range`](orlop_core::store::Store::range).
    Range,
    /// [`commit`](orlop_core::store::Store::commit).
    Commit,
    /// [`transact`](orlop_core::store::Store::transact).
    Transact,
    /// [`watch`](orlop_core::store::Store::watch): opening one.
    Watch,
    /// [`compact`](orlop_core::store::Store::compact).
    Compact,
    /// [`revision`](orlop_core::store::Store::revision).
    Revision,
    /// [`grant_lease`](orlop_core::store::Store::grant_lease).
    GrantLease,
    /// [`renew_lease`](orlop_core::store::Store::renew_lease).
    RenewLease,
    /// [`revoke_lease`](orlop_core::store::Store::revoke_lease).
    RevokeLease,
    /// [`lease`](orlop_core::store::Store::lease).
    Lease,
    /// [`leases`](orlop_core::store::Store::leases).
    Leases,
    /// [`healthy`](orlop_core::store::Store::healthy).
    Healthy,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Range,
        Self::Commit,
        Self::Transact,
        Self::Watch,
        Self::Compact,
        Self::Revision,
        Self::GrantLease,
        Self::RenewLease,
        Self::RevokeLease,
        Self::Lease,
        Self::Leases,
        Self::Healthy,
    ];

    pub(crate) const COUNT: usize = Self::ALL.len();

    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    /// Whether it may change what is stored, so that losing its answer leaves a doubt.
    #[must_use]
    pub const fn is_write(self) -> bool {
        matches!(
            self,
            Self::Commit
                | Self::Transact
                | Self::Compact
                | Self::GrantLease
                | Self::RenewLease
                | Self::RevokeLease
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_a_place_of_its_own() {
        for (index, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation.index(), index);
        }
    }
}
