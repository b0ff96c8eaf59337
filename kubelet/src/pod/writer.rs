//! [`StatusWriter`]: tells the API how pods are, and when they are gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use orlop_api::typed::Kind;
use orlop_core::client::{Client, DeleteOptions, Patch};
use orlop_core::env::{Env, TaskGroup};
use orlop_core::queue::{RateLimit, WorkQueue};
use orlop_core::resource::Resource;
use orlop_core::status::Status;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::spec;

/// How many statuses are written at the same time.
const WRITERS: usize = 5;

/// Writes statuses, the newest of each pod, one write at a time for a pod. What fails is tried again.
#[derive(Clone)]
pub(crate) struct StatusWriter(Arc<Inner>);

struct Inner {
    client: Arc<dyn Client>,
    pods: Resource,
    queue: WorkQueue<String>,
    wanted: Mutex<BTreeMap<String, Wanted>>,
}

/// What is to be written of a pod.
#[derive(Clone)]
struct Wanted {
    /// The pod as the API has it: for a static pod its mirror.
    target: Arc<Pod>,
    /// The newest status.
    status: Option<Arc<PodStatus>>,
    /// Whether the pod is to be deleted after that.
    delete: bool,
}

impl StatusWriter {
    pub(crate) fn new(client: Arc<dyn Client>, env: Env) -> Self {
        let limit = RateLimit::exponential(Duration::from_millis(200), Duration::from_secs(10));
        Self(Arc::new(Inner {
            client,
            pods: Pod::resource(),
            queue: WorkQueue::new(env, limit),
            wanted: Mutex::default(),
        }))
    }

    /// Runs the writing tasks in a group.
    pub(crate) fn start(&self, group: &TaskGroup) {
        for _ in 0..WRITERS {
            let own = self.clone();
            group.spawn_until_cancelled("pod status", async move {
                while let Some(uid) = own.0.queue.get().await {
                    let done = own.write(&uid).await;
                    own.0.queue.done(&uid);
                    if done {
                        own.0.queue.forget(&uid);
                    } else {
                        own.0.queue.add_rate_limited(uid);
                    }
                }
            });
        }
    }

    /// Has a status written. The pod is the API's newest as far as is known here.
    pub(crate) fn set(&self, uid: &str, target: Arc<Pod>, status: Arc<PodStatus>) {
        let mut wanted = self.0.wanted.lock();
        match wanted.get_mut(uid) {
            Some(one) => {
                one.newer(target);
                one.status = Some(status);
            }
            None => {
                let one = Wanted {
                    target,
                    status: Some(status),
                    delete: false,
                };
                wanted.insert(uid.to_owned(), one);
            }
        }
        drop(wanted);
        self.0.queue.add(uid.to_owned());
    }

    /// Has a pod deleted, once its newest status is written.
    pub(crate) fn delete(&self, uid: &str, target: Arc<Pod>) {
        let mut wanted = self.0.wanted.lock();
        let one = wanted.entry(uid.to_owned()).or_insert_with(|| Wanted {
            target: target.clone(),
            status: None,
            delete: true,
        });
        one.newer(target);
        one.delete = true;
        drop(wanted);
        self.0.queue.add(uid.to_owned());
    }

    /// Forgets a pod that the API has no more.
    pub(crate) fn forget(&self, uid: &str) {
        self.0.wanted.lock().remove(uid);
    }

    /// Writes what is wanted of a pod. Whether that is done with.
    async fn write(&self, uid: &str) -> bool {
        let Some(wanted) = self.0.wanted.lock().get(uid).cloned() else {
            return true;
        };
        if let Some(status) = &wanted.status {
            match self.write_status(uid, &wanted.target, status).await {
                Ok(()) => {}
                Err(refusal) => return self.refused(uid, &wanted, &refusal).await,
            }
        }
        if !wanted.delete {
            return true;
        }
        let target = &wanted.target;
        let options = DeleteOptions {
            grace_period_seconds: Some(0),
            uid: Some(spec::uid(target).to_owned()),
            ..DeleteOptions::default()
        };
        let pods = self.0.client.resource(&self.0.pods);
        let pods = pods.namespace(spec::namespace(target));
        match pods.delete(spec::name(target), options).await {
            Ok(()) => {
                self.forget(uid);
                true
            }
            Err(refusal) => self.refused(uid, &wanted, &refusal).await,
        }
    }

    /// Writes a status if the API has another one.
    async fn write_status(
        &self,
        uid: &str,
        target: &Pod,
        status: &PodStatus,
    ) -> Result<(), Status> {
        let before = target.status.clone().unwrap_or_default();
        let Some(patch) = difference(&before, status, spec::uid(target)) else {
            return Ok(());
        };
        let pods = self.0.client.resource(&self.0.pods);
        let pods = pods.namespace(spec::namespace(target));
        let written = pods.patch_status(spec::name(target), patch).await?;
        let Ok(written) = written.decode::<Pod>() else {
            return Err(Status::internal("a pod that is no pod came back"));
        };
        if let Some(one) = self.0.wanted.lock().get_mut(uid) {
            one.newer(written);
        }
        Ok(())
    }

    /// Whether a refusal is the last word.
    async fn refused(&self, uid: &str, wanted: &Wanted, refusal: &Status) -> bool {
        if refusal.is_not_found() {
            self.forget(uid);
            return true;
        }
        let target = &wanted.target;
        tracing::debug!(pod = %spec::in_words(target), %refusal, "a pod's status could not be written");
        if refusal.is_conflict() {
            // Another pod has its name, or it has changed: look.
            let pods = self.0.client.resource(&self.0.pods);
            let pods = pods.namespace(spec::namespace(target));
            match pods.find(spec::name(target)).await {
                Ok(Some(now)) if now.uid() == spec::uid(target) => {
                    if let (Ok(now), Some(one)) =
                        (now.decode::<Pod>(), self.0.wanted.lock().get_mut(uid))
                    {
                        one.newer(now);
                    }
                }
                Ok(_) => {
                    self.forget(uid);
                    return true;
                }
                Err(_) => {}
            }
        }
        false
    }
}

