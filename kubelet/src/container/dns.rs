//! How names are resolved in a pod.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, PodDNSConfig};
use orlop_core::runtime::DnsConfig;

use super::words::pod_text;

/// The most name servers, which is what the resolver of libc reads.
const MAX_SERVERS: usize = 3;
/// The most search domains, and the most characters of all of them.
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARACTERS: usize = 2048;
/// The longest search domain: longer ones make some resolvers abort.
const MAX_DOMAIN: usize = 253;

/// What a node knows of DNS.
#[derive(Clone, Copy, Debug)]
pub(super) struct NodeDns<'a> {
    pub(super) cluster_dns: &'a [IpAddr],
    pub(super) cluster_domain: &'a str,
    pub(super) node_ips: &'a [IpAddr],
    /// The contents of the host's resolver configuration; `None`: pods have none of it.
    pub(super) resolv_conf: Option<&'a str>,
}

/// What is told beside the configuration: the reasons and messages of warnings about the pod, and those about the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Warnings {
    pub(super) pod: Vec<(&'static str, String)>,
    pub(super) node: Vec<(&'static str, String)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Cluster,
    Host,
    None,
}

/// How names are resolved in a pod.
///
/// # Errors
/// When the host's configuration makes no sense.
pub(super) fn of_pod(pod: &Pod, node: &NodeDns<'_>) -> Result<(DnsConfig, Warnings), String> {
    let spec = pod.spec.as_ref();
    let host_network = spec.and_then(|spec| spec.host_network) == Some(true);
    let kind = match spec.and_then(|spec| spec.dns_policy.as_deref()) {
        Some("None") => Kind::None,
        Some("Default") => Kind::Host,
        Some("ClusterFirst") | None if host_network => Kind::Host,
        _ => Kind::Cluster,
    };
    let mut warnings = Warnings::default();
    let mut config = DnsConfig::default();
    if kind != Kind::None
        && let Some(text) = node.resolv_conf
    {
        config = parse(text)?;
    }
    if kind == Kind::Cluster && !node.cluster_dns.is_empty() {
        config.servers = node.cluster_dns.iter().map(ToString::to_string).collect();
        if !node.cluster_domain.is_empty() {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let domain = node.cluster_domain;
            let own = [
                format!("{namespace}.svc.{domain}"),
                format!("svc.{domain}"),
                domain.to_owned(),
            ];
            config.searches = unique(own.into_iter().chain(config.searches));
        }
        config.options = vec!["ndots:5".to_owned()];
    } else if kind != Kind::None {
        if kind == Kind::Cluster {
            let message = "kubelet does not have ClusterDNS IP configured and cannot create Pod using \
                           \"ClusterFirst\" policy. Falling back to \"Default\" policy.";
            warnings
                .node
                .push(("MissingClusterDNS", message.to_owned()));
            let message = format!("pod: {:?}. {message}", pod_text(pod));
            warnings.pod.push(("MissingClusterDNS", message));
        }
        if node.resolv_conf.is_none() {
            // No server at all would mean this, too, but runtimes would take the host's file.
            let local = |ip: &IpAddr| if ip.is_ipv6() { "::1" } else { "127.0.0.1" };
            config.servers = node
                .node_ips
                .iter()
                .map(|ip| local(ip).to_owned())
                .collect();
            if config.servers.is_empty() {
                config.servers.push("127.0.0.1".to_owned());
            }
            config.searches = vec![".".to_owned()];
        }
    }
    if let Some(more) = spec.and_then(|spec| spec.dns_config.as_ref()) {
        merge(&mut config, more);
    }
    cut(&mut config, &mut warnings);
    Ok((config, warnings))
}

/// A resolver configuration (resolv.conf(5)). The last line of searches or options counts.
fn parse(text: &str) -> Result<DnsConfig, String> {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => {
                let server = words.next().ok_or("nameserver list is empty ")?;
                config.servers.push(server.to_owned());
            }
            Some("search") => {
                let domain = |word: &str| {
                    let plain = word.strip_suffix('.').unwrap_or(word);
                    if plain.is_empty() { word } else { plain }.to_owned()
                };
                config.searches = words.map(domain).collect();
            }
            Some("options") => config.options = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    Ok(config)
}

/// Puts what a pod says behind what is there; its options in the place of those of the same name.
fn merge(config: &mut DnsConfig, more: &PodDNSConfig) {
    let add = |have: &mut Vec<String>, more: &Option<Vec<String>>| {
        let all = std::mem::take(have)
            .into_iter()
            .chain(more.clone().unwrap_or_default());
        *have = unique(all);
    };
    add(&mut config.servers, &more.nameservers);
    add(&mut config.searches, &more.searches);
    for option in more.options.iter().flatten() {
        let name = option.name.as_deref().unwrap_or_default();
        let text = match option.value.as_deref() {
            Some(value) if !value.is_empty() => format!("{name}:{value}"),
            _ => name.to_owned(),
        };
        let same = |have: &&mut String| {
            have.split_once(':').map_or(have.as_str(), |(have, _)| have) == name
        };
        match config.options.iter_mut().find(same) {
            Some(have) => *have = text,
            None => config.options.push(text),
        }
    }
}

/// Cuts what resolvers do not take.
fn cut(config: &mut DnsConfig, warnings: &mut Warnings) {
    if config.servers.len() > MAX_SERVERS {
        config.servers.truncate(MAX_SERVERS);
        warnings.pod.push((
            "DNSConfigForming",
            format!(
                "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
                config.servers.join(" ")
            ),
        ));
    }
    let before = config.searches.len();
    let searches = &mut config.searches;
    searches.truncate(MAX_SEARCHES);
    searches.retain(|search| search.len() <= MAX_DOMAIN);
    while searches.join(" ").len() > MAX_SEARCH_CHARACTERS {
        searches.pop();
    }
    if searches.len() < before {
        warnings.pod.push((
            "DNSConfigForming",
            format!(
                "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
                searches.join(" ")
            ),
        ));
    }
}

fn unique(all: impl Iterator<Item = String>) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for one in all {
        if !out.contains(&one) {
            out.push(one);
        }
    }
    out
}
