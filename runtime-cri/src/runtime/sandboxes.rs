//! Sandboxes.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use orlop_core::runtime::{
    Resources, RuntimeError, Sandbox, SandboxConfig, SandboxFilter, SandboxId, SandboxState,
};

use super::{CriRuntime, LOOKS_AT_ONCE, unless_gone};
use crate::convert;
use crate::engine::PATIENCE;
use crate::known::KnownSandbox;
use crate::messages as cri;
use crate::refusal::About;

impl CriRuntime {
    pub(super) async fn make_sandbox(
        &self,
        config: &SandboxConfig,
    ) -> Result<SandboxId, RuntimeError> {
        let request = cri::RunPodSandboxRequest {
            config: Some(convert::sandbox_config(config)?),
            runtime_handler: config.handler.clone(),
        };
        let about = About::NewSandbox(&config.handler);
        // A network may take long to be set up: the kubelet allows twice the usual, too.
        match self.call_within(request, about, 2 * PATIENCE).await {
            Ok(made) => Ok(SandboxId::new(made.pod_sandbox_id)),
            Err(error) => {
                if matches!(error, RuntimeError::Failed(_) | RuntimeError::NoSpace(_)) {
                    self.sweep_up(config).await;
                }
                Err(error)
            }
        }
    }

    /// Removes what is left of a sandbox that could not be made: engines keep one whose network they could not take back.
    async fn sweep_up(&self, config: &SandboxConfig) {
        let filter = SandboxFilter {
            state: Some(SandboxState::NotReady),
            labels: config.labels.clone(),
            ..SandboxFilter::default()
        };
        let found = self.list_sandboxes(&filter).await.unwrap_or_default();
        for left in found
            .into_iter()
            .filter(|found| found.metadata == config.metadata)
        {
            if let Err(error) = self.delete_sandbox(&left.id).await {
                // Its name stays taken, which the next attempt is told.
                tracing::warn!(sandbox = %left.id, %error, "a sandbox that failed is left behind");
            }
        }
    }

    pub(super) async fn halt_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        let request = cri::StopPodSandboxRequest {
            pod_sandbox_id: id.as_str().to_owned(),
        };
        let stopped = self.call(request, About::Sandbox(id.as_str())).await;
        self.known.forget_sandbox(id);
        unless_gone(stopped.map(|_| ()))
    }

    pub(super) async fn delete_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        // Engines differ in whether they remove what was not stopped, and a network is given back by stopping alone.
        self.halt_sandbox(id).await?;
        let request = cri::RemovePodSandboxRequest {
            pod_sandbox_id: id.as_str().to_owned(),
        };
        let removed = self.call(request, About::Sandbox(id.as_str())).await;
        self.known.forget_sandbox(id);
        unless_gone(removed.map(|_| ()))
    }

    pub(super) async fn list_sandboxes(
        &self,
        filter: &SandboxFilter,
    ) -> Result<Vec<Sandbox>, RuntimeError> {
        let look = self.known.look();
        let request = cri::ListPodSandboxRequest {
            filter: Some(convert::sandbox_filter(filter)),
        };
        let items = self.call(request, About::Engine).await?.items;
        let mut sandboxes = Vec::with_capacity(items.len());
        let mut unknown = Vec::new();
        for item in items {
            let state = convert::sandbox_state(item.state());
            let id = SandboxId::new(item.id);
            match self.known.sandbox_in(&id, state) {
                Some(known) => sandboxes.push(known),
                None => unknown.push(id),
            }
        }
        let looks = unknown.into_iter().map(|id| async move {
            match self.look_up_sandbox(&id).await {
                Ok(found) => Ok(Some(found.sandbox)),
                // It was removed meanwhile.
                Err(error) if error.is_not_found() => Ok(None),
                Err(error) => Err(error),
            }
        });
        let looks = futures::stream::iter(looks).buffer_unordered(LOOKS_AT_ONCE);
        let found: Vec<_> = looks.try_collect().await?;
        sandboxes.extend(found.into_iter().flatten());
        if *filter == SandboxFilter::default() {
            self.known.only_sandboxes(look, &sandboxes);
        }
        // Engines take the beginning of an id for the id.
        sandboxes.retain(|sandbox| filter.matches(sandbox));
        sandboxes.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        Ok(sandboxes)
    }

    pub(super) async fn look_up_sandbox(
        &self,
        id: &SandboxId,
    ) -> Result<KnownSandbox, RuntimeError> {
        let look = self.known.look();
        let request = cri::PodSandboxStatusRequest {
            pod_sandbox_id: id.as_str().to_owned(),
            verbose: false,
        };
        let answer = self.call(request, About::Sandbox(id.as_str())).await?;
        let status = answer.status.filter(|status| status.id == id.as_str());
        let status = status.ok_or_else(|| RuntimeError::not_found("sandbox", id))?;
        let made_with = Arc::new(convert::made_with(&status));
        let found = KnownSandbox {
            sandbox: convert::sandbox_looked_up(status),
            made_with,
        };
        self.known.saw_sandbox(look, found.clone());
        Ok(found)
    }

    pub(super) async fn limit_sandbox(
        &self,
        id: &SandboxId,
        overhead: &Resources,
        resources: &Resources,
    ) -> Result<(), RuntimeError> {
        let request = cri::UpdatePodSandboxResourcesRequest {
            pod_sandbox_id: id.as_str().to_owned(),
            overhead: Some(convert::resources(overhead)),
            resources: Some(convert::resources(resources)),
        };
        self.call(request, About::Sandbox(id.as_str())).await?;
        Ok(())
    }
}
