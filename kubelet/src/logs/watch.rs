//! Waiting until a log grows.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use futures::future::{Either, select};
use orlop_core::env::Env;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::net::unix::pipe::Receiver;

/// How long is waited for an event before it is looked anyway: the kernel may lose some, and the container may end.
const LOOK: Duration = Duration::from_secs(1);

/// How often is looked where there are no events.
const POLL: Duration = Duration::from_millis(200);

/// Watches the directory of a log, in which the file grows and is replaced.
pub(super) struct Watcher {
    events: Option<Receiver>,
    env: Env,
}

impl Watcher {
    pub(super) fn new(directory: &Path, env: &Env) -> Self {
        Self {
            events: events(directory),
            env: env.clone(),
        }
    }

    /// Waits until something may have happened.
    pub(super) async fn changed(&self) {
        let Some(events) = &self.events else {
            self.env.sleep(POLL).await;
            return;
        };
        match select(Box::pin(events.readable()), self.env.sleep(LOOK)).await {
            Either::Left((Ok(()), _)) => {
                // What has happened does not matter, only that it did.
                let mut buffer = [0; 4096];
                while events.try_read(&mut buffer).is_ok_and(|count| count > 0) {}
            }
            Either::Left((Err(_), sleep)) => sleep.await,
            Either::Right(_) => {}
        }
    }
}

/// The kernel's events, where there are some and a runtime that waits for them. A simulation has none.
fn events(directory: &Path) -> Option<Receiver> {
    tokio::runtime::Handle::try_current().ok()?;
    let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok()?;
    let interesting = WatchFlags::MODIFY
        | WatchFlags::CREATE
        | WatchFlags::MOVED_TO
        | WatchFlags::MOVED_FROM
        | WatchFlags::DELETE;
    inotify::add_watch(&fd, directory, interesting).ok()?;
    // It is no pipe, but it is waited for and read like one.
    Receiver::from_file_unchecked(File::from(fd)).ok()
}
