//! [`LogRotator`]: puts logs that have grown too large aside.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use orlop_core::env::{Env, TaskGroup};
use orlop_core::runtime::{
    Container, ContainerFilter, ContainerId, ContainerState, Runtime, RuntimeError,
};

use super::links::{LogLinks, remove};
use crate::blocking::blocking;
use crate::config::KubeletConfig;

/// How often logs are looked at: there is no event for a file that has reached a size.
const PERIOD: Duration = Duration::from_secs(10);
const COMPRESSED: &str = ".gz";
const UNFINISHED: &str = ".tmp";

/// Why a log could not be put aside.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RotationError {
    /// A file.
    #[error("rotate log {path:?}: {source}")]
    Io {
        /// The log.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The runtime did not open the log anew.
    #[error("reopen log {path:?}: {source}")]
    Reopen {
        /// The log.
        path: PathBuf,
        /// What the runtime said.
        source: RuntimeError,
    },
    /// The runtime does not tell what runs.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

/// Puts logs of containers aside that have reached a size: `0.log` becomes `0.log.20260101-000000`, the runtime begins a new `0.log`,
/// and what was put aside before is compressed. The oldest are removed, so that there are at most so many files of a log.
#[derive(Clone)]
pub struct LogRotator {
    runtime: Arc<dyn Runtime>,
    env: Env,
    max_size: u64,
    max_files: usize,
    links: Option<LogLinks>,
}

impl fmt::Debug for LogRotator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogRotator")
            .field("max_size", &self.max_size)
            .field("max_files", &self.max_files)
            .finish_non_exhaustive()
    }
}

impl LogRotator {
    /// A rotator for a runtime's containers. It keeps the [links](LogLinks) to their logs, too, where there is a directory for them.
    #[must_use]
    pub fn new(config: &KubeletConfig, runtime: Arc<dyn Runtime>, env: Env) -> Self {
        let links = config.container_logs_dir.as_ref();
        let max_files = usize::try_from(config.container_log_max_files).unwrap_or(usize::MAX);
        Self {
            runtime,
            env,
            max_size: config.container_log_max_size,
            // The one that is written and one that was put aside are the least.
            max_files: max_files.max(2),
            links: links.map(|directory| LogLinks::new(directory, &config.pod_logs_dir)),
        }
    }

    /// The links, where there is a directory for them.
    #[must_use]
    pub fn links(&self) -> Option<&LogLinks> {
        self.links.as_ref()
    }

    /// Looks at all logs now and every ten seconds, until the group ends.
    pub fn start(&self, group: &TaskGroup) {
        let own = self.clone();
        group.spawn_until_cancelled("log-rotation", async move {
            loop {
                if let Err(error) = own.round().await {
                    tracing::debug!(%error, "logs cannot be looked at");
                }
                own.env.sleep(PERIOD).await;
            }
        });
    }

    /// Looks at all logs once.
    ///
    /// # Errors
    /// When the runtime does not tell what runs. A log that cannot be put aside is told to the operator, and tried again.
    pub async fn round(&self) -> Result<(), RotationError> {
        let containers = self.runtime.containers(&ContainerFilter::default()).await?;
        if let Some(links) = &self.links
            && let Err(error) = links.tidy(&containers).await
        {
            tracing::debug!(%error, "links to logs cannot be kept");
        }
        for container in &containers {
            if let Err(error) = self.look(container).await {
                tracing::warn!(container = %container.id, %error, "a log cannot be rotated");
            }
        }
        Ok(())
    }

