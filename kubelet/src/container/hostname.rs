//! What a pod's host is called.

use k8s_openapi::api::core::v1::Pod;

/// The longest name of a host in DNS.
const LONGEST: usize = 63;
/// The longest name that the kernel takes.
const LONGEST_FQDN: usize = 64;

/// What a pod's host is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hostname {
    /// The name of the host.
    pub host: String,
    /// Its domain; empty without.
    pub domain: String,
    /// The name that the kernel shows inside: that of the host, or with its domain.
    pub kernel: String,
}

/// What a pod's host is called, by its `hostnameOverride`, `hostname`, `subdomain` and `setHostnameAsFQDN`, or else by its own name.
///
/// # Errors
/// When the name cannot be one of a host.
pub fn hostname(pod: &Pod, cluster_domain: &str) -> Result<Hostname, String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let Some(spec) = &pod.spec else {
        return Err("the pod has no specification".to_owned());
    };
    let set = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
    if let Some(own) = set(&spec.hostname_override) {
        if own.len() > LONGEST_FQDN {
            return Err(format!(
                "pod hostnameOverride {own:?} is longer than {LONGEST_FQDN} characters"
            ));
        }
        return Ok(Hostname {
            host: own.clone(),
            domain: String::new(),
            kernel: own,
        });
    }
    let wanted = set(&spec.hostname);
    if let Some(wanted) = &wanted
        && !is_label(wanted)
    {
        return Err(format!("pod Hostname {wanted:?} is not a valid DNS label"));
    }
    let wanted = wanted.as_deref().unwrap_or(name);
    let mut host = wanted;
    if host.len() > LONGEST {
        let cut = (0..=LONGEST)
            .rev()
            .find(|at| host.is_char_boundary(*at))
            .unwrap_or(0);
        host = host[..cut].trim_end_matches(['-', '.']);
        if host.is_empty() {
            return Err(format!("hostname for pod {name:?} was invalid: {wanted:?}"));
        }
    }
    let domain = set(&spec.subdomain)
        .map(|subdomain| format!("{subdomain}.{namespace}.svc.{cluster_domain}"))
        .unwrap_or_default();
    let mut kernel = host.to_owned();
    if spec.set_hostname_as_fqdn == Some(true) && !domain.is_empty() {
        kernel = format!("{host}.{domain}");
        if kernel.len() > LONGEST_FQDN {
            return Err(format!(
                "failed to construct FQDN from pod hostname and cluster domain, FQDN {kernel} is too long ({LONGEST_FQDN} characters is the max, {} characters requested)",
                kernel.len()
            ));
        }
    }
    Ok(Hostname {
        host: host.to_owned(),
        domain,
        kernel,
    })
}

fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    text.len() <= LONGEST
        && !text.is_empty()
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}
