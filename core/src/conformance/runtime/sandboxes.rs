//! Sandboxes.

use super::{Checked, Context, already_exists, checks, ensure, refused, same};
use crate::runtime::{
    ContainerFilter, NamespaceMode, RuntimeError, SandboxFilter, SandboxId, SandboxState, condition,
};

checks!(
    says_what_it_is,
    live_and_die,
    keep_what_they_were_given,
    names_are_taken_once,
    have_addresses_of_their_own,
    share_the_network_of_the_host,
    filters,
    unknown_ones,
    take_their_containers_with_them,
    unknown_handlers,
);

async fn says_what_it_is(c: &Context) -> Checked {
    let status = c.runtime().status().await?;
    ensure(!status.version.name.is_empty(), "the runtime has no name")?;
    ensure(
        !status.version.version.is_empty(),
        "the runtime has no version",
    )?;
    for kind in [condition::RUNTIME_READY, condition::NETWORK_READY] {
        ensure(status.holds(kind), format_args!("{kind} does not hold"))?;
    }
    Ok(())
}

async fn live_and_die(c: &Context) -> Checked {
    let runtime = c.runtime();
    let id = c.sandbox().await?;
    same(
        runtime.sandbox(&id).await?.state,
        SandboxState::Ready,
        "the state of a new sandbox",
    )?;
    for _ in 0..2 {
        runtime.stop_sandbox(&id).await?;
        same(
            runtime.sandbox(&id).await?.state,
            SandboxState::NotReady,
            "the state of a stopped sandbox",
        )?;
    }
    for _ in 0..2 {
        runtime.remove_sandbox(&id).await?;
        refused(
            runtime.sandbox(&id).await,
            RuntimeError::is_not_found,
            "a sandbox that was removed",
        )?;
    }
    // Removing needs no stop.
    let id = c.sandbox().await?;
    Ok(runtime.remove_sandbox(&id).await?)
}

async fn keep_what_they_were_given(c: &Context) -> Checked {
    let mut config = c.sandbox_config("kept");
    config.metadata.attempt = 3;
    config.labels.insert("app".to_owned(), "web".to_owned());
    let note = (
        "example.com/note".to_owned(),
        "Ümläut, \"quotes\"".to_owned(),
    );
    config.annotations.extend([note]);
    let id = c.runtime().run_sandbox(&config).await?;
    let sandbox = c.runtime().sandbox(&id).await?;
    same(sandbox.id, id, "the id")?;
    same(sandbox.metadata, config.metadata, "the metadata")?;
    same(sandbox.labels, config.labels, "the labels")?;
    same(sandbox.annotations, config.annotations, "the annotations")
}

async fn names_are_taken_once(c: &Context) -> Checked {
    let config = c.sandbox_config("twice");
    let first = c.runtime().run_sandbox(&config).await?;
    let second = c.runtime().run_sandbox(&config).await;
    refused(second, already_exists, "a second sandbox of one name")?;
    let mut next = config.clone();
    next.metadata.attempt += 1;
    let second = c.runtime().run_sandbox(&next).await?;
    ensure(first != second, "two sandboxes have the same id")?;
    c.runtime().remove_sandbox(&first).await?;
    c.runtime().run_sandbox(&config).await?;
    Ok(())
}

async fn have_addresses_of_their_own(c: &Context) -> Checked {
    let first = c.runtime().run_sandbox(&c.sandbox_config("one")).await?;
    let second = c.runtime().run_sandbox(&c.sandbox_config("two")).await?;
    let first = c.runtime().sandbox(&first).await?.addresses;
    let second = c.runtime().sandbox(&second).await?.addresses;
    ensure(
        !first.is_empty() && !second.is_empty(),
        "a sandbox has no address",
    )?;
    ensure(
        first.iter().all(|address| !second.contains(address)),
        format_args!("two sandboxes share an address: {first:?} and {second:?}"),
    )
}

