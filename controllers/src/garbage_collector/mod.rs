//! The garbage collector: what has lost its owners goes, too.
//!
//! It keeps a graph of all objects and their owners. An object whose owners are all gone is deleted (in the background); an owner that is deleted
//! in the foreground waits for those dependents that block it; one that is deleted as `Orphan` lets its dependents go free. Before anything is
//! deleted, its owners are looked up in the API itself: the graph may be behind, and an owner that never was has to be found out.

mod graph;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orlop_core::controller::{Action, Context, Controller, Interests, ReconcileError};
use orlop_core::env::{CancelToken, TaskGroup};
use orlop_core::informer::{HandlerSync, Notice, Scope};
use orlop_core::object::ObjectKey;
use orlop_core::queue::{RateLimit, WorkQueue};
use orlop_core::resource::Resource;
use parking_lot::Mutex;

use self::graph::Graph;
use self::worker::Collector;
use crate::manager::Catalog;

/// How often the catalog is asked for resources that came or went.
const REFRESH: Duration = Duration::from_secs(30);
const WORKERS: usize = 20;

/// Deletes objects whose owners are gone, and carries out the foreground and orphan policies of deletion.
pub struct GarbageCollector {
    catalog: Arc<dyn Catalog>,
}

impl std::fmt::Debug for GarbageCollector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GarbageCollector")
    }
}

impl GarbageCollector {
    /// The controller; the catalog says which resources there are.
    #[must_use]
    pub fn new(catalog: Arc<dyn Catalog>) -> Self {
        Self { catalog }
    }
}

/// Whether objects of a resource take part: all but events, which have no owners and are many.
fn takes_part(resource: &Resource) -> bool {
    !(resource.plural == "events" && matches!(&*resource.group, "" | "events.k8s.io"))
}

#[async_trait]
impl Controller for GarbageCollector {
    fn name(&self) -> &str {
        "garbage-collector-controller"
    }

    fn identity(&self) -> &str {
        "generic-garbage-collector"
    }

    fn workers(&self) -> usize {
        1
    }

    fn interests(&self) -> Interests {
        // What it watches is not known before the catalog is asked; it has queues of its own.
        Interests::new()
    }

    async fn reconcile(&self, _ctx: &Context, _key: &ObjectKey) -> Result<Action, ReconcileError> {
        Ok(Action::Done)
    }

    async fn run(&self, ctx: &Context, cancel: &CancelToken) {
        let group = TaskGroup::with_parent(ctx.env().clone(), cancel);
        let limit = RateLimit::default();
        let shared = Arc::new(Shared {
            graph: Mutex::new(Graph::default()),
            to_delete: WorkQueue::new(ctx.env().clone(), limit.clone()),
            to_orphan: WorkQueue::new(ctx.env().clone(), limit),
        });
        let mut monitors: Vec<Monitor> = Vec::new();
        let mut working = false;
        while !cancel.is_cancelled() {
            match cancel.run(self.catalog.resources()).await {
                None => break,
                Some(Ok(resources)) => {
                    monitor(
                        ctx,
                        &group,
                        &shared,
                        &mut monitors,
                        resources.into_iter().filter(takes_part).collect(),
                    );
                }
                Some(Err(error)) => tracing::warn!(%error, "cannot tell which resources there are"),
            }
            if !working && !monitors.is_empty() {
                let synced = async {
                    for monitor in &monitors {
                        monitor.sync.synced().await;
                    }
                };
                // A resource that cannot be listed must not keep all others from being collected for ever.
                if cancel
                    .run(ctx.env().timeout(REFRESH, synced))
                    .await
                    .is_none()
                {
                    break;
                }
                working = true;
                for _ in 0..WORKERS {
                    let collector = Collector::new(ctx.clone(), shared.clone());
                    group.spawn(
                        "garbage-collector",
                        async move { collector.delete_loop().await },
                    );
                }
                let collector = Collector::new(ctx.clone(), shared.clone());
                group.spawn(
                    "orphan-finisher",
                    async move { collector.orphan_loop().await },
                );
            }
            cancel.run(ctx.env().sleep(REFRESH)).await;
        }
        shared.to_delete.shut_down();
        shared.to_orphan.shut_down();
        group.shutdown().await;
    }
}

/// What the watches and the workers share.
struct Shared {
    graph: Mutex<Graph>,
    /// The uids of objects to look at.
    to_delete: WorkQueue<String>,
    /// The uids of owners whose dependents are to go free.
    to_orphan: WorkQueue<String>,
}

impl Shared {
    fn enqueue(&self, work: graph::Work) {
        for uid in work.delete {
            self.to_delete.add(uid);
        }
        for uid in work.orphan {
            self.to_orphan.add(uid);
        }
    }

    fn observe(&self, resource: &Resource, notice: &Notice) {
        let mut graph = self.graph.lock();
        let work = match notice {
            Notice::Deleted { object, .. } => graph.remove(object.uid()),
            Notice::Updated { old, new } if old.uid() != new.uid() => {
                let mut work = graph.remove(old.uid());
                work.extend(graph.upsert(resource, new));
                work
            }
            Notice::Added { object, .. } | Notice::Updated { new: object, .. } => {
                graph.upsert(resource, object)
            }
        };
        drop(graph);
        self.enqueue(work);
    }
}

struct Monitor {
    resource: Resource,
    sync: Arc<HandlerSync>,
    tasks: TaskGroup,
}

/// Follows what the catalog has, and no more what it has no longer.
fn monitor(
    ctx: &Context,
    group: &TaskGroup,
    shared: &Arc<Shared>,
    monitors: &mut Vec<Monitor>,
    resources: Vec<Resource>,
) {
    monitors.retain(|monitor| {
        let kept = resources.contains(&monitor.resource);
        if !kept {
            monitor.tasks.token().cancel();
            ctx.informers().forget(&Scope::all(&monitor.resource));
            let work = shared.graph.lock().remove_resource(&monitor.resource);
            shared.enqueue(work);
        }
        kept
    });
    shared.graph.lock().know(resources.iter());
    for resource in resources {
        if monitors.iter().any(|monitor| monitor.resource == resource) {
            continue;
        }
        let tasks = TaskGroup::with_parent(ctx.env().clone(), &group.token());
        let (shared, observed) = (shared.clone(), resource.clone());
        let sync = ctx
            .informer(&resource)
            .handle(&tasks, "graph-builder", move |notice| {
                shared.observe(&observed, &notice);
            });
        monitors.push(Monitor {
            resource,
            sync,
            tasks,
        });
    }
    ctx.informers().start(group);
}

#[cfg(test)]
mod tests;