impl Wanted {
    /// Takes the API's newer state of the pod.
    fn newer(&mut self, target: Arc<Pod>) {
        let version = |pod: &Pod| -> u64 {
            let text = pod.metadata.resource_version.as_deref();
            text.and_then(|text| text.parse().ok()).unwrap_or(0)
        };
        let same = spec::uid(&self.target) == spec::uid(&target);
        if !same || version(&target) >= version(&self.target) {
            self.target = target;
        }
    }
}

/// The patch that makes one status into another; `None` if they say the same.
///
/// Conditions are merged by their type, so that those of others stay. Where an address goes, which a strategic merge would keep, the lists
/// are replaced instead.
pub(crate) fn difference(before: &PodStatus, after: &PodStatus, uid: &str) -> Option<Patch> {
    let fields = |status: &PodStatus| match serde_json::to_value(status) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let (mut before, mut after) = (fields(before), fields(after));
    let old_conditions = before.remove("conditions").unwrap_or(json!([]));
    let new_conditions = after.remove("conditions").unwrap_or(json!([]));
    let mut patch = Map::new();
    for (name, value) in &after {
        if before.get(name).is_none_or(|old| bare(old) != bare(value)) {
            patch.insert(name.clone(), value.clone());
        }
    }
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        // What belongs to others is not taken away.
        if !matches!(name.as_str(), "resize" | "nominatedNodeName") {
            patch.insert(name.clone(), Value::Null);
        }
    }
    let empty = Vec::new();
    let list = |value: &Value| value.as_array().unwrap_or(&empty).clone();
    let (old_conditions, new_conditions) = (list(&old_conditions), list(&new_conditions));
    let changed: Vec<Value> = new_conditions
        .iter()
        .filter(|new| {
            let old = old_conditions.iter().find(|old| old["type"] == new["type"]);
            old.is_none_or(|old| bare(old) != bare(new))
        })
        .cloned()
        .collect();
    if patch.is_empty() && changed.is_empty() {
        return None;
    }
    let goes = |name: &str| {
        let ips = |status: &Map<String, Value>| status.get(name).map(&list).unwrap_or_default();
        let new = ips(&after);
        ips(&before).iter().any(|old| !new.contains(old))
    };
    let metadata = json!({"uid": uid});
    if goes("podIPs") || goes("hostIPs") {
        let foreign = old_conditions.iter().filter(|old| {
            let mut all = new_conditions.iter();
            !all.any(|new| new["type"] == old["type"])
        });
        let all: Vec<Value> = foreign.chain(&new_conditions).cloned().collect();
        patch.insert("conditions".to_owned(), Value::Array(all));
        return Some(Patch::Merge(json!({"metadata": metadata, "status": patch})));
    }
    if !changed.is_empty() {
        patch.insert("conditions".to_owned(), Value::Array(changed));
    }
    Some(Patch::Strategic(
        json!({"metadata": metadata, "status": patch}),
    ))
}

/// A document without what is empty, which an API server may add or leave out.
fn bare(value: &Value) -> Value {
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    };
    match value {
        Value::Object(fields) => {
            let bare = fields
                .iter()
                .map(|(name, value)| (name.clone(), bare(value)));
            Value::Object(bare.filter(|(_, value)| !is_empty(value)).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(bare).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(value: Value) -> PodStatus {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_what_changed_is_written() {
        let before = status(
            json!({"phase": "Pending", "hostIP": "1.1.1.1", "reason": "X",
            "conditions": [{"type": "Ready", "status": "False"}, {"type": "Mine", "status": "True"}],
            "containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "lastState": {}}]}),
        );
        let same = status(
            json!({"phase": "Pending", "hostIP": "1.1.1.1", "reason": "X",
            "conditions": [{"type": "Ready", "status": "False"}],
            "containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0}]}),
        );
        assert_eq!(difference(&before, &same, "u"), None);
        let mut after = same.clone();
        after.phase = Some("Running".to_owned());
        after.reason = None;
        after.conditions.as_mut().unwrap()[0].status = "True".to_owned();
        let patch = difference(&before, &after, "u");
        let expected = json!({"metadata": {"uid": "u"}, "status": {"phase": "Running", "reason": null,
            "conditions": [{"type": "Ready", "status": "True"}]}});
        assert_eq!(patch, Some(Patch::Strategic(expected)));
    }

    #[test]
    fn an_address_that_goes_is_taken_out() {
        let ips = |all: &[&str]| {
            let all: Vec<Value> = all.iter().map(|ip| json!({"ip": ip})).collect();
            status(json!({"podIPs": all, "conditions": [{"type": "Mine", "status": "True"}]}))
        };
        let added = difference(&ips(&["a"]), &ips(&["a", "b"]), "u").unwrap();
        assert!(matches!(added, Patch::Strategic(_)));
        let mut after = ips(&["b"]);
        after.conditions = None;
        let replaced = difference(&ips(&["a"]), &after, "u").unwrap();
        let expected = json!({"metadata": {"uid": "u"}, "status": {"podIPs": [{"ip": "b"}],
            "conditions": [{"type": "Mine", "status": "True"}]}});
        assert_eq!(replaced, Patch::Merge(expected));
    }
}
