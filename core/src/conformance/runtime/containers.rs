//! Containers.

use std::time::Duration;

use super::{Checked, Context, already_exists, checks, ensure, is_wrong_state, refused, same};
use crate::runtime::{
    ContainerFilter, ContainerId, ContainerState, ImageSpec, Resources, RuntimeError,
};

checks!(
    live_and_die,
    end_by_themselves,
    are_started_once,
    stop,
    are_removed_while_they_run,
    keep_what_they_were_given,
    names_are_taken_once,
    need_their_image,
    unknown_ones,
    filters,
    update,
    statistics,
);

async fn live_and_die(c: &Context) -> Checked {
    let sandbox = c.sandbox().await?;
    let id = c.made(&sandbox, &["sleep", "100000"]).await?;
    let made = c.runtime().container(&id).await?;
    same(
        made.state,
        ContainerState::Created,
        "the state of a new one",
    )?;
    same(made.sandbox.clone(), sandbox, "the sandbox")?;
    ensure(
        made.started.is_none() && made.finished.is_none() && made.exit.is_none(),
        "a new container has a past",
    )?;
    c.runtime().start_container(&id).await?;
    let running = c.runtime().container(&id).await?;
    same(
        running.state,
        ContainerState::Running,
        "the state of a started one",
    )?;
    ensure(
        running.started.is_some_and(|at| at >= made.created),
        "it started before it was made",
    )?;
    c.runtime().stop_container(&id, Duration::ZERO).await?;
    let stopped = c.runtime().container(&id).await?;
    same(
        stopped.state,
        ContainerState::Exited,
        "the state of a stopped one",
    )?;
    ensure(
        stopped.finished >= running.started,
        "it ended before it started",
    )?;
    same(
        stopped.exit.map(|exit| exit.code),
        Some(137),
        "the exit code of one that was killed",
    )?;
    c.runtime().remove_container(&id).await?;
    refused(
        c.runtime().container(&id).await,
        RuntimeError::is_not_found,
        "a container that was removed",
    )
}

async fn end_by_themselves(c: &Context) -> Checked {
    let sandbox = c.sandbox().await?;
    let id = c.running(&sandbox, &["true"]).await?;
    let exit = c.exited(&id).await?.exit;
    same(
        exit.as_ref().map(|exit| exit.code),
        Some(0),
        "the exit code of `true`",
    )?;
    same(
        exit.map(|exit| exit.reason),
        Some("Completed".to_owned()),
        "the reason of `true`",
    )?;
    c.runtime().remove_container(&id).await?;
    let id = c.running(&sandbox, &["false"]).await?;
    let exit = c.exited(&id).await?.exit;
    same(
        exit.as_ref().map(|exit| exit.code),
        Some(1),
        "the exit code of `false`",
    )?;
    same(
        exit.map(|exit| exit.reason),
        Some("Error".to_owned()),
        "the reason of `false`",
    )?;
    c.runtime().remove_container(&id).await?;
    let id = c.running(&sandbox, &["sleep", "1"]).await?;
    let ended = c.exited(&id).await?;
    same(
        ended.exit.map(|exit| exit.code),
        Some(0),
        "the exit code of `sleep`",
    )?;
    let took = ended
        .started
        .zip(ended.finished)
        .map(|(from, to)| to.duration_since(from));
    ensure(
        took.is_some_and(|took| took.as_millis() >= 900),
        format_args!("a second of sleep took {took:?}"),
    )
}

async fn are_started_once(c: &Context) -> Checked {
    let sandbox = c.sandbox().await?;
    let id = c.running(&sandbox, &["sleep", "100000"]).await?;
    let again = c.runtime().start_container(&id).await;
    refused(again, is_wrong_state, "the start of a running container")?;
    c.runtime().stop_container(&id, Duration::ZERO).await?;
    let again = c.runtime().start_container(&id).await;
    refused(again, is_wrong_state, "the start of one that exited")
}

async fn stop(c: &Context) -> Checked {
    let sandbox = c.sandbox().await?;
    let id = c.running(&sandbox, &["sleep", "100000"]).await?;
    let grace = Duration::from_secs(1);
    for _ in 0..2 {
        c.within("the end", c.runtime().stop_container(&id, grace))
            .await??;
        let stopped = c.runtime().container(&id).await?;
        same(
            stopped.state,
            ContainerState::Exited,
            "the state of a stopped one",
        )?;
        ensure(
            stopped.exit.is_some_and(|exit| exit.code != 0),
            "it ended well",
        )?;
    }
    Ok(())
}

async fn are_removed_while_they_run(c: &Context) -> Checked {
    let sandbox = c.sandbox().await?;
    let id = c.running(&sandbox, &["sleep", "100000"]).await?;
    for _ in 0..2 {
        c.runtime().remove_container(&id).await?;
        refused(
            c.runtime().container(&id).await,
            RuntimeError::is_not_found,
            "a container that was removed",
        )?;
    }
    // Its name is free again.
    c.running(&sandbox, &["true"]).await?;
    Ok(())
}

