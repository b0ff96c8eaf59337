//! Walks over directories in which others may be at work: no step follows a symbolic link.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, chmod, chownat, openat,
    openat2, renameat, statat, unlinkat,
};
use rustix::io::Errno;

/// How many directories of a tree are open at once. What lies deeper is first moved up.
const DEEPEST: usize = 64;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Opens a directory by its name in another one; one that is no mount, if `within`.
fn open_dir(parent: impl AsFd, name: &CStr, within: bool) -> Result<OwnedFd, Errno> {
    if !within {
        return openat(parent, name, DIRECTORY, Mode::empty());
    }
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    openat2(parent, name, DIRECTORY, Mode::empty(), resolve)
}

/// The names in an open directory, in the order of the file system.
fn names(dir: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let mut found = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            found.push(entry.file_name().to_owned());
        }
    }
    Ok(found)
}

/// Removes a directory with all that is in it, but never what is mounted there: at a mount it stops with `CrossesDevices`
/// (`ResourceBusy` for a file), and nothing behind that mount is touched. Nothing to do is no error.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let name = CString::new(std::os::unix::ffi::OsStrExt::as_bytes(name))?;
    let parent = match openat(CWD, parent, DIRECTORY, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    let top = match open_dir(&parent, &name, true) {
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR | Errno::LOOP) => {
            return Ok(unlinkat(&parent, &name, AtFlags::empty())?);
        }
        other => other?,
    };
    empty(&top)?;
    match unlinkat(&parent, &name, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        other => Ok(other?),
    }
}

/// A directory that is being emptied.
struct Level {
    dir: OwnedFd,
    left: Vec<CString>,
}

impl Level {
    fn new(dir: OwnedFd) -> Result<Self, Errno> {
        let left = names(&dir)?;
        Ok(Self { dir, left })
    }
}

fn empty(top: &OwnedFd) -> Result<(), Errno> {
    let mut moved = 0u64;
    // What was moved up is found by the next round.
    loop {
        let left = names(top)?;
        if left.is_empty() {
            return Ok(());
        }
        let dir = rustix::io::fcntl_dupfd_cloexec(top, 0)?;
        let mut levels = vec![Level { dir, left }];
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.left.last().cloned() else {
                levels.pop();
                continue;
            };
            match unlinkat(&level.dir, &name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {
                    level.left.pop();
                    continue;
                }
                // Linux says EISDIR, POSIX EPERM.
                Err(Errno::ISDIR | Errno::PERM) => {}
                Err(error) => return Err(error),
            }
            match unlinkat(&level.dir, &name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {
                    level.left.pop();
                    continue;
                }
                Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
            if levels.len() < DEEPEST {
                let level = levels.last().map(|level| level.dir.as_fd());
                let Some(dir) = level else { continue };
                let next = open_dir(dir, &name, true)?;
                levels.push(Level::new(next)?);
            } else if let Some(level) = levels.last_mut() {
                let up = CString::new(format!("..deep-{moved}")).unwrap_or_default();
                moved += 1;
                match renameat(&level.dir, &name, top, &up) {
                    Ok(()) => {
                        level.left.pop();
                    }
                    // Of an earlier call that was interrupted.
                    Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
}

/// What the members of a pod's group may do with what is in a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GroupAccess {
    /// The group.
    pub(super) group: u32,
    /// Whether they may only read.
    pub(super) read_only: bool,
}

impl GroupAccess {
    /// The permissions that are added to a file's or directory's own.
    const fn bits(self, directory: bool) -> u32 {
        let bits = if self.read_only { 0o440 } else { 0o660 };
        // A directory is entered, and what is made in it is the group's.
        if directory { bits | 0o2110 } else { bits }
    }

    fn holds(self, stat: &Stat) -> bool {
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let bits = self.bits(directory);
        stat.st_gid == self.group && stat.st_mode & bits == bits
    }
}

/// Gives a directory and all that is in it to a group. With `only_if_needed` nothing is done if the directory itself is the group's
/// already: it is changed last, so that it is not before all the rest is.
pub(super) fn give_to_group(
    path: &Path,
    access: GroupAccess,
    only_if_needed: bool,
) -> io::Result<()> {
    let top = openat(CWD, path, DIRECTORY, Mode::empty())?;
    if only_if_needed && access.holds(&rustix::fs::fstat(&top)?) {
        return Ok(());
    }
    let dir = rustix::io::fcntl_dupfd_cloexec(&top, 0)?;
    let mut levels = vec![Level::new(dir)?];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.left.pop() else {
            levels.pop();
            continue;
        };
        let stat = match statat(&level.dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        give(&level.dir, &name, &stat, access)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let next = Level::new(open_dir(&level.dir, &name, false)?)?;
            levels.push(next);
        }
    }
    let stat = rustix::fs::fstat(&top)?;
    Ok(give(&top, c".", &stat, access)?)
}

fn give(dir: &OwnedFd, name: &CStr, stat: &Stat, access: GroupAccess) -> Result<(), Errno> {
    if access.holds(stat) {
        return Ok(());
    }
    let group = Some(Gid::from_raw(access.group));
    match chownat(dir, name, None, group, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    }
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind == FileType::Symlink {
        return Ok(());
    }
    // A descriptor of what is there now, whatever it is: a link that somebody put in its place is seen, not followed.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let there = openat(dir, name, flags, Mode::empty())?;
    let now = rustix::fs::fstat(&there)?;
    if FileType::from_raw_mode(now.st_mode) != kind {
        return Ok(());
    }
    let mode = (now.st_mode & 0o7777) | access.bits(kind == FileType::Directory);
    chmod(
        format!("/proc/self/fd/{}", there.as_raw_fd()),
        Mode::from_raw_mode(mode),
    )
}
