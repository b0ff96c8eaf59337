//! Containers.

use std::path::Path;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use orlop_core::runtime::{
    Container, ContainerConfig, ContainerFilter, ContainerId, ContainerState, Resources,
    RuntimeError, SandboxId,
};

use super::{CriRuntime, LOOKS_AT_ONCE, unless_gone};
use crate::convert;
use crate::engine::PATIENCE;
use crate::messages as cri;
use crate::refusal::About;

impl CriRuntime {
    pub(super) async fn make_container(
        &self,
        sandbox: &SandboxId,
        config: &ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        let made_with = match self.known.made_with(sandbox) {
            Some(known) => known,
            None => self.look_up_sandbox(sandbox).await?.made_with,
        };
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox.as_str().to_owned(),
            config: Some(convert::container_config(config)?),
            sandbox_config: Some((*made_with).clone()),
        };
        let about = About::NewContainer {
            sandbox: sandbox.as_str(),
            image: &config.image.image,
        };
        let made = self.call(request, about).await?;
        Ok(ContainerId::new(made.container_id))
    }

    pub(super) async fn begin_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let request = cri::StartContainerRequest {
            container_id: id.as_str().to_owned(),
        };
        self.call(request, About::Container(id.as_str())).await?;
        Ok(())
    }

    pub(super) async fn halt_container(
        &self,
        id: &ContainerId,
        grace: Duration,
    ) -> Result<(), RuntimeError> {
        // Whole seconds, rounded up: a grace that is not zero is not to become none.
        let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        let request = cri::StopContainerRequest {
            container_id: id.as_str().to_owned(),
            timeout: i64::try_from(seconds).unwrap_or(i64::MAX),
        };
        let limit = grace.saturating_add(PATIENCE);
        let stopped = self.call_within(request, About::Container(id.as_str()), limit);
        unless_gone(stopped.await.map(|_| ()))
    }

    pub(super) async fn delete_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let request = cri::RemoveContainerRequest {
            container_id: id.as_str().to_owned(),
        };
        let removed = self.call(request, About::Container(id.as_str())).await;
        self.known.forget_container(id);
        unless_gone(removed.map(|_| ()))
    }

    pub(super) async fn list_containers(
        &self,
        filter: &ContainerFilter,
    ) -> Result<Vec<Container>, RuntimeError> {
        let look = self.known.look();
        let request = cri::ListContainersRequest {
            filter: Some(convert::container_filter(filter)),
        };
        let items = self.call(request, About::Engine).await?.containers;
        let mut containers = Vec::with_capacity(items.len());
        let mut unknown = Vec::new();
        for item in items {
            let item = convert::listed(item);
            match self.known.container_in(&item.id, item.state) {
                Some(known) => containers.push(known),
                None => unknown.push(item),
            }
        }
        let looks = unknown.into_iter().map(|item| async move {
            match self.complete(item).await {
                Ok(found) => Ok(Some(found)),
                // It was removed meanwhile.
                Err(error) if error.is_not_found() => Ok(None),
                Err(error) => Err(error),
            }
        });
        let looks = futures::stream::iter(looks).buffer_unordered(LOOKS_AT_ONCE);
        let found: Vec<_> = looks.try_collect().await?;
        containers.extend(found.into_iter().flatten());
        if *filter == ContainerFilter::default() {
            self.known.only_containers(look, &containers);
        }
        // Engines take the beginning of an id for the id, and a state may have changed between the two looks.
        containers.retain(|container| filter.matches(container));
        containers.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        Ok(containers)
    }

    pub(super) async fn look_up_container(
        &self,
        id: &ContainerId,
    ) -> Result<Container, RuntimeError> {
        // The sandbox is told by lists alone.
        if let Some(known) = self.known.container_once(id) {
            return self.complete(known).await;
        }
        let filter = ContainerFilter {
            id: Some(id.clone()),
            ..ContainerFilter::default()
        };
        let found = self.list_containers(&filter).await?.pop();
        found.ok_or_else(|| RuntimeError::not_found("container", id))
    }

    /// Looks up what a list does not tell.
    async fn complete(&self, container: Container) -> Result<Container, RuntimeError> {
        let look = self.known.look();
        let id = container.id.as_str().to_owned();
        let request = cri::ContainerStatusRequest {
            container_id: id.clone(),
            verbose: false,
        };
        let status = self.call(request, About::Container(&id)).await?.status;
        let status = status.ok_or_else(|| RuntimeError::not_found("container", &id))?;
        let container = convert::looked_up(container, status);
        self.known
            .saw_container(look, self.env().wall(), &container);
        Ok(container)
    }

    pub(super) async fn limit_container(
        &self,
        id: &ContainerId,
        resources: &Resources,
    ) -> Result<(), RuntimeError> {
        // Engines take new limits for a container that has exited, and they mean nothing.
        let container = self.look_up_container(id).await?;
        if container.state == ContainerState::Exited {
            return Err(RuntimeError::WrongState(format!(
                "container {id} has exited"
            )));
        }
        let request = cri::UpdateContainerResourcesRequest {
            container_id: id.as_str().to_owned(),
            linux: Some(convert::resources(resources)),
            annotations: orlop_core::runtime::Labels::new(),
        };
        let updated = self.call(request, About::Container(id.as_str())).await;
        self.known.forget_container(id);
        updated.map(|_| ())
    }

    pub(super) async fn open_log_anew(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let request = cri::ReopenContainerLogRequest {
            container_id: id.as_str().to_owned(),
        };
        self.call(request, About::Container(id.as_str())).await?;
        Ok(())
    }

    pub(super) async fn write_checkpoint(
        &self,
        id: &ContainerId,
        location: &Path,
    ) -> Result<(), RuntimeError> {
        let location = location.to_str().ok_or_else(|| {
            RuntimeError::InvalidRequest(format!("the path {} is not UTF-8", location.display()))
        })?;
        let request = cri::CheckpointContainerRequest {
            container_id: id.as_str().to_owned(),
            location: location.to_owned(),
            timeout: 0,
        };
        self.call(request, About::Container(id.as_str())).await?;
        Ok(())
    }
}
