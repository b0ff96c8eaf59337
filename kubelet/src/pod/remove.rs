//! Removing what a pod leaves behind.

use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use orlop_core::runtime::Container;

use super::observed::container_name;
use super::spec;
use super::worker::{Stop, Worker};
use crate::blocking::blocking;

impl Worker {
    /// Removes an ended container with its log.
    pub(super) async fn remove(&self, container: &Container) -> Result<(), Stop> {
        let pod = self.entry.pod();
        let link = self.link(&pod, container);
        if let Some(log) = container.log_path.clone() {
            blocking(move || remove_log(&log, link.as_deref())).await;
        }
        self.cx.runtime.remove_container(&container.id).await?;
        Ok(())
    }

    /// Removes all containers and sandboxes of the pod, and its logs.
    pub(super) async fn remove_all(&self, pod: &Arc<Pod>) -> Result<(), Stop> {
        let seen = self.cx.view.refresh(&self.entry.uid).await?;
        let links = seen.containers.iter();
        let links: Vec<PathBuf> = links.filter_map(|one| self.link(pod, one)).collect();
        for container in &seen.containers {
            self.cx.runtime.remove_container(&container.id).await?;
        }
        for sandbox in &seen.sandboxes {
            self.cx.runtime.remove_sandbox(&sandbox.id).await?;
        }
        self.cx.view.refresh(&self.entry.uid).await?;
        let (namespace, name) = (spec::namespace(pod), spec::name(pod));
        let logs = self.cx.config.pod_log_dir(namespace, name, &self.entry.uid);
        blocking(move || {
            // What is not there need not be removed, and what cannot be is in nobody's way.
            for link in links {
                let _ = std::fs::remove_file(link);
            }
            if let Err(error) = std::fs::remove_dir_all(&logs)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(directory = %logs.display(), %error, "logs could not be removed");
            }
        })
        .await;
        Ok(())
    }

    /// The link to a container's log.
    fn link(&self, pod: &Pod, container: &Container) -> Option<PathBuf> {
        let directory = self.cx.config.container_logs_dir.as_ref()?;
        Some(directory.join(format!(
            "{}_{}_{}-{}.log",
            spec::name(pod),
            spec::namespace(pod),
            container_name(container),
            container.id
        )))
    }
}

/// Removes a log, what was rotated away of it (`0.log.20260101-000000`, …), and the link to it.
fn remove_log(log: &std::path::Path, link: Option<&std::path::Path>) {
    let (Some(directory), Some(name)) = (log.parent(), log.file_name()) else {
        return;
    };
    let rotated = format!("{}.", name.to_string_lossy());
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let old = files.filter(|file| file.file_name().to_string_lossy().starts_with(&rotated));
    let all = old.map(|file| file.path()).chain([log.to_path_buf()]);
    for file in all.chain(link.map(std::path::Path::to_path_buf)) {
        // It may be gone already.
        let _ = std::fs::remove_file(file);
    }
}
