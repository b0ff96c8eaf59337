//! Files that all change at the same moment.
//!
//! A volume with contents from the API looks like this:
//!
//! ```text
//! ..2026_11_23_19_01_35.4022250974/     the files
//! ..data -> ..2026_11_23_19_01_35.4022250974
//! key -> ..data/key
//! dir -> ..data/dir
//! ```
//!
//! New contents are written into a new directory, and `..data` is replaced by a rename. Who opens `..data` once sees one state, whole;
//! who opens `key` sees its old contents or its new ones. The names and the order of steps are Kubernetes', because programs watch
//! `..data`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{
    DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown, symlink,
};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use parking_lot::Mutex;

use super::error::{Tried, VolumeError};

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// The longest path of a file in a volume, in bytes; what the API allows, too.
const LONGEST_PATH: usize = 4096;
/// The longest name in such a path.
const LONGEST_NAME: usize = 255;

/// A file of a volume.
#[derive(Clone, PartialEq, Eq)]
pub struct Projection {
    /// Its contents.
    pub data: Bytes,
    /// Its permissions, before the group's are added.
    pub mode: u32,
    /// Whose it is; the agent's own user without.
    pub user: Option<u32>,
}

impl std::fmt::Debug for Projection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the contents: they may be secret.
        write!(f, "{} bytes, mode {:o}", self.data.len(), self.mode)
    }
}

/// The files of a volume by their paths in it.
pub type Payload = BTreeMap<String, Projection>;

/// Held while a volume is written, by its directory: a caller that was given up may still be at work when the next one begins. Few
/// enough to be there always, and enough that volumes seldom wait for each other.
static AT_WORK: [Mutex<()>; 64] = [const { Mutex::new(()) }; 64];

fn lock_of(dir: &Path) -> &'static Mutex<()> {
    let bytes = dir.as_os_str().as_bytes().iter();
    let sum = bytes.fold(0usize, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(usize::from(*byte))
    });
    &AT_WORK[sum % AT_WORK.len()]
}

/// Whether a volume shows something.
pub(super) fn has_data(dir: &Path) -> bool {
    dir.join(DATA).is_dir()
}

/// Makes the files of a volume those of `payload`, all at the same moment, and says whether anything had to be done. `group` can read
/// them all. `stamp` is a name that no earlier call used, without the leading dots.
///
/// When it fails, the volume shows what it showed before.
///
/// # Errors
/// When a path of the payload cannot be one, or the file system refuses.
pub(super) fn write(
    dir: &Path,
    payload: &Payload,
    group: Option<u32>,
    stamp: &str,
) -> Result<bool, VolumeError> {
    for path in payload.keys() {
        check(path)?;
    }
    let _at_work = lock_of(dir).lock();
    let old = match std::fs::read_link(dir.join(DATA)) {
        Ok(old) => Some(dir.join(old)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).tried("readlink", &dir.join(DATA)),
    };
    let current = old.as_deref().filter(|old| shows(old, payload, group));
    let written = current.is_none();
    if written {
        swap(dir, payload, group, &format!("..{stamp}"))?;
    }
    show(dir, payload)?;
    let kept = if written {
        dir.join(format!("..{stamp}"))
    } else {
        old.unwrap_or_default()
    };
    sweep(dir, payload, &kept)?;
    Ok(written)
}

fn check(path: &str) -> Result<(), VolumeError> {
    let refuse = |why: &str| {
        Err(VolumeError::Refused(format!(
            "invalid path: {path:?} {why}"
        )))
    };
    if path.is_empty() {
        return refuse("must not be empty");
    }
    if path.starts_with('/') {
        return refuse("must be relative");
    }
    if path.len() > LONGEST_PATH {
        return refuse("is too long");
    }
    if path.starts_with("..") {
        return refuse("must not start with '..'");
    }
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) if name.len() <= LONGEST_NAME => {}
            Component::Normal(_) => return refuse("has a name that is too long"),
            _ => return refuse("must not contain '.' or '..'"),
        }
    }
    if path.contains('\0') {
        return refuse("must not contain zero bytes");
    }
    Ok(())
}

/// Who may read a file that the group of the volume is to read.
fn with_group(mode: u32, group: Option<u32>) -> u32 {
    if group.is_some() { mode | 0o440 } else { mode }
}

/// Whether a directory holds exactly these files, with these permissions and owners.
fn shows(data: &Path, payload: &Payload, group: Option<u32>) -> bool {
    let mut found = 0;
    let mut left = vec![data.to_owned()];
    while let Some(dir) = left.pop() {
        let Ok(entries) = std::fs::read_dir(&dir) else {
            return false;
        };
        for entry in entries {
            let Ok(entry) = entry else {
                return false;
            };
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                left.push(path);
                continue;
            }
            let name = path.strip_prefix(data).ok().and_then(Path::to_str);
            let wanted = name.and_then(|name| payload.get(name));
            if !wanted.is_some_and(|wanted| is(&path, wanted, group)) {
                return false;
            }
            found += 1;
        }
    }
    found == payload.len()
}

