//! What a pod can be told of itself: the downward API, as environment variables and as files.

mod quote;
mod resource;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;

pub use self::quote::quote;
pub use self::resource::{Allocatable, resource};

/// Why a field or resource cannot be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DownwardError {
    /// No such field.
    #[error("unsupported fieldPath: {0}")]
    UnknownField(String),
    /// The field is no map.
    #[error("fieldPath {0:?} does not support subscript")]
    NoSubscript(String),
    /// No such resource.
    #[error("unsupported container resource : {0}")]
    UnknownResource(String),
    /// The pod has no container of this name.
    #[error("container {0} not found")]
    NoContainer(String),
    /// An amount cannot be read.
    #[error("{resource} cannot be read: {why}")]
    Quantity {
        /// The resource, or `divisor`.
        resource: String,
        /// What is wrong with it.
        why: String,
    },
}

/// The addresses that a pod can be told, the main ones first. They are not taken from the pod's status, which may not say them yet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Addresses<'a> {
    /// The node's.
    pub host: &'a [IpAddr],
    /// The pod's own.
    pub pod: &'a [IpAddr],
}

/// The value of a `fieldRef`. A label or annotation that the pod does not have, and an address that is not known, is empty.
///
/// # Errors
/// When there is no such field, or it cannot have a subscript.
pub fn field(pod: &Pod, path: &str, addresses: Addresses<'_>) -> Result<String, DownwardError> {
    let meta = &pod.metadata;
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.annotations" => meta.annotations.as_ref(),
            "metadata.labels" => meta.labels.as_ref(),
            _ => return Err(DownwardError::NoSubscript(path.to_owned())),
        };
        return Ok(map
            .and_then(|map| map.get(key))
            .cloned()
            .unwrap_or_default());
    }
    let spec = pod.spec.as_ref();
    let text = |value: Option<&String>| value.cloned().unwrap_or_default();
    let first = |all: &[IpAddr]| all.first().map(ToString::to_string).unwrap_or_default();
    Ok(match path {
        "metadata.name" => text(meta.name.as_ref()),
        "metadata.namespace" => text(meta.namespace.as_ref()),
        "metadata.uid" => text(meta.uid.as_ref()),
        "metadata.labels" => lines(meta.labels.as_ref()),
        "metadata.annotations" => lines(meta.annotations.as_ref()),
        "spec.nodeName" => text(spec.and_then(|spec| spec.node_name.as_ref())),
        "spec.serviceAccountName" => text(spec.and_then(|spec| spec.service_account_name.as_ref())),
        "status.hostIP" => first(addresses.host),
        "status.hostIPs" => all(addresses.host),
        "status.podIP" => first(addresses.pod),
        "status.podIPs" => all(addresses.pod),
        _ => return Err(DownwardError::UnknownField(path.to_owned())),
    })
}

/// `map['key']` as its two words.
fn subscript(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?.split_once("['")
}

fn all(addresses: &[IpAddr]) -> String {
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    texts.join(",")
}

/// A map as lines of `key="value"`, in order of the keys, without a line break at the end.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let mut out = String::new();
    for (key, value) in map.into_iter().flatten() {
        if !out.is_empty() {
            out.push('\n');
        }
        // Writing to a string cannot fail.
        let _ = write!(out, "{key}={}", quote(value));
    }
    out
}
