//! Services as variables of the environment.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use orlop_api::typed::Informer;

/// The Service that every pod is told of, whatever it says: the API's own.
const MASTER: (&str, &str) = ("default", "kubernetes");

/// Where Services are known from.
pub trait Services: Send + Sync + 'static {
    /// The Services of a namespace; `None` before they have been read for the first time.
    fn in_namespace(&self, namespace: &str) -> Option<Vec<Arc<Service>>>;
}

impl Services for Informer<Service> {
    fn in_namespace(&self, namespace: &str) -> Option<Vec<Arc<Service>>> {
        if !self.shared().has_synced() {
            return None;
        }
        Some(Self::in_namespace(self, namespace).unwrap_or_else(|error| {
            tracing::warn!(namespace, %error, "a Service cannot be read");
            Vec::new()
        }))
    }
}

/// No Services: for a node agent without an API.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoServices;

impl Services for NoServices {
    fn in_namespace(&self, _: &str) -> Option<Vec<Arc<Service>>> {
        Some(Vec::new())
    }
}

/// The variables of a pod of a namespace; `None` before Services have been read. Those of the API's own Service always; those of the
/// namespace's Services if they are wanted.
pub(super) fn variables(
    services: &dyn Services,
    namespace: &str,
    links: bool,
) -> Option<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    let named = |service: &Service, name: &str| service.metadata.name.as_deref() == Some(name);
    for service in services.in_namespace(MASTER.0)? {
        if named(&service, MASTER.1) {
            put(&service, &mut all);
        }
    }
    if links {
        for service in services.in_namespace(namespace)? {
            // A Service of the same name does not hide the API's.
            if !named(&service, MASTER.1) || namespace == MASTER.0 || all.is_empty() {
                put(&service, &mut all);
            }
        }
    }
    Some(all)
}

/// The variables of one Service, as Docker's links had them, too. None for one without an address.
fn put(service: &Service, all: &mut BTreeMap<String, String>) {
    let Some(spec) = &service.spec else { return };
    let address = spec.cluster_ip.as_deref().unwrap_or_default();
    let ports = spec.ports.as_deref().unwrap_or_default();
    let (Some(first), false) = (ports.first(), matches!(address, "" | "None")) else {
        return;
    };
    let word = |name: &str| name.to_ascii_uppercase().replace('-', "_");
    let prefix = word(service.metadata.name.as_deref().unwrap_or_default());
    let mut put = |name: String, value: String| {
        all.insert(name, value);
    };
    put(format!("{prefix}_SERVICE_HOST"), address.to_owned());
    put(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
    let host = match address.parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]"),
        Err(_) => address.to_owned(),
    };
    for (place, port) in ports.iter().enumerate() {
        let number = port.port;
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            put(
                format!("{prefix}_SERVICE_PORT_{}", word(name)),
                number.to_string(),
            );
        }
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{host}:{number}", protocol.to_ascii_lowercase());
        if place == 0 {
            put(format!("{prefix}_PORT"), url.clone());
        }
        let own = format!("{prefix}_PORT_{number}_{}", protocol.to_ascii_uppercase());
        put(format!("{own}_PROTO"), protocol.to_ascii_lowercase());
        put(format!("{own}_PORT"), number.to_string());
        put(format!("{own}_ADDR"), address.to_owned());
        put(own, url);
    }
}
