//! [`CgroupManager`]: the cgroups of a node.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use orlop_core::env::Env;
use orlop_core::runtime::{CgroupDriver, Runtime};
use parking_lot::Mutex;

use super::hierarchy::Hierarchies;
use super::name::{CgroupName, is_uid, uid_of};
use super::systemd::Systemd;
use super::usage::{CgroupUsage, usage};
use super::{
    CgroupError, Limits, NodeLimits, QosClass, cpu_shares, limits, pod_resources, processes,
};
use crate::blocking::blocking;
use crate::config::KubeletConfig;
use crate::parts::{Cgroups, PartError};

/// The name of the cgroup of all pods.
const KUBEPODS: &str = "kubepods";
/// How often processes that do not die are killed again, and how long to wait between.
const KILLS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// Makes, limits and removes cgroups of pods. Clones share what is known.
#[derive(Clone)]
pub struct CgroupManager(Arc<Inner>);

struct Inner {
    /// `None`: cgroups are left to the runtime.
    machine: Option<Machine>,
    config: KubeletConfig,
    env: Env,
    state: Mutex<State>,
}

struct Machine {
    hierarchies: Hierarchies,
    systemd: Option<Systemd>,
    page_sizes: BTreeSet<String>,
}

#[derive(Default)]
struct State {
    /// What was last written, by the pod's uid.
    pods: BTreeMap<String, Known>,
    /// The weight that the burstable pods were last given together.
    burstable: Option<u64>,
}

#[derive(Clone)]
struct Known {
    class: QosClass,
    milli_cpu: i64,
    limits: Limits,
}

impl fmt::Debug for CgroupManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v2 = self
            .0
            .machine
            .as_ref()
            .map(|machine| machine.hierarchies.is_v2());
        f.debug_struct("CgroupManager")
            .field("pods", &self.0.state.lock().pods.len())
            .field("v2", &v2)
            .finish_non_exhaustive()
    }
}

impl CgroupManager {
    /// The cgroups of this machine, with the runtime's driver, or the configured one where the runtime does not say.
    ///
    /// # Errors
    /// When no hierarchy is mounted, or the driver is systemd's and systemd does not run the machine.
    pub async fn of_machine(
        config: &KubeletConfig,
        runtime: &dyn Runtime,
        env: Env,
    ) -> Result<Self, CgroupError> {
        if !config.cgroups_per_qos {
            return Ok(Self::left_to_the_runtime(config, env));
        }
        let driver = runtime
            .cgroup_driver()
            .await
            .unwrap_or(if config.systemd_cgroups {
                CgroupDriver::Systemd
            } else {
                CgroupDriver::Cgroupfs
            });
        let hierarchies = blocking(Hierarchies::of_machine).await?;
        Self::new(config, hierarchies, driver, env)
    }

    /// The cgroups of these hierarchies.
    ///
    /// # Errors
    /// When the driver is systemd's and systemd does not run the machine.
    pub fn new(
        config: &KubeletConfig,
        hierarchies: Hierarchies,
        driver: CgroupDriver,
        env: Env,
    ) -> Result<Self, CgroupError> {
        let systemd = match driver {
            CgroupDriver::Systemd => Some(Systemd::of_machine()?),
            CgroupDriver::Cgroupfs => None,
        };
        Ok(Self::with(config, hierarchies, systemd, env))
    }

    pub(super) fn with(
        config: &KubeletConfig,
        hierarchies: Hierarchies,
        systemd: Option<Systemd>,
        env: Env,
    ) -> Self {
        let page_sizes = limits::page_sizes();
        Self::make(
            config,
            Some(Machine {
                hierarchies,
                systemd,
                page_sizes,
            }),
            env,
        )
    }

    /// No cgroups: the runtime does as it likes.
    #[must_use]
    pub fn left_to_the_runtime(config: &KubeletConfig, env: Env) -> Self {
        Self::make(config, None, env)
    }

    fn make(config: &KubeletConfig, machine: Option<Machine>, env: Env) -> Self {
        Self(Arc::new(Inner {
            machine,
            config: config.clone(),
            env,
            state: Mutex::default(),
        }))
    }

    /// The hierarchies, unless cgroups are left to the runtime.
    #[must_use]
    pub fn hierarchies(&self) -> Option<&Hierarchies> {
        Some(&self.0.machine.as_ref()?.hierarchies)
    }

    /// Makes `kubepods` with what all pods may take together, and the cgroups of the two lower classes of service. Called once, at the
    /// start of the node agent, before any pod.
    ///
    /// # Errors
    /// When one cannot be made or limited.
    pub async fn make_roots(&self, node: NodeLimits) -> Result<(), CgroupError> {
        let inner = self.0.clone();
        blocking(move || inner.make_roots(node)).await
    }

    /// Removes `kubepods` and the cgroups of the classes of service where no pod is left in them; for a node agent that is taken off
    /// the machine for good.
    ///
    /// # Errors
    /// When one cannot be removed though no pod is in it.
    pub async fn remove_empty_roots(&self) -> Result<(), CgroupError> {
        let inner = self.0.clone();
        blocking(move || inner.remove_empty_roots()).await
    }

