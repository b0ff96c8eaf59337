//! The versions of a DaemonSet's template, kept as ControllerRevisions.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use orlop_core::client::{DeleteOptions, Patch};
use orlop_core::controller::{Context, ReconcileError};
use orlop_core::object::Object;
use orlop_core::selector::label;
use serde_json::json;

use super::{DAEMON_SETS, HASH, REVISIONS};
use crate::common::ownership::{claim, managed_by};
use crate::deployment::{same_template, template_hash};

/// The versions that there are.
pub(super) struct History {
    /// What pods of the present template are labelled with.
    pub(super) hash: String,
    /// How often a hash was taken already, if that has changed.
    pub(super) collisions: Option<i32>,
    old: Vec<(Object, Arc<ControllerRevision>)>,
}

fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let data = revision.data.as_ref()?;
    let template = data.0.pointer("/spec/template")?;
    serde_json::from_value(template.clone()).ok()
}

fn hash_of(object: &Object) -> &str {
    let labels = &object.metadata().labels;
    labels.get(HASH).map(String::as_str).unwrap_or_default()
}

/// Finds the version of the present template, or makes it.
pub(super) async fn history(
    ctx: &Context,
    object: &Object,
    set: &DaemonSet,
    selector: &label::Selector,
) -> Result<History, ReconcileError> {
    let template = set.spec.as_ref().map(|spec| spec.template.clone());
    let template = template.unwrap_or_default();
    let mut all = Vec::new();
    for revision in claim(ctx, object, &DAEMON_SETS, &REVISIONS, selector).await? {
        let decoded = revision.decode::<ControllerRevision>()?;
        all.push((revision, decoded));
    }
    let newest = all.iter().map(|(_, revision)| revision.revision).max();
    let newest = newest.unwrap_or(0);
    let (mut same, old): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, revision)| {
        template_of(revision).is_some_and(|known| same_template(&known, &template))
    });
    same.sort_by_key(|(_, revision)| std::cmp::Reverse(revision.revision));
    let revisions = ctx
        .client()
        .resource(&REVISIONS)
        .namespace(object.namespace());
    if let Some((current, decoded)) = same.first() {
        if decoded.revision < newest {
            // Rolled back: the old version is the newest again.
            let patch = json!({"revision": newest + 1});
            revisions.patch(current.name(), Patch::Merge(patch)).await?;
        }
        return Ok(History {
            hash: hash_of(current).to_owned(),
            collisions: None,
            old,
        });
    }
    let collisions = set
        .status
        .as_ref()
        .and_then(|status| status.collision_count);
    let hash = template_hash(&template, collisions);
    let mut data = serde_json::to_value(&template).unwrap_or_default();
    data["$patch"] = "replace".into();
    let mut labels = json!(template.metadata.and_then(|metadata| metadata.labels));
    labels[HASH] = hash.as_str().into();
    let revision = json!({
        "metadata": {
            "name": format!("{}-{hash}", object.name()), "labels": labels,
            "annotations": set.metadata.annotations, "ownerReferences": [managed_by(object)],
        },
        "data": {"spec": {"template": data}},
        "revision": newest + 1,
    });
    match revisions.create(&revision).await {
        Ok(_) => Ok(History {
            hash,
            collisions: None,
            old,
        }),
        Err(status) if status.is_already_exists() => {
            let live = revisions.get(&format!("{}-{hash}", object.name())).await?;
            let ours = template_of(&*live.decode::<ControllerRevision>()?)
                .is_some_and(|known| same_template(&known, &set_template(set)));
            if ours {
                return Ok(History {
                    hash,
                    collisions: None,
                    old,
                });
            }
            // Another template has this hash: the next try counts it in.
            Ok(History {
                hash: String::new(),
                collisions: Some(collisions.unwrap_or(0) + 1),
                old,
            })
        }
        Err(status) => Err(status.into()),
    }
}

fn set_template(set: &DaemonSet) -> PodTemplateSpec {
    let spec = set.spec.as_ref();
    spec.map(|spec| spec.template.clone()).unwrap_or_default()
}

impl History {
    /// Deletes the oldest versions beyond those that are to be kept; versions that pods still have stay.
    pub(super) async fn clean_up(
        mut self,
        ctx: &Context,
        set: &DaemonSet,
        pods: &[Arc<Pod>],
    ) -> Result<(), ReconcileError> {
        let limit = set
            .spec
            .as_ref()
            .and_then(|spec| spec.revision_history_limit);
        let limit = usize::try_from(limit.unwrap_or(10)).unwrap_or(0);
        let labels = pods.iter().filter_map(|pod| pod.metadata.labels.as_ref());
        let live: BTreeSet<&str> = labels
            .filter_map(|labels| labels.get(HASH).map(String::as_str))
            .collect();
        self.old
            .retain(|(object, _)| !live.contains(hash_of(object)));
        self.old.sort_by_key(|(_, revision)| revision.revision);
        let surplus = self.old.len().saturating_sub(limit);
        for (object, _) in self.old.iter().take(surplus) {
            let revisions = ctx
                .client()
                .resource(&REVISIONS)
                .namespace(object.namespace());
            let deleted = revisions.delete(object.name(), DeleteOptions::default());
            match deleted.await {
                Err(status) if !status.is_not_found() => return Err(status.into()),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether a pod is of a version.
pub(super) fn is_of(pod: &Pod, hash: &str) -> bool {
    let labels = pod.metadata.labels.as_ref();
    let label = labels.and_then(|labels| labels.get(HASH));
    !hash.is_empty() && label.map(String::as_str) == Some(hash)
}

/// The data of a revision, for tests.
#[cfg(test)]
pub(super) fn image_of(revision: &serde_json::Value) -> &str {
    revision["data"]["spec"]["template"]["spec"]["containers"][0]["image"]
        .as_str()
        .unwrap_or_default()
}
