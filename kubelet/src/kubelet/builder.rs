//! [`KubeletBuilder`]: what a kubelet is made of.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use orlop_core::client::Client;
use orlop_core::env::{Env, TaskGroup};
use orlop_core::events::{EventBroadcaster, EventRecorder};
use orlop_core::runtime::Runtime;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Inner, Kubelet};
use crate::config::KubeletConfig;
use crate::parts::{Cgroups, Configs, Hooks, Images, Probes, Volumes};
use crate::pod::context::{Context, Names};
use crate::pod::metrics::Metrics;
use crate::pod::runtime_view::RuntimeView;
use crate::pod::writer::StatusWriter;
use crate::pod::{KnownNode, Waker};
use crate::static_pods::StaticPods;

/// What does a worker's work: each part can be replaced.
#[derive(Clone)]
pub struct Parts {
    /// Volumes.
    pub volumes: Arc<dyn Volumes>,
    /// What sandboxes and containers are made of.
    pub configs: Arc<dyn Configs>,
    /// Images.
    pub images: Arc<dyn Images>,
    /// Probes. Made with the [waker](KubeletBuilder::waker), so that what they find out is looked at.
    pub probes: Arc<dyn Probes>,
    /// Hooks.
    pub hooks: Arc<dyn Hooks>,
    /// Cgroups.
    pub cgroups: Arc<dyn Cgroups>,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Parts")
    }
}

/// Puts a [`Kubelet`] together. What parts are made with (the recorder, the waker, what is known of the node) can be had before they are.
pub struct KubeletBuilder {
    client: Arc<dyn Client>,
    runtime: Arc<dyn Runtime>,
    env: Env,
    config: KubeletConfig,
    parts: Option<Parts>,
    waker: Waker,
    node: KnownNode,
    tasks: TaskGroup,
    events: EventBroadcaster,
}

impl fmt::Debug for KubeletBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubeletBuilder")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// A builder was asked for a kubelet without parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a kubelet needs its parts: give them, or take the defaults")]
pub struct MissingParts;

impl KubeletBuilder {
    pub(super) fn new(client: Arc<dyn Client>, runtime: Arc<dyn Runtime>, env: Env) -> Self {
        let tasks = TaskGroup::new(env.clone());
        let events = EventBroadcaster::start(&tasks, client.clone());
        Self {
            client,
            runtime,
            env,
            config: KubeletConfig::new(""),
            parts: None,
            waker: Waker::new(),
            node: KnownNode::new(),
            tasks,
            events,
        }
    }

    /// How the agent is set up.
    #[must_use]
    pub fn config(mut self, config: KubeletConfig) -> Self {
        self.config = config;
        self
    }

    /// Who does the work.
    #[must_use]
    pub fn parts(mut self, parts: Parts) -> Self {
        self.parts = Some(parts);
        self
    }

    /// How the agent is set up so far.
    #[must_use]
    pub fn configuration(&self) -> &KubeletConfig {
        &self.config
    }

    /// What wakes the workers of pods.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// What is known of the node: to be set, as far as it is known, before [`Kubelet::run`].
    #[must_use]
    pub fn node(&self) -> KnownNode {
        self.node.clone()
    }

    /// What tells events in the agent's name. To be asked for after [`config`](Self::config), which says on which node it is.
    #[must_use]
    pub fn recorder(&self) -> EventRecorder {
        self.events.recorder_on("kubelet", &self.config.node_name)
    }

    /// The API.
    #[must_use]
    pub fn client(&self) -> Arc<dyn Client> {
        self.client.clone()
    }

    /// The runtime.
    #[must_use]
    pub fn runtime(&self) -> Arc<dyn Runtime> {
        self.runtime.clone()
    }

    /// The environment.
    #[must_use]
    pub fn env(&self) -> Env {
        self.env.clone()
    }

    /// The kubelet, which does nothing yet.
    ///
    /// # Errors
    /// There are no [parts](Self::parts).
    pub fn build(self) -> Result<Kubelet, MissingParts> {
        let parts = self.parts.clone().ok_or(MissingParts)?;
        let metrics = Arc::new(Metrics::new());
        let recorder = self.recorder();
        let view = RuntimeView::new(
            self.runtime.clone(),
            self.env.clone(),
            self.waker.clone(),
            self.config.relist_period,
            metrics.clone(),
        );
        let writer = StatusWriter::new(self.client.clone(), self.env.clone());
        let cx = Context {
            env: self.env,
            client: self.client,
            runtime: self.runtime,
            config: self.config,
            parts,
            waker: self.waker,
            recorder,
            view,
            writer,
            node: self.node,
            metrics,
            names: Names::default(),
            entries: Mutex::default(),
            ended: Notify::new(),
        };
        Ok(Kubelet(Arc::new(Inner {
            cx: Arc::new(cx),
            tasks: self.tasks,
            static_pods: StaticPods::default(),
            api_listed: AtomicBool::new(false),
            files_read: AtomicBool::new(false),
            housekeeping: Notify::new(),
            admits: Mutex::default(),
        })))
    }
}