    /// The cgroup of a pod as the runtime is told of it; empty where cgroups are left to the runtime.
    #[must_use]
    pub fn path_of(&self, uid: &str, class: QosClass) -> String {
        self.0.machine.as_ref().map_or_else(String::new, |machine| {
            machine.path(&self.0.pod_name(uid, class))
        })
    }

    /// The cgroup of all pods.
    #[must_use]
    pub fn kubepods(&self) -> String {
        let machine = self.0.machine.as_ref();
        machine.map_or_else(String::new, |machine| machine.path(&self.0.kubepods()))
    }

    /// What a cgroup uses, by its path below the hierarchies' root; the whole machine for an empty path.
    pub async fn usage(&self, cgroup: &str) -> CgroupUsage {
        let (inner, cgroup) = (self.0.clone(), cgroup.to_owned());
        let at = inner.env.wall();
        blocking(move || {
            let machine = inner.machine.as_ref();
            machine.map_or_else(CgroupUsage::default, |machine| {
                usage(&machine.hierarchies, &cgroup, at)
            })
        })
        .await
    }
}

impl Machine {
    fn path(&self, name: &CgroupName) -> String {
        if self.systemd.is_some() {
            name.to_slices()
        } else {
            name.to_path()
        }
    }

    /// Makes a cgroup and limits it. Returns its path.
    fn ensure(&self, name: &CgroupName, limits: &Limits) -> Result<String, CgroupError> {
        let path = self.path(name);
        match &self.systemd {
            None => {
                self.hierarchies.make(&path)?;
                limits.write(&self.hierarchies, &path)?;
            }
            Some(systemd) => {
                systemd.ensure(slice(&path), limits, self.hierarchies.is_v2())?;
                // systemd knows nothing of huge pages.
                let huge = Limits {
                    hugepages: limits.hugepages.clone(),
                    ..Limits::default()
                };
                huge.write(&self.hierarchies, &path)?;
            }
        }
        Ok(path)
    }

    fn is_there(&self, path: &str) -> bool {
        let all = self.hierarchies.directories(path);
        // A controller without a directory was unmounted or removed by hand: it is made anew.
        if self.systemd.is_some() {
            all.iter().any(|directory| directory.is_dir())
        } else {
            all.iter().all(|directory| directory.is_dir())
        }
    }
}

