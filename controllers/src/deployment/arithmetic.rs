//! The sums of a rollout.

use k8s_openapi::api::apps::v1::DeploymentStrategy;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// How a Deployment gets from one version to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// All old pods go, then the new ones come.
    Recreate,
    /// Step by step.
    RollingUpdate {
        /// How many pods more than asked for there may be.
        surge: i32,
        /// How many pods less than asked for may be available.
        unavailable: i32,
    },
}

/// A strategy with its percentages worked out for a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fenceposts {
    /// The strategy.
    pub kind: Strategy,
    /// The size.
    pub size: i32,
}

impl Fenceposts {
    /// How many pods more than asked for there may be.
    #[must_use]
    pub fn surge(&self) -> i32 {
        match self.kind {
            Strategy::Recreate => 0,
            Strategy::RollingUpdate { surge, .. } => surge,
        }
    }

    /// How many pods less than asked for may be available; never more than the size.
    #[must_use]
    pub fn unavailable(&self) -> i32 {
        match self.kind {
            Strategy::Recreate => 0,
            Strategy::RollingUpdate { unavailable, .. } => unavailable.min(self.size),
        }
    }

    /// How large the new ReplicaSet may be when all together have `total`.
    #[must_use]
    pub(super) fn new_size(&self, new: i32, total: i32) -> i32 {
        match self.kind {
            Strategy::Recreate => self.size,
            Strategy::RollingUpdate { surge, .. } => {
                let room = self.size + surge - total;
                if room <= 0 {
                    new
                } else {
                    new + room.min(self.size - new)
                }
            }
        }
    }

    /// How many old pods may go so that enough stay available, whatever becomes of the new ones that are not.
    #[must_use]
    pub(super) fn old_to_remove(&self, total: i32, new_size: i32, new_available: i32) -> i32 {
        let kept = self.size - self.unavailable();
        (total - kept - (new_size - new_available)).max(0)
    }
}

/// Works out `maxSurge` (rounded up) and `maxUnavailable` (rounded down) for a size. If both come out as zero, one pod may be unavailable: a
/// rollout has to be able to move.
#[must_use]
pub fn resolve_fenceposts(strategy: Option<&DeploymentStrategy>, size: i32) -> Fenceposts {
    if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate") {
        return Fenceposts {
            kind: Strategy::Recreate,
            size,
        };
    }
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let quarter = IntOrString::String("25%".to_owned());
    let surge = rolling
        .and_then(|rolling| rolling.max_surge.as_ref())
        .unwrap_or(&quarter);
    let unavailable = rolling
        .and_then(|rolling| rolling.max_unavailable.as_ref())
        .unwrap_or(&quarter);
    let (surge, unavailable) = (scaled(surge, size, true), scaled(unavailable, size, false));
    let unavailable = if surge == 0 && unavailable == 0 {
        1
    } else {
        unavailable
    };
    Fenceposts {
        kind: Strategy::RollingUpdate { surge, unavailable },
        size,
    }
}

/// A number, or a percentage of `of`. What is neither counts as nothing.
pub(crate) fn scaled(value: &IntOrString, of: i32, up: bool) -> i32 {
    match value {
        IntOrString::Int(number) => (*number).max(0),
        IntOrString::String(text) => {
            let percent: i64 = text
                .strip_suffix('%')
                .and_then(|number| number.parse().ok())
                .unwrap_or(0);
            let hundredths = percent.max(0).saturating_mul(i64::from(of.max(0)));
            let whole = if up {
                (hundredths + 99) / 100
            } else {
                hundredths / 100
            };
            i32::try_from(whole).unwrap_or(i32::MAX)
        }
    }
}

/// One ReplicaSet of several that share a change of size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Share {
    /// Its size.
    pub(super) size: i32,
    /// The most pods that the Deployment could have when this one was last scaled.
    pub(super) max_then: i32,
}

