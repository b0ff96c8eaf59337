//! Maintenance.

mod snapshot;

use orlop_core::revision::Revision;
use orlop_core::store::{KeyRange, KeyValue, RangeRequest, StoreError};
use tonic::Code;

pub(super) use self::snapshot::snapshot;
use super::error::{BAD_DOWNGRADE, BAD_TRANSFEREE, COMPACTED, GrpcError, NO_DOWNGRADE};
use super::header::{RAFT_TERM, signed};
use super::{Inner, VERSION};
use crate::etcd::proto::maintenance::{
    AlarmType, DefragmentResponse, DowngradeAction, DowngradeRequest, DowngradeResponse,
    HashKVRequest, HashKVResponse, HashResponse, MoveLeaderRequest, MoveLeaderResponse,
    StatusResponse,
};

/// How many keys are read at once for a hash.
const PAGE: usize = 1000;

impl Inner {
    /// What there is to say of this member. Without a log of Raft, the index is the revision: every commit is one entry.
    pub(super) async fn status(&self) -> Result<StatusResponse, GrpcError> {
        let revision = self.store.revision().await?;
        let size = self
            .options
            .upkeep
            .as_ref()
            .map(|upkeep| upkeep.size())
            .unwrap_or_default();
        let errors = self
            .alarms
            .list(AlarmType::None as i32)
            .into_iter()
            .map(|alarm| {
                let kind = match AlarmType::try_from(alarm.alarm) {
                    Ok(AlarmType::Nospace) => "NOSPACE",
                    Ok(AlarmType::Corrupt) => "CORRUPT",
                    Ok(AlarmType::None) | Err(_) => "NONE",
                };
                format!("memberID:{} alarm:{kind} ", alarm.member_id)
            })
            .collect();
        Ok(StatusResponse {
            header: self.header(revision),
            version: VERSION.to_owned(),
            db_size: size.total.cast_signed(),
            leader: self.options.member_id,
            raft_index: revision.0,
            raft_term: RAFT_TERM,
            raft_applied_index: revision.0,
            errors,
            db_size_in_use: size.in_use.cast_signed(),
            ..StatusResponse::default()
        })
    }

    pub(super) async fn defragment(&self) -> Result<DefragmentResponse, GrpcError> {
        let Some(upkeep) = &self.options.upkeep else {
            return Err(GrpcError::new(
                Code::Unimplemented,
                "etcdserver: the store behind this server cannot be defragmented",
            ));
        };
        upkeep.defragment().await?;
        // As with etcd, without a header.
        Ok(DefragmentResponse { header: None })
    }

    pub(super) async fn hash(&self) -> Result<HashResponse, GrpcError> {
        let (hash, revision, _) = self.hash_at(None).await?;
        Ok(HashResponse {
            header: self.header(revision),
            hash,
        })
    }

    pub(super) async fn hash_kv(
        &self,
        request: HashKVRequest,
    ) -> Result<HashKVResponse, GrpcError> {
        let at = u64::try_from(request.revision).map_err(|_| COMPACTED)?;
        let at = Some(Revision(at)).filter(|at| !at.is_zero());
        let (hash, revision, at) = self.hash_at(at).await?;
        // The state before the first commit is there as long as nothing was compacted.
        let first = RangeRequest {
            count_only: true,
            ..RangeRequest::new(KeyRange::key("\0")).at(Revision(1))
        };
        let compact_revision = match self.store.range(first).await {
            Err(StoreError::Compacted { oldest, .. }) => signed(oldest),
            Ok(_) => -1,
            Err(error) => return Err(error.into()),
        };
        Ok(HashKVResponse {
            header: self.header(revision),
            hash,
            compact_revision,
            hash_revision: signed(at),
        })
    }

    /// A checksum of all keys as they stand at a revision, the newest one without. It is the CRC-32 (IEEE) of every key and its value, each
    /// with its length before it, and of the key's numbers, in the order of the keys. So stores with the same content have the same
    /// hash, whatever they are; etcd's own hash is another one.
    async fn hash_at(&self, at: Option<Revision>) -> Result<(u32, Revision, Revision), GrpcError> {
        let at = match at {
            Some(at) => at,
            None => self.store.revision().await?,
        };
        let mut hasher = crc32fast::Hasher::new();
        let mut after = None;
        loop {
            let request = RangeRequest::new(KeyRange::prefix(""))
                .at(at)
                .page(PAGE, after);
            let page = self.store.range(request).await?;
            for kv in &page.items {
                add(kv, &mut hasher);
            }
            if page.remaining == 0 {
                return Ok((hasher.finalize(), page.revision, at));
            }
            after = page.items.last().map(|kv| kv.key.clone());
        }
    }

    /// There is nobody else to lead.
    pub(super) fn move_leader(
        &self,
        request: &MoveLeaderRequest,
    ) -> Result<MoveLeaderResponse, GrpcError> {
        if request.target_id == self.options.member_id {
            Ok(MoveLeaderResponse { header: None })
        } else {
            Err(BAD_TRANSFEREE)
        }
    }

    pub(super) fn downgrade(
        &self,
        request: &DowngradeRequest,
    ) -> Result<DowngradeResponse, GrpcError> {
        match DowngradeAction::try_from(request.action) {
            Ok(DowngradeAction::Cancel) => Err(NO_DOWNGRADE),
            Ok(DowngradeAction::Validate | DowngradeAction::Enable) | Err(_) => Err(BAD_DOWNGRADE),
        }
    }
}

fn add(kv: &KeyValue, hasher: &mut crc32fast::Hasher) {
    for bytes in [&kv.key, &kv.value] {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    }
    let lease = kv.lease.map_or(0, |lease| lease.0).cast_unsigned();
    for number in [kv.create_revision.0, kv.mod_revision.0, kv.version, lease] {
        hasher.update(&number.to_le_bytes());
    }
}
