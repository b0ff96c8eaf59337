//! The binding of one pod, beside the decisions.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use orlop_core::env::Moment;
use orlop_core::events::EventType;
use orlop_core::scheduling::{BindContext, CycleState};
use tokio::sync::OwnedSemaphorePermit;

use super::shared::Shared;
use super::waiting::Word;
use crate::framework::{Failure, Framework};
use crate::queue::Attempt;

pub(super) struct Binding {
    pub(super) shared: Arc<Shared>,
    pub(super) framework: Arc<Framework>,
    pub(super) attempt: Attempt,
    pub(super) node: Arc<str>,
    pub(super) state: CycleState,
    pub(super) waits: Vec<(usize, Duration)>,
    pub(super) started: Moment,
}

impl Binding {
    pub(super) async fn run(mut self, room: OwnedSemaphorePermit) {
        let mut room = Some(room);
        let result = match self.wait(&mut room).await {
            Ok(true) => self.bind().await,
            Ok(false) => {
                self.give_back();
                return;
            }
            Err(failure) => Err(failure),
        };
        match result {
            Ok(()) => self.bound(),
            Err(failure) => self.failed(failure).await,
        }
        drop(room);
    }

    /// Waits for the permissions that are missing; false when the scheduler ends meanwhile. The room for a binding is given to others meanwhile: they may be who it waits for.
    async fn wait(&mut self, room: &mut Option<OwnedSemaphorePermit>) -> Result<bool, Failure> {
        if self.waits.is_empty() {
            return Ok(true);
        }
        let Self {
            shared,
            framework,
            attempt,
            waits,
            ..
        } = self;
        let pod = attempt.pod();
        let Some(mut word) = shared.waiting.listen(pod.uid()) else {
            return Ok(true);
        };
        *room = None;
        let began = shared.env.now();
        // As upstream, the shortest time decides, and its plug-in is who refuses.
        let shortest = waits.iter().min_by_key(|(_, time)| *time).copied();
        let (place, time) = shortest.unwrap_or_default();
        let heard = {
            let word = pin!(word.wait_for(|word| *word != Word::Wait));
            match select(word, shared.env.sleep(time)).await {
                Either::Left((Ok(word), _)) => word.clone(),
                Either::Left((Err(_), _)) => Word::Closed,
                Either::Right(((), _)) => {
                    let reason = format!("timeout after {}s waiting on permit", time.as_secs_f64());
                    Word::Stop(framework.plugin_name(place).to_owned(), reason)
                }
            }
        };
        shared.waiting.remove(pod.uid());
        let result = if heard == Word::Go {
            "scheduled"
        } else {
            "unschedulable"
        };
        shared
            .metrics
            .permit_wait(framework.name(), result, shared.env.now().since(began));
        match heard {
            Word::Stop(plugin, reason) => {
                let who = waits
                    .iter()
                    .map(|(place, _)| *place)
                    .find(|place| framework.plugin_name(*place) == plugin);
                Err(Failure::Rejected {
                    message: reason,
                    plugins: who.map_or(0, |place| 1 << place),
                })
            }
            Word::Go | Word::Wait => {
                *room = shared.room.clone().acquire_owned().await.ok();
                Ok(true)
            }
            Word::Closed => Ok(false),
        }
    }

    async fn bind(&mut self) -> Result<(), Failure> {
        let context = BindContext {
            pod: self.attempt.pod().clone(),
            node: self.node.clone(),
            client: self.shared.client.clone(),
            env: self.shared.env.clone(),
        };
        self.framework.bind(&mut self.state, &context).await
    }

    fn bound(self) {
        let Self {
            shared,
            framework,
            attempt,
            node,
            started,
            ..
        } = self;
        let (now, pod) = (shared.env.now(), attempt.pod());
        shared.cache.lock().finish_binding(pod.key(), now);
        shared.queue.lock().done(pod);
        shared
            .metrics
            .attempt(framework.name(), "scheduled", now.since(started));
        shared
            .metrics
            .scheduled(attempt.number(), now.since(attempt.queued.first_seen));
        shared.tell(
            pod,
            EventType::Normal,
            "Scheduled",
            format!("Successfully assigned {pod} to {node}"),
        );
    }

    /// Gives back what was set aside and assumed for the pod.
    fn give_back(&mut self) {
        let pod = self.attempt.pod();
        self.framework.unreserve(&mut self.state, pod, &self.node);
        self.shared.forget(pod.key());
    }

    async fn failed(mut self, failure: Failure) {
        // Before the pod is in the queue again, so that what it took is free when it is tried.
        self.give_back();
        let Self {
            shared,
            framework,
            attempt,
            started,
            ..
        } = self;
        if let Some(write) = shared.failed(&framework, attempt, &failure, started) {
            write.run().await;
        }
    }
}
