//! How a member is reached.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use orlop_core::env::TaskGroup;
use orlop_core::store::StoreError;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::etcd::client::EtcdOptions;

/// Gives the tasks of connections an owner: they end when the store is closed.
#[derive(Clone)]
pub(super) struct Connections(pub(super) Arc<TaskGroup>);

impl hyper::rt::Executor<Pin<Box<dyn Future<Output = ()> + Send>>> for Connections {
    fn execute(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.0.spawn_until_cancelled("etcd-connection", task);
    }
}

fn invalid(url: &str, why: impl fmt::Display) -> StoreError {
    StoreError::InvalidRequest(format!("endpoint {url:?}: {why}"))
}

/// The connection to a member. It is made when it is first used.
pub(super) fn channel(
    url: &str,
    options: &EtcdOptions,
    connections: &Connections,
) -> Result<Channel, StoreError> {
    let full = if url.contains("://") {
        url.to_owned()
    } else {
        format!("http://{url}")
    };
    let scheme = full.split("://").next().unwrap_or_default();
    if !matches!(scheme, "http" | "https" | "unix") {
        return Err(invalid(url, "its scheme is none of http, https and unix"));
    }
    let mut endpoint = Endpoint::from_shared(full.clone()).map_err(|error| invalid(url, error))?;
    if scheme != "unix" && endpoint.uri().host().is_none_or(str::is_empty) {
        return Err(invalid(url, "it names no host"));
    }
    endpoint = endpoint
        .user_agent(concat!("orlop/", env!("CARGO_PKG_VERSION")))
        .map_err(|error| invalid(url, error))?
        .connect_timeout(options.dial_timeout)
        .executor(connections.clone());
    if let Some((interval, timeout)) = options.keep_alive {
        endpoint = endpoint
            .http2_keep_alive_interval(interval)
            .keep_alive_timeout(timeout)
            // etcd disconnects who probes a connection that carries no request.
            .keep_alive_while_idle(false);
    }
    if scheme == "https" {
        let Some(tls) = &options.tls else {
            return Err(invalid(url, "https needs an authority to trust"));
        };
        let mut config = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&tls.ca_pem))
            .timeout(options.dial_timeout);
        if !tls.certificate_pem.is_empty() {
            config = config.identity(Identity::from_pem(&tls.certificate_pem, &tls.key_pem));
        }
        endpoint = endpoint
            .tls_config(config)
            .map_err(|error| invalid(url, format_args!("{:?}", error.to_string())))?;
    }
    Ok(endpoint.connect_lazy())
}
