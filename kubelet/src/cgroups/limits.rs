//! What a cgroup may take, and the files that say so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use orlop_core::quantity::Quantity;

use super::hierarchy::Hierarchies;
use super::{CgroupError, QosClass, files, pod_resources};
use crate::config::KubeletConfig;

/// The least weight that the kernel takes.
const MIN_SHARES: u64 = 2;
/// The greatest weight that the kernel takes.
const MAX_SHARES: u64 = 262_144;
/// The shortest time, in microseconds, that the kernel takes as a quota.
const MIN_QUOTA: i64 = 1000;

/// The weight of thousandths of a CPU: 1024 for a whole one, as cgroups of version 1 have it.
#[must_use]
pub fn cpu_shares(milli: i64) -> u64 {
    let shares = u64::try_from(milli).unwrap_or(0).saturating_mul(1024) / 1000;
    shares.clamp(MIN_SHARES, MAX_SHARES)
}

/// How many microseconds of a period thousandths of a CPU are; `None` for no limit.
#[must_use]
pub fn cpu_quota(milli: i64, period: u64) -> Option<i64> {
    let period = i64::try_from(period).unwrap_or(i64::MAX);
    (milli > 0).then(|| (milli.saturating_mul(period) / 1000).max(MIN_QUOTA))
}

/// The weight of version 2 (1 to 10000) for one of version 1, by the curve that OCI runtimes use, on which 1024 is the kernel's
/// default of 100.
#[must_use]
pub fn cpu_weight(shares: u64) -> u64 {
    if shares <= MIN_SHARES {
        return 1;
    }
    if shares >= MAX_SHARES {
        return 10_000;
    }
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    (10f64.powf(exponent).ceil() as u64).clamp(1, 10_000)
}

/// A size of huge pages as the kernel names its files: `2MB`, `1GB`.
#[must_use]
pub fn page_size_name(bytes: u64) -> String {
    let mut size = bytes;
    let mut unit = 0;
    const UNITS: [&str; 6] = ["B", "KB", "MB", "GB", "TB", "PB"];
    while size >= 1024 && size.is_multiple_of(1024) && unit + 1 < UNITS.len() {
        size /= 1024;
        unit += 1;
    }
    format!("{size}{}", UNITS[unit])
}

/// The sizes of huge pages that this machine has, by the kernel's names.
pub(crate) fn page_sizes() -> BTreeSet<String> {
    let entries = fs::read_dir("/sys/kernel/mm/hugepages")
        .into_iter()
        .flatten()
        .flatten();
    let size = |name: &str| {
        let kilobytes = name.strip_prefix("hugepages-")?.strip_suffix("kB")?;
        Some(page_size_name(
            kilobytes.parse::<u64>().ok()?.saturating_mul(1024),
        ))
    };
    entries
        .filter_map(|entry| size(entry.file_name().to_str()?))
        .collect()
}

/// Limits of a cgroup. `None`: left as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The weight against its siblings, 1024 for one CPU.
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU in a period; -1 for no limit.
    pub cpu_quota: Option<i64>,
    /// The period, in microseconds.
    pub cpu_period: Option<u64>,
    /// Bytes of memory; -1 for no limit.
    pub memory: Option<i64>,
    /// Processes and threads; -1 for no limit.
    pub pids: Option<i64>,
    /// Bytes of huge pages by the kernel's name of their size; -1 for no limit.
    pub hugepages: BTreeMap<String, i64>,
}

impl Limits {
    /// Those of a pod: its weight by its requests; quota and memory limit where all of its containers have such a limit; huge pages by
    /// its requests, and none of the other sizes.
    #[must_use]
    pub fn of_pod(pod: &Pod, config: &KubeletConfig, page_sizes: &BTreeSet<String>) -> Self {
        let class = QosClass::of(pod);
        let requests = pod_resources::requests(pod);
        let limits = pod_resources::limits(pod);
        let amount =
            |list: &pod_resources::Amounts, name: &str| list.get(name).cloned().unwrap_or_default();
        let period = u64::try_from(config.cpu_cfs_quota_period.as_micros()).unwrap_or(u64::MAX);
        let shares = match class {
            QosClass::BestEffort => MIN_SHARES,
            _ => cpu_shares(amount(&requests, "cpu").milli_value()),
        };
        let declared =
            |name: &str| class == QosClass::Guaranteed || pod_resources::all_limit(pod, name);
        let quota = match cpu_quota(amount(&limits, "cpu").milli_value(), period) {
            Some(quota) if config.cpu_cfs_quota && declared("cpu") => quota,
            _ => -1,
        };
        let memory = match amount(&limits, "memory").value() {
            bytes if bytes > 0 && declared("memory") => bytes,
            _ => -1,
        };
        let mut hugepages: BTreeMap<String, i64> =
            page_sizes.iter().map(|size| (size.clone(), 0)).collect();
        for (name, amount) in &requests {
            let size = name
                .strip_prefix("hugepages-")
                .and_then(|size| Quantity::parse(size).ok());
            if let Some(size) = size {
                let size = page_size_name(u64::try_from(size.value()).unwrap_or(0));
                hugepages.insert(size, amount.value());
            }
        }
        Self {
            cpu_shares: Some(shares),
            cpu_quota: Some(quota),
            cpu_period: Some(period),
            memory: Some(memory),
            pids: (config.pod_pids_limit > 0).then_some(config.pod_pids_limit),
            hugepages,
        }
    }

