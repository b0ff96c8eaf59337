//! A summary as metrics, in the text that Prometheus reads. Every value has the moment when it was measured.

use std::fmt::Write;

use jiff::Timestamp;
use orlop_core::runtime::{Container, RuntimeError};

use super::provider::StatsProvider;
use super::summary::{CpuStats, MemoryStats, PodStats, Summary, SwapStats};

/// Writes families of metrics.
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: f64, at: Option<Timestamp>) {
        self.0.push_str(name);
        for (at, (label, value)) in labels.iter().enumerate() {
            self.0.push(if at == 0 { '{' } else { ',' });
            let value = value
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            let _ = write!(self.0, "{label}=\"{value}\"");
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = write!(self.0, " {value}");
        if let Some(at) = at {
            let _ = write!(self.0, " {}", at.as_millisecond());
        }
        self.0.push('\n');
    }
}

fn seconds(cpu: Option<&CpuStats>) -> Option<(f64, Option<Timestamp>)> {
    let cpu = cpu?;
    Some((cpu.usage_core_nano_seconds? as f64 / 1e9, cpu.time))
}

fn working_set(memory: Option<&MemoryStats>) -> Option<(f64, Option<Timestamp>)> {
    let memory = memory?;
    Some((memory.working_set_bytes? as f64, memory.time))
}

fn swap_used(swap: Option<&SwapStats>) -> Option<(f64, Option<Timestamp>)> {
    let swap = swap?;
    Some((swap.swap_usage_bytes? as f64, swap.time))
}

