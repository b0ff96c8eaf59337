//! What `/configz` answers.

use serde_json::{Value, json};

use crate::config::KubeletConfig;

/// The configuration by upstream's names.
pub(super) fn configz(config: &KubeletConfig) -> Value {
    let duration = |duration: std::time::Duration| {
        // As Go prints durations, for those that are whole seconds or milliseconds.
        let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
        if seconds == 0 && nanos > 0 {
            return format!("{}ms", duration.as_millis());
        }
        let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        match (hours, minutes) {
            (0, 0) => format!("{rest}s"),
            (0, _) => format!("{minutes}m{rest}s"),
            _ => format!("{hours}h{minutes}m{rest}s"),
        }
    };
    json!({"kubeletconfig": {
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "address": config.listen.ip().to_string(),
        "port": config.listen.port(),
        "staticPodPath": config.static_pod_path,
        "fileCheckFrequency": duration(config.file_check_frequency),
        "syncFrequency": duration(config.sync_frequency),
        "podLogsDir": config.pod_logs_dir,
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true, "cacheTTL": "2m0s"},
        },
        "authorization": {
            "mode": "Webhook",
            "webhook": {"cacheAuthorizedTTL": "5m0s", "cacheUnauthorizedTTL": "30s"},
        },
        "clusterDomain": config.cluster_domain,
        "clusterDNS": config.cluster_dns,
        "resolvConf": config.resolv_conf,
        "maxPods": config.max_pods,
        "podPidsLimit": config.pod_pids_limit,
        "nodeStatusUpdateFrequency": duration(config.node_status_update_frequency),
        "nodeStatusReportFrequency": duration(config.node_status_report_frequency),
        "nodeLeaseDurationSeconds": config.node_lease_duration.as_secs(),
        "cgroupsPerQOS": config.cgroups_per_qos,
        "cgroupRoot": config.cgroup_root,
        "cgroupDriver": if config.systemd_cgroups { "systemd" } else { "cgroupfs" },
        "cpuCFSQuota": config.cpu_cfs_quota,
        "cpuCFSQuotaPeriod": duration(config.cpu_cfs_quota_period),
        "systemReserved": config.system_reserved,
        "kubeReserved": config.kube_reserved,
        "evictionHard": config.eviction_hard,
        "evictionPressureTransitionPeriod": duration(config.eviction_pressure_transition_period),
        "imageGCHighThresholdPercent": config.image_gc_high_threshold_percent,
        "imageGCLowThresholdPercent": config.image_gc_low_threshold_percent,
        "imageMinimumGCAge": duration(config.image_minimum_gc_age),
        "serializeImagePulls": config.serialize_image_pulls,
        "containerLogMaxSize": config.container_log_max_size.to_string(),
        "containerLogMaxFiles": config.container_log_max_files,
        "streamingConnectionIdleTimeout": duration(config.streaming_connection_idle_timeout),
        "crashLoopBackOff": {"maxContainerRestartPeriod": duration(config.max_container_restart_period)},
        "registerNode": config.register_node,
        "enableSystemLogHandler": false,
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_told_by_upstreams_names() {
        let told = configz(&KubeletConfig::new("n"));
        let told = &told["kubeletconfig"];
        assert_eq!(told["nodeStatusUpdateFrequency"], "10s");
        assert_eq!(told["nodeStatusReportFrequency"], "5m0s");
        assert_eq!(told["streamingConnectionIdleTimeout"], "4h0m0s");
        assert_eq!(told["cpuCFSQuotaPeriod"], "100ms");
        assert_eq!(told["maxPods"], 110);
    }
}