async fn keep_what_they_were_given(c: &Context) -> Checked {
    let sandbox = c.sandbox().await?;
    c.pull().await?;
    let mut config = c.config("kept", &["sleep", "100000"]);
    config.metadata.attempt = 2;
    config.labels.insert("app".to_owned(), "web".to_owned());
    config
        .annotations
        .insert("example.com/n".to_owned(), "1".to_owned());
    let id = c.runtime().create_container(&sandbox, &config).await?;
    let have = c.runtime().container(&id).await?;
    same(have.metadata, config.metadata, "the metadata")?;
    same(have.labels, config.labels, "the labels")?;
    same(have.annotations, config.annotations, "the annotations")?;
    let image = c.runtime().image(&c.image()).await?;
    same(
        Some(have.image_id),
        image.map(|image| image.id),
        "the id of the image",
    )
}

async fn names_are_taken_once(c: &Context) -> Checked {
    let sandbox = c.sandbox().await?;
    c.made(&sandbox, &["true"]).await?;
    let mut config = c.config("main", &["true"]);
    let second = c.runtime().create_container(&sandbox, &config).await;
    refused(second, already_exists, "a second container of one name")?;
    config.metadata.attempt = 1;
    c.runtime().create_container(&sandbox, &config).await?;
    // Another sandbox has names of its own.
    let other = c.runtime().run_sandbox(&c.sandbox_config("other")).await?;
    c.runtime().create_container(&other, &config).await?;
    Ok(())
}

async fn need_their_image(c: &Context) -> Checked {
    let sandbox = c.sandbox().await?;
    let mut config = c.config("main", &["true"]);
    config.image = ImageSpec::new("conformance.invalid/never/pulled:1");
    refused(
        c.runtime().create_container(&sandbox, &config).await,
        RuntimeError::is_not_found,
        "a container of an image that was not pulled",
    )
}

async fn unknown_ones(c: &Context) -> Checked {
    let nobody = ContainerId::new("0000000000000000no-such-container");
    c.runtime().stop_container(&nobody, Duration::ZERO).await?;
    c.runtime().remove_container(&nobody).await?;
    for answer in [
        c.runtime().container(&nobody).await.map(|_| ()),
        c.runtime().start_container(&nobody).await,
    ] {
        refused(answer, RuntimeError::is_not_found, "an unknown container")?;
    }
    Ok(())
}

async fn filters(c: &Context) -> Checked {
    let runtime = c.runtime();
    let sandbox = c.sandbox().await?;
    let a = c.running(&sandbox, &["sleep", "100000"]).await?;
    let mut config = c.config("b", &["true"]);
    config.labels.insert("tier".to_owned(), "front".to_owned());
    let b = runtime.create_container(&sandbox, &config).await?;
    let other = runtime.run_sandbox(&c.sandbox_config("other")).await?;
    let d = runtime.create_container(&other, &config).await?;
    let ids = |filter: ContainerFilter| async move {
        let found = runtime.containers(&filter).await?;
        Ok::<Vec<ContainerId>, super::Failure>(found.into_iter().map(|found| found.id).collect())
    };
    same(
        ids(ContainerFilter::of(&sandbox)).await?,
        vec![a.clone(), b.clone()],
        "those of a sandbox, in order of creation",
    )?;
    let running = ContainerFilter {
        state: Some(ContainerState::Running),
        ..ContainerFilter::of(&sandbox)
    };
    same(ids(running).await?, vec![a], "those that run")?;
    let mut labelled = ContainerFilter::of(&sandbox);
    labelled
        .labels
        .insert("tier".to_owned(), "front".to_owned());
    same(ids(labelled).await?, vec![b], "those with a label")?;
    let elsewhere = ContainerFilter {
        id: Some(d),
        ..ContainerFilter::of(&sandbox)
    };
    same(ids(elsewhere).await?, vec![], "one that is elsewhere")
}

async fn update(c: &Context) -> Checked {
    let sandbox = c.sandbox().await?;
    let id = c.running(&sandbox, &["sleep", "100000"]).await?;
    let limits = Resources {
        memory_limit: Some(64 << 20),
        ..Resources::default()
    };
    let updated = c.runtime().update_container(&id, &limits).await;
    if c.supported(updated)?.is_none() {
        return Ok(());
    }
    if let Some(now) = c.runtime().container(&id).await?.resources {
        same(now.memory_limit, Some(64 << 20), "the new limit")?;
    }
    c.runtime().stop_container(&id, Duration::ZERO).await?;
    let late = c.runtime().update_container(&id, &limits).await;
    refused(late, is_wrong_state, "an update of one that exited")?;
    let nobody = ContainerId::new("0000000000000000no-such-container");
    refused(
        c.runtime().update_container(&nobody, &limits).await,
        RuntimeError::is_not_found,
        "an update of an unknown container",
    )
}

async fn statistics(c: &Context) -> Checked {
    let sandbox = c.sandbox().await?;
    let id = c.running(&sandbox, &["sleep", "100000"]).await?;
    let mine = ContainerFilter::of(&sandbox);
    let Some(stats) = c.supported(c.runtime().container_stats(&mine).await)? else {
        return Ok(());
    };
    same(
        stats
            .iter()
            .map(|stats| stats.id.clone())
            .collect::<Vec<_>>(),
        vec![id.clone()],
        "whose statistics there are",
    )?;
    ensure(
        stats
            .iter()
            .all(|stats| stats.cpu.is_some() && stats.memory.is_some()),
        "a running container uses no CPU or memory that could be measured",
    )?;
    c.runtime().stop_container(&id, Duration::ZERO).await?;
    let left = c.runtime().container_stats(&mine).await?;
    same(left.len(), 0, "statistics of what does not run")
}
