//! Disks that die, fail and lose what was not synced, again and again, under all that a store does.
//!
//! `ORLOP_CRASH_CASES=100000 cargo test --release -p orlop-store --lib survives_crashes` is the long run.

use std::collections::BTreeSet;

use futures::FutureExt;
use proptest::prelude::*;

use super::*;
use crate::Upkeep;
use crate::model::{Model, same, txn};

/// Something that becomes durable.
#[derive(Clone, Debug)]
enum Act {
    Commit(Txn),
    Grant(LeaseId),
    Revoke(LeaseId),
    Compact(Revision),
}

/// What clients do at a time.
#[derive(Clone, Debug)]
enum Group {
    /// Transactions that are queued together. Some hang what they write on a lease, if it is there.
    Commits(Vec<(Txn, Option<i64>)>),
    Grant(i64),
    Revoke(i64),
    /// Gives up history but for so many revisions.
    Compact(u64),
    Checkpoint,
}

/// From one start of the store to the end of its disk.
#[derive(Clone, Debug)]
struct Round {
    /// After how many operations the disk dies.
    lives: u64,
    /// After how many one of them fails.
    trouble: Option<u64>,
    /// Whether the process alone dies, and what was written can be read.
    killed: bool,
    groups: Vec<Group>,
}

/// What must be there.
#[derive(Clone, Debug)]
struct World {
    model: Model,
    leases: BTreeSet<LeaseId>,
    /// What was compacted for sure.
    floor: Revision,
}

impl World {
    fn apply(&mut self, act: &Act) -> Option<Commit> {
        match act {
            Act::Commit(txn) => return Some(self.model.commit(txn)),
            Act::Grant(lease) => assert!(self.leases.insert(*lease), "{lease} is granted twice"),
            Act::Revoke(lease) => {
                assert!(self.leases.remove(lease), "{lease} is not there");
                let hung = self.model.at(self.model.revision()).values();
                let ops = hung
                    .filter(|kv| kv.lease == Some(*lease))
                    .map(|kv| Op::Delete(KeyRange::Key(kv.key.clone())));
                let txn = Txn {
                    compare: Vec::new(),
                    ops: ops.collect(),
                };
                self.model.commit(&txn);
            }
            Act::Compact(revision) => self.floor = self.floor.max(*revision),
        }
        None
    }

    async fn check(&self, store: &DurableStore) {
        let oldest = self.model.check(store).await;
        assert!(
            oldest >= self.floor,
            "{oldest} can be read, and {} was compacted",
            self.floor
        );
        let leases = store.leases().await.expect("the leases");
        assert!(
            leases.iter().eq(&self.leases),
            "{leases:?} instead of {:?}",
            self.leases
        );
    }
}

struct Crashes {
    disk: SimDisk,
    world: World,
    /// What may or may not be there, after what is.
    unknown: Vec<Act>,
}

impl Crashes {
    fn acknowledged(&mut self, act: &Act) -> Option<Commit> {
        assert!(
            self.unknown.is_empty(),
            "acknowledged on top of what is unknown"
        );
        self.world.apply(act)
    }

    /// Takes note of what did not come to its end.
    fn failed(&mut self, act: Act, error: StoreError) {
        match error {
            StoreError::OutcomeUnknown(_) => self.unknown.push(act),
            StoreError::Unavailable(_) => {}
            error => panic!("{act:?}: {error}"),
        }
    }

    async fn run(&mut self, store: &DurableStore, group: Group) {
        match group {
            Group::Commits(txns) => self.commit(store, txns).await,
            Group::Grant(lease) => {
                let act = Act::Grant(LeaseId(lease));
                match store.grant_lease(Some(LeaseId(lease)), 3600).await {
                    Ok(_) => drop(self.acknowledged(&act)),
                    Err(StoreError::LeaseExists(lease)) => {
                        assert!(self.world.leases.contains(&lease))
                    }
                    Err(error) => self.failed(act, error),
                }
            }
            Group::Revoke(lease) => {
                let act = Act::Revoke(LeaseId(lease));
                match store.revoke_lease(LeaseId(lease)).await {
                    Ok(()) => drop(self.acknowledged(&act)),
                    Err(StoreError::LeaseNotFound(lease)) => {
                        assert!(!self.world.leases.contains(&lease));
                    }
                    Err(error) => self.failed(act, error),
                }
            }
            Group::Compact(left) => {
                let to = Revision(self.world.model.revision().0.saturating_sub(left));
                match store.compact(to).await {
                    Ok(()) => drop(self.acknowledged(&Act::Compact(to))),
                    Err(StoreError::Compacted { .. }) => {}
                    Err(error) => self.failed(Act::Compact(to), error),
                }
            }
            Group::Checkpoint => match store.defragment().await {
                Ok(()) | Err(StoreError::Unavailable(_) | StoreError::OutcomeUnknown(_)) => {}
                Err(error) => panic!("{error}"),
            },
        }
    }

