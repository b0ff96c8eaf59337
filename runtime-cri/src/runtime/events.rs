//! Events.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, ready, select};
use futures::stream::once;
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use orlop_core::runtime::{
    ContainerId, EventKind, EventStream, EventSubject, RuntimeError, RuntimeEvent, SandboxId,
};
use tonic::{Status, Streaming};

use super::CriRuntime;
use crate::convert;
use crate::known::Known;
use crate::messages as cri;
use crate::refusal::{About, refusal};

/// How long an engine that does not offer events may take to say so after it has answered another call. Those that offer them answer
/// with the first event, not before.
const REFUSES_WITHIN: Duration = Duration::from_millis(100);

type Answer = Result<Streaming<cri::ContainerEventResponse>, Status>;

impl CriRuntime {
    pub(super) async fn follow_events(&self) -> Result<EventStream, RuntimeError> {
        let (engine, known) = (self.engine.clone(), self.known.clone());
        let asked = Box::pin(async move { engine.stream(cri::GetEventsRequest {}).await });
        // The request is on its way before the second one, so it is heard when that is answered.
        let heard = Box::pin(async {
            self.call(cri::VersionRequest::default(), About::Engine)
                .await?;
            self.env().sleep(REFUSES_WITHIN).await;
            Ok(())
        });
        match select(asked, heard).await {
            Either::Left((Err(status), _)) => Err(meaning(status)),
            Either::Left((answer, _)) => Ok(Box::pin(told(known, ready(answer)))),
            Either::Right((Err(error), _)) => Err(error),
            Either::Right((Ok(()), asked)) => Ok(Box::pin(told(known, asked))),
        }
    }
}

fn meaning(status: Status) -> RuntimeError {
    refusal::<cri::GetEventsRequest>(status, About::Engine)
}

/// The events of an answer that may not have come yet. They end after the first failure.
fn told(
    known: Arc<Known>,
    asked: impl Future<Output = Answer> + Send + 'static,
) -> impl Stream<Item = Result<RuntimeEvent, RuntimeError>> + Send {
    let answers = once(asked).flat_map(|answer| match answer {
        Ok(events) => events.left_stream(),
        Err(status) => once(ready(Err(status))).right_stream(),
    });
    let events = answers.filter_map(move |answer| {
        ready(match answer {
            Ok(event) => said_event(&known, event).map(Ok),
            Err(status) => Some(Err(meaning(status))),
        })
    });
    events.scan(false, |failed, event| {
        let go_on = !std::mem::replace(failed, event.is_err());
        ready(go_on.then_some(event))
    })
}

/// What an event tells of; `None` for a kind that is not known.
fn said_event(known: &Known, event: cri::ContainerEventResponse) -> Option<RuntimeEvent> {
    let kind = match cri::ContainerEventType::try_from(event.container_event_type).ok()? {
        cri::ContainerEventType::Created => EventKind::Created,
        cri::ContainerEventType::Started => EventKind::Started,
        cri::ContainerEventType::Stopped => EventKind::Stopped,
        cri::ContainerEventType::Deleted => EventKind::Deleted,
    };
    let container = ContainerId::new(event.container_id);
    // An engine has nothing to say of a sandbox that is gone.
    let sandbox = match event.pod_sandbox_status {
        Some(status) => Some(SandboxId::new(status.id)),
        None => known.container_once(&container).map(|known| known.sandbox),
    };
    let subject = match sandbox {
        Some(sandbox) if sandbox.as_str() != container.as_str() => {
            EventSubject::Container { sandbox, container }
        }
        _ => EventSubject::Sandbox(SandboxId::new(container.as_str())),
    };
    Some(RuntimeEvent {
        at: convert::moment(event.created_at).unwrap_or(Timestamp::UNIX_EPOCH),
        kind,
        subject,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(container: &str, sandbox: Option<&str>, kind: i32) -> cri::ContainerEventResponse {
        cri::ContainerEventResponse {
            container_id: container.to_owned(),
            container_event_type: kind,
            created_at: 7,
            pod_sandbox_status: sandbox.map(|id| cri::PodSandboxStatus {
                id: id.to_owned(),
                ..cri::PodSandboxStatus::default()
            }),
            containers_statuses: Vec::new(),
        }
    }

    #[test]
    fn events_tell_of_containers_and_of_sandboxes() {
        let known = Known::default();
        let of_container = said_event(&known, event("c", Some("s"), 2)).unwrap();
        assert_eq!(of_container.kind, EventKind::Stopped);
        assert_eq!(
            of_container.subject,
            EventSubject::Container {
                sandbox: SandboxId::new("s"),
                container: ContainerId::new("c")
            }
        );
        for said in [Some("s"), None] {
            let of_sandbox = said_event(&known, event("s", said, 3)).unwrap();
            assert_eq!(
                of_sandbox.subject,
                EventSubject::Sandbox(SandboxId::new("s"))
            );
        }
        assert_eq!(said_event(&known, event("c", Some("s"), 9)), None);
    }
}
