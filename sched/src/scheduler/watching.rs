//! What the API tells, put into the cache and the queue.

use std::future::Future;
use std::sync::Arc;

use orlop_core::env::TaskGroup;
use orlop_core::informer::{InformerFactory, Notice, Scope};
use orlop_core::object::Object;
use orlop_core::resource::Resource;
use orlop_core::scheduling::{Actions, ClusterEvent, EventResource, NodeInfo, PodInfo, Subject};

use super::shared::Shared;
use crate::queue::changes;

const PODS: Resource = Resource::namespaced("", "v1", "pods", "Pod");
const NODES: Resource = Resource::cluster("", "v1", "nodes", "Node");

/// Follows nodes and pods as tasks of `group`. The future ends when all that was there at first is known.
pub(super) fn start(shared: &Arc<Shared>, group: &TaskGroup) -> impl Future<Output = ()> + use<> {
    let factory = InformerFactory::new(shared.client.clone(), shared.env.clone());
    let nodes = factory.informer(&NODES);
    // Pods at their end take nothing.
    let running = "status.phase!=Succeeded,status.phase!=Failed".to_owned();
    let pods = factory.informer(Scope {
        field_selector: running,
        ..Scope::all(&PODS)
    });
    *shared.pods.write() = Some(pods.indexer());

    let told = shared.clone();
    let nodes = nodes.handle(group, "scheduler-nodes", move |notice| node(&told, &notice));
    let told = shared.clone();
    let pods = pods.handle(group, "scheduler-pods", move |notice| pod(&told, &notice));
    factory.start(group);
    async move {
        nodes.synced().await;
        pods.synced().await;
        // Informers run as long as the group; the factory may go.
        drop(factory);
    }
}

fn node(shared: &Shared, notice: &Notice) {
    if let Notice::Deleted { object, .. } = notice {
        if let Some(old) = shared.cache.lock().remove_node(object.name()) {
            tracing::debug!(node = object.name(), "a node went");
            drop(old);
        }
        return;
    }
    let Some(new) = read(notice.object(), NodeInfo::from_object) else {
        return;
    };
    let old = shared.cache.lock().set_node(new.clone());
    let actions = match &old {
        None => Actions::ADD,
        Some(old) => node_changes(old, &new),
    };
    for action in single(actions) {
        let subject = Subject::Node {
            old: old.clone(),
            new: Some(new.clone()),
        };
        shared.happened(ClusterEvent {
            resource: EventResource::Node,
            actions: action,
            subject,
        });
    }
    // Pods without a refusal wait for a node of any kind.
    if old.is_none() {
        shared.wake.notify_one();
    }
}

fn pod(shared: &Shared, notice: &Notice) {
    if let Notice::Deleted { object, .. } = notice {
        gone(shared, object);
        return;
    }
    let Some(new) = read(notice.object(), PodInfo::from_object) else {
        return;
    };
    if new.is_finished() {
        gone(shared, notice.object());
    } else if new.node_name().is_some() {
        assigned(shared, new);
    } else {
        waits(shared, new);
    }
}

/// A pod went, or has run to its end.
fn gone(shared: &Shared, object: &Object) {
    let key = object.key();
    shared.queue.lock().delete(&key);
    shared
        .waiting
        .reject(object.uid(), "", "the pod was deleted".to_owned());
    // If its binding is still under way, that will fail and find nothing to give back.
    let removed = shared.cache.lock().remove_pod(&key);
    if let Some(pod) = removed {
        shared.freed(pod);
    }
}

/// A pod has a node.
fn assigned(shared: &Shared, new: Arc<PodInfo>) {
    let key = new.key().clone();
    shared.queue.lock().delete(&key);
    let old = match shared.cache.lock().set_pod(new.clone()) {
        Ok(old) => old,
        Err(error) => {
            tracing::error!(%error, "a pod was not taken over");
            return;
        }
    };
    let actions = match &old {
        None => Actions::ADD,
        Some(old) => changes(old, &new),
    };
    for action in single(actions) {
        let subject = Subject::Pod {
            old: old.clone(),
            new: Some(new.clone()),
        };
        shared.happened(ClusterEvent {
            resource: EventResource::AssignedPod,
            actions: action,
            subject,
        });
    }
}

/// A pod waits for a node.
fn waits(shared: &Shared, new: Arc<PodInfo>) {
    if !shared.is_ours(&new) {
        return;
    }
    if shared.cache.lock().is_assumed(new.key()) {
        // Its binding is under way.
        return;
    }
    let known = {
        let mut queue = shared.queue.lock();
        let known = queue.knows(&new);
        if known || !new.is_terminating() {
            queue.update(new, shared.env.now());
        }
        known
    };
    if !known {
        shared.metrics.incoming(&"PodAdd", "active", 1);
    }
    shared.wake.notify_one();
}

fn read<T>(
    object: &Object,
    from: fn(&Object) -> Result<T, orlop_core::object::ObjectError>,
) -> Option<Arc<T>> {
    match from(object) {
        Ok(value) => Some(Arc::new(value)),
        Err(error) => {
            tracing::error!(?object, %error, "an object was not understood and is left out");
            None
        }
    }
}

/// What changed about a node, as far as it may make pods schedulable.
fn node_changes(old: &NodeInfo, new: &NodeInfo) -> Actions {
    let mut actions = Actions::NONE;
    for (changed, action) in [
        (
            old.allocatable() != new.allocatable(),
            Actions::UPDATE_NODE_ALLOCATABLE,
        ),
        (old.labels() != new.labels(), Actions::UPDATE_NODE_LABEL),
        (
            old.taints() != new.taints() || old.is_unschedulable() != new.is_unschedulable(),
            Actions::UPDATE_NODE_TAINT,
        ),
        (
            old.conditions() != new.conditions(),
            Actions::UPDATE_NODE_CONDITION,
        ),
        (
            old.annotations() != new.annotations(),
            Actions::UPDATE_NODE_ANNOTATION,
        ),
    ] {
        if changed {
            actions |= action;
        }
    }
    actions
}

/// The actions of a set, one by one: each is an event of its own.
fn single(actions: Actions) -> impl Iterator<Item = Actions> {
    [
        Actions::ADD,
        Actions::DELETE,
        Actions::UPDATE_NODE_ALLOCATABLE,
        Actions::UPDATE_NODE_LABEL,
        Actions::UPDATE_NODE_TAINT,
        Actions::UPDATE_NODE_CONDITION,
        Actions::UPDATE_NODE_ANNOTATION,
        Actions::UPDATE_POD_LABEL,
        Actions::UPDATE_POD_SCALE_DOWN,
        Actions::UPDATE_POD_TOLERATION,
        Actions::UPDATE_POD_GATES_ELIMINATED,
    ]
    .into_iter()
    .filter(move |action| actions.intersects(*action))
}
