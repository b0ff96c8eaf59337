//! The directory of a cluster.

use std::fs::File;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::Failure;

/// Where a cluster is kept when nothing is said.
pub(super) fn default() -> Result<PathBuf, Failure> {
    let base = std::env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    let base = base
        .or_else(home)
        .ok_or_else(|| Failure::new("neither HOME nor XDG_DATA_HOME is set: say --data-dir"))?;
    Ok(base.join("orlop"))
}

/// Makes it, if it is not there, and gives its real path.
pub(super) fn make(directory: &Path) -> Result<PathBuf, Failure> {
    let show = |error: std::io::Error| {
        Failure::new(format!(
            "cannot use the directory {}: {error}",
            directory.display()
        ))
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(show)?;
    directory.canonicalize().map_err(show)
}

/// Keeps a second process out of the directory for as long as the file is open.
pub(super) fn lock(directory: &Path) -> Result<File, Failure> {
    let path = directory.join("lock");
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(|error| {
            Failure::new(format!(
                "cannot write to the directory {}: {error}",
                directory.display()
            ))
        })?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Failure::new(format!(
            "another orlop uses the directory {}",
            directory.display()
        ))),
        Err(error) => Err(Failure::new(format!(
            "cannot lock {}: {error}",
            path.display()
        ))),
    }
}

/// The machine's name, if it has one that a certificate can carry.
pub(super) fn hostname() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim().to_lowercase();
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    (!name.is_empty() && name.chars().all(plain)).then_some(name)
}
