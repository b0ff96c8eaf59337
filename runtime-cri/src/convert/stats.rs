//! What sandboxes and containers use.

use orlop_core::runtime::{
    ContainerId, ContainerMetadata, ContainerStats, CpuUsage, InterfaceUsage, MemoryUsage,
    Pressure, PressureStats, Sandbox, SandboxId, SandboxStats, SwapUsage,
};

use super::{filesystem, moment};
use crate::messages as cri;

/// What a container uses.
pub(crate) fn container_stats(said: cri::ContainerStats) -> ContainerStats {
    let attributes = said.attributes.unwrap_or_default();
    let metadata = attributes.metadata.unwrap_or_default();
    ContainerStats {
        id: ContainerId::new(attributes.id),
        metadata: ContainerMetadata {
            name: metadata.name,
            attempt: metadata.attempt,
        },
        labels: attributes.labels,
        cpu: said.cpu.and_then(cpu),
        memory: said.memory.and_then(memory),
        swap: said.swap.and_then(|swap| {
            Some(SwapUsage {
                at: moment(swap.timestamp)?,
                available: value(swap.swap_available_bytes),
                usage: value(swap.swap_usage_bytes)?,
            })
        }),
        // containerd measures layers now and then; until then it tells of one that is empty.
        writable_layer: said
            .writable_layer
            .filter(|layer| layer.timestamp > 0)
            .map(filesystem),
        io_pressure: said.io.and_then(|io| io.psi).map(pressure),
    }
}

/// What a sandbox uses.
pub(crate) fn sandbox_stats(said: cri::PodSandboxStats) -> SandboxStats {
    let attributes = said.attributes.unwrap_or_default();
    let linux = said.linux.unwrap_or_default();
    let network = linux.network.unwrap_or_default();
    let interfaces = network
        .default_interface
        .into_iter()
        .chain(network.interfaces);
    let mut interfaces: Vec<_> = interfaces.map(interface).collect();
    // Some engines list the default one among the others, too.
    let mut known = std::collections::BTreeSet::new();
    interfaces.retain(|interface| known.insert(interface.name.clone()));
    SandboxStats {
        id: SandboxId::new(attributes.id),
        metadata: super::sandbox::said_metadata(attributes.metadata),
        labels: attributes.labels,
        cpu: linux.cpu.and_then(cpu),
        memory: linux.memory.and_then(memory),
        interfaces,
        processes: linux
            .process
            .and_then(|process| value(process.process_count)),
        io_pressure: linux.io.and_then(|io| io.psi).map(pressure),
        containers: linux.containers.into_iter().map(container_stats).collect(),
    }
}

/// What a sandbox uses, as far as it can be told from its containers: the sum of what they use, for an engine that does not tell. What
/// the sandbox itself takes, its network and its processes are not in it.
pub(crate) fn of_containers(sandbox: Sandbox, containers: Vec<ContainerStats>) -> SandboxStats {
    let cpus = containers
        .iter()
        .filter_map(|container| container.cpu.as_ref());
    let cpu = cpus.clone().map(|cpu| cpu.at).max().map(|at| CpuUsage {
        at,
        usage_core_nanoseconds: cpus.clone().map(|cpu| cpu.usage_core_nanoseconds).sum(),
        usage_nano_cores: sum(cpus.map(|cpu| cpu.usage_nano_cores)),
        pressure: None,
    });
    let memories = containers
        .iter()
        .filter_map(|container| container.memory.as_ref());
    let memory = memories
        .clone()
        .map(|memory| memory.at)
        .max()
        .map(|at| MemoryUsage {
            at,
            working_set: memories.clone().map(|memory| memory.working_set).sum(),
            // What is left of a limit that is the containers' own says nothing of the sandbox's.
            available: None,
            usage: sum(memories.clone().map(|memory| memory.usage)),
            rss: sum(memories.clone().map(|memory| memory.rss)),
            page_faults: sum(memories.clone().map(|memory| memory.page_faults)),
            major_page_faults: sum(memories.map(|memory| memory.major_page_faults)),
            pressure: None,
        });
    SandboxStats {
        id: sandbox.id,
        metadata: sandbox.metadata,
        labels: sandbox.labels,
        cpu,
        memory,
        interfaces: Vec::new(),
        processes: None,
        io_pressure: None,
        containers,
    }
}

/// A sum where every summand is known.
fn sum(mut values: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    values.try_fold(0_u64, |sum, value| Some(sum.saturating_add(value?)))
}

fn value(value: Option<cri::UInt64Value>) -> Option<u64> {
    value.map(|value| value.value)
}

/// CPU time; nothing where an engine answered with an empty message.
fn cpu(said: cri::CpuUsage) -> Option<CpuUsage> {
    Some(CpuUsage {
        at: moment(said.timestamp)?,
        usage_core_nanoseconds: value(said.usage_core_nano_seconds)?,
        usage_nano_cores: value(said.usage_nano_cores),
        pressure: said.psi.map(pressure),
    })
}

/// Memory; nothing where an engine answered with an empty message.
fn memory(said: cri::MemoryUsage) -> Option<MemoryUsage> {
    Some(MemoryUsage {
        at: moment(said.timestamp)?,
        working_set: value(said.working_set_bytes)?,
        // Zero is what containerd says where there is no limit.
        available: value(said.available_bytes).filter(|left| *left > 0),
        usage: value(said.usage_bytes),
        rss: value(said.rss_bytes),
        page_faults: value(said.page_faults),
        major_page_faults: value(said.major_page_faults),
        pressure: said.psi.map(pressure),
    })
}

fn pressure(said: cri::PsiStats) -> PressureStats {
    let line = |said: Option<cri::PsiData>| {
        let said = said.unwrap_or_default();
        Pressure {
            total: said.total,
            avg10: said.avg10,
            avg60: said.avg60,
            avg300: said.avg300,
        }
    };
    PressureStats {
        full: line(said.full),
        some: line(said.some),
    }
}

fn interface(said: cri::NetworkInterfaceUsage) -> InterfaceUsage {
    InterfaceUsage {
        name: said.name,
        received_bytes: value(said.rx_bytes).unwrap_or(0),
        receive_errors: value(said.rx_errors).unwrap_or(0),
        sent_bytes: value(said.tx_bytes).unwrap_or(0),
        send_errors: value(said.tx_errors).unwrap_or(0),
    }
}