async fn share_the_network_of_the_host(c: &Context) -> Checked {
    let mut config = c.sandbox_config("host");
    config.hostname.clear();
    config.security.namespaces.network = NamespaceMode::Node;
    let id = c.runtime().run_sandbox(&config).await?;
    let sandbox = c.runtime().sandbox(&id).await?;
    same(
        sandbox.namespaces.network,
        NamespaceMode::Node,
        "the network namespace",
    )?;
    ensure(
        sandbox.addresses.is_empty(),
        "a sandbox in the host's network has an address of its own",
    )
}

async fn filters(c: &Context) -> Checked {
    let runtime = c.runtime();
    let mut config = c.sandbox_config("a");
    config.labels.insert("tier".to_owned(), "front".to_owned());
    let a = runtime.run_sandbox(&config).await?;
    let b = runtime.run_sandbox(&c.sandbox_config("b")).await?;
    runtime.stop_sandbox(&b).await?;
    let mine = |filter: SandboxFilter| async move {
        let mut filter = filter;
        filter
            .labels
            .insert("conformance".to_owned(), c.name.clone());
        let found = runtime.sandboxes(&filter).await?;
        Ok::<Vec<SandboxId>, super::Failure>(found.into_iter().map(|s| s.id).collect())
    };
    let all = mine(SandboxFilter::default()).await?;
    same(
        all,
        vec![a.clone(), b.clone()],
        "all sandboxes, in order of creation",
    )?;
    let ready = SandboxFilter {
        state: Some(SandboxState::Ready),
        ..SandboxFilter::default()
    };
    same(mine(ready).await?, vec![a.clone()], "the ready ones")?;
    let by_id = SandboxFilter {
        id: Some(b.clone()),
        ..SandboxFilter::default()
    };
    same(mine(by_id).await?, vec![b], "the one with an id")?;
    let mut labelled = SandboxFilter::default();
    labelled
        .labels
        .insert("tier".to_owned(), "front".to_owned());
    same(mine(labelled).await?, vec![a], "those with a label")
}

async fn unknown_ones(c: &Context) -> Checked {
    let nobody = SandboxId::new("0000000000000000no-such-sandbox");
    c.runtime().stop_sandbox(&nobody).await?;
    c.runtime().remove_sandbox(&nobody).await?;
    refused(
        c.runtime().sandbox(&nobody).await,
        RuntimeError::is_not_found,
        "an unknown sandbox",
    )?;
    c.pull().await?;
    let config = c.config("main", &["true"]);
    refused(
        c.runtime().create_container(&nobody, &config).await,
        RuntimeError::is_not_found,
        "a container in an unknown sandbox",
    )
}

async fn take_their_containers_with_them(c: &Context) -> Checked {
    let sandbox = c.sandbox().await?;
    let id = c.running(&sandbox, &["sleep", "100000"]).await?;
    c.runtime().stop_sandbox(&sandbox).await?;
    let container = c.exited(&id).await?;
    ensure(
        container.exit.is_some_and(|exit| exit.code != 0),
        "a container that was killed has no exit code that says so",
    )?;
    let late = c.config("late", &["true"]);
    refused(
        c.runtime().create_container(&sandbox, &late).await,
        super::is_wrong_state,
        "a container in a stopped sandbox",
    )?;
    c.runtime().remove_sandbox(&sandbox).await?;
    let left = c
        .runtime()
        .containers(&ContainerFilter::of(&sandbox))
        .await?;
    same(left.len(), 0, "containers of a sandbox that was removed")
}

async fn unknown_handlers(c: &Context) -> Checked {
    let mut config = c.sandbox_config("handler");
    config.handler = "no-such-handler".to_owned();
    let run = c.runtime().run_sandbox(&config).await;
    ensure(run.is_err(), "an unknown handler ran a sandbox")?;
    config.handler.clear();
    // Nothing is left of the one that failed, so its name is free.
    c.runtime().run_sandbox(&config).await?;
    Ok(())
}