    async fn commit(&mut self, store: &DurableStore, txns: Vec<(Txn, Option<i64>)>) {
        let hang = |(mut txn, lease): (Txn, Option<i64>)| {
            let lease = lease
                .map(LeaseId)
                .filter(|lease| self.world.leases.contains(lease));
            if let Some(Op::Put { lease: own, .. }) = txn.ops.first_mut() {
                *own = lease;
            }
            txn
        };
        let txns: Vec<_> = txns.into_iter().map(hang).collect();
        let mut commits: Vec<_> = txns
            .iter()
            .map(|txn| Box::pin(store.commit(txn.clone())))
            .collect();
        // They are queued in this order, to be written together.
        let early: Vec<_> = commits
            .iter_mut()
            .map(|commit| commit.now_or_never())
            .collect();
        for ((commit, early), txn) in commits.into_iter().zip(early).zip(txns) {
            let outcome = match early {
                Some(outcome) => outcome,
                None => commit.await,
            };
            let act = Act::Commit(txn);
            match outcome {
                Ok(commit) => {
                    let wanted = self.acknowledged(&act).expect("the model's answer");
                    assert!(same(&commit, &wanted), "{commit:?} instead of {wanted:?}");
                }
                Err(error) => self.failed(act, error),
            }
        }
    }

    /// Finds out how much of the unknown is there, and brings the model to it.
    async fn settle(&mut self, store: &DurableStore) {
        let revision = store.revision().await.expect("the revision");
        let leases = store.leases().await.expect("the leases");
        let mut unknown = std::mem::take(&mut self.unknown).into_iter();
        while self.world.model.revision() != revision || !leases.iter().eq(&self.world.leases) {
            let Some(act) = unknown.next() else {
                panic!(
                    "revision {revision} and the leases {leases:?} are not what was acknowledged, {} and {:?}, nor what may be",
                    self.world.model.revision(),
                    self.world.leases
                );
            };
            self.world.apply(&act);
        }
        self.world.check(store).await;
    }
}

/// Everything that was acknowledged must be there, and nothing that was refused.
async fn crashes(seed: u64, rounds: Vec<Round>, options: &DurableOptions) {
    let mut own = Crashes {
        disk: SimDisk::new(seed),
        world: World {
            model: Model::new(),
            leases: BTreeSet::new(),
            floor: Revision::ZERO,
        },
        unknown: Vec::new(),
    };
    for round in rounds {
        own.disk.die_after(round.lives);
        if let Some(trouble) = round.trouble {
            own.disk.fail_after(trouble);
        }
        match open(&own.disk, options) {
            Ok(store) => {
                own.settle(&store).await;
                for group in round.groups {
                    own.run(&store, group).await;
                    if own.unknown.is_empty() {
                        own.world.model.check(&store).await;
                    }
                }
            }
            Err(StoreError::Unavailable(_)) => {}
            Err(error) => panic!("a crash left what cannot be opened: {error}"),
        }
        if round.killed {
            own.disk.kill();
        } else {
            own.disk.crash();
        }
    }
    let store = open(&own.disk, options).expect("the disk is well");
    own.settle(&store).await;
    let last = Act::Commit(put("/end", "x"));
    store.commit(put("/end", "x")).await.expect("a commit");
    own.acknowledged(&last);
    own.world.check(&store).await;
}

fn group() -> impl Strategy<Value = Group> {
    let lease = || 1..4i64;
    let commits =
        proptest::collection::vec((txn(), proptest::option::weighted(0.4, lease())), 1..6);
    prop_oneof![
        12 => commits.prop_map(Group::Commits),
        2 => lease().prop_map(Group::Grant),
        1 => lease().prop_map(Group::Revoke),
        1 => (0..20u64).prop_map(Group::Compact),
        1 => Just(Group::Checkpoint),
    ]
}

fn round() -> impl Strategy<Value = Round> {
    let trouble = proptest::option::weighted(0.3, 0..80u64);
    let groups = proptest::collection::vec(group(), 1..14);
    (1..140u64, trouble, any::<bool>(), groups).prop_map(|(lives, trouble, killed, groups)| Round {
        lives,
        trouble,
        killed,
        groups,
    })
}

fn cases() -> u32 {
    let wanted = std::env::var("ORLOP_CRASH_CASES");
    wanted.map_or(256, |text| text.parse().expect("a number"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn survives_crashes(seed: u64, rounds in proptest::collection::vec(round(), 1..6)) {
        // With and without a segment that is made ahead.
        let options = DurableOptions {
            segment_bytes: (4 << 10) << (seed & 1),
            ..small()
        };
        runtime().block_on(crashes(seed, rounds, &options));
    }
}
