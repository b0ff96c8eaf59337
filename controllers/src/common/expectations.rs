//! What a controller has asked for and not yet seen.
//!
//! A local copy is a moment old. Who creates three pods and looks at once sees none of them, and would create three more. So it notes what
//! it expects, the watch crosses it off, and until then it keeps still; for five minutes at most, should something have been missed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use orlop_core::env::{Env, Moment};
use orlop_core::object::ObjectKey;
use parking_lot::Mutex;

const PATIENCE: Duration = Duration::from_secs(300);

/// Expectations by the key of who has them.
#[derive(Debug, Default)]
pub(crate) struct Expectations(Mutex<BTreeMap<ObjectKey, Expected>>);

#[derive(Debug, Default)]
struct Expected {
    creations: usize,
    /// The uids of what is to go.
    deletions: BTreeSet<String>,
    since: Moment,
}

impl Expectations {
    /// So many will appear.
    pub(crate) fn expect_creations(&self, env: &Env, key: &ObjectKey, count: usize) {
        let mut all = self.0.lock();
        let expected = all.entry(key.clone()).or_default();
        *expected = Expected {
            creations: count,
            deletions: BTreeSet::new(),
            since: env.now(),
        };
    }

    /// These will go.
    pub(crate) fn expect_deletions(
        &self,
        env: &Env,
        key: &ObjectKey,
        uids: impl IntoIterator<Item = String>,
    ) {
        let mut all = self.0.lock();
        let expected = all.entry(key.clone()).or_default();
        *expected = Expected {
            creations: 0,
            deletions: uids.into_iter().collect(),
            since: env.now(),
        };
    }

    /// So many will appear, and these will go.
    pub(crate) fn expect(
        &self,
        env: &Env,
        key: &ObjectKey,
        creations: usize,
        uids: impl IntoIterator<Item = String>,
    ) {
        let expected = Expected {
            creations,
            deletions: uids.into_iter().collect(),
            since: env.now(),
        };
        self.0.lock().insert(key.clone(), expected);
    }

    /// One has appeared; or `count` were not made after all.
    pub(crate) fn created(&self, key: &ObjectKey, count: usize) {
        if let Some(expected) = self.0.lock().get_mut(key) {
            expected.creations = expected.creations.saturating_sub(count);
        }
    }

    /// One has gone; or was not deleted after all.
    pub(crate) fn deleted(&self, key: &ObjectKey, uid: &str) {
        if let Some(expected) = self.0.lock().get_mut(key) {
            expected.deletions.remove(uid);
        }
    }

    /// Whether nothing is expected any more, or it has been waited for long enough.
    pub(crate) fn met(&self, env: &Env, key: &ObjectKey) -> bool {
        self.0.lock().get(key).is_none_or(|expected| {
            (expected.creations == 0 && expected.deletions.is_empty())
                || env.now().since(expected.since) > PATIENCE
        })
    }

    /// Who expected is gone.
    pub(crate) fn forget(&self, key: &ObjectKey) {
        self.0.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use orlop_core::env::SimEnv;

    use super::*;

    #[test]
    fn they_are_met_when_all_is_seen_or_time_is_up() {
        let sim = SimEnv::new(1);
        let env = sim.env();
        let key = ObjectKey::new("n", "a");
        let expectations = Expectations::default();
        assert!(expectations.met(&env, &key));
        expectations.expect_creations(&env, &key, 2);
        expectations.created(&key, 1);
        assert!(!expectations.met(&env, &key));
        expectations.created(&key, 1);
        assert!(expectations.met(&env, &key));
        expectations.expect_deletions(&env, &key, ["u1".to_owned()]);
        expectations.deleted(&key, "u2");
        assert!(!expectations.met(&env, &key));
        sim.run_for(PATIENCE + Duration::from_secs(1));
        assert!(expectations.met(&env, &key));
        expectations.forget(&key);
        assert!(expectations.met(&env, &key));
    }
}