/// What a pod is known by.
fn pod_labels(pod: &PodStats) -> [(&'static str, &str); 2] {
    [
        ("namespace", &pod.pod_ref.namespace),
        ("pod", &pod.pod_ref.name),
    ]
}

/// `/metrics/resource`: what the metrics server reads.
pub async fn resource_metrics(stats: &StatsProvider) -> String {
    render_resources(&stats.summary().await)
}

fn render_resources(summary: &Result<Summary, RuntimeError>) -> String {
    let mut text = Text(String::new());
    if let Ok(summary) = summary {
        let node = &summary.node;
        let mut of_node = |name: &str, kind, help, value| {
            if let Some((value, at)) = value {
                text.family(name, kind, help);
                text.value(name, &[], value, at);
            }
        };
        of_node(
            "node_cpu_usage_seconds_total",
            "counter",
            "[STABLE] CPU time of the node in core-seconds",
            seconds(node.cpu.as_ref()),
        );
        of_node(
            "node_memory_working_set_bytes",
            "gauge",
            "[STABLE] Working set of the node in bytes",
            working_set(node.memory.as_ref()),
        );
        of_node(
            "node_swap_usage_bytes",
            "gauge",
            "[ALPHA] Swap of the node in bytes",
            swap_used(node.swap.as_ref()),
        );
        type OfPod = fn(&PodStats) -> Option<(f64, Option<Timestamp>)>;
        let of_pods: [(&str, &str, &str, OfPod); 3] = [
            (
                "pod_cpu_usage_seconds_total",
                "counter",
                "[STABLE] CPU time of the pod in core-seconds",
                |pod| seconds(pod.cpu.as_ref()),
            ),
            (
                "pod_memory_working_set_bytes",
                "gauge",
                "[STABLE] Working set of the pod in bytes",
                |pod| working_set(pod.memory.as_ref()),
            ),
            (
                "pod_swap_usage_bytes",
                "gauge",
                "[ALPHA] Swap of the pod in bytes",
                |pod| swap_used(pod.swap.as_ref()),
            ),
        ];
        for (name, kind, help, value) in of_pods {
            text.family(name, kind, help);
            for pod in &summary.pods {
                if let Some((value, at)) = value(pod) {
                    text.value(name, &pod_labels(pod), value, at);
                }
            }
        }
        type OfContainer = fn(&super::ContainerStats) -> Option<(f64, Option<Timestamp>)>;
        let of_containers: [(&str, &str, &str, OfContainer); 4] = [
            (
                "container_cpu_usage_seconds_total",
                "counter",
                "[STABLE] CPU time of the container in core-seconds",
                |container| seconds(container.cpu.as_ref()),
            ),
            (
                "container_memory_working_set_bytes",
                "gauge",
                "[STABLE] Working set of the container in bytes",
                |container| working_set(container.memory.as_ref()),
            ),
            (
                "container_swap_usage_bytes",
                "gauge",
                "[ALPHA] Swap of the container in bytes",
                |container| swap_used(container.swap.as_ref()),
            ),
            (
                "container_start_time_seconds",
                "gauge",
                "[STABLE] Start of the container in seconds since the epoch",
                |container| Some((container.start_time.as_millisecond() as f64 / 1e3, None)),
            ),
        ];
        for (name, kind, help, value) in of_containers {
            text.family(name, kind, help);
            for pod in &summary.pods {
                let [namespace, name_of_pod] = pod_labels(pod);
                for container in &pod.containers {
                    if let Some((value, at)) = value(container) {
                        let labels = [("container", &*container.name), namespace, name_of_pod];
                        text.value(name, &labels, value, at);
                    }
                }
            }
        }
    }
    let failed = if summary.is_err() { 1.0 } else { 0.0 };
    for (name, help) in [
        (
            "resource_scrape_error",
            "[STABLE] 1 if something went wrong while metrics were gathered, else 0",
        ),
        (
            "scrape_error",
            "[ALPHA] 1 if something went wrong while metrics were gathered, else 0",
        ),
    ] {
        text.family(name, "gauge", help);
        text.value(name, &[], failed, None);
    }
    text.0
}

/// `/metrics/cadvisor`: containers and pods by the names that dashboards know.
///
/// # Errors
/// The runtime does not answer.
pub async fn cadvisor_metrics(stats: &StatsProvider) -> Result<String, RuntimeError> {
    let summary = stats.summary().await?;
    let containers = stats.containers().await?;
    Ok(render_cadvisor(&summary, &containers))
}

fn render_cadvisor(summary: &Summary, containers: &[Container]) -> String {
    let mut text = Text(String::new());
    type OfContainer = fn(&super::ContainerStats) -> Option<(f64, Option<Timestamp>)>;
    fn of_memory(
        container: &super::ContainerStats,
        value: impl Fn(&MemoryStats) -> Option<u64>,
    ) -> Option<(f64, Option<Timestamp>)> {
        let memory = container.memory.as_ref()?;
        Some((value(memory)? as f64, memory.time))
    }
    let of_containers: [(&str, &str, &str, OfContainer); 6] = [
        (
            "container_cpu_usage_seconds_total",
            "counter",
            "CPU time in core-seconds",
            |one| seconds(one.cpu.as_ref()),
        ),
        (
            "container_memory_working_set_bytes",
            "gauge",
            "Working set in bytes",
            |one| working_set(one.memory.as_ref()),
        ),
        (
            "container_memory_usage_bytes",
            "gauge",
            "Memory in bytes, caches too",
            |one| of_memory(one, |memory| memory.usage_bytes),
        ),
        (
            "container_memory_rss",
            "gauge",
            "Anonymous memory in bytes",
            |one| of_memory(one, |memory| memory.rss_bytes),
        ),
        (
            "container_fs_usage_bytes",
            "gauge",
            "Bytes of the container's own file system",
            |one| {
                let fs = one.rootfs.as_ref()?;
                Some((fs.used_bytes? as f64, fs.time))
            },
        ),
        (
            "container_start_time_seconds",
            "gauge",
            "Start in seconds since the epoch",
            |one| Some((one.start_time.as_millisecond() as f64 / 1e3, None)),
        ),
    ];
    for (name, kind, help, value) in of_containers {
        text.family(name, kind, help);
        for pod in &summary.pods {
            for container in &pod.containers {
                let Some((value, at)) = value(container) else {
                    continue;
                };
                let known = containers.iter().find(|known| {
                    known.metadata.name == container.name
                        && known.labels.get(crate::labels::POD_UID) == Some(&pod.pod_ref.uid)
                        && known.started == Some(container.start_time)
                });
                let id = known.map_or("", |known| known.id.as_str());
                let image = known.map_or("", |known| known.image_ref.as_str());
                let [namespace, name_of_pod] = pod_labels(pod);
                let labels = [
                    ("container", &*container.name),
                    ("id", id),
                    ("image", image),
                    ("name", id),
                    namespace,
                    name_of_pod,
                ];
                text.value(name, &labels, value, at);
            }
        }
    }
    type OfInterface = fn(&super::InterfaceStats) -> u64;
    let of_interfaces: [(&str, OfInterface); 4] = [
        ("container_network_receive_bytes_total", |one| one.rx_bytes),
        ("container_network_receive_errors_total", |one| {
            one.rx_errors
        }),
        ("container_network_transmit_bytes_total", |one| one.tx_bytes),
        ("container_network_transmit_errors_total", |one| {
            one.tx_errors
        }),
    ];
    for (name, value) in of_interfaces {
        text.family(name, "counter", "Traffic of the pod since its start");
        for pod in &summary.pods {
            let Some(network) = &pod.network else {
                continue;
            };
            let [namespace, name_of_pod] = pod_labels(pod);
            for interface in &network.interfaces {
                let labels = [
                    ("container", ""),
                    ("interface", &*interface.name),
                    namespace,
                    name_of_pod,
                ];
                text.value(name, &labels, value(interface) as f64, Some(network.time));
            }
        }
    }
    text.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_quoted_and_failures_are_told() {
        let mut text = Text(String::new());
        text.value(
            "m",
            &[("a", "x\"y\\z\n")],
            1.5,
            Timestamp::from_second(2).ok(),
        );
        assert_eq!(text.0, "m{a=\"x\\\"y\\\\z\\n\"} 1.5 2000\n");
        let failed = Err(RuntimeError::Unavailable("gone".to_owned()));
        let text = render_resources(&failed);
        assert!(text.contains("\nresource_scrape_error 1\n"), "{text}");
        assert!(render_resources(&Ok(Summary::default())).contains("\nscrape_error 0\n"));
    }
}
