//! The API server's own service, and the range that service addresses come from.

use std::net::IpAddr;

use orlop_core::env::Env;
use orlop_core::resource::Resource;
use orlop_core::status::Status;
use serde_json::{Value, json};

use super::{Config, Server, copy, first_service_ip, is_endpoint};
use crate::authentication::time_text;
use crate::names::{
    ENDPOINT_SLICES, ENDPOINTS, IP_ADDRESSES, SERVICE_CIDRS, SERVICES, list_at, text_field,
};

const NAME: &str = "kubernetes";
const NAMESPACE: &str = "default";
const PORT: u16 = 443;

/// Makes the range, the service with the first address of it, and its endpoints.
pub(super) async fn reconcile(
    server: &Server<'_>,
    env: &Env,
    config: &Config,
) -> Result<(), Status> {
    let Some(ip) = first_service_ip(&config.service_range) else {
        return Err(Status::internal(format!(
            "{} is no range of service addresses",
            config.service_range
        )));
    };
    range(server, env, &config.service_range).await?;
    let target = config.advertise.map_or(6443, |advertise| advertise.port());
    let service = json!({
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": ip.to_string(),
            "clusterIPs": [ip.to_string()],
            "ipFamilies": [family(ip)],
            "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster",
            "sessionAffinity": "None",
            "ports": [{"name": "https", "port": PORT, "protocol": "TCP", "targetPort": target}],
        },
    });
    if let Err(refused) = server.ensure(&SERVICES, &service).await {
        // Another server may have been faster: then it is there, and the address is its own.
        if server.find(&SERVICES, NAMESPACE, NAME).await?.is_none() {
            return Err(refused);
        }
    }
    let address = json!({
        "metadata": {
            "name": ip.to_string(),
            "labels": {
                "ipaddress.kubernetes.io/ip-family": family(ip),
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
            },
        },
        "spec": {"parentRef": {"group": "", "resource": "services", "namespace": NAMESPACE, "name": NAME}},
    });
    server.ensure(&IP_ADDRESSES, &address).await?;
    match config.advertise {
        Some(advertise) if is_endpoint(advertise) => {
            let own = [advertise.ip()];
            let servers = if config.servers.is_empty() {
                &own[..]
            } else {
                &config.servers
            };
            endpoints(server, servers, advertise.port()).await
        }
        _ => Ok(()),
    }
}

fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// The range, which is ready as soon as it is there.
async fn range(server: &Server<'_>, env: &Env, range: &str) -> Result<(), Status> {
    let object = json!({"metadata": {"name": NAME}, "spec": {"cidrs": [range]}});
    server.ensure(&SERVICE_CIDRS, &object).await?;
    let Some(object) = server.find(&SERVICE_CIDRS, "", NAME).await? else {
        return Ok(());
    };
    let mut object = copy(&object)?;
    let configured = list_at(&object, "/spec/cidrs");
    if configured != [json!(range)] {
        tracing::warn!(
            ?configured,
            range,
            "the default range of service addresses cannot change; the configured one is not used"
        );
    }
    let ready = |condition: &Value| text_field(condition, "type") == "Ready";
    if list_at(&object, "/status/conditions")
        .iter()
        .any(|c| ready(c) && text_field(c, "status") == "True")
    {
        return Ok(());
    }
    let mut conditions = list_at(&object, "/status/conditions").to_vec();
    conditions.retain(|condition| !ready(condition));
    conditions.push(json!({
        "type": "Ready",
        "status": "True",
        "reason": "",
        "message": "Kubernetes default Service CIDR is ready",
        "lastTransitionTime": time_text(env.wall()),
    }));
    object["status"] = json!({"conditions": conditions});
    server
        .resource(&SERVICE_CIDRS, "")
        .update_status(&object)
        .await
        .map(|_| ())
}

/// Makes or replaces the part of an object that is about the endpoint.
async fn keep(
    server: &Server<'_>,
    resource: &Resource,
    wanted: &Value,
    fields: &[&str],
) -> Result<(), Status> {
    let Some(known) = server.ensure(resource, wanted).await? else {
        return Ok(());
    };
    let mut object = copy(&known)?;
    if fields
        .iter()
        .all(|field| object.get(*field) == wanted.get(*field))
    {
        return Ok(());
    }
    for field in fields {
        object[*field] = wanted[*field].clone();
    }
    server.update(resource, &object).await.map(|_| ())
}

/// Makes the API servers the endpoints of the Service, if there are any.
pub(super) async fn endpoints(
    server: &Server<'_>,
    servers: &[IpAddr],
    port: u16,
) -> Result<(), Status> {
    let Some(first) = servers.first() else {
        // As in Kubernetes: whoever still has the last one's address learns more by trying it than from none.
        return Ok(());
    };
    // A slice has addresses of one family.
    let alike = servers.iter().filter(|ip| ip.is_ipv4() == first.is_ipv4());
    let alike: Vec<String> = alike.map(ToString::to_string).collect();
    let addresses: Vec<Value> = alike.iter().map(|ip| json!({"ip": ip})).collect();
    let ready: Vec<Value> = alike
        .iter()
        .map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}}))
        .collect();
    let ports = json!([{"name": "https", "port": port, "protocol": "TCP"}]);
    let endpoints = json!({
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            // The slice below is made here, not mirrored from this one.
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": [{"addresses": addresses, "ports": ports}],
    });
    keep(server, &ENDPOINTS, &endpoints, &["subsets"]).await?;
    let slice = json!({
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": NAME},
        },
        "addressType": family(*first),
        "endpoints": ready,
        "ports": ports,
    });
    keep(server, &ENDPOINT_SLICES, &slice, &["endpoints", "ports"]).await
}
