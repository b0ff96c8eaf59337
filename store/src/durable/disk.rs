//! The file operations that the durable store needs, as a trait, so that tests can put a disk under it that fails.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use orlop_core::store::StoreError;
use rustix::fs::{FallocateFlags, FlockOperation};

/// The file whose lock says that the store is open.
const LOCK: &str = "lock";

/// One directory with files in it.
pub(crate) trait Disk: Send + Sync + 'static {
    /// The names of the files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Opens a file that is there.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Makes an empty file, in place of what has the name.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Gives a file another name, in place of what has it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes what was done to names durable.
    fn sync_names(&self) -> io::Result<()>;
    /// What to call a file in a message.
    fn describe(&self, name: &str) -> String;
}

/// One file.
pub(crate) trait DiskFile: Send {
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Reads up to `length` bytes from an offset; fewer only at the end of the file.
    fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>>;
    /// Writes at an offset.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Takes room up to a length, all zeros after what is there.
    fn reserve(&mut self, length: u64) -> io::Result<()>;
    /// Cuts the file off at a length.
    fn cut(&mut self, length: u64) -> io::Result<()>;
    /// Makes the contents and the length durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// A directory of the operating system, locked against a second opener.
pub(crate) struct Directory {
    path: PathBuf,
    handle: File,
    /// Holds the lock until it is closed.
    _lock: File,
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Directory {
    /// Opens a directory, and makes it if need be, for its owner alone.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let failed = |what: &str, error: io::Error| {
            StoreError::Unavailable(format!("{what} {}: {error}", path.display()))
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|e| failed("cannot make", e))?;
        let handle = File::open(path).map_err(|e| failed("cannot open", e))?;
        let mode = handle
            .metadata()
            .map_err(|e| failed("cannot look at", e))?
            .permissions()
            .mode();
        if mode & 0o077 != 0
            && let Err(error) = handle.set_permissions(Permissions::from_mode(0o700))
        {
            tracing::warn!(path = %path.display(), %error, "others may enter the store's directory");
        }
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join(LOCK))
            .map_err(|e| failed("cannot open the lock file in", e))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
            if error == rustix::io::Errno::WOULDBLOCK {
                StoreError::Unavailable(format!(
                    "the store in {} is open already, in this process or in another one",
                    path.display()
                ))
            } else {
                failed("cannot lock", error.into())
            }
        })?;
        Ok(Self {
            path: path.to_owned(),
            handle,
            _lock: lock,
        })
    }
}

impl Disk for Directory {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            names.extend(
                entry?
                    .file_name()
                    .into_string()
                    .ok()
                    .filter(|name| name != LOCK),
            );
        }
        names.sort();
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(
            OpenOptions::new()
                .read(true)
                .write(true)
                .open(self.path.join(name))?,
        ))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600);
        Ok(Box::new(options.open(self.path.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn describe(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }
}

impl DiskFile for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        let mut filled = 0;
        while filled < length {
            match self.read_at(&mut bytes[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn reserve(&mut self, length: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&*self, FallocateFlags::empty(), 0, length) {
            // A file system that cannot is no worse than one where it was not asked for.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
            done => Ok(done?),
        }
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}
