//! The configuration file of a node agent: `KubeletConfiguration` of `kubelet.config.k8s.io/v1beta1`.
//!
//! It is read strictly: a field that Kubernetes does not know, a field that stands there twice and a value of the wrong type are errors.
//! A value that is left out, and one that is zero where zero makes no sense, leaves the default. Fields that Kubernetes knows and
//! [`KubeletConfig`] does not are handed back, and named in a warning.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::Taint;
use orlop_core::quantity::Quantity;
use orlop_wire::yaml;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::config::KubeletConfig;
use crate::eviction::Threshold;

const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
const KIND: &str = "KubeletConfiguration";

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigFileError {
    /// It cannot be read.
    #[error("failed to load kubelet config file, path: {}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no YAML, or says something twice.
    #[error(transparent)]
    Yaml(#[from] yaml::YamlError),
    /// It is something else than a `KubeletConfiguration`.
    #[error("no kind {kind:?} is registered for version {version:?}: want {KIND} of {API_VERSION}")]
    Kind {
        /// Its kind.
        kind: String,
        /// Its version.
        version: String,
    },
    /// It has fields that nobody knows.
    #[error("strict decoding error: {}", list_unknown(.0))]
    Unknown(Vec<String>),
    /// A value makes no sense.
    #[error("invalid configuration: {0}")]
    Invalid(String),
}

fn list_unknown(fields: &[String]) -> String {
    let quoted: Vec<_> = fields
        .iter()
        .map(|field| format!("unknown field {field:?}"))
        .collect();
    quoted.join(", ")
}

/// Fields of `v1beta1` that [`KubeletConfig`] does not have.
const OTHERS: &[&str] = &[
    "allowedUnsafeSysctls",
    "authentication",
    "authorization",
    "configMapAndSecretChangeDetectionStrategy",
    "containerLogMaxWorkers",
    "containerLogMonitorInterval",
    "containerRuntimeEndpoint",
    "contentType",
    "cpuManagerPolicy",
    "cpuManagerPolicyOptions",
    "cpuManagerReconcilePeriod",
    "enableContentionProfiling",
    "enableControllerAttachDetach",
    "enableDebugFlagsHandler",
    "enableDebuggingHandlers",
    "enableProfilingHandler",
    "enableServer",
    "enableSystemLogHandler",
    "enableSystemLogQuery",
    "enforceNodeAllocatable",
    "eventBurst",
    "eventRecordQPS",
    "evictionMaxPodGracePeriod",
    "evictionMinimumReclaim",
    "evictionSoft",
    "evictionSoftGracePeriod",
    "failCgroupV1",
    "failSwapOn",
    "featureGates",
    "hairpinMode",
    "healthzBindAddress",
    "healthzPort",
    "httpCheckFrequency",
    "imageMaximumGCAge",
    "imagePullCredentialsVerificationPolicy",
    "imageServiceEndpoint",
    "iptablesDropBit",
    "iptablesMasqueradeBit",
    "kernelMemcgNotification",
    "kubeAPIBurst",
    "kubeAPIQPS",
    "kubeReservedCgroup",
    "kubeletCgroups",
    "localStorageCapacityIsolation",
    "logging",
    "makeIPTablesUtilChains",
    "maxOpenFiles",
    "maxParallelImagePulls",
    "memoryManagerPolicy",
    "memorySwap",
    "memoryThrottlingFactor",
    "nodeStatusMaxImages",
    "oomScoreAdj",
    "podCIDR",
    "podsPerCore",
    "preloadedImagesVerificationAllowlist",
    "protectKernelDefaults",
    "qosReserved",
    "readOnlyPort",
    "registryBurst",
    "registryPullQPS",
    "reservedMemory",
    "reservedSystemCPUs",
    "rotateCertificates",
    "runOnce",
    "runtimeRequestTimeout",
    "seccompDefault",
    "serverTLSBootstrap",
    "showHiddenMetricsForVersion",
    "shutdownGracePeriod",
    "shutdownGracePeriodByPodPriority",
    "shutdownGracePeriodCriticalPods",
    "singleProcessOOMKill",
    "staticPodURL",
    "staticPodURLHeader",
    "systemCgroups",
    "systemReservedCgroup",
    "tlsCertFile",
    "tlsCipherSuites",
    "tlsMinVersion",
    "tlsPrivateKeyFile",
    "topologyManagerPolicy",
    "topologyManagerPolicyOptions",
    "topologyManagerScope",
    "tracing",
    "userNamespaces",
    "volumePluginDir",
    "volumeStatsAggPeriod",
];

/// Reads a configuration file into a configuration. Returns the fields that were not acted on, which are named in a warning, too.
///
/// # Errors
/// [`ConfigFileError`]; then `config` is as it was.
pub fn load(
    path: &Path,
    config: &mut KubeletConfig,
) -> Result<Map<String, Value>, ConfigFileError> {
    let text = std::fs::read(path).map_err(|source| ConfigFileError::File {
        path: path.to_owned(),
        source,
    })?;
    let mut read = config.clone();
    let others = apply(&text, &mut read)?;
    // As the file is written: relative to where it is.
    if let (Some(path), Some(directory)) = (&mut read.static_pod_path, path.parent())
        && path.is_relative()
    {
        *path = directory.join(&*path);
    }
    *config = read;
    if !others.is_empty() {
        let fields: Vec<&str> = others.keys().map(String::as_str).collect();
        let fields = fields.join(", ");
        tracing::warn!(path = %path.display(), fields, "fields of the kubelet's configuration that are not acted on");
    }
    Ok(others)
}

/// Reads the text of a configuration file into a configuration. Returns the fields that were not acted on.
///
/// # Errors
/// [`ConfigFileError`]; then `config` may be changed in part.
pub fn apply(
    text: &[u8],
    config: &mut KubeletConfig,
) -> Result<Map<String, Value>, ConfigFileError> {
    let value = yaml::document_from_slice(text)?.strict()?;
    let Value::Object(fields) = value else {
        return Err(invalid("the file is no mapping"));
    };
    let mut fields = Fields(fields);
    let text = |value: Option<Value>| match value {
        Some(Value::String(text)) => text,
        _ => String::new(),
    };
    let (version, kind) = (
        text(fields.0.remove("apiVersion")),
        text(fields.0.remove("kind")),
    );
    if version != API_VERSION || kind != KIND {
        return Err(ConfigFileError::Kind { kind, version });
    }
    if let Some(address) = fields.take::<IpAddr>("address")? {
        config.listen.set_ip(address);
    }
    if let Some(port) = fields.take::<i64>("port")?.filter(|port| *port != 0) {
        let valid = u16::try_from(port).map_err(|_| {
            invalid(format!(
                "port (--port) {port} must be between 1 and 65535, inclusive"
            ))
        })?;
        config.listen.set_port(valid);
    }
    if let Some(path) = fields.text("staticPodPath")? {
        config.static_pod_path = Some(path.into());
    }
    if let Some(path) = fields.text("podLogsDir")? {
        config.pod_logs_dir = path.into();
    }
    if let Some(path) = fields.take::<String>("resolvConf")? {
        // Written and empty: none.
        config.resolv_conf = Some(PathBuf::from(path)).filter(|path| !path.as_os_str().is_empty());
    }
    for (name, into) in [
        ("syncFrequency", &mut config.sync_frequency),
        ("fileCheckFrequency", &mut config.file_check_frequency),
        (
            "nodeStatusUpdateFrequency",
            &mut config.node_status_update_frequency,
        ),
        ("cpuCFSQuotaPeriod", &mut config.cpu_cfs_quota_period),
        (
            "evictionPressureTransitionPeriod",
            &mut config.eviction_pressure_transition_period,
        ),
        ("imageMinimumGCAge", &mut config.image_minimum_gc_age),
        (
            "streamingConnectionIdleTimeout",
            &mut config.streaming_connection_idle_timeout,
        ),
    ] {
        if let Some(duration) = fields.duration(name)? {
            *into = duration;
        }
    }
    // Without a period of its own, the status is told as often as it is looked at, if that was said.
    let looked_at = config.node_status_update_frequency;
    match fields.duration("nodeStatusReportFrequency")? {
        Some(duration) => config.node_status_report_frequency = duration,
        None if looked_at != Duration::from_secs(10) => {
            config.node_status_report_frequency = looked_at
        }
        None => {}
    }
    for (name, into) in [
        ("registerNode", &mut config.register_node),
        ("cgroupsPerQOS", &mut config.cgroups_per_qos),
        ("cpuCFSQuota", &mut config.cpu_cfs_quota),
        ("serializeImagePulls", &mut config.serialize_image_pulls),
    ] {
        if let Some(flag) = fields.take(name)? {
            *into = flag;
        }
    }
    for (name, into) in [
        ("providerID", &mut config.provider_id),
        ("clusterDomain", &mut config.cluster_domain),
        ("cgroupRoot", &mut config.cgroup_root),
    ] {
        if let Some(text) = fields.text(name)? {
            *into = text;
        }
    }
    if let Some(taints) = fields.take::<Vec<Taint>>("registerWithTaints")? {
        config.register_with_taints = taints;
    }
    if let Some(servers) = fields.take::<Vec<IpAddr>>("clusterDNS")? {
        config.cluster_dns = servers;
    }
    if let Some(driver) = fields.text("cgroupDriver")? {
        config.systemd_cgroups = match driver.as_str() {
            "systemd" => true,
            "cgroupfs" => false,
            other => {
                return Err(invalid(format!(
                    "cgroupDriver (--cgroup-driver) {other:?} must be \"cgroupfs\" or \"systemd\""
                )));
            }
        };
    }
    if let Some(most) = fields.take::<i64>("maxPods")?.filter(|most| *most != 0) {
        config.max_pods = u32::try_from(most).map_err(|_| {
            invalid(format!(
                "maxPods (--max-pods) {most} must not be a negative number"
            ))
        })?;
    }
    if let Some(most) = fields.take::<i64>("podPidsLimit")? {
        config.pod_pids_limit = if most == 0 { -1 } else { most };
    }
    if let Some(seconds) = fields
        .take::<i64>("nodeLeaseDurationSeconds")?
        .filter(|seconds| *seconds != 0)
    {
        let seconds = u64::try_from(seconds)
            .map_err(|_| invalid("nodeLeaseDurationSeconds must be greater than 0"))?;
        config.node_lease_duration = Duration::from_secs(seconds);
    }
    for (name, flag, into) in [
        (
            "imageGCHighThresholdPercent",
            "--image-gc-high-threshold",
            &mut config.image_gc_high_threshold_percent,
        ),
        (
            "imageGCLowThresholdPercent",
            "--image-gc-low-threshold",
            &mut config.image_gc_low_threshold_percent,
        ),
    ] {
        if let Some(percent) = fields.take::<i64>(name)? {
            let valid = u8::try_from(percent).ok().filter(|percent| *percent <= 100);
            *into = valid.ok_or_else(|| {
                invalid(format!(
                    "{name} ({flag}) {percent} must be between 0 and 100, inclusive"
                ))
            })?;
        }
    }
    if let Some(size) = fields.text("containerLogMaxSize")? {
        let parsed = Quantity::parse(&size)
            .ok()
            .and_then(|size| u64::try_from(size.value()).ok());
        config.container_log_max_size = parsed.filter(|size| *size > 0).ok_or_else(|| {
            invalid(format!(
                "containerLogMaxSize {size:?} must be a positive quantity"
            ))
        })?;
    }
    if let Some(files) = fields
        .take::<i64>("containerLogMaxFiles")?
        .filter(|files| *files != 0)
    {
        let valid = u32::try_from(files).ok().filter(|files| *files > 1);
        config.container_log_max_files = valid.ok_or_else(|| {
            invalid(format!(
                "containerLogMaxFiles {files} must be greater than 1"
            ))
        })?;
    }
    for (name, into) in [
        ("systemReserved", &mut config.system_reserved),
        ("kubeReserved", &mut config.kube_reserved),
    ] {
        if let Some(amounts) = fields.take::<BTreeMap<String, String>>(name)? {
            reservations(name, &amounts)?;
            *into = amounts;
        }
    }
    let merge = fields
        .take::<bool>("mergeDefaultEvictionSettings")?
        .unwrap_or(false);
    if let Some(mut hard) = fields.take::<BTreeMap<String, String>>("evictionHard")? {
        Threshold::parse_all(&hard).map_err(invalid)?;
        if merge {
            for (signal, value) in std::mem::take(&mut config.eviction_hard) {
                hard.entry(signal).or_insert(value);
            }
        }
        config.eviction_hard = hard;
    }
    if let Some(value) = fields.take::<Map<String, Value>>("crashLoopBackOff")? {
        let mut inner = Fields(value);
        if let Some(longest) = inner.duration("maxContainerRestartPeriod")? {
            config.max_container_restart_period = longest;
        }
        inner.nothing_left("crashLoopBackOff.")?;
    }
    validate(config)?;
    let (known, unknown): (Vec<_>, Vec<_>) = fields
        .0
        .into_iter()
        .partition(|(name, _)| OTHERS.contains(&name.as_str()));
    if !unknown.is_empty() {
        let names = unknown.into_iter().map(|(name, _)| name).collect();
        return Err(ConfigFileError::Unknown(names));
    }
    Ok(known.into_iter().collect())
}

fn invalid(why: impl Into<String>) -> ConfigFileError {
    ConfigFileError::Invalid(why.into())
}

/// What may be reserved, and that it is an amount.
fn reservations(name: &str, amounts: &BTreeMap<String, String>) -> Result<(), ConfigFileError> {
    for (resource, amount) in amounts {
        if !matches!(
            resource.as_str(),
            "cpu" | "memory" | "ephemeral-storage" | "pid"
        ) {
            return Err(invalid(format!(
                "{name}: the resource {resource:?} cannot be reserved; cpu, memory, ephemeral-storage and pid can"
            )));
        }
        let parsed = Quantity::parse(amount)
            .map_err(|error| invalid(format!("{name}: {resource}: {amount:?}: {error}")))?;
        if parsed.is_negative() {
            return Err(invalid(format!(
                "{name}: {resource}: {amount} cannot be negative"
            )));
        }
    }
    Ok(())
}

/// What holds between values.
fn validate(config: &KubeletConfig) -> Result<(), ConfigFileError> {
    let (high, low) = (
        config.image_gc_high_threshold_percent,
        config.image_gc_low_threshold_percent,
    );
    if low >= high {
        return Err(invalid(format!(
            "imageGCLowThresholdPercent (--image-gc-low-threshold) {low} must be less than imageGCHighThresholdPercent \
             (--image-gc-high-threshold) {high}"
        )));
    }
    let period = config.cpu_cfs_quota_period;
    if !(Duration::from_millis(1)..=Duration::from_secs(1)).contains(&period) {
        return Err(invalid(format!(
            "cpuCFSQuotaPeriod (--cpu-cfs-quota-period) {period:?} must be between 1ms and 1sec, inclusive"
        )));
    }
    Ok(())
}

/// The fields that were not read yet.
struct Fields(Map<String, Value>);

impl Fields {
    /// A field, if it is there and not null.
    fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, ConfigFileError> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value)
                .map(Some)
                .map_err(|error| invalid(format!("{name}: {error}"))),
        }
    }

    /// A text that is not empty.
    fn text(&mut self, name: &str) -> Result<Option<String>, ConfigFileError> {
        Ok(self.take::<String>(name)?.filter(|text| !text.is_empty()))
    }

    /// A duration that is not zero.
    fn duration(&mut self, name: &str) -> Result<Option<Duration>, ConfigFileError> {
        let Some(text) = self.take::<String>(name)? else {
            return Ok(None);
        };
        let duration =
            parse_duration(&text).map_err(|error| invalid(format!("{name}: {error}")))?;
        Ok(Some(duration).filter(|duration| !duration.is_zero()))
    }

    fn nothing_left(self, prefix: &str) -> Result<(), ConfigFileError> {
        let names: Vec<_> = self
            .0
            .keys()
            .map(|name| format!("{prefix}{name}"))
            .collect();
        if names.is_empty() {
            Ok(())
        } else {
            Err(ConfigFileError::Unknown(names))
        }
    }
}

