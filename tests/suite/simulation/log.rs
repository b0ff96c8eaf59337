//! What a cluster's watchers saw.

use std::sync::Arc;

use futures::StreamExt;
use orlop::api::resources::{self, Verb};
use orlop::core::client::{Client, ListOptions, WatchEvent, WatchOptions};
use orlop::core::env::{Env, TaskGroup};
use orlop::core::object::Object;
use orlop::core::resource::Resource;
use parking_lot::Mutex;

/// A log of every event of every resource that can be watched.
pub(super) struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    tasks: TaskGroup,
}

impl Log {
    /// Begins with what is there, and goes on with what happens.
    pub(super) async fn follow_everything(env: &Env, client: Arc<dyn Client>) -> Self {
        let lines = Arc::default();
        let tasks = TaskGroup::new(env.clone());
        let watched = resources::builtin()
            .iter()
            .filter(|info| info.allows(Verb::List) && info.allows(Verb::Watch));
        for info in watched {
            follow(&tasks, &lines, client.clone(), info.resource.clone()).await;
        }
        Self { lines, tasks }
    }

    /// Stops, and gives what was seen.
    pub(super) async fn stop(self) -> Vec<String> {
        self.tasks.shutdown().await;
        std::mem::take(&mut *self.lines.lock())
    }
}

fn line(event: &str, resource: &Resource, object: &Object) -> String {
    let json = String::from_utf8(object.json().to_vec()).unwrap();
    format!(
        "{event} {} {} @{} {json}",
        resource.plural,
        object.key(),
        object.revision()
    )
}

async fn follow(
    tasks: &TaskGroup,
    lines: &Arc<Mutex<Vec<String>>>,
    client: Arc<dyn Client>,
    resource: Resource,
) {
    let list = client
        .resource(&resource)
        .list(ListOptions::default())
        .await
        .unwrap();
    lines.lock().extend(
        list.items
            .iter()
            .map(|object| line("LISTED", &resource, object)),
    );
    let options = WatchOptions {
        from: Some(list.revision),
        ..WatchOptions::default()
    };
    let mut events = client.resource(&resource).watch(options).await.unwrap();
    let (lines, token) = (lines.clone(), tasks.token());
    tasks.spawn("log", async move {
        let follow = async {
            while let Some(event) = events.next().await {
                let line = match event.unwrap() {
                    WatchEvent::Added(object) => line("ADDED", &resource, &object),
                    WatchEvent::Modified(object) => line("MODIFIED", &resource, &object),
                    WatchEvent::Deleted(object) => line("DELETED", &resource, &object),
                    WatchEvent::Bookmark { .. } => continue,
                };
                lines.lock().push(line);
            }
        };
        let _ = token.run(follow).await;
    });
}
