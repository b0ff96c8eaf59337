//! The event recorder: what a component did and why, for people who run `kubectl describe`.
//!
//! Events are told, never waited for: [`EventRecorder::event`] puts one into a bounded queue, from which one task of the
//! [`EventBroadcaster`] writes. Floods are tamed as Kubernetes does it:
//!
//! * an event like one before is the same event with a higher `count`;
//! * from the tenth different message about one object and reason within ten minutes on, they are told as one, `(combined from similar
//!   events): …`;
//! * one component may tell 25 things of one object at once, then one every five minutes.

mod correlate;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use self::correlate::{Correlator, Verdict};
use crate::client::{Client, Patch};
use crate::env::{Env, TaskGroup};
use crate::object::Object;
use crate::resource::Resource;
use crate::status::Status;

const EVENTS: Resource = Resource::namespaced("", "v1", "events", "Event");

/// How many events may wait to be written. What comes then is dropped.
const QUEUE: usize = 1000;
/// How often an event is tried when the server does not answer, and how long to wait between two tries.
const TRIES: usize = 12;
const PAUSE: Duration = Duration::from_secs(10);

/// Whether an event is good or bad news.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventType {
    /// All is as it should be.
    Normal,
    /// Something may have to be looked at.
    Warning,
}

impl EventType {
    /// The word in the event's `type`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// What an event is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectReference {
    /// The object's kind.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Its namespace; empty for what belongs to the cluster.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its uid.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Its `apiVersion`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// The version that was looked at.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    /// The part of the object, such as `spec.containers{web}`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field_path: String,
}

impl From<&Object> for ObjectReference {
    fn from(object: &Object) -> Self {
        Self {
            kind: object.kind().to_owned(),
            namespace: object.namespace().to_owned(),
            name: object.name().to_owned(),
            uid: object.uid().to_owned(),
            api_version: object.api_version().to_owned(),
            resource_version: if object.revision().is_zero() {
                String::new()
            } else {
                object.revision().to_string()
            },
            field_path: String::new(),
        }
    }
}

/// What was told, before it is correlated.
#[derive(Clone, Debug)]
struct Told {
    about: ObjectReference,
    kind: EventType,
    reason: String,
    message: String,
    component: Arc<str>,
    host: Arc<str>,
}

/// Tells events in the name of a component. Cheap to clone.
#[derive(Clone)]
pub struct EventRecorder {
    queue: Option<mpsc::Sender<Told>>,
    component: Arc<str>,
    host: Arc<str>,
    dropped: Arc<AtomicU64>,
}

impl fmt::Debug for EventRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventRecorder")
            .field("component", &self.component)
            .finish_non_exhaustive()
    }
}

impl EventRecorder {
    /// A recorder that writes nothing.
    #[must_use]
    pub fn silent() -> Self {
        Self {
            queue: None,
            component: "".into(),
            host: "".into(),
            dropped: Arc::default(),
        }
    }

    /// Tells an event. Never blocks; when too many wait, the event is dropped.
    pub fn event(
        &self,
        about: impl Into<ObjectReference>,
        kind: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        let Some(queue) = &self.queue else { return };
        let told = Told {
            about: about.into(),
            kind,
            reason: reason.to_owned(),
            message: message.into(),
            component: self.component.clone(),
            host: self.host.clone(),
        };
        if queue.try_send(told).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(component = %self.component, reason, "an event was dropped: too many wait");
        }
    }

    /// Tells good news.
    pub fn normal(
        &self,
        about: impl Into<ObjectReference>,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.event(about, EventType::Normal, reason, message);
    }

    /// Tells bad news.
    pub fn warning(
        &self,
        about: impl Into<ObjectReference>,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.event(about, EventType::Warning, reason, message);
    }

    /// How many events were dropped because too many waited.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Writes what its [`EventRecorder`]s tell.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use orlop_core::env::{SimEnv, TaskGroup};
