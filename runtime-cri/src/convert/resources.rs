//! What containers may take.

use orlop_core::runtime::Resources;

use crate::messages as cri;

/// Limits, in CRI's words: zero for what is not said.
pub(crate) fn resources(resources: &Resources) -> cri::LinuxContainerResources {
    let hugepages = resources
        .hugepages
        .iter()
        .map(|(size, limit)| cri::HugepageLimit {
            page_size: size.clone(),
            limit: *limit,
        });
    cri::LinuxContainerResources {
        cpu_period: count(resources.cpu_period),
        cpu_quota: resources.cpu_quota.unwrap_or(0),
        cpu_shares: count(resources.cpu_shares),
        memory_limit_in_bytes: count(resources.memory_limit),
        oom_score_adj: i64::from(resources.oom_score_adj.unwrap_or(0)),
        cpuset_cpus: resources.cpuset_cpus.clone(),
        cpuset_mems: resources.cpuset_mems.clone(),
        hugepage_limits: hugepages.collect(),
        unified: resources.unified.clone(),
        memory_swap_limit_in_bytes: resources.memory_swap_limit.unwrap_or(0),
    }
}

/// Limits that an engine told of.
pub(crate) fn said_resources(said: &cri::LinuxContainerResources) -> Resources {
    let hugepages = said.hugepage_limits.iter();
    Resources {
        cpu_period: said_count(said.cpu_period),
        cpu_quota: (said.cpu_quota != 0).then_some(said.cpu_quota),
        cpu_shares: said_count(said.cpu_shares),
        memory_limit: said_count(said.memory_limit_in_bytes),
        memory_swap_limit: (said.memory_swap_limit_in_bytes != 0)
            .then_some(said.memory_swap_limit_in_bytes),
        oom_score_adj: i16::try_from(said.oom_score_adj)
            .ok()
            .filter(|adj| *adj != 0),
        cpuset_cpus: said.cpuset_cpus.clone(),
        cpuset_mems: said.cpuset_mems.clone(),
        hugepages: hugepages
            .map(|limit| (limit.page_size.clone(), limit.limit))
            .collect(),
        unified: said.unified.clone(),
    }
}

fn count(count: Option<u64>) -> i64 {
    i64::try_from(count.unwrap_or(0)).unwrap_or(i64::MAX)
}

fn said_count(count: i64) -> Option<u64> {
    u64::try_from(count).ok().filter(|count| *count != 0)
}
