//! The header of every answer.

use orlop_core::revision::Revision;

use super::Inner;
use crate::etcd::proto::kv::ResponseHeader;

/// The term that is told. There are no elections here, so it never changes; it is that of an etcd that has just been elected by itself.
pub(super) const RAFT_TERM: u64 = 2;

impl Inner {
    /// The header of an answer at a revision.
    pub(super) fn header(&self, revision: Revision) -> Option<ResponseHeader> {
        Some(ResponseHeader {
            cluster_id: self.options.cluster_id,
            member_id: self.options.member_id,
            revision: signed(revision),
            raft_term: RAFT_TERM,
        })
    }

    /// The header of an answer that etcd gives without a revision.
    pub(super) fn header_without_revision(&self) -> Option<ResponseHeader> {
        self.header(Revision::ZERO)
    }
}

/// A revision as a message has it.
pub(super) fn signed(revision: Revision) -> i64 {
    revision.0.cast_signed()
}
