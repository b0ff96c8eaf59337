//! Versions: which ReplicaSet is of the present template, and the numbers that they have.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use orlop_core::controller::ReconcileError;

use super::hash::{same_template, template_hash};
use super::{
    DESIRED_REPLICAS, MAX_REPLICAS, POD_TEMPLATE_HASH, REVISION, REVISION_HISTORY, Rollout, Set,
    Versions, progress, total_size,
};
use crate::common;
use crate::common::ownership::managed_by;
use crate::common::resources::REPLICA_SETS;

/// The annotations of a Deployment that its ReplicaSets do not take over.
const OWN_ANNOTATIONS: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];

/// The numbers of earlier times are kept up to so many characters.
const HISTORY_LENGTH: usize = 2000;

impl Rollout<'_> {
    /// The versions as they are.
    pub(super) fn versions(&self) -> Versions {
        let template = &self.spec.template;
        let is_new = |set: &Set| {
            set.set
                .spec
                .as_ref()
                .and_then(|spec| spec.template.as_ref())
                .is_some_and(|own| same_template(own, template))
        };
        let mut sets = self.sets.clone();
        sets.sort_by(|a, b| a.age().cmp(&b.age()));
        // Should there be several, the oldest is the one.
        let new = sets.iter().position(is_new).map(|at| sets.remove(at));
        Versions { new, old: sets }
    }

    /// The versions, with numbers and annotations brought up to date; the new one is made if `create` says so.
    pub(super) async fn synced_versions(
        &mut self,
        create: bool,
    ) -> Result<Versions, ReconcileError> {
        let mut versions = self.versions();
        let revision = versions.old.iter().map(Set::revision).max().unwrap_or(0) + 1;
        match &versions.new {
            Some(new) => versions.new = Some(self.update_new(new.clone(), revision).await?),
            None if create => versions.new = Some(self.create_new(&versions.old, revision).await?),
            None => {}
        }
        Ok(versions)
    }

    async fn update_new(&mut self, new: Set, revision: i64) -> Result<Set, ReconcileError> {
        let mut set = (*new.set).clone();
        let annotations = set.metadata.annotations.get_or_insert_default();
        let mut changed = annotate(
            annotations,
            self.deployment.metadata.annotations.as_ref(),
            revision,
            true,
        );
        if let Some(spec) = &mut set.spec
            && spec.min_ready_seconds.unwrap_or(0) != self.spec.min_ready_seconds.unwrap_or(0)
        {
            spec.min_ready_seconds = self.spec.min_ready_seconds;
            changed = true;
        }
        if changed {
            return self.update_set(&set).await;
        }
        let mut write = self.set_revision(
            set.metadata
                .annotations
                .as_ref()
                .and_then(|all| all.get(REVISION))
                .cloned(),
        );
        if self.deadline().is_some() && progress::progressing(&self.status()).is_none() {
            let message = format!("Found new replica set \"{}\"", new.name());
            self.set_progressing("True", "FoundNewReplicaSet", message);
            write = true;
        }
        if write {
            self.update_status().await?;
        }
        Ok(new)
    }

    /// Notes the number of the present version in the Deployment; says whether that is news.
    fn set_revision(&mut self, revision: Option<String>) -> bool {
        let Some(revision) = revision else {
            return false;
        };
        let annotations = self.deployment.metadata.annotations.get_or_insert_default();
        annotations
            .insert(REVISION.to_owned(), revision.clone())
            .is_none_or(|old| old != revision)
    }

    async fn create_new(&mut self, old: &[Set], revision: i64) -> Result<Set, ReconcileError> {
        let hash = template_hash(&self.spec.template, self.status().collision_count);
        let name = format!("{}-{hash}", self.name());
        let mut template = self.spec.template.clone();
        template
            .metadata
            .get_or_insert_default()
            .labels
            .get_or_insert_default()
            .insert(POD_TEMPLATE_HASH.to_owned(), hash.clone());
        let mut selector = self.spec.selector.clone();
        selector
            .match_labels
            .get_or_insert_default()
            .insert(POD_TEMPLATE_HASH.to_owned(), hash);
        let posts = self.strategy();
        let size = posts.new_size(0, total_size(old));
        let mut annotations = BTreeMap::new();
        annotate(
            &mut annotations,
            self.deployment.metadata.annotations.as_ref(),
            revision,
            false,
        );
        annotations.insert(DESIRED_REPLICAS.to_owned(), self.size().to_string());
        annotations.insert(
            MAX_REPLICAS.to_owned(),
            (self.size() + posts.surge()).to_string(),
        );
        let wanted = ReplicaSet {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(self.object.namespace().to_owned()),
                labels: template
                    .metadata
                    .as_ref()
                    .and_then(|metadata| metadata.labels.clone()),
                annotations: Some(annotations),
                owner_references: Some(vec![managed_by(&self.object)]),
                ..ObjectMeta::default()
            },
            spec: Some(ReplicaSetSpec {
                replicas: Some(size),
                min_ready_seconds: self.spec.min_ready_seconds,
                selector,
                template: Some(template),
            }),
            status: None,
        };
        let sets = self
            .ctx
            .client()
            .resource(&REPLICA_SETS)
            .namespace(self.object.namespace());
        let (set, made) = match sets.create(&wanted).await {
            Ok(object) => (Set::new(&object)?, true),
            Err(status) if status.is_already_exists() => {
                let there = sets.get(&name).await?;
                let set = Set::new(&there)?;
                let ours = there
                    .metadata()
                    .controller()
                    .is_some_and(|owner| owner.uid == self.object.uid());
                let same = set
                    .set
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.template.as_ref());
                if !(ours
                    && same.is_some_and(|template| same_template(template, &self.spec.template)))
                {
                    // Another has the name: the next try takes another hash.
                    let count = &mut self
                        .deployment
                        .status
                        .get_or_insert_default()
                        .collision_count;
                    *count = Some(count.unwrap_or(0) + 1);
                    self.update_status().await?;
                    return Err(status.into());
                }
                (set, false)
            }
            Err(status) if common::namespace_is_going(&status) => return Err(status.into()),
            Err(status) => {
                let message = format!("Failed to create new replica set \"{name}\": {status}");
                if self.deadline().is_some() {
                    self.set_progressing("False", "ReplicaSetCreateError", message.clone());
                    // What stands in the way of the ReplicaSet is the error that counts.
                    if let Err(error) = self.update_status().await {
                        tracing::debug!(%error, "cannot note the failure");
                    }
                }
                self.ctx
                    .events()
                    .warning(&self.object, "ReplicaSetCreateError", message);
                return Err(status.into());
            }
        };
        if made && size > 0 {
            let message = format!("Scaled up replica set {} from 0 to {size}", set.name());
            self.ctx
                .events()
                .normal(&self.object, "ScalingReplicaSet", message);
        }
        let mut write = self.set_revision(Some(revision.to_string()));
        if made && self.deadline().is_some() {
            let message = format!("Created new replica set \"{}\"", set.name());
            self.set_progressing("True", "NewReplicaSetCreated", message);
            write = true;
        }
        if write {
            self.update_status().await?;
        }
        Ok(set)
    }
}

