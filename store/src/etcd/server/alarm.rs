//! Alarms, and the quota that raises one.
//!
//! While NOSPACE is on, nothing is taken that needs room, until somebody has made room and disarms it; while CORRUPT is on, nothing is written
//! at all. Alarms are kept in memory: after a restart, NOSPACE comes back with the first write that finds no room.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use orlop_core::store::StoreError;
use parking_lot::Mutex;

use super::Inner;
use super::error::{CORRUPT, GrpcError, NO_SPACE};
use crate::etcd::proto::maintenance::{
    AlarmAction, AlarmMember, AlarmRequest, AlarmResponse, AlarmType,
};

/// After so many bytes of writes, it is looked again how much room there is.
const LOOK: i64 = 4 << 20;

/// The alarms that are on.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    /// By kind and member.
    on: Mutex<BTreeSet<(i32, u64)>>,
    no_space: AtomicBool,
    corrupt: AtomicBool,
    /// How many bytes may be written before it has to be looked again how much room there is.
    allowance: AtomicI64,
}

impl Alarms {
    /// Those of a kind, or all.
    pub(super) fn list(&self, kind: i32) -> Vec<AlarmMember> {
        self.on
            .lock()
            .iter()
            .filter(|(alarm, _)| kind == AlarmType::None as i32 || kind == *alarm)
            .map(|&(alarm, member_id)| AlarmMember { member_id, alarm })
            .collect()
    }

    fn change(&self, change: impl FnOnce(&mut BTreeSet<(i32, u64)>) -> bool) -> bool {
        let mut on = self.on.lock();
        let changed = change(&mut on);
        let of = |kind: AlarmType| on.iter().any(|&(alarm, _)| alarm == kind as i32);
        self.no_space
            .store(of(AlarmType::Nospace), Ordering::Release);
        self.corrupt
            .store(of(AlarmType::Corrupt), Ordering::Release);
        changed
    }
}

impl Inner {
    pub(super) fn alarm(&self, request: &AlarmRequest) -> AlarmResponse {
        let alarm = (request.alarm, request.member_id);
        let one = AlarmMember {
            member_id: request.member_id,
            alarm: request.alarm,
        };
        let alarms = match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Get) => self.alarms.list(request.alarm),
            Ok(AlarmAction::Activate) => {
                if self.alarms.change(|on| on.insert(alarm)) {
                    tracing::warn!(alarm = request.alarm, "an alarm was raised by a client");
                }
                vec![one]
            }
            Ok(AlarmAction::Deactivate) if self.alarms.change(|on| on.remove(&alarm)) => {
                self.alarms.allowance.store(0, Ordering::Relaxed);
                vec![one]
            }
            Ok(AlarmAction::Deactivate) | Err(_) => Vec::new(),
        };
        // As with etcd, without a header.
        AlarmResponse {
            header: None,
            alarms,
        }
    }

    fn raise_no_space(&self, why: &str) {
        let alarm = (AlarmType::Nospace as i32, self.options.member_id);
        if self.alarms.change(|on| on.insert(alarm)) {
            tracing::warn!(why, "no room for more: the alarm NOSPACE is on");
        }
    }

    /// Whether anything may be written.
    pub(super) fn sound(&self) -> Result<(), GrpcError> {
        if self.alarms.corrupt.load(Ordering::Acquire) {
            return Err(CORRUPT);
        }
        Ok(())
    }

    /// Whether anything may be written that needs room.
    pub(super) fn writable(&self) -> Result<(), GrpcError> {
        self.sound()?;
        if self.alarms.no_space.load(Ordering::Acquire) {
            return Err(NO_SPACE);
        }
        Ok(())
    }

    /// Whether the quota has room for a write.
    pub(super) fn room_for(&self, cost: u64) -> Result<(), GrpcError> {
        let (Some(quota), Some(upkeep)) = (self.options.quota_bytes, &self.options.upkeep) else {
            return Ok(());
        };
        let cost = i64::try_from(cost).unwrap_or(i64::MAX);
        if self.alarms.allowance.fetch_sub(cost, Ordering::Relaxed) >= cost {
            return Ok(());
        }
        let used = upkeep.size().in_use;
        let left = i64::try_from(quota.saturating_sub(used)).unwrap_or(i64::MAX);
        if left < cost {
            self.raise_no_space("the quota is used up");
            return Err(NO_SPACE);
        }
        self.alarms
            .allowance
            .store((left - cost).min(LOOK), Ordering::Relaxed);
        Ok(())
    }

    /// What became of a write: where the store has no room, the alarm is raised.
    pub(super) fn wrote<T>(&self, result: Result<T, StoreError>) -> Result<T, GrpcError> {
        result.map_err(|error| {
            if let StoreError::NoSpace(why) = &error {
                self.raise_no_space(why);
            }
            error.into()
        })
    }
}
