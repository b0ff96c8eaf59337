//! What a cgroup uses, as the kernel counts it.

use std::fs;
use std::path::Path;

use jiff::Timestamp;
use orlop_core::runtime::{CpuUsage, MemoryUsage, Pressure, PressureStats, SwapUsage};

use super::hierarchy::Hierarchies;
use super::{files, limits};

/// Limits above this are none: version 1 shows "no limit" as the greatest number of whole pages.
const NO_LIMIT: u64 = 1 << 60;

/// What a cgroup uses. What the kernel does not count is left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CgroupUsage {
    /// CPU time.
    pub cpu: Option<CpuUsage>,
    /// Memory.
    pub memory: Option<MemoryUsage>,
    /// Swap.
    pub swap: Option<SwapUsage>,
    /// Processes and threads.
    pub processes: Option<u64>,
    /// How long tasks waited for disks.
    pub io_pressure: Option<PressureStats>,
}

/// What a cgroup and those below it use at a time. `cgroup` is a path below the root of the hierarchies, empty for the root, which
/// counts the whole machine. Everything is `None` for one that is not there.
#[must_use]
pub fn usage(hierarchies: &Hierarchies, cgroup: &str, at: Timestamp) -> CgroupUsage {
    let v2 = hierarchies.is_v2();
    let directory = |controller: &str| hierarchies.directory(controller, cgroup);
    let pressure = |controller: &str, name: &str| {
        v2.then(|| directory(controller))
            .flatten()
            .and_then(|at| stall(&at.join(name)))
    };
    let cpu = directory(if v2 { "cpu" } else { "cpuacct" }).and_then(|path| {
        let nanoseconds = if v2 {
            let stat = fs::read_to_string(path.join("cpu.stat")).ok()?;
            field(&stat, "usage_usec")?.saturating_mul(1000)
        } else {
            files::number(&path.join("cpuacct.usage"))?
        };
        Some(CpuUsage {
            at,
            usage_core_nanoseconds: nanoseconds,
            usage_nano_cores: None,
            pressure: pressure("cpu", "cpu.pressure"),
        })
    });
    let memory = directory("memory").and_then(|path| {
        memory(&path, v2, at).map(|memory| MemoryUsage {
            pressure: pressure("memory", "memory.pressure"),
            ..memory
        })
    });
    CgroupUsage {
        cpu,
        memory,
        swap: directory("memory").and_then(|path| swap(&path, v2, at)),
        processes: directory("pids").and_then(|path| files::number(&path.join("pids.current"))),
        io_pressure: pressure("io", "io.pressure"),
    }
}

fn memory(path: &Path, v2: bool, at: Timestamp) -> Option<MemoryUsage> {
    let stat = fs::read_to_string(path.join("memory.stat")).ok()?;
    let names = if v2 {
        [
            "memory.current",
            "memory.max",
            "inactive_file",
            "anon",
            "pgfault",
            "pgmajfault",
        ]
    } else {
        [
            "memory.usage_in_bytes",
            "memory.limit_in_bytes",
            "total_inactive_file",
            "total_rss",
            "total_pgfault",
            "total_pgmajfault",
        ]
    };
    let usage = files::number(&path.join(names[0])).or_else(|| {
        // The root of version 2 has no such file.
        let text = fs::read_to_string("/proc/meminfo").ok()?;
        let line = |name| limits::meminfo(&text, name);
        line("MemTotal")?.checked_sub(line("MemFree")?)
    })?;
    let working_set = usage.saturating_sub(field(&stat, names[2]).unwrap_or(0));
    let limit = files::number(&path.join(names[1])).filter(|limit| *limit < NO_LIMIT);
    Some(MemoryUsage {
        at,
        working_set,
        available: limit.map(|limit| limit.saturating_sub(working_set)),
        usage: Some(usage),
        rss: field(&stat, names[3]),
        page_faults: field(&stat, names[4]),
        major_page_faults: field(&stat, names[5]),
        pressure: None,
    })
}

fn swap(path: &Path, v2: bool, at: Timestamp) -> Option<SwapUsage> {
    let (usage, limit) = if v2 {
        let limit = files::number(&path.join("memory.swap.max"));
        (files::number(&path.join("memory.swap.current"))?, limit)
    } else {
        let both = files::number(&path.join("memory.memsw.usage_in_bytes"))?;
        (
            both.saturating_sub(files::number(&path.join("memory.usage_in_bytes"))?),
            None,
        )
    };
    let limit = limit.filter(|limit| *limit < NO_LIMIT);
    Some(SwapUsage {
        at,
        available: limit.map(|limit| limit.saturating_sub(usage)),
        usage,
    })
}

/// The number beside a name in a file of such lines.
fn field(text: &str, name: &str) -> Option<u64> {
    let value = |line: &str| {
        line.strip_prefix(name)?
            .strip_prefix(' ')?
            .trim()
            .parse()
            .ok()
    };
    text.lines().find_map(value)
}

/// A file of pressure stall information, in which totals are microseconds.
fn stall(path: &Path) -> Option<PressureStats> {
    let text = fs::read_to_string(path).ok()?;
    let line = |kind: &str| {
        let mut line = Pressure::default();
        let words = text.lines().find_map(|text| text.strip_prefix(kind))?;
        for (name, value) in words
            .split_whitespace()
            .filter_map(|word| word.split_once('='))
        {
            match name {
                "avg10" => line.avg10 = value.parse().ok()?,
                "avg60" => line.avg60 = value.parse().ok()?,
                "avg300" => line.avg300 = value.parse().ok()?,
                "total" => line.total = value.parse::<u64>().ok()?.saturating_mul(1000),
                _ => {}
            }
        }
        Some(line)
    };
    Some(PressureStats {
        some: line("some ")?,
        // Old kernels tell none of all tasks waiting for a CPU.
        full: line("full ").unwrap_or_default(),
    })
}
