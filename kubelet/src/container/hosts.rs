//! A pod's `/etc/hosts`.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use k8s_openapi::api::core::v1::{HostAlias, Pod};

use super::hostname::Hostname;

/// Where it is inside.
pub(super) const PATH: &str = "/etc/hosts";

/// The file of a pod with a network of its own.
pub(super) fn own(pod: &Pod, addresses: &[IpAddr], name: &Hostname) -> String {
    let mut out = String::from(
        "# Kubernetes-managed hosts file.\n\
         127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n",
    );
    let Hostname { host, domain, .. } = name;
    for address in addresses {
        out.push_str(&if domain.is_empty() {
            format!("{address}\t{host}\n")
        } else {
            format!("{address}\t{host}.{domain}\t{host}\n")
        });
    }
    out.push_str(&aliases(pod));
    out
}

/// The file of a pod in the host's network: the host's own, and what the pod adds.
pub(super) fn of_host(pod: &Pod, host: &[u8]) -> Vec<u8> {
    let mut out = b"# Kubernetes-managed hosts file (host network).\n".to_vec();
    out.extend_from_slice(host);
    out.extend_from_slice(aliases(pod).as_bytes());
    out
}

fn aliases(pod: &Pod) -> String {
    let aliases = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.host_aliases.as_deref());
    let Some(aliases) = aliases.filter(|aliases| !aliases.is_empty()) else {
        return String::new();
    };
    let line = |alias: &HostAlias| {
        let names = alias.hostnames.as_deref().unwrap_or_default();
        format!("{}\t{}\n", alias.ip, names.join("\t"))
    };
    let lines: String = aliases.iter().map(line).collect();
    format!("\n# Entries added by HostAliases.\n{lines}")
}

/// Writes the file where it is not as it should be. In place: containers have it mounted, and a new file of the same name would not
/// be theirs.
pub(super) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    if fs::read(path).is_ok_and(|have| have == content) {
        return Ok(());
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o644);
    io::Write::write_all(&mut options.open(path)?, content)
}