fn is(path: &Path, wanted: &Projection, group: Option<u32>) -> bool {
    let Ok(meta) = std::fs::symlink_metadata(path) else {
        return false;
    };
    meta.is_file()
        && meta.len() == wanted.data.len() as u64
        && meta.mode() & 0o7777 == with_group(wanted.mode, group)
        && wanted.user.is_none_or(|user| user == meta.uid())
        && group.is_none_or(|group| group == meta.gid())
        && std::fs::read(path).is_ok_and(|data| data == wanted.data)
}

/// Writes everything into a new directory, then makes it the one that is seen.
fn swap(dir: &Path, payload: &Payload, group: Option<u32>, name: &str) -> Result<(), VolumeError> {
    let new = dir.join(name);
    let link = dir.join(NEW_DATA);
    let done = fill(&new, payload, group).and_then(|()| {
        match std::fs::remove_file(&link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).tried("remove", &link);
            }
            _ => {}
        }
        symlink(name, &link).tried("symlink", &link)?;
        std::fs::rename(&link, dir.join(DATA)).tried("rename", &link)
    });
    if done.is_err() {
        // What was there is still seen; what is half written is taken away, as far as that goes.
        let _ = std::fs::remove_file(&link);
        let _ = std::fs::remove_dir_all(&new);
    }
    done
}

fn fill(new: &Path, payload: &Payload, group: Option<u32>) -> Result<(), VolumeError> {
    make_dir(new, group)?;
    let mut made = BTreeSet::new();
    for (name, file) in payload {
        let path = new.join(name);
        let parents: Vec<&Path> = Path::new(name)
            .ancestors()
            .skip(1)
            .filter(|parent| !parent.as_os_str().is_empty())
            .collect();
        for parent in parents.into_iter().rev() {
            if made.insert(parent.to_owned()) {
                make_dir(&new.join(parent), group)?;
            }
        }
        fill_file(&path, file, group).tried("write", &path)?;
    }
    Ok(())
}

fn make_dir(path: &Path, group: Option<u32>) -> Result<(), VolumeError> {
    let make = || {
        DirBuilder::new().mode(0o755).create(path)?;
        let dir = File::open(path)?;
        if group.is_some() {
            fchown(&dir, None, group)?;
        }
        // What the umask took away, and for a group that new files are the group's, too.
        let mode = if group.is_some() { 0o2755 } else { 0o755 };
        dir.set_permissions(Permissions::from_mode(mode))
    };
    make().tried("mkdir", path)
}

fn fill_file(path: &Path, file: &Projection, group: Option<u32>) -> io::Result<()> {
    let mut out = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    out.write_all(&file.data)?;
    if file.user.is_some() || group.is_some() {
        fchown(&out, file.user, group)?;
    }
    out.set_permissions(Permissions::from_mode(with_group(file.mode, group)))
}

/// The first names of all paths: what is seen in the volume itself.
fn tops(payload: &Payload) -> BTreeSet<&str> {
    payload
        .keys()
        .map(|path| path.split('/').next().unwrap_or_default())
        .collect()
}

/// Makes what the user sees point into the data.
fn show(dir: &Path, payload: &Payload) -> Result<(), VolumeError> {
    for top in tops(payload) {
        let (link, target) = (dir.join(top), PathBuf::from(DATA).join(top));
        match std::fs::read_link(&link) {
            Ok(there) if there == target => continue,
            // A link of somebody else, whatever it is.
            Ok(_) => std::fs::remove_file(&link).tried("remove", &link)?,
            Err(_) => {}
        }
        symlink(&target, &link).tried("symlink", &link)?;
    }
    Ok(())
}

/// Removes what is seen no more: links of keys that went, and data of earlier times (also that of a writer that was killed).
fn sweep(dir: &Path, payload: &Payload, kept: &Path) -> Result<(), VolumeError> {
    let tops = tops(payload);
    for entry in std::fs::read_dir(dir).tried("readdir", dir)? {
        let entry = entry.tried("readdir", dir)?;
        let (name, path) = (entry.file_name(), entry.path());
        let Some(name) = name.to_str() else { continue };
        let kind = entry.file_type().tried("stat", &path)?;
        if kind.is_symlink() && name != DATA && !tops.contains(name) {
            let ours = std::fs::read_link(&path).is_ok_and(|target| target.starts_with(DATA));
            if ours || name == NEW_DATA {
                std::fs::remove_file(&path).tried("remove", &path)?;
            }
        } else if kind.is_dir() && is_stamp(name) && path != kept {
            std::fs::remove_dir_all(&path).tried("remove", &path)?;
        }
    }
    Ok(())
}

/// Whether a name begins like one of ours, with two dots and a year.
fn is_stamp(name: &str) -> bool {
    name.strip_prefix("..")
        .is_some_and(|rest| rest.len() > 4 && rest.as_bytes()[..4].iter().all(u8::is_ascii_digit))
}

#[cfg(test)]
#[path = "atomic_writer_tests.rs"]
mod tests;
