//! The socket by which a running program gives its store to whoever may read its directory: etcd's API, for this user alone.

use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use orlop::core::env::{Env, TaskGroup};
use orlop::core::store::Store;
use orlop::store::{EtcdServer, EtcdServerOptions};
use tokio::net::UnixListener;

use super::Failure;

/// Its name in the cluster's directory.
pub(super) const SOCKET: &str = "store.sock";

/// The open socket.
pub(super) struct Door {
    path: PathBuf,
    tasks: TaskGroup,
}

/// Binds the socket for the owner alone from the first moment on: it is made in a directory that nobody else may enter.
fn bind(directory: &Path) -> std::io::Result<UnixListener> {
    let private = directory.join(".store.sock");
    match DirBuilder::new().mode(0o700).create(&private) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let made = private.join("s");
    let _ = std::fs::remove_file(&made);
    let socket = UnixListener::bind(&made)?;
    std::fs::set_permissions(&made, Permissions::from_mode(0o600))?;
    std::fs::rename(&made, directory.join(SOCKET))?;
    std::fs::remove_dir(&private)?;
    Ok(socket)
}

impl Door {
    /// Serves a store in a directory whose lock is held.
    pub(super) fn open(
        store: Arc<dyn Store>,
        directory: &Path,
        env: &Env,
    ) -> Result<Self, Failure> {
        let path = directory.join(SOCKET);
        let socket = bind(directory).map_err(|error| {
            Failure::new(format!("cannot listen at {}: {error}", path.display()))
        })?;
        let mut options = EtcdServerOptions::new("orlop");
        options.client_urls = vec![format!("unix://{}", path.display())];
        options.scratch_dir = directory.to_owned();
        let server = EtcdServer::new(store, options, env.clone());
        let tasks = TaskGroup::new(env.clone());
        let (own, token) = (server.clone(), tasks.token());
        tasks.spawn("store-door", async move { own.run(&token).await });
        let token = tasks.token();
        tasks.spawn("store-socket", async move {
            if let Err(error) = server.serve_unix(socket, &token).await {
                tracing::warn!(%error, "the store's socket is closed");
            }
        });
        Ok(Self { path, tasks })
    }

    /// Ends it.
    pub(super) async fn close(self) {
        self.tasks.shutdown().await;
        let _ = std::fs::remove_file(&self.path);
    }
}
