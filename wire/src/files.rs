//! Files that are there as a whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Error;

/// Readable by the owner only.
pub(crate) const SECRET: u32 = 0o600;
/// Readable by everybody.
pub(crate) const PUBLIC: u32 = 0o644;

/// Puts a file in place, so that a reader (also one after a crash) sees the old content or the new one. The directory is made if it is
/// missing.
pub(crate) fn write_atomically(path: &Path, content: &[u8], mode: u32) -> Result<(), Error> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(directory)
        .map_err(Error::file(directory))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let temporary = directory.join(format!(".{name}.{}.{number}", std::process::id()));
    let write = || -> io::Result<()> {
        // A leftover of a crashed process with the same id is of no use to anybody.
        let _ = fs::remove_file(&temporary);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(|source| {
        let _ = fs::remove_file(&temporary);
        Error::File {
            path: path.to_owned(),
            source,
        }
    })
}

/// The content of a text file, or `None` if there is no such file.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file(path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_with_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er/file");
        assert_eq!(read_if_there(&path).unwrap(), None);
        write_atomically(&path, b"one", PUBLIC).unwrap();
        write_atomically(&path, b"two", SECRET).unwrap();
        assert_eq!(read_if_there(&path).unwrap().as_deref(), Some("two"));
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "no temporary file stays"
        );
        assert!(write_atomically(&path.join("below-a-file"), b"", SECRET).is_err());
    }
}
