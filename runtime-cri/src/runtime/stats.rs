//! What sandboxes and containers use.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use orlop_core::runtime::{
    ContainerFilter, ContainerState, ContainerStats, RuntimeError, SandboxFilter, SandboxId,
    SandboxState, SandboxStats,
};

use super::CriRuntime;
use crate::convert;
use crate::messages as cri;
use crate::refusal::About;

impl CriRuntime {
    pub(super) async fn measure_containers(
        &self,
        filter: &ContainerFilter,
    ) -> Result<Vec<ContainerStats>, RuntimeError> {
        if filter
            .state
            .is_some_and(|state| state != ContainerState::Running)
        {
            return Ok(Vec::new());
        }
        let request = cri::ListContainerStatsRequest {
            filter: Some(cri::ContainerStatsFilter {
                id: filter
                    .id
                    .as_ref()
                    .map(|id| id.as_str().to_owned())
                    .unwrap_or_default(),
                pod_sandbox_id: filter
                    .sandbox
                    .as_ref()
                    .map(|id| id.as_str().to_owned())
                    .unwrap_or_default(),
                label_selector: filter.labels.clone(),
            }),
        };
        let stats = self.call(request, About::Engine).await?.stats;
        let mut stats: Vec<_> = stats.into_iter().map(convert::container_stats).collect();
        // Engines tell of containers that do not run, too: that they have written something.
        stats.retain(|stats| stats.cpu.is_some() || stats.memory.is_some());
        if let Some(id) = &filter.id {
            stats.retain(|stats| stats.id == *id);
        }
        stats.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(stats)
    }

    pub(super) async fn measure_sandboxes(
        &self,
        filter: &SandboxFilter,
    ) -> Result<Vec<SandboxStats>, RuntimeError> {
        if filter.state == Some(SandboxState::NotReady) {
            return Ok(Vec::new());
        }
        if !self.no_sandbox_stats.load(Ordering::Relaxed) {
            match self.ask_sandbox_stats(filter).await {
                Err(RuntimeError::Unsupported(_)) => {
                    self.no_sandbox_stats.store(true, Ordering::Relaxed);
                }
                // containerd 1.6 refuses all where it cannot measure one, such as one without a cgroup of its own.
                Err(RuntimeError::Failed(why)) => {
                    tracing::debug!(why, "statistics of sandboxes are made of their containers'");
                }
                // The same, where one was removed meanwhile.
                Err(error) if error.is_not_found() => {}
                answer => return answer,
            }
        }
        self.add_up_sandbox_stats(filter).await
    }

    async fn ask_sandbox_stats(
        &self,
        filter: &SandboxFilter,
    ) -> Result<Vec<SandboxStats>, RuntimeError> {
        let request = cri::ListPodSandboxStatsRequest {
            filter: Some(cri::PodSandboxStatsFilter {
                id: filter
                    .id
                    .as_ref()
                    .map(|id| id.as_str().to_owned())
                    .unwrap_or_default(),
                label_selector: filter.labels.clone(),
            }),
        };
        let stats = self.call(request, About::Engine).await?.stats;
        let mut stats: Vec<_> = stats.into_iter().map(convert::sandbox_stats).collect();
        if let Some(id) = &filter.id {
            stats.retain(|stats| stats.id == *id);
        }
        for sandbox in &mut stats {
            let running = |stats: &ContainerStats| stats.cpu.is_some() || stats.memory.is_some();
            sandbox.containers.retain(running);
        }
        // Those that are not ready are told of by some engines, with nothing measured.
        stats.retain(|stats| stats.cpu.is_some() || stats.memory.is_some());
        stats.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(stats)
    }

    /// The statistics of sandboxes, as far as their containers' tell them.
    async fn add_up_sandbox_stats(
        &self,
        filter: &SandboxFilter,
    ) -> Result<Vec<SandboxStats>, RuntimeError> {
        let ready = SandboxFilter {
            state: Some(SandboxState::Ready),
            ..filter.clone()
        };
        let running = ContainerFilter {
            sandbox: filter.id.clone(),
            state: Some(ContainerState::Running),
            ..ContainerFilter::default()
        };
        let all = ContainerFilter {
            sandbox: filter.id.clone(),
            ..ContainerFilter::default()
        };
        let (sandboxes, containers, stats) = futures::future::try_join3(
            self.list_sandboxes(&ready),
            self.list_containers(&running),
            self.measure_containers(&all),
        )
        .await?;
        let whose: BTreeMap<_, _> = containers
            .into_iter()
            .map(|container| (container.id, container.sandbox))
            .collect();
        let mut by_sandbox: BTreeMap<SandboxId, Vec<ContainerStats>> = BTreeMap::new();
        for stats in stats {
            if let Some(sandbox) = whose.get(&stats.id) {
                by_sandbox.entry(sandbox.clone()).or_default().push(stats);
            }
        }
        let mut stats: Vec<_> = sandboxes
            .into_iter()
            .map(|sandbox| {
                let containers = by_sandbox.remove(&sandbox.id).unwrap_or_default();
                convert::of_containers(sandbox, containers)
            })
            .collect();
        stats.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(stats)
    }
}
