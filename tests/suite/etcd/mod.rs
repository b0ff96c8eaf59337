//! The control plane over a real etcd: in one process, and one component a process.

mod components;
mod up;

use std::path::Path;
use std::sync::Arc;

use orlop::core::client::{Client, ListOptions};
use orlop::core::env::Env;
use orlop::core::resource::Resource;
use orlop::wire::remote::RemoteClient;
use tempfile::TempDir;

use crate::support::Server;

const MAPS: Resource = Resource::namespaced("", "v1", "configmaps", "ConfigMap");
const PODS: Resource = Resource::namespaced("", "v1", "pods", "Pod");
const LEASES: Resource = Resource::namespaced("coordination.k8s.io", "v1", "leases", "Lease");

fn directory() -> Arc<TempDir> {
    Arc::new(
        tempfile::Builder::new()
            .prefix("orlop-test-")
            .tempdir()
            .unwrap(),
    )
}

fn client(server: &Server) -> Arc<dyn Client> {
    Arc::new(RemoteClient::new(&server.config(), &Env::tokio()).unwrap())
}

/// Gives another server the authority and the key of service accounts, as one does on several machines.
fn share_keys(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.join("data/pki")).unwrap();
    for file in ["ca.crt", "ca.key", "sa.key", "sa.pub"] {
        let path = |of: &Path| of.join("data/pki").join(file);
        std::fs::copy(path(from), path(to)).unwrap();
    }
}

/// Looks again and again, for at most a minute and a half, until something is there.
async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let env = Env::tokio();
    for _ in 0..900 {
        if let Some(found) = look().await {
            return found;
        }
        env.sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("waited in vain: {what}");
}

/// Waits until so many pods of a deployment are ready, and no more are there.
async fn pods_are_ready(client: &Arc<dyn Client>, app: &str, count: usize) {
    until(&format!("{count} ready pods of {app}"), || async {
        let options = ListOptions {
            label_selector: format!("app={app}"),
            ..ListOptions::default()
        };
        let pods = client.resource(&PODS).namespace("default");
        let pods = pods.list(options).await.ok()?.items;
        let ready = pods.iter().filter(|pod| {
            let Ok(value) = pod.value() else {
                return false;
            };
            let conditions = value["status"]["conditions"].as_array().cloned();
            conditions
                .unwrap_or_default()
                .iter()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
        });
        (ready.count() == count && pods.len() == count).then_some(())
    })
    .await;
}

/// Who leads, once somebody does.
async fn leader(client: &Arc<dyn Client>, lease: &str) -> String {
    until(&format!("a leader of {lease}"), || async {
        let leases = client.resource(&LEASES).namespace("kube-system");
        let object = leases.get(lease).await.ok()?;
        let value = object.value().ok()?;
        let holder = value["spec"]["holderIdentity"].as_str()?;
        (!holder.is_empty()).then(|| holder.to_owned())
    })
    .await
}
