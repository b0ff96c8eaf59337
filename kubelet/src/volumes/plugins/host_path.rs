//! `hostPath`.

use std::fs::{DirBuilder, FileType};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Volume;

use super::super::error::{Tried, VolumeError};
use super::super::plugin::{VolumePlugin, VolumeRequest};
use crate::blocking::blocking;
use crate::parts::ReadyVolume;

/// `hostPath`: a file or directory of the node. It is never changed or removed, beyond making what `type` says to make.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostPath;

#[async_trait]
impl VolumePlugin for HostPath {
    fn name(&self) -> &str {
        "kubernetes.io/host-path"
    }

    fn handles(&self, volume: &Volume) -> bool {
        volume.host_path.is_some()
    }

    async fn set_up(&self, request: &VolumeRequest<'_>) -> Result<ReadyVolume, VolumeError> {
        let Some(source) = request.volume.host_path.clone() else {
            let why = "the volume is no hostPath".to_owned();
            return Err(VolumeError::Refused(why));
        };
        let kind = source.type_.unwrap_or_default();
        // Once: what becomes of the path while the pod uses it is the node's business.
        if kind.is_empty() || request.remembered().await.is_some() {
            return Ok(as_it_is(source.path, false));
        }
        let ready = ready(source.path, Some(kind), false).await?;
        request.remember("").await?;
        Ok(ready)
    }
}

fn as_it_is(path: String, read_only: bool) -> ReadyVolume {
    ReadyVolume {
        path: path.into(),
        read_only,
        may_create_sub_path: !read_only,
    }
}

/// A path of the node as a volume, if it is of a type.
pub(super) async fn ready(
    path: String,
    kind: Option<String>,
    read_only: bool,
) -> Result<ReadyVolume, VolumeError> {
    blocking(move || {
        check(Path::new(&path), &kind.unwrap_or_default())?;
        Ok(as_it_is(path, read_only))
    })
    .await
}

/// Checks that a path is what the volume's `type` says, and makes it where it says so. The errors are upstream's words.
fn check(path: &Path, kind: &str) -> Result<(), VolumeError> {
    let there: Option<FileType> = match std::fs::metadata(path) {
        Ok(meta) => Some(meta.file_type()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        // A directory above it is a file, or may not be entered.
        Err(_) if kind.is_empty() => None,
        Err(error) => return Err(error).tried("stat", path),
    };
    let refuse = |what: &str| {
        let why = format!(
            "hostPath type check failed: {} is not {what}",
            path.display()
        );
        Err(VolumeError::Refused(why))
    };
    let is = |test: fn(&FileType) -> bool| there.as_ref().is_some_and(test);
    match kind {
        "" => Ok(()),
        "DirectoryOrCreate" if there.is_none() => {
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(0o755);
            builder.create(path).tried("mkdir", path)
        }
        "FileOrCreate" if there.is_none() => {
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create(true).mode(0o644);
            options.open(path).map(drop).tried("open", path)
        }
        "DirectoryOrCreate" | "Directory" if !is(FileType::is_dir) => refuse("a directory"),
        "FileOrCreate" | "File" if !is(FileType::is_file) => refuse("a file"),
        "Socket" if !is(FileType::is_socket) => refuse("a socket file"),
        "CharDevice" if !is(FileType::is_char_device) => refuse("a character device"),
        "BlockDevice" if !is(FileType::is_block_device) => refuse("a block device"),
        "DirectoryOrCreate" | "Directory" | "FileOrCreate" | "File" | "Socket" | "CharDevice"
        | "BlockDevice" => Ok(()),
        other => Err(VolumeError::Refused(format!(
            "{other} is an invalid volume type"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn every_type_is_checked() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        std::fs::create_dir(at("dir")).unwrap();
        std::fs::write(at("file"), "").unwrap();
        std::os::unix::fs::symlink("dir", at("link")).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        let ok = [
            ("dir", "Directory"),
            ("link", "Directory"),
            ("dir", "DirectoryOrCreate"),
            ("new/er/dir", "DirectoryOrCreate"),
            ("file", "File"),
            ("file", "FileOrCreate"),
            ("new/file", "FileOrCreate"),
            ("socket", "Socket"),
            ("missing", ""),
        ];
        for (name, kind) in ok {
            check(&at(name), kind).unwrap_or_else(|error| panic!("{name} {kind}: {error}"));
        }
        assert!(at("new/er/dir").is_dir() && at("new/file").is_file() && !at("missing").exists());
        check(Path::new("/dev/null"), "CharDevice").unwrap();
        for (name, kind, what) in [
            ("file", "Directory", "a directory"),
            ("missing", "Directory", "a directory"),
            ("file", "DirectoryOrCreate", "a directory"),
            ("dir", "File", "a file"),
            ("missing", "File", "a file"),
            ("dir", "FileOrCreate", "a file"),
            ("file", "Socket", "a socket file"),
            ("file", "CharDevice", "a character device"),
            ("missing", "BlockDevice", "a block device"),
        ] {
            let error = check(&at(name), kind).unwrap_err();
            let path = at(name);
            let expected = format!(
                "hostPath type check failed: {} is not {what}",
                path.display()
            );
            assert_eq!(error.to_string(), expected);
        }
        let error = check(&at("dir"), "Pipe").unwrap_err();
        assert_eq!(error.to_string(), "Pipe is an invalid volume type");
        let error = check(&at("no/parent/file"), "FileOrCreate").unwrap_err();
        assert!(
            error.to_string().ends_with("no such file or directory"),
            "{error}"
        );
    }
}