/// The last part of a path of slices.
fn slice(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

impl Inner {
    fn kubepods(&self) -> CgroupName {
        CgroupName::new(&self.config.cgroup_root).child(KUBEPODS)
    }

    fn class_name(&self, class: QosClass) -> CgroupName {
        match class {
            QosClass::Guaranteed => self.kubepods(),
            QosClass::Burstable => self.kubepods().child("burstable"),
            QosClass::BestEffort => self.kubepods().child("besteffort"),
        }
    }

    fn pod_name(&self, uid: &str, class: QosClass) -> CgroupName {
        self.class_name(class).child(&format!("pod{uid}"))
    }

    fn make_roots(&self, node: NodeLimits) -> Result<(), CgroupError> {
        let Some(machine) = &self.machine else {
            return Ok(());
        };
        let missing = machine.hierarchies.missing();
        if !missing.is_empty() {
            tracing::warn!(
                ?missing,
                "cgroup controllers are not there: what they limit is not limited"
            );
        }
        machine.ensure(&self.kubepods(), &node.limits())?;
        let unlimited: BTreeMap<String, i64> = machine
            .page_sizes
            .iter()
            .map(|size| (size.clone(), -1))
            .collect();
        for class in [QosClass::Burstable, QosClass::BestEffort] {
            let name = self.class_name(class);
            let limits = Limits {
                // The weight that the last run gave to pods which still run stays until this run knows them.
                cpu_shares: (!machine.is_there(&machine.path(&name))).then(|| cpu_shares(0)),
                hugepages: unlimited.clone(),
                ..Limits::default()
            };
            machine.ensure(&name, &limits)?;
        }
        Ok(())
    }

    /// Gives the burstable pods together the weight of what they ask for.
    fn weigh_burstable(&self, machine: &Machine) -> Result<(), CgroupError> {
        let shares = {
            let mut state = self.state.lock();
            let burstable = state
                .pods
                .values()
                .filter(|pod| pod.class == QosClass::Burstable);
            let shares = cpu_shares(burstable.map(|pod| pod.milli_cpu).sum());
            if state.burstable == Some(shares) {
                return Ok(());
            }
            state.burstable = Some(shares);
            shares
        };
        let limits = Limits {
            cpu_shares: Some(shares),
            ..Limits::default()
        };
        let done = machine.ensure(&self.class_name(QosClass::Burstable), &limits);
        if done.is_err() {
            self.state.lock().burstable = None;
        }
        done.map(|_| ())
    }

    fn ensure(&self, pod: &Pod) -> Result<String, CgroupError> {
        let Some(machine) = &self.machine else {
            return Ok(String::new());
        };
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        if !is_uid(uid) {
            return Err(CgroupError::BadUid(uid.to_owned()));
        }
        let class = QosClass::of(pod);
        let name = self.pod_name(uid, class);
        let limits = Limits::of_pod(pod, &self.config, &machine.page_sizes);
        let path = machine.path(&name);
        let known = self.state.lock().pods.get(uid).cloned();
        if known.is_some_and(|known| known.limits == limits && known.class == class)
            && machine.is_there(&path)
        {
            return Ok(path);
        }
        machine.ensure(&name, &limits)?;
        let requests = pod_resources::requests(pod);
        let milli_cpu = requests
            .get("cpu")
            .map_or(0, orlop_core::quantity::Quantity::milli_value);
        let known = Known {
            class,
            milli_cpu,
            limits,
        };
        self.state.lock().pods.insert(uid.to_owned(), known);
        self.weigh_burstable(machine)?;
        Ok(path)
    }

    /// The paths at which a pod's cgroup may be: its class may not be known any more.
    fn paths(&self, machine: &Machine, uid: &str) -> Vec<String> {
        let classes = [
            QosClass::Guaranteed,
            QosClass::Burstable,
            QosClass::BestEffort,
        ];
        let names = classes.map(|class| self.pod_name(uid, class));
        names.iter().map(|name| machine.path(name)).collect()
    }

    /// One try to empty and remove a pod's cgroup. Returns how many processes there were.
    fn try_remove(&self, uid: &str) -> Result<usize, CgroupError> {
        let Some(machine) = &self.machine else {
            return Ok(0);
        };
        let mut killed = 0;
        let mut result = Ok(());
        for path in self.paths(machine, uid) {
            let directories = machine.hierarchies.directories(&path);
            if directories.iter().any(|directory| directory.is_dir()) {
                killed += processes::kill(&directories);
                if let Some(systemd) = &machine.systemd
                    && let Err(error) = systemd.stop(slice(&path))
                {
                    tracing::debug!(%error, "systemd did not stop a slice: its directories are removed by hand");
                }
                if let Err(error) = processes::remove(&directories) {
                    result = Err(error);
                }
            }
        }
        if killed == 0 {
            result?;
            self.state.lock().pods.remove(uid);
            self.weigh_burstable(machine)?;
        }
        Ok(killed)
    }

    fn on_machine(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let Some(machine) = &self.machine else {
            return found;
        };
        for class in [
            QosClass::Guaranteed,
            QosClass::Burstable,
            QosClass::BestEffort,
        ] {
            let path = machine.path(&self.class_name(class));
            for directory in machine.hierarchies.directories(&path) {
                let children = processes::children(&directory);
                let names = children
                    .iter()
                    .filter_map(|child| child.file_name()?.to_str());
                found.extend(names.filter_map(uid_of));
            }
        }
        found
    }

    fn remove_empty_roots(&self) -> Result<(), CgroupError> {
        let Some(machine) = &self.machine else {
            return Ok(());
        };
        if !self.on_machine().is_empty() {
            return Ok(());
        }
        for class in [
            QosClass::BestEffort,
            QosClass::Burstable,
            QosClass::Guaranteed,
        ] {
            let path = machine.path(&self.class_name(class));
            if let Some(systemd) = &machine.systemd
                && let Err(error) = systemd.stop(slice(&path))
            {
                tracing::debug!(%error, "systemd did not stop a slice");
            }
            processes::remove(&machine.hierarchies.directories(&path))?;
        }
        self.state.lock().burstable = None;
        Ok(())
    }
}

#[async_trait]
impl Cgroups for CgroupManager {
    async fn ensure(&self, pod: &Pod) -> Result<String, PartError> {
        let (inner, pod) = (self.0.clone(), pod.clone());
        let done = blocking(move || inner.ensure(&pod)).await;
        done.map_err(|error| {
            let message = format!("unable to ensure pod container exists: {error}");
            PartError::of_pod("FailedCreatePodContainer", message)
        })
    }

    async fn remove(&self, uid: &str) -> Result<(), PartError> {
        let failed = |error: CgroupError| {
            PartError::of_pod(
                "FailedKillPod",
                format!("failed to remove the cgroups of pod {uid}: {error}"),
            )
        };
        if !is_uid(uid) {
            return Err(failed(CgroupError::BadUid(uid.to_owned())));
        }
        let mut last = Ok(0);
        for round in 0..KILLS {
            if round > 0 {
                self.0.env.sleep(PAUSE).await;
            }
            let (inner, uid) = (self.0.clone(), uid.to_owned());
            last = blocking(move || inner.try_remove(&uid)).await;
            if let Ok(0) = last {
                return Ok(());
            }
        }
        let still = |processes| CgroupError::StillThere {
            cgroup: format!("pod{uid}"),
            processes,
        };
        Err(failed(last.map_or_else(|error| error, still)))
    }

    async fn on_machine(&self) -> Vec<String> {
        let inner = self.0.clone();
        blocking(move || inner.on_machine().into_iter().collect()).await
    }
}