    /// Writes them for a cgroup that is there. What the machine does not limit is skipped.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub(super) fn write(&self, hierarchies: &Hierarchies, cgroup: &str) -> Result<(), CgroupError> {
        let put = |controller: &str, file: &str, value: String| {
            let Some(directory) = hierarchies.directory(controller, cgroup) else {
                return Ok(());
            };
            if !files::write(&directory.join(file), &value)? {
                tracing::trace!(cgroup, file, "not limited: there is no such file");
            }
            Ok(())
        };
        let or_max = |value: i64| {
            if value < 0 {
                "max".to_owned()
            } else {
                value.to_string()
            }
        };
        if hierarchies.is_v2() {
            if let Some(shares) = self.cpu_shares {
                put("cpu", "cpu.weight", cpu_weight(shares).to_string())?;
            }
            if let (Some(quota), Some(period)) = (self.cpu_quota, self.cpu_period) {
                put("cpu", "cpu.max", format!("{} {period}", or_max(quota)))?;
            }
            if let Some(memory) = self.memory {
                put("memory", "memory.max", or_max(memory))?;
            }
        } else {
            if let Some(shares) = self.cpu_shares {
                put("cpu", "cpu.shares", shares.to_string())?;
            }
            if let Some(period) = self.cpu_period {
                put("cpu", "cpu.cfs_period_us", period.to_string())?;
            }
            if let Some(quota) = self.cpu_quota {
                put("cpu", "cpu.cfs_quota_us", quota.to_string())?;
            }
            if let Some(memory) = self.memory {
                put("memory", "memory.limit_in_bytes", memory.to_string())?;
            }
        }
        if let Some(pids) = self.pids {
            put("pids", "pids.max", or_max(pids))?;
        }
        for (size, bytes) in &self.hugepages {
            if hierarchies.is_v2() {
                put("hugetlb", &format!("hugetlb.{size}.max"), or_max(*bytes))?;
            } else {
                put(
                    "hugetlb",
                    &format!("hugetlb.{size}.limit_in_bytes"),
                    bytes.to_string(),
                )?;
            }
        }
        Ok(())
    }

    /// The same for systemd, as arguments of `systemctl set-property`.
    pub(super) fn properties(&self, v2: bool) -> Vec<String> {
        let mut out = Vec::new();
        let infinite = |value: i64| {
            if value < 0 {
                "infinity".to_owned()
            } else {
                value.to_string()
            }
        };
        if let Some(shares) = self.cpu_shares {
            out.push(if v2 {
                format!("CPUWeight={}", cpu_weight(shares))
            } else {
                format!("CPUShares={shares}")
            });
        }
        if let (Some(quota), Some(period)) = (self.cpu_quota, self.cpu_period) {
            if quota < 0 || period == 0 {
                out.push("CPUQuota=".to_owned());
            } else {
                out.push(format!(
                    "CPUQuota={:.2}%",
                    quota as f64 * 100.0 / period as f64
                ));
                out.push(format!("CPUQuotaPeriodSec={period}us"));
            }
        }
        if let Some(memory) = self.memory {
            let name = if v2 { "MemoryMax" } else { "MemoryLimit" };
            out.push(format!("{name}={}", infinite(memory)));
        }
        if let Some(pids) = self.pids {
            out.push(format!("TasksMax={}", infinite(pids)));
        }
        out
    }
}

/// What all pods of a node may take together: what it has, less what is kept for the system and for Kubernetes' own parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeLimits {
    /// Thousandths of CPUs.
    pub milli_cpu: i64,
    /// Bytes of memory; none known if zero.
    pub memory: i64,
}

impl NodeLimits {
    /// Those of this machine.
    #[must_use]
    pub fn of_machine(config: &KubeletConfig) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, |count| count.get() as i64);
        let memory = memory_of_machine().unwrap_or(0);
        Self::of_capacity(cpus * 1000, memory, config)
    }

    /// Those of a machine with so much.
    #[must_use]
    pub fn of_capacity(milli_cpu: i64, memory: i64, config: &KubeletConfig) -> Self {
        let reserved = |name: &str| {
            let both = [&config.system_reserved, &config.kube_reserved];
            let mut sum = Quantity::ZERO;
            for amount in both
                .into_iter()
                .filter_map(|list| Quantity::parse(list.get(name)?).ok())
            {
                sum += &amount;
            }
            sum
        };
        Self {
            milli_cpu: (milli_cpu - reserved("cpu").milli_value()).max(0),
            memory: (memory - reserved("memory").value()).max(0),
        }
    }

    pub(super) fn limits(self) -> Limits {
        Limits {
            cpu_shares: Some(cpu_shares(self.milli_cpu)),
            memory: (self.memory > 0).then_some(self.memory),
            ..Limits::default()
        }
    }
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
pub(crate) fn memory_of_machine() -> Option<i64> {
    let text = fs::read_to_string(Path::new("/proc/meminfo")).ok()?;
    meminfo(&text, "MemTotal").and_then(|bytes| i64::try_from(bytes).ok())
}

/// A line of `/proc/meminfo`, in bytes.
pub(super) fn meminfo(text: &str, name: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}