/// use orlop_core::events::EventBroadcaster;
/// use orlop_core::object::Object;
/// use orlop_core::resource::Resource;
/// use orlop_core::testing::FakeApi;
/// use serde_json::json;
/// const EVENTS: Resource = Resource::namespaced("", "v1", "events", "Event");
/// let sim = SimEnv::new(1);
/// let env = sim.env();
/// sim.block_on(async move {
///     let api = FakeApi::new(env.clone());
///     let group = TaskGroup::new(env.clone());
///     let recorder = EventBroadcaster::start(&group, api.client()).recorder("my-operator");
///     let site = Object::from_value(json!({"apiVersion": "example.com/v1", "kind": "Website",
///         "metadata": {"name": "home", "namespace": "web", "uid": "7"}})).unwrap();
///     recorder.normal(&site, "Published", "Published the site");
///     env.sleep(Duration::from_secs(1)).await;
///     assert_eq!(api.objects(&EVENTS).len(), 1);
///     group.shutdown().await;
/// });
/// ```
#[derive(Clone, Debug)]
pub struct EventBroadcaster {
    queue: mpsc::Sender<Told>,
}

impl EventBroadcaster {
    /// Runs the writing task in `group`.
    #[must_use]
    pub fn start(group: &TaskGroup, client: Arc<dyn Client>) -> Self {
        let (queue, mut told) = mpsc::channel::<Told>(QUEUE);
        let env = group.env().clone();
        group.spawn_until_cancelled("events", async move {
            let mut writer = Writer {
                client,
                correlator: Correlator::new(env.now()),
                last: 0,
                env,
            };
            while let Some(told) = told.recv().await {
                writer.record(told).await;
            }
        });
        Self { queue }
    }

    /// A recorder for a component.
    #[must_use]
    pub fn recorder(&self, component: &str) -> EventRecorder {
        self.recorder_on(component, "")
    }

    /// A recorder for a component that runs on a host.
    #[must_use]
    pub fn recorder_on(&self, component: &str, host: &str) -> EventRecorder {
        EventRecorder {
            queue: Some(self.queue.clone()),
            component: component.into(),
            host: host.into(),
            dropped: Arc::default(),
        }
    }
}

struct Writer {
    client: Arc<dyn Client>,
    env: Env,
    correlator: Correlator,
    /// The time, in nanoseconds, in the last event's name.
    last: i128,
}

impl Writer {
    async fn record(&mut self, told: Told) {
        let now = self.env.wall();
        let stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        // The time makes the name, so two events of one moment need two times.
        self.last = now.as_nanosecond().max(self.last + 1);
        let name = format!("{}.{:x}", told.about.name, self.last);
        let verdict = self.correlator.judge(&told, self.env.now(), &name, &stamp);
        let Verdict::Write(entry) = verdict else {
            return;
        };
        // Events about what belongs to the cluster live in the default namespace.
        let namespace = if told.about.namespace.is_empty() {
            "default"
        } else {
            &told.about.namespace
        };
        let patch = json!({"count": entry.count, "lastTimestamp": stamp, "message": entry.message});
        let body = json!({
            "metadata": {"name": entry.name, "namespace": namespace},
            "involvedObject": told.about,
            "reason": told.reason,
            "message": entry.message,
            "source": source(&told),
            "firstTimestamp": entry.first,
            "lastTimestamp": stamp,
            "count": entry.count,
            "type": told.kind.as_str(),
            "eventTime": null,
            "reportingComponent": &*told.component,
            "reportingInstance": &*told.host,
        });
        for round in 0..TRIES {
            match self
                .write(namespace, &entry.name, entry.count > 1, &patch, &body)
                .await
            {
                Ok(()) => return,
                // No answer: the server may come back.
                Err(status) if matches!(status.code, 503 | 504) => {
                    let pause = if round == 0 {
                        PAUSE.mul_f64(self.env.random_unit())
                    } else {
                        PAUSE
                    };
                    self.env.sleep(pause).await;
                }
                Err(status) => {
                    tracing::debug!(reason = %told.reason, error = %status, "the server refused an event");
                    return;
                }
            }
        }
        tracing::warn!(reason = %told.reason, "an event could not be written");
    }

    async fn write(
        &self,
        namespace: &str,
        name: &str,
        again: bool,
        patch: &Value,
        body: &Value,
    ) -> Result<(), Status> {
        let events = self.client.resource(&EVENTS).namespace(namespace);
        if again {
            match events.patch(name, Patch::Strategic(patch.clone())).await {
                Ok(_) => return Ok(()),
                // It has been forgotten meanwhile: events live for an hour.
                Err(status) if status.is_not_found() => {}
                Err(status) => return Err(status),
            }
        }
        match events.create(body).await {
            Err(status) if status.is_already_exists() => Ok(()),
            other => other.map(|_| ()),
        }
    }
}

