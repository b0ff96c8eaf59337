//! What the kernel has to be told beside rules.

use std::path::Path;
use std::time::Duration;

use crate::config::{ConntrackConfig, Family, ProxyConfig};

/// Looks after kernel settings: forwarding is switched on, connection tracking is made as generous as configured, and what makes Services
/// fail silently is warned of. Nothing here stops the proxy: a container may see `/proc/sys` read-only with everything set already.
pub(crate) fn prepare(config: &ProxyConfig, cpus: u32) {
    if !config.manage_sysctls {
        return;
    }
    let root = &config.sysctl_root;
    for family in &config.families {
        let name = match family {
            Family::V4 => "net/ipv4/ip_forward",
            Family::V6 => "net/ipv6/conf/all/forwarding",
        };
        match read(root, name) {
            Some(1..) => {}
            Some(0) => match write(root, name, 1) {
                Ok(()) => tracing::info!(sysctl = name, "forwarding was off and is on now"),
                Err(error) => {
                    tracing::warn!(sysctl = name, %error, "forwarding is off: traffic from other machines and pods gets nowhere");
                }
            },
            None => tracing::debug!(sysctl = name, "not there"),
        }
        let bridge = match family {
            Family::V4 => "net/bridge/bridge-nf-call-iptables",
            Family::V6 => "net/bridge/bridge-nf-call-ip6tables",
        };
        if read(root, bridge) == Some(0) {
            tracing::warn!(
                sysctl = bridge,
                "answers between pods of one bridge pass the rules by: Services whose endpoint is on the client's node fail"
            );
        }
    }
    if let Some(conntrack) = &config.conntrack {
        prepare_conntrack(root, conntrack, cpus);
    }
}

fn prepare_conntrack(root: &Path, config: &ConntrackConfig, cpus: u32) {
    if config.max_per_core > 0 {
        let most = config.max_per_core.saturating_mul(cpus).max(config.min);
        raise(root, "net/netfilter/nf_conntrack_max", most.into());
    }
    let seconds = |limit: Option<Duration>| limit.map(|limit| limit.as_secs()).filter(|&s| s > 0);
    if let Some(seconds) = seconds(config.tcp_established_timeout) {
        raise(
            root,
            "net/netfilter/nf_conntrack_tcp_timeout_established",
            seconds,
        );
    }
    if let Some(seconds) = seconds(config.tcp_close_wait_timeout) {
        raise(
            root,
            "net/netfilter/nf_conntrack_tcp_timeout_close_wait",
            seconds,
        );
    }
}

/// Sets a number that is lower.
fn raise(root: &Path, name: &str, to: u64) {
    let Some(now) = read(root, name).filter(|&now| now < to) else {
        return;
    };
    match write(root, name, to) {
        Ok(()) => tracing::info!(sysctl = name, was = now, is = to, "raised"),
        Err(error) => {
            tracing::warn!(sysctl = name, is = now, wanted = to, %error, "cannot be raised")
        }
    }
}

fn read(root: &Path, name: &str) -> Option<u64> {
    std::fs::read_to_string(root.join(name))
        .ok()?
        .trim()
        .parse()
        .ok()
}

fn write(root: &Path, name: &str, value: u64) -> std::io::Result<()> {
    std::fs::write(root.join(name), value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarding_is_switched_on_and_limits_are_only_raised() {
        let root = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("net/ipv4/ip_forward", "0\n");
        put("net/netfilter/nf_conntrack_max", "65536\n");
        put(
            "net/netfilter/nf_conntrack_tcp_timeout_established",
            "432000\n",
        );
        put("net/netfilter/nf_conntrack_tcp_timeout_close_wait", "60\n");
        let mut config = ProxyConfig::new("n");
        config.sysctl_root = root.path().to_owned();
        config.manage_sysctls = false;
        prepare(&config, 8);
        assert_eq!(read(root.path(), "net/ipv4/ip_forward"), Some(0));
        config.manage_sysctls = true;
        prepare(&config, 8);
        for (name, value) in [
            ("net/ipv4/ip_forward", Some(1)),
            ("net/ipv6/conf/all/forwarding", None),
            ("net/netfilter/nf_conntrack_max", Some(8 * 32 * 1024)),
            (
                "net/netfilter/nf_conntrack_tcp_timeout_established",
                Some(432_000),
            ),
            (
                "net/netfilter/nf_conntrack_tcp_timeout_close_wait",
                Some(3600),
            ),
        ] {
            assert_eq!(read(root.path(), name), value, "{name}");
        }
    }
}