/// Brings a ReplicaSet's annotations up to date with its Deployment's, and its number if it has to rise; says whether anything changed.
fn annotate(
    annotations: &mut BTreeMap<String, String>,
    deployment: Option<&BTreeMap<String, String>>,
    revision: i64,
    exists: bool,
) -> bool {
    let mut changed = false;
    for (key, value) in deployment.into_iter().flatten() {
        if !OWN_ANNOTATIONS.contains(&key.as_str()) && annotations.get(key) != Some(value) {
            annotations.insert(key.clone(), value.clone());
            changed = true;
        }
    }
    let old: Option<i64> = annotations.get(REVISION).and_then(|text| text.parse().ok());
    if old.unwrap_or(0) < revision {
        annotations.insert(REVISION.to_owned(), revision.to_string());
        if let Some(old) = old.filter(|_| exists) {
            let history = annotations.entry(REVISION_HISTORY.to_owned()).or_default();
            let mut numbers: Vec<String> = history
                .split(',')
                .filter(|number| !number.is_empty())
                .map(str::to_owned)
                .collect();
            numbers.push(old.to_string());
            while numbers.len() > 1
                && numbers.iter().map(|number| number.len() + 1).sum::<usize>() > HISTORY_LENGTH
            {
                numbers.remove(0);
            }
            *history = numbers.join(",");
        }
        changed = true;
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_comes_back_gets_a_new_number_and_keeps_the_old_one_in_mind() {
        let mut annotations = BTreeMap::from([(REVISION.to_owned(), "1".to_owned())]);
        assert!(!annotate(&mut annotations, None, 1, true));
        assert!(annotate(&mut annotations, None, 3, true));
        assert!(annotate(&mut annotations, None, 5, true));
        assert_eq!(annotations[REVISION], "5");
        assert_eq!(annotations[REVISION_HISTORY], "1,3");
        assert!(
            !annotate(&mut annotations, None, 2, true),
            "numbers only rise"
        );
    }

    #[test]
    fn what_is_the_deployments_own_is_not_taken_over() {
        let deployment = BTreeMap::from(
            [
                REVISION,
                DESIRED_REPLICAS,
                "kubernetes.io/change-cause",
                OWN_ANNOTATIONS[0],
            ]
            .map(|key| (key.to_owned(), "x".to_owned())),
        );
        let mut annotations = BTreeMap::new();
        assert!(annotate(&mut annotations, Some(&deployment), 1, false));
        let keys: Vec<&str> = annotations.keys().map(String::as_str).collect();
        assert_eq!(keys, [REVISION, "kubernetes.io/change-cause"]);
    }
}
