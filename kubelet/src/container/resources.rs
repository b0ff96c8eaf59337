//! What a container may take, as cgroups have it.

use k8s_openapi::api::core::v1::{Container, Pod};
use orlop_core::quantity::Quantity;
use orlop_core::runtime::Resources;

use super::configs::NodeFacts;
use crate::cgroups::{
    Amounts, QosClass, container_limits, container_requests, cpu_quota, cpu_shares, limits,
    page_size_name, requests,
};
use crate::config::KubeletConfig;

/// The score of what is to be killed last.
const GUARANTEED: i64 = -997;
/// The score of what is to be killed first.
const BEST_EFFORT: i64 = 1000;
/// The least priority of what the system itself needs.
const SYSTEM_CRITICAL: i32 = 2_000_000_000;

/// How early a container is killed when memory runs out (`oom_score_adj`): the class of service decides, and among burstable pods a
/// container's share of the node's memory, so that who uses more than it asked for goes first.
#[must_use]
pub fn oom_score_adj(pod: &Pod, container: &Container, memory: u64) -> i16 {
    let spec = pod.spec.as_ref();
    let class = spec.and_then(|spec| spec.priority_class_name.as_deref());
    let score = if class == Some("system-node-critical") && is_critical(pod) {
        GUARANTEED
    } else {
        match QosClass::of(pod) {
            QosClass::Guaranteed => GUARANTEED,
            QosClass::BestEffort => BEST_EFFORT,
            QosClass::Burstable => burstable(pod, container, memory),
        }
    };
    i16::try_from(score).unwrap_or(1000)
}

fn is_critical(pod: &Pod) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    let has = |name: &str| annotations.is_some_and(|all| all.contains_key(name));
    let source = annotations.and_then(|all| all.get("kubernetes.io/config.source"));
    let is_static = source.is_some_and(|source| source != "api");
    let priority = pod.spec.as_ref().and_then(|spec| spec.priority);
    is_static
        || has("kubernetes.io/config.mirror")
        || priority.is_some_and(|priority| priority >= SYSTEM_CRITICAL)
}