/// Shares the room for `allowed` pods in all among ReplicaSets, in proportion to their sizes; what rounding leaves over goes to the first.
/// Returns the new sizes.
///
/// The first is the one that is to have the benefit of doubt: the newest of the largest when growing, the oldest of the largest when
/// shrinking.
#[must_use]
pub(super) fn proportional(shares: &[Share], size: i32, max_now: i32, allowed: i32) -> Vec<i32> {
    let to_add = allowed - shares.iter().map(|share| share.size).sum::<i32>();
    let mut added = 0;
    let mut sizes: Vec<i32> = shares
        .iter()
        .map(|share| {
            if share.size == 0 || to_add == 0 || to_add == added {
                return share.size;
            }
            let fraction = if size == 0 {
                -share.size
            } else {
                let grown =
                    f64::from(share.size) * f64::from(max_now) / f64::from(share.max_then.max(1));
                grown.round() as i32 - share.size
            };
            let left = to_add - added;
            let part = if to_add > 0 {
                fraction.min(left)
            } else {
                fraction.max(left)
            };
            added += part;
            share.size + part
        })
        .collect();
    if let Some(first) = sizes.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    sizes
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::RollingUpdateDeployment;
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn strategy(surge: &str, unavailable: &str) -> DeploymentStrategy {
        let value = |text: &str| {
            Some(
                text.parse()
                    .map_or_else(|_| IntOrString::String(text.to_owned()), IntOrString::Int),
            )
        };
        DeploymentStrategy {
            type_: Some("RollingUpdate".to_owned()),
            rolling_update: Some(RollingUpdateDeployment {
                max_surge: value(surge),
                max_unavailable: value(unavailable),
            }),
        }
    }

    #[test]
    fn percentages_round_in_favour_of_availability() {
        for (size, surge, unavailable, expected) in [
            (10, "25%", "25%", (3, 2)),
            (3, "25%", "25%", (1, 0)),
            (1, "25%", "25%", (1, 0)),
            (4, "25%", "25%", (1, 1)),
            (10, "0", "0%", (0, 1)),
            (10, "0%", "1%", (0, 1)),
            (10, "100%", "50%", (10, 5)),
            (10, "2", "3", (2, 3)),
            (0, "25%", "25%", (0, 1)),
        ] {
            let posts = resolve_fenceposts(Some(&strategy(surge, unavailable)), size);
            let Strategy::RollingUpdate { surge, unavailable } = posts.kind else {
                panic!("{posts:?}")
            };
            assert_eq!((surge, unavailable), expected, "{size}");
        }
        assert_eq!(resolve_fenceposts(None, 4).surge(), 1);
        assert_eq!(
            resolve_fenceposts(Some(&strategy("0", "20")), 10).unavailable(),
            10
        );
    }

    #[test]
    fn the_new_set_grows_into_the_room_there_is() {
        let posts = |size, surge| Fenceposts {
            kind: Strategy::RollingUpdate {
                surge,
                unavailable: 0,
            },
            size,
        };
        for (size, surge, new, total, expected) in [
            (10, 2, 0, 10, 2),
            (10, 2, 2, 12, 2),
            (10, 0, 0, 10, 0),
            (10, 5, 0, 10, 5),
            (10, 2, 8, 10, 10),
            (10, 100, 0, 0, 10),
        ] {
            assert_eq!(
                posts(size, surge).new_size(new, total),
                expected,
                "{size} {surge} {new} {total}"
            );
        }
    }

    #[test]
    fn old_pods_go_only_if_enough_stay() {
        let posts = |unavailable| Fenceposts {
            kind: Strategy::RollingUpdate {
                surge: 2,
                unavailable,
            },
            size: 10,
        };
        for (unavailable, total, new, new_available, expected) in [
            (0, 12, 2, 0, 0),
            (0, 12, 2, 2, 2),
            (2, 12, 2, 0, 2),
            (2, 10, 0, 0, 2),
            (0, 10, 0, 0, 0),
        ] {
            assert_eq!(
                posts(unavailable).old_to_remove(total, new, new_available),
                expected
            );
        }
    }

    #[test]
    fn sets_share_in_proportion() {
        let share = |size| Share { size, max_then: 10 };
        // Ten pods, five and five, doubled.
        assert_eq!(proportional(&[share(5), share(5)], 20, 20, 20), [10, 10]);
        // What is left over goes to the first.
        assert_eq!(
            proportional(&[share(8), share(1), share(1)], 13, 13, 13),
            [11, 1, 1]
        );
        // And down.
        assert_eq!(proportional(&[share(5), share(5)], 5, 5, 5), [2, 3]);
        assert_eq!(proportional(&[share(5), share(3)], 0, 0, 0), [0, 0]);
        // The first can give back no more than it has.
        assert_eq!(
            proportional(&[share(2), share(2), share(2), share(2), share(2)], 2, 3, 3),
            [0, 1, 1, 1, 1]
        );
    }

    proptest! {
        /// Sharing uses exactly the room there is, and makes nothing negative. Rounding up in many sets may take more than the first set can give
        /// back; it is empty then and the sum stays above, never below: the next sync takes the rest (as upstream).
        #[test]
        fn sharing_adds_up(sizes in proptest::collection::vec(1..40i32, 1..6), size in 1..60i32, surge in 0..10i32, then in 0..5i32) {
            let before: i32 = sizes.iter().sum();
            let shares: Vec<Share> = sizes.iter().map(|size| Share { size: *size, max_then: before + then }).collect();
            let allowed = size + surge;
            let result = proportional(&shares, size, allowed, allowed);
            prop_assert!(result.iter().all(|size| *size >= 0));
            let sum = result.iter().sum::<i32>();
            prop_assert!(sum == allowed || (sum > allowed && result[0] == 0), "{:?} for {}", result, allowed);
        }

        /// A rollout never asks for more than the surge allows, nor gives up more available pods than it may.
        #[test]
        fn a_rolling_update_stays_between_its_fenceposts(size in 1..30i32, surge in 0..100i32, unavailable in 0..100i32) {
            let posts = resolve_fenceposts(Some(&strategy(&format!("{surge}%"), &format!("{unavailable}%"))), size);
            let (mut new, mut old) = (0, size);
            for _ in 0..200 {
                new = posts.new_size(new, new + old);
                prop_assert!(new + old <= size + posts.surge());
                let gone = posts.old_to_remove(new + old, new, new).min(old);
                old -= gone;
                prop_assert!(new + old >= size - posts.unavailable());
            }
            prop_assert_eq!((new, old), (size, 0));
        }
    }
}
