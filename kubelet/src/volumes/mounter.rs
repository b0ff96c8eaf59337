//! The kernel's mounts, behind a trait.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::mount::{MountFlags, UnmountFlags};

/// What volumes need of the kernel. All of it blocks.
pub trait Mounter: Send + Sync + 'static {
    /// Mounts a new file system in memory, of at most `size` bytes (half of the memory without).
    ///
    /// # Errors
    /// The kernel's; `PermissionDenied` where the agent may not mount.
    fn tmpfs(&self, at: &Path, size: Option<u64>) -> io::Result<()>;

    /// Shows what an open file or directory is (a descriptor of `O_PATH` will do) at another place, which is of the same kind.
    ///
    /// # Errors
    /// The kernel's.
    fn bind(&self, source: BorrowedFd<'_>, at: &Path) -> io::Result<()>;

    /// Ends the mount that is uppermost at a place. No symbolic link is followed at its end.
    ///
    /// # Errors
    /// The kernel's; `ResourceBusy` while somebody uses it.
    fn unmount(&self, at: &Path) -> io::Result<()>;

    /// Every mount at or below a directory, the deepest first. A place where there are two is named twice.
    ///
    /// # Errors
    /// When they cannot be listed.
    fn at_or_below(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
}

/// The mounts of this machine, in the agent's own mount namespace.
#[derive(Debug)]
pub struct HostMounter {
    /// Whether the kernel knows tmpfs' option to stay out of swap (Linux 6.4); found out by trying.
    noswap: AtomicBool,
}

impl Default for HostMounter {
    fn default() -> Self {
        Self {
            noswap: AtomicBool::new(true),
        }
    }
}

impl Mounter for HostMounter {
    fn tmpfs(&self, at: &Path, size: Option<u64>) -> io::Result<()> {
        let mount = |noswap: bool| {
            let size = size.map(|size| format!("size={size}"));
            let options = size.into_iter().chain(noswap.then(|| "noswap".to_owned()));
            let options = options.collect::<Vec<_>>().join(",");
            // No option has a zero byte.
            let options = CString::new(options).unwrap_or_default();
            rustix::mount::mount(
                "tmpfs",
                at,
                "tmpfs",
                MountFlags::empty(),
                options.as_c_str(),
            )
        };
        if self.noswap.load(Ordering::Relaxed) {
            match mount(true) {
                Err(rustix::io::Errno::INVAL) => self.noswap.store(false, Ordering::Relaxed),
                other => return Ok(other?),
            }
        }
        Ok(mount(false)?)
    }

    fn bind(&self, source: BorrowedFd<'_>, at: &Path) -> io::Result<()> {
        let source = format!("/proc/self/fd/{}", source.as_raw_fd());
        Ok(rustix::mount::mount_bind(source, at)?)
    }

    fn unmount(&self, at: &Path) -> io::Result<()> {
        Ok(rustix::mount::unmount(at, UnmountFlags::NOFOLLOW)?)
    }

    fn at_or_below(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let table = std::fs::read("/proc/thread-self/mountinfo")?;
        let mut found: Vec<PathBuf> = mount_points(&table)
            .filter(|at| at.starts_with(dir))
            .collect();
        found.sort_by_key(|at| std::cmp::Reverse(at.components().count()));
        Ok(found)
    }
}

/// The mount points of a table in the form of `/proc/thread-self/mountinfo`.
fn mount_points(table: &[u8]) -> impl Iterator<Item = PathBuf> {
    table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(|field| PathBuf::from(unescape(field)))
}

/// Blanks, tabs, line breaks and backslashes stand there as `\` and three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| *first == b'\\');
        let code = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                out.push(code);
                rest = &tail[3..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(out)
}

/// No mounts at all: every try is refused as a user without privileges would be. For simulations, which write plain directories.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoMounter;

impl Mounter for NoMounter {
    fn tmpfs(&self, _: &Path, _: Option<u64>) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn bind(&self, _: BorrowedFd<'_>, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn unmount(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn at_or_below(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        // Without mounts of its own there may still be those of an earlier, privileged run.
        HostMounter::default().at_or_below(dir)
    }
}

/// A path as the kernel lists it: absolute and without symbolic links.
pub(super) fn real_path(path: &Path) -> io::Result<PathBuf> {
    debug_assert!(!path.as_os_str().as_bytes().is_empty());
    std::fs::canonicalize(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_from_the_kernels_table() {
        let table = b"21 1 8:1 / / rw - ext4 /dev/root rw\n\
            30 21 0:25 / /a/b\\040c rw shared:3 - tmpfs tmpfs rw\n\
            31 30 0:26 /x /a/b\\040c/d\\134e rw - tmpfs tmpfs rw\n\n";
        let found: Vec<PathBuf> = mount_points(table).collect();
        assert_eq!(
            found,
            [PathBuf::from("/"), "/a/b c".into(), "/a/b c/d\\e".into()]
        );
    }

    #[test]
    fn a_neighbour_with_a_longer_name_is_not_below() {
        assert!(!Path::new("/a/bc").starts_with("/a/b"));
        assert!(Path::new("/a/b").starts_with("/a/b"));
    }
}