/// Reads a duration as Go writes it: `1h30m`, `1.5s`, `100ms`. Not a negative one.
///
/// # Errors
/// What is wrong with it, in Go's words.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("time: invalid duration {text:?}");
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() || rest.starts_with('-') {
        return Err(wrong());
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        let unit_end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let scale: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            other => return Err(format!("time: unknown unit {other:?} in duration {text:?}")),
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && part.is_empty()) || part.contains('.') {
            return Err(wrong());
        }
        // More digits than these cannot be seen in nanoseconds, or do not fit.
        let whole: u128 = if whole.is_empty() {
            0
        } else {
            whole.parse::<u64>().map_err(|_| wrong())?.into()
        };
        let part = &part[..part.len().min(18)];
        let fraction: u128 = if part.is_empty() {
            0
        } else {
            part.parse::<u64>().map_err(|_| wrong())?.into()
        };
        nanos += whole * scale + fraction * scale / 10u128.pow(part.len() as u32);
        rest = after;
    }
    // Go's durations have 63 bits.
    let nanos = u64::try_from(nanos)
        .ok()
        .filter(|nanos| i64::try_from(*nanos).is_ok());
    nanos.map(Duration::from_nanos).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(rest: &str) -> Result<(KubeletConfig, Vec<String>), String> {
        let mut config = KubeletConfig::new("n1");
        let text = format!("apiVersion: {API_VERSION}\nkind: {KIND}\n{rest}");
        let others = apply(text.as_bytes(), &mut config).map_err(|error| error.to_string())?;
        Ok((config, others.keys().cloned().collect()))
    }

    #[test]
    fn an_empty_file_leaves_the_defaults() {
        assert_eq!(read("").unwrap(), (KubeletConfig::new("n1"), vec![]));
        let zeros = "port: 0\nmaxPods: 0\nsyncFrequency: 0s\nclusterDomain: \"\"\nnodeLeaseDurationSeconds: 0\nevictionHard: null\n";
        assert_eq!(read(zeros).unwrap().0, KubeletConfig::new("n1"));
    }

    #[test]
    fn what_kubeadm_writes_is_read() {
        let text = "address: 192.0.2.1\nport: 10350\nauthentication:\n  anonymous:\n    enabled: false\ncgroupDriver: systemd\n\
            clusterDNS:\n- 10.96.0.10\nclusterDomain: example.org\ncontainerRuntimeEndpoint: unix:///run/containerd/containerd.sock\n\
            evictionHard:\n  memory.available: 5%\nevictionPressureTransitionPeriod: 1m30s\nkubeReserved: {cpu: 100m}\n\
            maxPods: 250\nnodeStatusUpdateFrequency: 5s\nrotateCertificates: true\nresolvConf: \"\"\nstaticPodPath: /etc/kubernetes/manifests\n\
            registerWithTaints:\n- {key: a, effect: NoSchedule}\ncrashLoopBackOff:\n  maxContainerRestartPeriod: 60s\ncontainerLogMaxSize: 1Mi\n\
            serializeImagePulls: false\nnodeLeaseDurationSeconds: 20\nimageGCHighThresholdPercent: 90\nimageGCLowThresholdPercent: 0\n";
        let (config, others) = read(text).unwrap();
        assert_eq!(config.listen.to_string(), "192.0.2.1:10350");
        assert!(config.systemd_cgroups && !config.serialize_image_pulls);
        assert_eq!(
            config.cluster_dns,
            ["10.96.0.10".parse::<IpAddr>().unwrap()]
        );
        assert_eq!(
            config.eviction_hard,
            BTreeMap::from([("memory.available".into(), "5%".into())])
        );
        assert_eq!(
            config.eviction_pressure_transition_period,
            Duration::from_secs(90)
        );
        assert_eq!(
            (config.max_pods, config.container_log_max_size),
            (250, 1 << 20)
        );
        assert_eq!(config.node_status_report_frequency, Duration::from_secs(5));
        assert_eq!(config.max_container_restart_period, Duration::from_secs(60));
        assert_eq!(config.node_lease_duration, Duration::from_secs(20));
        assert_eq!(config.resolv_conf, None);
        assert_eq!(config.register_with_taints[0].key, "a");
        assert_eq!(
            (
                config.image_gc_high_threshold_percent,
                config.image_gc_low_threshold_percent
            ),
            (90, 0)
        );
        assert_eq!(
            others,
            [
                "authentication",
                "containerRuntimeEndpoint",
                "rotateCertificates"
            ]
        );
    }

    #[test]
    fn thresholds_of_ones_own_may_join_the_defaults() {
        let (config, _) =
            read("mergeDefaultEvictionSettings: true\nevictionHard: {memory.available: 1Gi}\n")
                .unwrap();
        assert_eq!(config.eviction_hard["memory.available"], "1Gi");
        assert_eq!(config.eviction_hard["nodefs.available"], "10%");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let cases = [
            (
                "maxPod: 3\nfoo: 1\n",
                "strict decoding error: unknown field \"foo\", unknown field \"maxPod\"",
            ),
            (
                "crashLoopBackOff: {max: 1s}\n",
                "strict decoding error: unknown field \"crashLoopBackOff.max\"",
            ),
            (
                "maxPods: -1\n",
                "invalid configuration: maxPods (--max-pods) -1 must not be a negative number",
            ),
            (
                "port: 70000\n",
                "invalid configuration: port (--port) 70000 must be between 1 and 65535, inclusive",
            ),
            (
                "syncFrequency: 10\n",
                "invalid configuration: syncFrequency: invalid type: integer `10`, expected a string",
            ),
            (
                "syncFrequency: 10x\n",
                "invalid configuration: syncFrequency: time: unknown unit \"x\" in duration \"10x\"",
            ),
            (
                "evictionHard: {a.b: 1}\n",
                "invalid configuration: evictionHard: invalid type: integer `1`, expected a string",
            ),
            (
                "evictionHard: {a.b: 1Gi}\n",
                "invalid configuration: unsupported eviction signal a.b",
            ),
            (
                "imageGCHighThresholdPercent: 101\n",
                "invalid configuration: imageGCHighThresholdPercent (--image-gc-high-threshold) 101 must be between 0 and 100, inclusive",
            ),
            (
                "imageGCLowThresholdPercent: 85\n",
                "invalid configuration: imageGCLowThresholdPercent (--image-gc-low-threshold) 85 must be less than imageGCHighThresholdPercent (--image-gc-high-threshold) 85",
            ),
            (
                "cgroupDriver: other\n",
                "invalid configuration: cgroupDriver (--cgroup-driver) \"other\" must be \"cgroupfs\" or \"systemd\"",
            ),
            (
                "systemReserved: {pods: \"1\"}\n",
                "invalid configuration: systemReserved: the resource \"pods\" cannot be reserved; cpu, memory, ephemeral-storage and pid can",
            ),
            (
                "containerLogMaxFiles: 1\n",
                "invalid configuration: containerLogMaxFiles 1 must be greater than 1",
            ),
            (
                "cpuCFSQuotaPeriod: 2s\n",
                "invalid configuration: cpuCFSQuotaPeriod (--cpu-cfs-quota-period) 2s must be between 1ms and 1sec, inclusive",
            ),
        ];
        for (text, want) in cases {
            assert_eq!(read(text).unwrap_err(), want, "{text}");
        }
        assert!(
            read("maxPods: 1\nmaxPods: 2\n")
                .unwrap_err()
                .contains("already set in map")
        );
        let mut config = KubeletConfig::new("n1");
        let wrong = apply(b"kind: Pod\napiVersion: v1\n", &mut config).unwrap_err();
        assert!(matches!(wrong, ConfigFileError::Kind { .. }), "{wrong}");
    }

    #[test]
    fn a_file_is_read_as_a_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        let mut config = KubeletConfig::new("n1");
        assert!(matches!(
            load(&path, &mut config),
            Err(ConfigFileError::File { .. })
        ));
        let head = format!("apiVersion: {API_VERSION}\nkind: {KIND}\nmaxPods: 5\n");
        std::fs::write(&path, format!("{head}nonsense: 1\n")).unwrap();
        load(&path, &mut config).unwrap_err();
        assert_eq!(config, KubeletConfig::new("n1"));
        std::fs::write(&path, format!("{head}staticPodPath: pods\n")).unwrap();
        load(&path, &mut config).unwrap();
        assert_eq!(config.max_pods, 5);
        assert_eq!(config.static_pod_path, Some(dir.path().join("pods")));
    }

    #[test]
    fn durations_are_read_as_go_does() {
        let ok = [
            ("0", 0),
            ("10s", 10_000_000_000),
            ("1h2m3.5s", 3_723_500_000_000),
            ("1.5h", 5_400_000_000_000),
            ("100ms", 100_000_000),
            ("3µs", 3000),
            (".5s", 500_000_000),
            ("+1ns", 1),
        ];
        for (text, nanos) in ok {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_nanos(nanos)),
                "{text}"
            );
        }
        for text in ["", "10", "-1s", "s", ".s", "1.2.3s", "1d", "9999999999h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "\\PC{0,24}") {
            let _ = parse_duration(&text);
        }

        #[test]
        fn whole_units_add_up(hours in 0u64..1000, minutes in 0u64..1000, millis in 0u64..100_000) {
            let text = format!("{hours}h{minutes}m{millis}ms");
            let want = Duration::from_secs(hours * 3600 + minutes * 60) + Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&text).unwrap(), want);
        }
    }
}
