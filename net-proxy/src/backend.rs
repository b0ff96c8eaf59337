//! [`Backend`]: what makes the kernel, or something else, do what views say.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use orlop_core::env::Moment;
use orlop_core::object::ObjectKey;
use parking_lot::Mutex;

use crate::Error;
use crate::config::Family;
use crate::view::PortView;

/// What is to change in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// The family.
    pub family: Family,
    /// The ports of every Service that changed; none for one that is gone. A Service that is not named stays as it is, unless
    /// [`all`](Self::all) says otherwise.
    pub services: BTreeMap<ObjectKey, Vec<PortView>>,
    /// Whether `services` is everything: what is not named goes. Whatever somebody left behind, an earlier run of this program too, goes
    /// with it, but without a moment at which a Service that stays is not served.
    pub all: bool,
    /// The node's main addresses of this family. They change only together with [`all`](Self::all).
    pub node_ips: Vec<IpAddr>,
}

/// What a backend did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Applied {
    /// How many bytes of commands it took; zero if nothing had to change.
    pub bytes: usize,
    /// Whether everything was made anew.
    pub rebuilt: bool,
}

/// What makes views come true: the joint between what traffic should do and who makes it do so.
///
/// # Contract
///
/// * [`apply`](Self::apply) is atomic for each Service: at no moment is traffic refused that both the old and the new state serve.
/// * After an error nothing is known of what was applied; the next call for that family has [`Changes::all`].
/// * What was applied stays in force when the process ends. Only [`cleanup`](Self::cleanup) removes it.
/// * Calls come one at a time.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// What `/proxyMode` answers.
    fn mode(&self) -> &'static str;

    /// Looks whether this machine has what is needed, and returns those of the families that can be served: all, where nothing is needed.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if none can.
    async fn probe(&mut self, families: &[Family]) -> Result<Vec<Family>, Error> {
        Ok(families.to_vec())
    }

    /// Makes changes.
    ///
    /// # Errors
    /// Whatever went wrong. Everything is told anew then.
    async fn apply(&mut self, changes: &Changes) -> Result<Applied, Error>;

    /// Looks whether what was applied is still there, and does what could not be done at once. Called every now and then, and at the
    /// moment that [`next_upkeep`](Self::next_upkeep) says.
    ///
    /// # Errors
    /// What was applied is not there any more: everything is told anew.
    async fn upkeep(&mut self, family: Family) -> Result<(), Error> {
        let _ = family;
        Ok(())
    }

    /// When [`upkeep`](Self::upkeep) is wanted; `None` for no matter when.
    fn next_upkeep(&self) -> Option<Moment> {
        None
    }

    /// Removes everything that this or an earlier run applied. Succeeds if there is nothing.
    ///
    /// # Errors
    /// What could not be removed.
    async fn cleanup(&mut self) -> Result<(), Error>;
}

/// A backend that only remembers, for tests and for simulated nodes. Clones share what they remember.
#[derive(Clone, Debug, Default)]
pub struct RecordingBackend(Arc<Mutex<Recorded>>);

#[derive(Debug, Default)]
struct Recorded {
    services: BTreeMap<(Family, ObjectKey), Vec<PortView>>,
    changes: Vec<Changes>,
    failures: usize,
    lost: bool,
}

impl RecordingBackend {
    /// One that remembers nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything that it was told, in order.
    #[must_use]
    pub fn changes(&self) -> Vec<Changes> {
        self.0.lock().changes.clone()
    }

    /// The ports of a Service as they were told last.
    #[must_use]
    pub fn service(&self, family: Family, key: &ObjectKey) -> Vec<PortView> {
        let recorded = self.0.lock();
        recorded
            .services
            .get(&(family, key.clone()))
            .cloned()
            .unwrap_or_default()
    }

    /// How many Services of a family have ports.
    #[must_use]
    pub fn len(&self, family: Family) -> usize {
        let recorded = self.0.lock();
        recorded
            .services
            .keys()
            .filter(|(known, _)| *known == family)
            .count()
    }

    /// Whether no Service of a family has ports.
    #[must_use]
    pub fn is_empty(&self, family: Family) -> bool {
        self.len(family) == 0
    }

    /// Lets the next so many calls of [`Backend::apply`] fail.
    pub fn fail(&self, times: usize) {
        self.0.lock().failures = times;
    }

    /// Forgets everything, as if somebody else had removed it.
    pub fn lose(&self) {
        let mut recorded = self.0.lock();
        recorded.services.clear();
        recorded.lost = true;
    }
}

#[async_trait]
impl Backend for RecordingBackend {
    fn mode(&self) -> &'static str {
        "recording"
    }

    async fn apply(&mut self, changes: &Changes) -> Result<Applied, Error> {
        let mut recorded = self.0.lock();
        if recorded.failures > 0 {
            recorded.failures -= 1;
            return Err(Error::Backend("told to fail".to_owned()));
        }
        if changes.all {
            recorded
                .services
                .retain(|(family, _), _| *family != changes.family);
            recorded.lost = false;
        }
        for (key, views) in &changes.services {
            let key = (changes.family, key.clone());
            if views.is_empty() {
                recorded.services.remove(&key);
            } else {
                recorded.services.insert(key, views.clone());
            }
        }
        recorded.changes.push(changes.clone());
        Ok(Applied {
            bytes: 0,
            rebuilt: changes.all,
        })
    }

    async fn upkeep(&mut self, _family: Family) -> Result<(), Error> {
        if self.0.lock().lost {
            return Err(Error::Backend("everything is gone".to_owned()));
        }
        Ok(())
    }

    async fn cleanup(&mut self) -> Result<(), Error> {
        self.0.lock().services.clear();
        Ok(())
    }
}