    async fn look(&self, container: &Container) -> Result<(), RotationError> {
        let Some(path) = container.log_path.clone() else {
            return Ok(());
        };
        if container.state != ContainerState::Running {
            return Ok(());
        }
        let file = path.clone();
        let size = match blocking(move || fs::metadata(file)).await {
            Ok(about) => about.len(),
            // It was put aside, and the node agent ended before the runtime was told.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return self.reopen(&container.id, path).await;
            }
            Err(source) => return Err(RotationError::Io { path, source }),
        };
        if size < self.max_size {
            return Ok(());
        }
        self.rotate(&container.id, &path).await
    }

    /// Puts the log of a running container aside, whatever its size.
    ///
    /// # Errors
    /// When a file cannot be moved, or the runtime does not open the log anew: then it is as it was.
    pub async fn rotate(&self, id: &ContainerId, path: &Path) -> Result<(), RotationError> {
        let failed = |source| RotationError::Io {
            path: path.to_owned(),
            source,
        };
        let stamp = self.env.wall().strftime("%Y%m%d-%H%M%S").to_string();
        let (log, kept) = (path.to_owned(), self.max_files - 2);
        let aside = blocking(move || put_aside(&log, kept, &stamp)).await;
        let Some(aside) = aside.map_err(failed)? else {
            return Ok(());
        };
        let reopened = self.reopen(id, path.to_owned()).await;
        if reopened.is_err() {
            let log = path.to_owned();
            let back = blocking(move || fs::rename(aside, log)).await;
            back.map_err(failed)?;
        }
        reopened
    }

    async fn reopen(&self, id: &ContainerId, path: PathBuf) -> Result<(), RotationError> {
        let done = self.runtime.reopen_log(id).await;
        done.map_err(|source| RotationError::Reopen { path, source })
    }

    /// Removes a log with all that was put aside of it; for a container that was removed.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub async fn remove(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        blocking(move || {
            for file in aside(&path)?.into_iter().chain([path]) {
                remove(&file)?;
            }
            Ok(())
        })
        .await
    }
}

/// Makes room and moves the log. Returns where it is now; `None` if that name is taken, and it is too early.
fn put_aside(log: &Path, kept: usize, stamp: &str) -> io::Result<Option<PathBuf>> {
    let mut files = clean(aside(log)?)?;
    // Names sort by time. One more is about to come.
    let excess = files.len().saturating_sub(kept);
    for file in files.drain(..excess) {
        remove(&file)?;
    }
    for file in files.iter().filter(|file| !ends_with(file, COMPRESSED)) {
        compress(file)?;
    }
    let aside = appended(log, &format!(".{stamp}"));
    if aside.exists() || appended(&aside, COMPRESSED).exists() {
        return Ok(None);
    }
    fs::rename(log, &aside)?;
    Ok(Some(aside))
}

/// What was put aside of a log, oldest first.
fn aside(log: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(directory), Some(name)) = (log.parent(), log.file_name()) else {
        return Ok(Vec::new());
    };
    let prefix = format!("{}.", name.to_string_lossy());
    let mut found = Vec::new();
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Removes what an earlier run left unfinished, and what was compressed and not removed.
fn clean(files: Vec<PathBuf>) -> io::Result<Vec<PathBuf>> {
    let all: BTreeSet<PathBuf> = files.iter().cloned().collect();
    let mut kept = Vec::new();
    for file in files {
        let done = all.contains(&appended(&file, COMPRESSED));
        if ends_with(&file, UNFINISHED) || done {
            remove(&file)?;
        } else {
            kept.push(file);
        }
    }
    Ok(kept)
}

/// Compresses a file, whole or not at all.
fn compress(file: &Path) -> io::Result<()> {
    let mut input = fs::File::open(file)?;
    let mode = input.metadata()?.permissions().mode();
    let draft = appended(file, UNFINISHED);
    let mut options = fs::OpenOptions::new();
    options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode & 0o777);
    let mut encoder = GzEncoder::new(options.open(&draft)?, Compression::default());
    io::copy(&mut input, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    fs::rename(draft, appended(file, COMPRESSED))?;
    remove(file)
}

fn appended(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn ends_with(path: &Path, suffix: &str) -> bool {
    path.as_os_str().to_string_lossy().ends_with(suffix)
}
