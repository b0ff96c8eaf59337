//! The conformance suite of [`Runtime`].
//!
//! It needs an image with a shell's usual programs (`cat`, `echo`, `false`, `sleep`, `true`), such as a busybox, and runs each of them
//! without a shell. What a runtime [does not support](RuntimeError::Unsupported) is not checked, unless the [`Subject`] demands it.
//!
//! ```no_run
//! # fn my_runtime() -> std::sync::Arc<dyn orlop_core::runtime::Runtime> { unreachable!("documentation") }
//! use orlop_core::conformance::runtime::{Subject, runtime};
//! use orlop_core::env::Env;
//!
//! # async fn test() {
//! let env = Env::tokio();
//! runtime(|| async { Subject::new(my_runtime(), "busybox:1.35", env.clone()).demand_everything() }).await;
//! # }
//! ```

mod containers;
mod events;
mod images;
mod sandboxes;
mod streams;

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use super::check::{Checked, Failure, checks, ensure, refused, same};
use crate::env::Env;
use crate::runtime::{
    Container, ContainerConfig, ContainerId, ContainerState, ImageSpec, PullRequest, Runtime,
    RuntimeError, SandboxConfig, SandboxId,
};

/// How long the suite waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A runtime to be tested.
pub struct Subject {
    runtime: Arc<dyn Runtime>,
    image: String,
    env: Env,
    everything: bool,
    echo: Option<u16>,
    keep: Option<Box<dyn Any + Send + Sync>>,
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject")
            .field("image", &self.image)
            .field("everything", &self.everything)
            .finish_non_exhaustive()
    }
}

impl Subject {
    /// A runtime, the image that the checks use, and the environment that it runs in. The runtime may have been used before; the
    /// checks leave alone what they did not make, except for the image, which they pull and remove.
    pub fn new(runtime: Arc<dyn Runtime>, image: impl Into<String>, env: Env) -> Self {
        Self {
            runtime,
            image: image.into(),
            env,
            everything: false,
            echo: None,
            keep: None,
        }
    }

    /// Says that the runtime supports streams, statistics, updates and events, so that a check fails where it does not.
    #[must_use]
    pub fn demand_everything(mut self) -> Self {
        self.everything = true;
        self
    }

    /// Says that something in every sandbox sends back what is sent to a port.
    #[must_use]
    pub fn echo_at(mut self, port: u16) -> Self {
        self.echo = Some(port);
        self
    }

    /// Keeps something until the check has ended, such as a temporary directory.
    #[must_use]
    pub fn keeping(mut self, keep: impl Any + Send + Sync) -> Self {
        self.keep = Some(Box::new(keep));
        self
    }
}

type Check = for<'a> fn(&'a Context) -> BoxFuture<'a, Checked>;

/// Runs the whole suite. `make` gives a runtime for every check, a new one or the same again.
///
/// # Panics
/// When a check fails, with its name and what was wrong.
pub async fn runtime<F, Fut>(make: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Subject>,
{
    let parts = [
        ("sandboxes", sandboxes::CHECKS),
        ("containers", containers::CHECKS),
        ("images", images::CHECKS),
        ("streams", streams::CHECKS),
        ("events", events::CHECKS),
    ];
    for (part, all) in parts {
        for (name, check) in all {
            let context = Context {
                subject: make().await,
                name: format!("{part}-{}", name.replace('_', "-")),
            };
            let checked = check(&context).await;
            let swept = context.sweep().await;
            if let Err(Failure(why)) = checked.and(swept) {
                panic!("conformance check `runtime::{part}::{name}` failed: {why}");
            }
        }
    }
}

/// What a check works with.
struct Context {
    subject: Subject,
    name: String,
}

impl Context {
    fn runtime(&self) -> &dyn Runtime {
        &*self.subject.runtime
    }

    fn image(&self) -> ImageSpec {
        ImageSpec::new(&self.subject.image)
    }

    /// The configuration of a sandbox that only this check has.
    fn sandbox_config(&self, name: &str) -> SandboxConfig {
        let mut config = SandboxConfig::new("conformance", name, format!("{}-{name}", self.name));
        config
            .labels
            .insert("conformance".to_owned(), self.name.clone());
        config
    }

    async fn sandbox(&self) -> Checked<SandboxId> {
        Ok(self
            .runtime()
            .run_sandbox(&self.sandbox_config("sandbox"))
            .await?)
    }

    fn config(&self, name: &str, command: &[&str]) -> ContainerConfig {
        let mut config = ContainerConfig::new(name, self.image());
        config.command = words(command);
        config
    }

    /// A container that was made.
    async fn made(&self, sandbox: &SandboxId, command: &[&str]) -> Checked<ContainerId> {
        self.pull().await?;
        let config = self.config("main", command);
        Ok(self.runtime().create_container(sandbox, &config).await?)
    }

    /// A container that runs, unless its command ended already.
    async fn running(&self, sandbox: &SandboxId, command: &[&str]) -> Checked<ContainerId> {
        let id = self.made(sandbox, command).await?;
        self.runtime().start_container(&id).await?;
        Ok(id)
    }

    async fn pull(&self) -> Checked {
        self.runtime()
            .pull_image(&PullRequest::new(&self.subject.image))
            .await?;
        Ok(())
    }

    /// Waits until a container has exited.
    async fn exited(&self, id: &ContainerId) -> Checked<Container> {
        let env = &self.subject.env;
        let give_up = env.now() + PATIENCE;
        loop {
            let container = self.runtime().container(id).await?;
            if container.state == ContainerState::Exited {
                return Ok(container);
            }
            ensure(env.now() < give_up, "a container did not end")?;
            env.sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits with patience.
    async fn within<T>(&self, what: &str, future: impl Future<Output = T>) -> Checked<T> {
        let waited = self.subject.env.timeout(PATIENCE, future).await;
        waited.map_err(|_| Failure(format!("{what} did not come")))
    }

    /// What the runtime answered, or `None` where it does not support the call and need not.
    fn supported<T>(&self, answer: Result<T, RuntimeError>) -> Checked<Option<T>> {
        match answer {
            Err(error) if error.is_unsupported() && !self.subject.everything => Ok(None),
            other => Ok(Some(other?)),
        }
    }

    /// Removes what the check made and left.
    async fn sweep(&self) -> Checked {
        let mut mine = crate::runtime::SandboxFilter::default();
        mine.labels
            .insert("conformance".to_owned(), self.name.clone());
        for sandbox in self.runtime().sandboxes(&mine).await? {
            self.runtime().remove_sandbox(&sandbox.id).await?;
        }
        same(
            self.runtime().sandboxes(&mine).await?.len(),
            0,
            "sandboxes that were removed and are still there",
        )
    }
}

fn words(command: &[&str]) -> Vec<String> {
    command.iter().map(|word| (*word).to_owned()).collect()
}

fn is_wrong_state(error: &RuntimeError) -> bool {
    matches!(error, RuntimeError::WrongState(_))
}

fn already_exists(error: &RuntimeError) -> bool {
    matches!(error, RuntimeError::AlreadyExists(_))
}
