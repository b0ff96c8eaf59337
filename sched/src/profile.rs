//! [`Profile`]: which plug-ins schedule the pods of one scheduler name.

use std::fmt;
use std::sync::Arc;

use orlop_core::scheduling::SchedulerPlugin;

use crate::error::Error;
use crate::plugins;

/// The plug-ins that schedule the pods whose `spec.schedulerName` is its name, in order.
///
/// ```
/// use orlop_sched::Profile;
/// let profile = Profile::new("bin-packer").with_defaults()?.without("NodeResourcesBalancedAllocation")?;
/// assert!(profile.plugin_names().any(|name| name == "NodeResourcesFit"));
/// # Ok::<(), orlop_sched::Error>(())
/// ```
#[derive(Clone)]
pub struct Profile {
    pub(crate) name: String,
    pub(crate) plugins: Vec<Entry>,
    pub(crate) percentage: u32,
}

/// A plug-in and the weight of its scores.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) plugin: Arc<dyn SchedulerPlugin>,
    pub(crate) weight: i64,
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Profile")
            .field("name", &self.name)
            .field("plugins", &self.plugin_names().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl Profile {
    /// A profile without plug-ins.
    #[must_use]
    pub fn new(scheduler_name: &str) -> Self {
        Self {
            name: scheduler_name.to_owned(),
            plugins: Vec::new(),
            percentage: 0,
        }
    }

    /// The profile named `default-scheduler` with the plug-ins that Kubernetes has by default.
    #[must_use]
    pub fn default_scheduler() -> Self {
        let mut profile = Self::new("default-scheduler");
        profile.plugins = default_plugins();
        profile
    }

    /// Adds the plug-ins that Kubernetes has by default, in its order and with its weights, as far as this crate has them.
    ///
    /// # Errors
    /// [`Error::DuplicatePlugin`] when one of them is there already.
    pub fn with_defaults(mut self) -> Result<Self, Error> {
        for entry in default_plugins() {
            self = self.add(entry)?;
        }
        Ok(self)
    }

    /// Adds a plug-in behind the others; its scores have the weight 1.
    ///
    /// # Errors
    /// [`Error::DuplicatePlugin`] when there is one of its name.
    pub fn plugin(self, plugin: impl SchedulerPlugin) -> Result<Self, Error> {
        self.add(Entry {
            plugin: Arc::new(plugin),
            weight: 1,
        })
    }

    /// Adds a plug-in behind the others, with the weight of its scores.
    ///
    /// # Errors
    /// [`Error::DuplicatePlugin`] when there is one of its name, [`Error::Weight`] when the weight is not between 1 and 100.
    pub fn weighted(self, plugin: impl SchedulerPlugin, weight: i64) -> Result<Self, Error> {
        self.shared(Arc::new(plugin), weight)
    }

    /// Adds a plug-in that others have, too.
    ///
    /// # Errors
    /// As [`weighted`](Self::weighted).
    pub fn shared(self, plugin: Arc<dyn SchedulerPlugin>, weight: i64) -> Result<Self, Error> {
        self.add(Entry { plugin, weight })
    }

    /// Leaves out a plug-in.
    ///
    /// # Errors
    /// [`Error::UnknownPlugin`] when it is not there.
    pub fn without(mut self, name: &str) -> Result<Self, Error> {
        let at = self.position(name)?;
        self.plugins.remove(at);
        Ok(self)
    }

    /// Changes the weight of a plug-in's scores.
    ///
    /// # Errors
    /// [`Error::UnknownPlugin`] when it is not there, [`Error::Weight`] when the weight is not between 1 and 100.
    pub fn weight(mut self, name: &str, weight: i64) -> Result<Self, Error> {
        let at = self.position(name)?;
        self.check_weight(name, weight)?;
        self.plugins[at].weight = weight;
        Ok(self)
    }

    /// How many of all nodes have to fit before the search ends, in percent. Zero, the default, lets the number of nodes decide: all up
    /// to 100 nodes, 50 % less one for each 125 nodes, never less than 5 % and never less than 100 nodes.
    ///
    /// # Errors
    /// [`Error::Percentage`] above 100.
    pub fn percentage_of_nodes_to_score(mut self, percentage: u32) -> Result<Self, Error> {
        if percentage > 100 {
            return Err(Error::Percentage {
                profile: self.name,
                percentage,
            });
        }
        self.percentage = percentage;
        Ok(self)
    }

    /// The scheduler name that pods choose it by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The names of its plug-ins, in order.
    pub fn plugin_names(&self) -> impl Iterator<Item = &str> {
        self.plugins.iter().map(|entry| entry.plugin.name())
    }

    fn position(&self, name: &str) -> Result<usize, Error> {
        self.plugin_names()
            .position(|known| known == name)
            .ok_or_else(|| Error::UnknownPlugin {
                profile: self.name.clone(),
                plugin: name.to_owned(),
            })
    }

    fn check_weight(&self, plugin: &str, weight: i64) -> Result<(), Error> {
        if (1..=100).contains(&weight) {
            return Ok(());
        }
        Err(Error::Weight {
            profile: self.name.clone(),
            plugin: plugin.to_owned(),
            weight,
        })
    }

    fn add(mut self, entry: Entry) -> Result<Self, Error> {
        let name = entry.plugin.name();
        if self.position(name).is_ok() {
            return Err(Error::DuplicatePlugin {
                profile: self.name,
                plugin: name.to_owned(),
            });
        }
        self.check_weight(name, entry.weight)?;
        self.plugins.push(entry);
        Ok(self)
    }
}

/// Kubernetes' default plug-ins, in its order and with its weights, as far as this crate has them.
fn default_plugins() -> Vec<Entry> {
    let entry = |plugin: Arc<dyn SchedulerPlugin>, weight| Entry { plugin, weight };
    vec![
        entry(Arc::new(plugins::SchedulingGates), 1),
        entry(Arc::new(plugins::PrioritySort), 1),
        entry(Arc::new(plugins::NodeUnschedulable), 1),
        entry(Arc::new(plugins::NodeName), 1),
        entry(Arc::new(plugins::TaintToleration), 3),
        entry(Arc::new(plugins::NodeAffinity), 2),
        entry(Arc::new(plugins::NodePorts), 1),
        entry(Arc::new(plugins::NodeResourcesFit::default()), 1),
        entry(
            Arc::new(plugins::NodeResourcesBalancedAllocation::default()),
            1,
        ),
        entry(Arc::new(plugins::DefaultBinder), 1),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_have_a_name() {
        let profile = Profile::default_scheduler;
        let duplicate = profile().plugin(plugins::NodeName).unwrap_err();
        assert_eq!(
            duplicate.to_string(),
            "profile \"default-scheduler\": there are two plug-ins named \"NodeName\""
        );
        assert!(matches!(
            profile().without("X"),
            Err(Error::UnknownPlugin { .. })
        ));
        assert!(matches!(
            profile().weight("NodeName", 0),
            Err(Error::Weight { weight: 0, .. })
        ));
        assert!(matches!(
            profile().percentage_of_nodes_to_score(101),
            Err(Error::Percentage { .. })
        ));
        assert!(
            profile()
                .without("NodeName")
                .unwrap()
                .plugin(plugins::NodeName)
                .is_ok()
        );
    }
}
