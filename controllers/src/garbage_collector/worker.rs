//! What is done with an object of the graph.

use std::sync::Arc;

use orlop_core::client::{DeleteOptions, Patch, Propagation, ResourceClient};
use orlop_core::controller::{Context, ReconcileError};
use orlop_core::object::{Object, OwnerReference};
use orlop_core::resource::Resource;
use orlop_core::status::Status;
use serde_json::json;

use super::Shared;
use super::graph::{FOREGROUND, Node, ORPHAN};

pub(super) struct Collector {
    ctx: Context,
    shared: Arc<Shared>,
}

/// What has become of an owner.
enum Owner {
    /// It is there.
    Solid,
    /// It is not.
    Absent,
    /// It is there, but going in the foreground: after its dependents.
    Waiting,
}

impl Collector {
    pub(super) fn new(ctx: Context, shared: Arc<Shared>) -> Self {
        Self { ctx, shared }
    }

    pub(super) async fn delete_loop(&self) {
        let queue = &self.shared.to_delete;
        while let Some(uid) = queue.get().await {
            if !queue.is_shut_down() {
                match self.attempt_to_delete(&uid).await {
                    Ok(true) => queue.forget(&uid),
                    Ok(false) => queue.add_rate_limited(uid.clone()),
                    Err(error) => {
                        tracing::debug!(uid, %error, "an object could not be collected yet");
                        queue.add_rate_limited(uid.clone());
                    }
                }
            }
            queue.done(&uid);
        }
    }

    pub(super) async fn orphan_loop(&self) {
        let queue = &self.shared.to_orphan;
        while let Some(uid) = queue.get().await {
            if !queue.is_shut_down() {
                match self.orphan(&uid).await {
                    Ok(()) => queue.forget(&uid),
                    Err(error) => {
                        tracing::debug!(uid, %error, "dependents could not be let go yet");
                        queue.add_rate_limited(uid.clone());
                    }
                }
            }
            queue.done(&uid);
        }
    }

