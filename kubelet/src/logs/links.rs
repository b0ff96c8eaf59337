//! `/var/log/containers`: a link for every container's log, named after its pod, for programs that collect logs.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use orlop_core::runtime::{Container, ContainerState};

use crate::blocking::blocking;
use crate::labels;

/// The longest name of a file.
const LONGEST: usize = 255;
const SUFFIX: &str = ".log";

/// Keeps a directory of links.
#[derive(Clone, Debug)]
pub struct LogLinks {
    directory: PathBuf,
    /// Where logs are: links to elsewhere are somebody else's.
    logs: PathBuf,
}

impl LogLinks {
    /// Links in a directory, to logs below another one.
    pub fn new(directory: impl Into<PathBuf>, logs: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            logs: logs.into(),
        }
    }

    /// Makes the link of a container that keeps a log, if it is not there; to be called when the container was started.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn make(&self, container: &Container) -> io::Result<()> {
        let Some((link, log)) = self.link(container) else {
            return Ok(());
        };
        let directory = self.directory.clone();
        blocking(move || make(&directory, &link, &log)).await
    }

    /// Removes the link of a container that was removed.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub async fn remove(&self, container: &Container) -> io::Result<()> {
        let Some((link, _)) = self.link(container) else {
            return Ok(());
        };
        blocking(move || remove(&link)).await
    }

    /// Makes the links that are missing of the containers that run, and removes those whose log is not there any more, unless the
    /// container runs: its log may just be rotated. `containers` are all that there are.
    ///
    /// # Errors
    /// The last thing that went wrong.
    pub async fn tidy(&self, containers: &[Container]) -> io::Result<()> {
        let running = |own: &&Container| own.state == ContainerState::Running;
        let wanted: Vec<(PathBuf, PathBuf)> = containers
            .iter()
            .filter(running)
            .filter_map(|own| self.link(own))
            .collect();
        let (directory, logs) = (self.directory.clone(), self.logs.clone());
        blocking(move || {
            let mut result = Ok(());
            for (link, log) in &wanted {
                result = make(&directory, link, log).and(result);
            }
            let spared: BTreeSet<&Path> = wanted.iter().map(|(link, _)| link.as_path()).collect();
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                let link = entry.path();
                let ours = fs::read_link(&link).is_ok_and(|target| target.starts_with(&logs));
                // What the link leads to is looked for, not the link.
                if ours && !spared.contains(link.as_path()) && !link.exists() {
                    result = remove(&link).and(result);
                }
            }
            result
        })
        .await
    }

    /// The link of a container and what it leads to; `None` for one that is none of ours or keeps no log.
    fn link(&self, container: &Container) -> Option<(PathBuf, PathBuf)> {
        let log = container.log_path.clone()?;
        let label = |name: &str| container.labels.get(name);
        let mut name = format!(
            "{}_{}_{}-{}",
            label(labels::POD_NAME)?,
            label(labels::POD_NAMESPACE)?,
            label(labels::CONTAINER_NAME)?,
            container.id
        );
        let cut = (0..=LONGEST - SUFFIX.len())
            .rev()
            .find(|at| name.is_char_boundary(*at));
        name.truncate(cut.unwrap_or(0));
        name.push_str(SUFFIX);
        Some((self.directory.join(name), log))
    }
}

fn make(directory: &Path, link: &Path, log: &Path) -> io::Result<()> {
    if fs::read_link(link).is_ok_and(|target| target == log) {
        return Ok(());
    }
    fs::create_dir_all(directory)?;
    match std::os::unix::fs::symlink(log, link) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            remove(link)?;
            std::os::unix::fs::symlink(log, link)
        }
        done => done,
    }
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