fn burstable(pod: &Pod, container: &Container, memory: u64) -> i64 {
    let Some(spec) = &pod.spec else {
        return BEST_EFFORT;
    };
    let capacity = i128::from(memory.max(1));
    let asked = |container: &Container| bytes(&container_requests(container), "memory");
    // What the pod asks for as a whole beyond its containers is theirs in equal parts.
    let whole = spec
        .resources
        .as_ref()
        .and_then(|all| all.requests.as_ref());
    let extra = if whole.is_some_and(|list| list.contains_key("memory")) {
        let sidecars = spec
            .init_containers
            .iter()
            .flatten()
            .filter(|own| is_sidecar(own));
        let all: Vec<&Container> = spec.containers.iter().chain(sidecars).collect();
        let own: i64 = all.iter().map(|container| asked(container)).sum();
        let overhead = spec.overhead.as_ref().and_then(|list| list.get("memory"));
        let overhead = overhead.and_then(|text| Quantity::parse(&text.0).ok());
        let total = bytes(&requests(pod), "memory") - overhead.map_or(0, |amount| amount.value());
        (total - own).max(0) / i64::try_from(all.len().max(1)).unwrap_or(1)
    } else {
        0
    };
    let score_of = |container: &Container| -> i64 {
        let asked = i128::from(asked(container)) + i128::from(extra);
        i64::try_from(1000 - 1000 * asked / capacity).unwrap_or(0)
    };
    let mut score = score_of(container);
    // A sidecar serves the containers: it is killed no earlier than any of them.
    let sidecar = spec
        .init_containers
        .iter()
        .flatten()
        .find(|own| own.name == container.name);
    if sidecar.is_some_and(is_sidecar) {
        let least = spec.containers.iter().map(score_of).min();
        score = score.min(least.unwrap_or(score));
    }
    score.clamp(1000 + GUARANTEED, BEST_EFFORT - 1)
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn bytes(amounts: &Amounts, name: &str) -> i64 {
    amounts.get(name).map_or(0, Quantity::value)
}

/// What a container may take.
#[must_use]
pub fn container_resources(
    pod: &Pod,
    container: &Container,
    config: &KubeletConfig,
    node: &NodeFacts,
) -> Resources {
    let own_requests = container_requests(container);
    let mut own_limits = container_limits(container);
    // Where a container has no limit, that of the whole pod is one.
    let whole = pod.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    if let Some(whole) = whole.and_then(|whole| whole.limits.as_ref()) {
        for name in ["cpu", "memory"] {
            let limit = whole
                .get(name)
                .and_then(|text| Quantity::parse(&text.0).ok());
            if let (Some(limit), false) = (limit, own_limits.contains_key(name)) {
                own_limits.insert(name.to_owned(), limit);
            }
        }
    }
    let mut out = cpu_and_memory(&own_requests, &own_limits, config);
    let score = oom_score_adj(pod, container, node.memory);
    out.oom_score_adj = Some(if config.restrict_oom_score_adj {
        score.max(0)
    } else {
        score
    });
    out.hugepages = node
        .page_sizes
        .iter()
        .map(|size| (size.clone(), 0))
        .collect();
    for (name, amount) in &own_limits {
        let size = name
            .strip_prefix("hugepages-")
            .and_then(|size| Quantity::parse(size).ok());
        if let Some(size) = size.and_then(|size| u64::try_from(size.value()).ok()) {
            let amount = u64::try_from(amount.value()).unwrap_or(0);
            out.hugepages.insert(page_size_name(size), amount);
        }
    }
    if node.cgroup_v2 {
        // All processes of a container end together when one is killed for want of memory.
        out.unified
            .insert("memory.oom.group".to_owned(), "1".to_owned());
    }
    if node.counts_swap {
        // No swap: a limit of memory is one of memory and swap.
        if node.cgroup_v2 {
            out.unified
                .insert("memory.swap.max".to_owned(), "0".to_owned());
        } else {
            out.memory_swap_limit = out.memory_limit.and_then(|limit| i64::try_from(limit).ok());
        }
    }
    out
}

/// What a pod's containers may take together, for runtimes that make machines of pods: without overhead.
pub(super) fn sandbox_resources(pod: &Pod, config: &KubeletConfig) -> Resources {
    let mut pod = pod.clone();
    if let Some(spec) = &mut pod.spec {
        spec.overhead = None;
    }
    cpu_and_memory(&requests(&pod), &limits(&pod), config)
}

/// What the sandbox itself takes.
pub(super) fn overhead(pod: &Pod, config: &KubeletConfig) -> Resources {
    let spec = pod.spec.as_ref();
    let Some(overhead) = spec.and_then(|spec| spec.overhead.as_ref()) else {
        return Resources::default();
    };
    let read = |(name, text): (&String, _)| -> Option<(String, Quantity)> {
        let text: &k8s_openapi::apimachinery::pkg::api::resource::Quantity = text;
        Some((name.clone(), Quantity::parse(&text.0).ok()?))
    };
    let amounts: Amounts = overhead.iter().filter_map(read).collect();
    cpu_and_memory(&amounts, &amounts, config)
}

fn cpu_and_memory(requests: &Amounts, limits: &Amounts, config: &KubeletConfig) -> Resources {
    let milli = |amounts: &Amounts| amounts.get("cpu").map(Quantity::milli_value);
    let limit = milli(limits).unwrap_or(0);
    // The API asks for as much as the limit where nothing is said; what comes past it does so here.
    let request = milli(requests)
        .filter(|request| *request != 0)
        .unwrap_or(limit);
    let period = u64::try_from(config.cpu_cfs_quota_period.as_micros()).unwrap_or(u64::MAX);
    let memory = bytes(limits, "memory");
    Resources {
        cpu_shares: Some(cpu_shares(request)),
        cpu_period: config.cpu_cfs_quota.then_some(period),
        cpu_quota: if config.cpu_cfs_quota {
            cpu_quota(limit, period)
        } else {
            None
        },
        memory_limit: u64::try_from(memory).ok().filter(|memory| *memory > 0),
        ..Resources::default()
    }
}
