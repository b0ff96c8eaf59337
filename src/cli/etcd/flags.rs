//! Flags as etcd has them.

use std::time::Duration;

use clap::{Args, ValueEnum};
use orlop::store::AutoCompaction;

use super::super::Failure;

/// How the retention is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum CompactionMode {
    /// What is younger than a duration is kept
    Periodic,
    /// So many revisions are kept
    Revision,
}

/// How much to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Level {
    /// Everything
    Debug,
    /// What happens
    Info,
    /// What may need somebody
    Warn,
    /// What went wrong
    Error,
    /// As error
    Panic,
    /// As error
    Fatal,
}

impl Level {
    pub(super) fn filter(self) -> &'static str {
        match self {
            Self::Debug => "info,orlop=debug,orlop_store=debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error | Self::Panic | Self::Fatal => "error",
        }
    }
}

/// Flags about the other members of a cluster, and about how etcd itself keeps data. They are taken, so that a command line for one member of
/// etcd works, and they change nothing.
#[derive(Debug, Args)]
pub(super) struct Peers {
    #[arg(long, value_name = "URL", value_delimiter = ',', hide = true)]
    listen_peer_urls: Vec<String>,
    #[arg(long, value_name = "URL", value_delimiter = ',', hide = true)]
    initial_advertise_peer_urls: Vec<String>,
    #[arg(long, value_name = "NAME=URL", value_delimiter = ',', hide = true)]
    initial_cluster: Vec<String>,
    #[arg(long, value_name = "STATE", hide = true)]
    initial_cluster_state: Option<String>,
    #[arg(long, value_name = "TOKEN", hide = true)]
    initial_cluster_token: Option<String>,
    #[arg(long, value_name = "FILE", hide = true)]
    peer_cert_file: Option<String>,
    #[arg(long, value_name = "FILE", hide = true)]
    peer_key_file: Option<String>,
    #[arg(long, value_name = "FILE", hide = true)]
    peer_trusted_ca_file: Option<String>,
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    peer_client_cert_auth: Option<bool>,
    #[arg(long, value_name = "N", hide = true)]
    snapshot_count: Option<u64>,
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    experimental_initial_corrupt_check: Option<bool>,
}

impl Peers {
    /// Refuses nothing, but says what has no effect.
    pub(super) fn warn(&self) {
        let peers = [
            ("--listen-peer-urls", !self.listen_peer_urls.is_empty()),
            (
                "--initial-advertise-peer-urls",
                !self.initial_advertise_peer_urls.is_empty(),
            ),
            ("--initial-cluster", !self.initial_cluster.is_empty()),
            (
                "--initial-cluster-state",
                self.initial_cluster_state.is_some(),
            ),
            (
                "--initial-cluster-token",
                self.initial_cluster_token.is_some(),
            ),
            ("--peer-cert-file", self.peer_cert_file.is_some()),
            ("--peer-key-file", self.peer_key_file.is_some()),
            (
                "--peer-trusted-ca-file",
                self.peer_trusted_ca_file.is_some(),
            ),
            (
                "--peer-client-cert-auth",
                self.peer_client_cert_auth.is_some(),
            ),
        ];
        for (flag, _) in peers.iter().filter(|(_, given)| *given) {
            tracing::warn!(flag, "no effect: there are no peers");
        }
        if self.snapshot_count.is_some() {
            tracing::warn!(
                flag = "--snapshot-count",
                "no effect: checkpoints are made by the size of the log"
            );
        }
        // The data is always checked when it is read, so `--experimental-initial-corrupt-check` is done whether it is asked for or not.
        let _ = self.experimental_initial_corrupt_check;
    }

    /// How many members the flags speak of, if more than one.
    pub(super) fn others(&self) -> Option<usize> {
        Some(self.initial_cluster.len()).filter(|&members| members > 1)
    }

    /// What is told as the URLs for peers.
    pub(super) fn urls(&self) -> Vec<String> {
        if self.initial_advertise_peer_urls.is_empty() {
            vec!["http://localhost:2380".to_owned()]
        } else {
            self.initial_advertise_peer_urls.clone()
        }
    }
}

/// What history is given up.
pub(super) fn compaction(
    mode: CompactionMode,
    retention: &str,
) -> Result<Option<AutoCompaction>, Failure> {
    let bad = |what: &str| {
        Failure::new(format!(
            "--auto-compaction-retention {retention:?} is no {what}"
        ))
    };
    Ok(match mode {
        CompactionMode::Revision => {
            let revisions: u64 = retention.parse().map_err(|_| bad("number of revisions"))?;
            (revisions > 0).then_some(AutoCompaction::Revision(revisions))
        }
        CompactionMode::Periodic => {
            let period = match retention.parse::<u32>() {
                // Hours, where nothing is said.
                Ok(hours) => Duration::from_secs(u64::from(hours) * 3600),
                Err(_) => duration(retention).map_err(|_| bad("duration"))?,
            };
            (!period.is_zero()).then_some(AutoCompaction::Periodic(period))
        }
    })
}

/// A duration as Go writes it: numbers with units, such as `1h30m` or `1.5s`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is no duration such as 10m or 1h30m");
    let mut rest = text;
    let mut total = 0.0;
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(bad)?;
        let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let unit = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        total += number
            * match &rest[..unit] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return Err(bad()),
            };
        rest = &rest[unit..];
    }
    Duration::try_from_secs_f64(total).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for bad in ["", "5", "m", "5x", "1..5s", "-5m"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn retention_is_hours_a_duration_or_revisions() {
        use CompactionMode::{Periodic, Revision};
        let read = |mode, retention| compaction(mode, retention).ok();
        let hours = |hours: u64| {
            Some(Some(AutoCompaction::Periodic(Duration::from_secs(
                hours * 3600,
            ))))
        };
        assert_eq!(read(Periodic, "0"), Some(None));
        assert_eq!(read(Periodic, "8"), hours(8));
        assert_eq!(read(Periodic, "48h"), hours(48));
        assert_eq!(read(Periodic, "soon"), None);
        assert_eq!(
            read(Revision, "1000"),
            Some(Some(AutoCompaction::Revision(1000)))
        );
        assert_eq!(read(Revision, "5m"), None);
    }
}
