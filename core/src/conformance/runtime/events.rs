//! Events.

use std::time::Duration;

use futures::StreamExt;

use super::{Checked, Context, Failure, checks, same};
use crate::runtime::{ContainerId, EventKind, EventStream, EventSubject, SandboxId};

checks!(tell_of_a_life, tell_of_an_end, reach_every_listener);

/// What happened to a container, until it was removed.
async fn story(
    c: &Context,
    events: &mut EventStream,
    sandbox: &SandboxId,
    container: &ContainerId,
) -> Checked<Vec<EventKind>> {
    let about = EventSubject::Container {
        sandbox: sandbox.clone(),
        container: container.clone(),
    };
    let mut story = Vec::new();
    while story.last() != Some(&EventKind::Deleted) {
        let event = c.within("an event", events.next()).await?;
        let event = event.ok_or_else(|| Failure("the events ended".to_owned()))??;
        if event.subject == about {
            story.push(event.kind);
        }
    }
    Ok(story)
}

const LIFE: [EventKind; 4] = [
    EventKind::Created,
    EventKind::Started,
    EventKind::Stopped,
    EventKind::Deleted,
];

async fn tell_of_a_life(c: &Context) -> Checked {
    let Some(mut events) = c.supported(c.runtime().events().await)? else {
        return Ok(());
    };
    let sandbox = c.sandbox().await?;
    let id = c.running(&sandbox, &["sleep", "100000"]).await?;
    c.runtime().stop_container(&id, Duration::ZERO).await?;
    c.runtime().remove_container(&id).await?;
    let told = story(c, &mut events, &sandbox, &id).await?;
    same(told, LIFE.to_vec(), "what was told of a container")
}

async fn tell_of_an_end(c: &Context) -> Checked {
    let Some(mut events) = c.supported(c.runtime().events().await)? else {
        return Ok(());
    };
    let sandbox = c.sandbox().await?;
    let id = c.running(&sandbox, &["true"]).await?;
    c.exited(&id).await?;
    c.runtime().remove_sandbox(&sandbox).await?;
    let told = story(c, &mut events, &sandbox, &id).await?;
    same(
        told,
        LIFE.to_vec(),
        "what was told of one that ended by itself",
    )
}

async fn reach_every_listener(c: &Context) -> Checked {
    let Some(mut first) = c.supported(c.runtime().events().await)? else {
        return Ok(());
    };
    let mut second = c.runtime().events().await?;
    // One that is gone is not waited for.
    drop(c.runtime().events().await?);
    let sandbox = c.sandbox().await?;
    let id = c.running(&sandbox, &["true"]).await?;
    c.exited(&id).await?;
    c.runtime().remove_sandbox(&sandbox).await?;
    let one = story(c, &mut first, &sandbox, &id).await?;
    let other = story(c, &mut second, &sandbox, &id).await?;
    same(one, other, "what two listeners were told")
}