    fn objects<'a>(&'a self, resource: &Resource, namespace: &str) -> ResourceClient<'a> {
        self.ctx.client().resource(resource).namespace(namespace)
    }

    /// The object as it is in the API, if it still is the one of this uid.
    async fn live(&self, node: &Node, uid: &str) -> Result<Option<Object>, ReconcileError> {
        let Some(resource) = &node.resource else {
            return Err(ReconcileError::other(format!(
                "no resource is known for the owner {}",
                node.name
            )));
        };
        let found = self
            .objects(resource, &node.namespace)
            .find(&node.name)
            .await?;
        Ok(found.filter(|object| object.uid() == uid))
    }

    /// Looks at one object: whether its owners are still there, or its turn has come. Says whether that is settled.
    async fn attempt_to_delete(&self, uid: &str) -> Result<bool, ReconcileError> {
        let node = {
            let graph = self.shared.graph.lock();
            let Some(mut node) = graph.get(uid).cloned() else {
                return Ok(true);
            };
            if node.resource.is_none() {
                // The kind may have become known since.
                let dependents = graph.dependents(uid);
                let reference = dependents
                    .iter()
                    .flat_map(|(_, d)| &d.owners)
                    .find(|reference| reference.uid == uid);
                node.resource = reference.and_then(|reference| graph.resource_of(reference));
            }
            node
        };
        if node.going && !node.waits_for_dependents {
            return Ok(true);
        }
        let Some(live) = self.live(&node, uid).await? else {
            // Gone, or it never was: its dependents have to be looked at.
            let work = self.shared.graph.lock().remove(uid);
            self.shared.enqueue(work);
            return Ok(true);
        };
        if !node.observed {
            return Ok(false); // it is there; the watch will tell
        }
        let Some(resource) = node.resource.clone() else {
            return Ok(false);
        };
        if node.waits_for_dependents {
            return self.finish_foreground(&resource, &live, uid).await;
        }
        let owners = &live.metadata().owner_references;
        if owners.is_empty() {
            return Ok(true);
        }
        let (mut solid, mut absent, mut waiting) = (0, Vec::new(), Vec::new());
        for reference in owners {
            match self.look_up(&live, reference).await? {
                Owner::Solid => solid += 1,
                Owner::Absent => absent.push(reference.uid.clone()),
                Owner::Waiting => waiting.push(reference.uid.clone()),
            }
        }
        if solid > 0 {
            if absent.is_empty() && waiting.is_empty() {
                return Ok(true);
            }
            // Somebody still wants it: it only loses those owners.
            let mut kept = owners.clone();
            kept.retain(|reference| {
                !absent.contains(&reference.uid) && !waiting.contains(&reference.uid)
            });
            self.patch(&resource, &live, json!({"ownerReferences": kept}))
                .await?;
            return Ok(true);
        }
        let has_dependents = !self.shared.graph.lock().dependents(uid).is_empty();
        let has = |finalizer: &str| {
            live.metadata()
                .finalizers
                .iter()
                .any(|name| name == finalizer)
        };
        let propagation = if !waiting.is_empty() && has_dependents {
            // Its owner waits for it, so it waits for its own dependents. Two that wait for each other would wait for ever.
            self.break_circle(uid, &waiting, &resource, &live).await?;
            Propagation::Foreground
        } else if has(ORPHAN) {
            Propagation::Orphan
        } else if has(FOREGROUND) {
            Propagation::Foreground
        } else {
            Propagation::Background
        };
        let options = DeleteOptions {
            propagation: Some(propagation),
            uid: Some(uid.to_owned()),
            // Whoever changed its owners meanwhile wants it to be looked at again; the circle's patch is ours.
            revision: waiting.is_empty().then(|| live.revision()),
            ..DeleteOptions::default()
        };
        match self
            .objects(&resource, live.namespace())
            .delete(live.name(), options)
            .await
        {
            Ok(()) => Ok(true),
            Err(status) if status.is_not_found() => Ok(true),
            Err(status) if status.is_conflict() => Ok(false),
            Err(status) => Err(status.into()),
        }
    }

    /// Takes the block off owners that wait, if one of the object's own dependents already waits, too.
    async fn break_circle(
        &self,
        uid: &str,
        waiting: &[String],
        resource: &Resource,
        live: &Object,
    ) -> Result<(), ReconcileError> {
        let circle = self
            .shared
            .graph
            .lock()
            .dependents(uid)
            .iter()
            .any(|(_, node)| node.waits_for_dependents);
        if !circle {
            return Ok(());
        }
        let mut owners = live.metadata().owner_references.clone();
        for reference in owners
            .iter_mut()
            .filter(|reference| waiting.contains(&reference.uid))
        {
            reference.block_owner_deletion = Some(false);
        }
        self.patch(resource, live, json!({"ownerReferences": owners}))
            .await
    }

    /// Whether the owner that a reference speaks of is there, asked live.
    async fn look_up(
        &self,
        dependent: &Object,
        reference: &OwnerReference,
    ) -> Result<Owner, ReconcileError> {
        let resource = self.shared.graph.lock().resource_of(reference);
        let Some(resource) = resource else {
            let what = format!(
                "no resource is known for {} {}",
                reference.api_version, reference.kind
            );
            return Err(ReconcileError::other(what));
        };
        if resource.namespaced && dependent.namespace().is_empty() {
            // What belongs to the cluster cannot be owned by what belongs to a namespace.
            return Ok(Owner::Absent);
        }
        let found = self
            .objects(&resource, dependent.namespace())
            .find(&reference.name)
            .await?;
        Ok(match found.filter(|owner| owner.uid() == reference.uid) {
            None => Owner::Absent,
            Some(owner) => {
                let foreground = owner
                    .metadata()
                    .finalizers
                    .iter()
                    .any(|name| name == FOREGROUND);
                if owner.is_terminating() && foreground {
                    Owner::Waiting
                } else {
                    Owner::Solid
                }
            }
        })
    }

    /// An owner that goes after its dependents: it goes when none blocks it any more.
    async fn finish_foreground(
        &self,
        resource: &Resource,
        live: &Object,
        uid: &str,
    ) -> Result<bool, ReconcileError> {
        let blocking: Vec<(String, Node)> = self
            .shared
            .graph
            .lock()
            .dependents(uid)
            .into_iter()
            .filter(|(_, node)| node.blocks(uid))
            .collect();
        if blocking.is_empty() {
            return self
                .remove_finalizer(resource, live, FOREGROUND)
                .await
                .map(|()| true);
        }
        for (dependent, node) in blocking {
            if !node.waits_for_dependents {
                self.shared.to_delete.add(dependent);
            }
        }
        // The last of them to go brings it back here.
        Ok(true)
    }

    /// Lets the dependents of an owner go free, then the owner go.
    async fn orphan(&self, uid: &str) -> Result<(), ReconcileError> {
        let (node, dependents) = {
            let graph = self.shared.graph.lock();
            let Some(node) = graph.get(uid).cloned() else {
                return Ok(());
            };
            (node, graph.dependents(uid))
        };
        let mut errors = Vec::new();
        for (dependent_uid, dependent) in dependents {
            if let Err(error) = self.let_go(&dependent, &dependent_uid, uid).await {
                errors.push(error);
            }
        }
        ReconcileError::from_many(errors)?;
        let (Some(resource), Some(live)) = (node.resource.clone(), self.live(&node, uid).await?)
        else {
            return Ok(());
        };
        self.remove_finalizer(&resource, &live, ORPHAN).await
    }

    async fn let_go(
        &self,
        dependent: &Node,
        dependent_uid: &str,
        owner: &str,
    ) -> Result<(), ReconcileError> {
        let (Some(resource), Some(live)) = (
            &dependent.resource,
            self.live(dependent, dependent_uid).await?,
        ) else {
            return Ok(());
        };
        let mut owners = live.metadata().owner_references.clone();
        let before = owners.len();
        owners.retain(|reference| reference.uid != owner);
        if owners.len() == before {
            return Ok(());
        }
        self.patch(resource, &live, json!({"ownerReferences": owners}))
            .await
    }

    async fn remove_finalizer(
        &self,
        resource: &Resource,
        live: &Object,
        finalizer: &str,
    ) -> Result<(), ReconcileError> {
        let mut finalizers = live.metadata().finalizers.clone();
        let before = finalizers.len();
        finalizers.retain(|name| name != finalizer);
        if finalizers.len() == before {
            return Ok(());
        }
        self.patch(resource, live, json!({"finalizers": finalizers}))
            .await
    }

    /// Changes an object's metadata, if it is as it was read. One that is gone needs no change.
    async fn patch(
        &self,
        resource: &Resource,
        live: &Object,
        mut metadata: serde_json::Value,
    ) -> Result<(), ReconcileError> {
        metadata["resourceVersion"] = json!(live.revision().to_string());
        metadata["uid"] = json!(live.uid());
        let patch = Patch::Merge(json!({"metadata": metadata}));
        match self
            .objects(resource, live.namespace())
            .patch(live.name(), patch)
            .await
        {
            Ok(_) => Ok(()),
            Err(status) if Status::is_not_found(&status) => Ok(()),
            Err(status) => Err(status.into()),
        }
    }
}