fn source(told: &Told) -> Value {
    if told.host.is_empty() {
        json!({"component": &*told.component})
    } else {
        json!({"component": &*told.component, "host": &*told.host})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::SimEnv;
    use crate::testing::FakeApi;

    fn site(name: &str) -> Object {
        Object::from_value(json!({"apiVersion": "example.com/v1", "kind": "Website",
            "metadata": {"name": name, "namespace": "web", "uid": name, "resourceVersion": "12"}}))
        .unwrap()
    }

    fn world() -> (SimEnv, FakeApi, TaskGroup) {
        let sim = SimEnv::new(1);
        let api = FakeApi::new(sim.env());
        let group = TaskGroup::new(sim.env());
        (sim, api, group)
    }

    #[test]
    fn what_is_told_again_is_counted() {
        let (sim, api, group) = world();
        sim.block_on(async move {
            let recorder =
                EventBroadcaster::start(&group, api.client()).recorder_on("operator", "host-1");
            for _ in 0..3 {
                recorder.warning(&site("home"), "Broken", "It is broken");
                group.env().sleep(Duration::from_secs(5)).await;
            }
            let events = api.objects(&EVENTS);
            assert_eq!(events.len(), 1);
            let event = events[0].value().unwrap();
            assert_eq!(event["count"], 3);
            assert_eq!(event["firstTimestamp"], "2026-01-01T00:00:00Z");
            assert_eq!(event["lastTimestamp"], "2026-01-01T00:00:10Z");
            assert_eq!(
                event["source"],
                json!({"component": "operator", "host": "host-1"})
            );
            assert_eq!(event["involvedObject"]["resourceVersion"], "12");
            assert_eq!(event["type"], "Warning");
            let (object, nanos) = events[0].name().split_once('.').unwrap();
            assert_eq!(object, "home");
            assert_eq!(
                u64::from_str_radix(nanos, 16).unwrap(),
                1_767_225_600_000_000_000
            );
            group.shutdown().await;
        });
    }

    #[test]
    fn many_messages_become_one_and_a_flood_is_cut() {
        let (sim, api, group) = world();
        sim.block_on(async move {
            let recorder = EventBroadcaster::start(&group, api.client()).recorder("operator");
            for n in 0..40 {
                recorder.normal(&site("home"), "Made", format!("Made thing {n}"));
                group.env().sleep(Duration::from_millis(100)).await;
            }
            let events = api.objects(&EVENTS);
            assert_eq!(events.len(), 10, "nine of their own and the combined one");
            let combined: Vec<_> = events
                .iter()
                .map(|event| event.value().unwrap())
                .filter(|event| {
                    event["message"]
                        .as_str()
                        .unwrap()
                        .starts_with("(combined from similar events): ")
                })
                .collect();
            assert_eq!(combined.len(), 1);
            // 25 tokens: nine went to the first ones.
            assert_eq!(combined[0]["count"], 16);
            recorder.normal(&site("other"), "Made", "Made thing 0");
            group.env().sleep(Duration::from_secs(1)).await;
            assert_eq!(
                api.objects(&EVENTS).len(),
                11,
                "another object has tokens of its own"
            );
            group.shutdown().await;
        });
    }

    #[test]
    fn a_server_that_is_down_for_a_while_loses_nothing() {
        let (sim, api, group) = world();
        sim.block_on(async move {
            let recorder = EventBroadcaster::start(&group, api.client()).recorder("operator");
            api.refuse(5, |_| Some(Status::unavailable("down")));
            recorder.normal(&site("home"), "Made", "Made it");
            group.env().sleep(Duration::from_secs(70)).await;
            assert_eq!(api.objects(&EVENTS).len(), 1);
            for _ in 0..(QUEUE + 5) {
                recorder.normal(&site("home"), "Made", "Made it");
            }
            assert_eq!(recorder.dropped(), 5);
            group.shutdown().await;
        });
    }
}
