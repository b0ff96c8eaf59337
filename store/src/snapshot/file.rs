//! A snapshot's file, which has its name only when it is whole.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use orlop_core::store::StoreError;
use rustix::fs::{CWD, FlockOperation, RenameFlags};
use rustix::io::Errno;

/// What stands behind the name of a file that is not finished.
const UNFINISHED: &str = ".unfinished";

/// A file that is being written beside its place, for its owner alone (0600), and takes its place when it is on disk. Dropped before, it
/// is removed; what a killed process leaves is written over by the next.
#[derive(Debug)]
pub struct SnapshotFile {
    file: File,
    beside: PathBuf,
    path: PathBuf,
    replace: bool,
    finished: bool,
}

/// A path with more behind its name.
pub(crate) fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(path.as_os_str());
    name.push(UNFINISHED);
    name.into()
}

/// Makes what was done to a name durable.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    File::open(parent)?.sync_all()
}

fn failed(path: &Path, error: &io::Error) -> StoreError {
    let text = format!("cannot write {}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            StoreError::NoSpace(text)
        }
        _ => StoreError::Unavailable(text),
    }
}

fn is_there(path: &Path) -> StoreError {
    StoreError::InvalidRequest(format!("{} is there already", path.display()))
}

impl SnapshotFile {
    /// Begins a file that is to stand at a path.
    ///
    /// # Errors
    /// [`StoreError::InvalidRequest`] when the path is taken and is not to be replaced, [`StoreError::Unavailable`] when it cannot be written to:
    /// also when another snapshot is on its way there.
    pub fn create(path: impl AsRef<Path>, replace: bool) -> Result<Self, StoreError> {
        let path = path.as_ref();
        if !replace && path.symlink_metadata().is_ok() {
            return Err(is_there(path));
        }
        let beside = beside(path);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&beside)
            .map_err(|error| failed(&beside, &error))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(StoreError::Unavailable(format!(
                    "another snapshot is being written to {}",
                    path.display()
                )));
            }
            Err(error) => return Err(failed(&beside, &error.into())),
        }
        let own = Self {
            file,
            beside,
            path: path.to_owned(),
            replace,
            finished: false,
        };
        own.file
            .set_permissions(Permissions::from_mode(0o600))
            .and_then(|()| own.file.set_len(0))
            .map_err(|error| failed(&own.beside, &error))?;
        Ok(own)
    }

    /// The file, to be written to.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Waits until the file is on disk, and gives it its name. It blocks.
    ///
    /// # Errors
    /// As [`create`](Self::create), and [`StoreError::NoSpace`].
    pub fn finish(mut self) -> Result<(), StoreError> {
        self.file
            .sync_all()
            .map_err(|error| failed(&self.path, &error))?;
        self.rename()?;
        self.finished = true;
        sync_parent(&self.path).map_err(|error| failed(&self.path, &error))
    }

    fn rename(&self) -> Result<(), StoreError> {
        if !self.replace {
            let flags = RenameFlags::NOREPLACE;
            match rustix::fs::renameat_with(CWD, &self.beside, CWD, &self.path, flags) {
                // Not every file system can.
                Err(Errno::INVAL | Errno::NOSYS) if self.path.symlink_metadata().is_err() => {}
                Ok(()) => return Ok(()),
                Err(Errno::EXIST | Errno::INVAL | Errno::NOSYS) => {
                    return Err(is_there(&self.path));
                }
                Err(error) => return Err(failed(&self.path, &error.into())),
            }
        }
        std::fs::rename(&self.beside, &self.path).map_err(|error| failed(&self.path, &error))
    }
}

impl Drop for SnapshotFile {
    fn drop(&mut self) {
        if !self.finished {
            // It is no snapshot, and the next one writes over it.
            let _ = std::fs::remove_file(&self.beside);
        }
    }
}
