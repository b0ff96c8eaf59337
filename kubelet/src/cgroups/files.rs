//! Reading and writing the kernel's small files.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use super::CgroupError;

/// Writes a control file. `false` if there is none: the controller is not there, or not for this cgroup.
///
/// # Errors
/// What the kernel refuses.
pub(super) fn write(path: &Path, value: &str) -> Result<bool, CgroupError> {
    // Without creating: a kernel's directory takes no new files, and a plain directory is to stay removable.
    let opened = fs::OpenOptions::new().write(true).truncate(true).open(path);
    let mut file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(CgroupError::io("open", path)(error)),
    };
    // One call of write(2): the kernel takes a value whole or not at all.
    file.write_all(value.as_bytes())
        .map_err(CgroupError::io("write", path))?;
    Ok(true)
}

/// The contents of a control file, trimmed; `None` if it cannot be read.
pub(super) fn read(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned())
}

/// A control file that holds one number.
pub(super) fn number(path: &Path) -> Option<u64> {
    read(path)?.parse().ok()
}
