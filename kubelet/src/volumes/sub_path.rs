//! Parts of a volume: `subPath` and `subPathExpr`.
//!
//! A container can put symbolic links into its volumes while the agent looks. So a part of a volume is opened by the kernel in one
//! step that cannot leave the volume (`openat2` with `RESOLVE_BENEATH`), and what was opened, not what its path means later, is bound to a
//! place that no container can change: `<pod>/volume-subpaths/<volume>/<container>/<index>`. That place is what the runtime mounts.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2};
use rustix::io::Errno;

use super::mounter::Mounter;

/// Checks that a sub path is relative and has no way up. The error is upstream's words.
pub(super) fn check(sub_path: &str) -> Result<(), String> {
    if sub_path.starts_with('/') {
        return Err(format!(
            "error SubPath `{sub_path}` must not be an absolute path"
        ));
    }
    if sub_path.split('/').any(|part| part == "..") {
        return Err(format!(
            "unable to provision SubPath `{sub_path}`: must not contain '..'"
        ));
    }
    Ok(())
}

/// Opens a path below an open directory, wherever its links lead, if that is below too.
fn open_below(root: &OwnedFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::CLOEXEC;
    // The kernel asks to try again where a rename beside it made the check uncertain.
    for _ in 0..32 {
        match openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

fn open_root(volume: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    openat(CWD, volume, flags, Mode::empty())
}

/// Makes a directory in a volume, and those above it, with the permissions of the volume. What is there already stays as it is.
pub(super) fn make_dir(volume: &Path, sub_path: &Path) -> io::Result<()> {
    let root = open_root(volume)?;
    let mode = Mode::from_raw_mode(fstat(&root)?.st_mode & 0o7777);
    let mut parent = rustix::io::fcntl_dupfd_cloexec(&root, 0)?;
    let mut done = PathBuf::new();
    for part in sub_path.components() {
        let name = match part {
            Component::Normal(name) => name,
            Component::CurDir => continue,
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        done.push(name);
        let directory = OFlags::PATH | OFlags::DIRECTORY;
        let next = match open_below(&root, &done, directory) {
            Err(Errno::NOENT) => {
                // One name in an open directory: no link is followed.
                match mkdirat(&parent, name, mode) {
                    Ok(()) => {
                        let flags =
                            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                        let made = openat(&parent, name, flags, Mode::empty())?;
                        // What the umask took away.
                        rustix::fs::fchmod(&made, mode)?;
                    }
                    Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                open_below(&root, &done, directory)?
            }
            other => other?,
        };
        parent = next;
    }
    Ok(())
}

/// Where the parts of a pod's volumes are shown.
pub(super) fn base(pod_dir: &Path) -> PathBuf {
    pod_dir.join("volume-subpaths")
}

/// Shows a part of a volume at a place that no container can change, and gives that place.
pub(super) fn bind(
    mounter: &dyn Mounter,
    volume: &Path,
    sub_path: &Path,
    target: &Path,
) -> io::Result<()> {
    let root = open_root(volume)?;
    let source = open_below(&root, sub_path, OFlags::PATH)?;
    let wanted = fstat(&source)?;
    let same = |path: &Path| -> Option<bool> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let there = openat(CWD, path, flags, Mode::empty()).ok()?;
        let there = fstat(&there).ok()?;
        Some((there.st_dev, there.st_ino) == (wanted.st_dev, wanted.st_ino))
    };
    match same(target) {
        // It is there since an earlier start of the container.
        Some(true) => return Ok(()),
        // Another thing may be shown there: the volume has changed since.
        Some(false) => {
            for mount in mounter.at_or_below(target)? {
                mounter.unmount(&mount)?;
            }
            super::tree::remove(target)?;
        }
        None => {}
    }
    place(target, FileType::from_raw_mode(wanted.st_mode))?;
    mounter.bind(source.as_fd(), target)?;
    if same(target) == Some(true) {
        return Ok(());
    }
    // Nothing else can be there, in a directory of ours; but the container must not start if it is.
    let _ = mounter.unmount(target);
    Err(io::Error::other("the mount shows something else"))
}

/// Makes what a mount of this kind can cover.
fn place(target: &Path, kind: FileType) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o750);
    if kind == FileType::Directory {
        return builder.create(target);
    }
    if let Some(parent) = target.parent() {
        builder.create(parent)?;
    }
    File::options()
        .write(true)
        .create_new(true)
        .open(target)
        .map(drop)
}
