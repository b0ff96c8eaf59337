//! Where the node agent keeps a certificate with its key: in one file, readable by its owner only, with a link to the newest.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use orlop_wire::pki::{KeyAndCertificate, pem_blocks};

use super::CertificateError;

/// The files of one certificate: `<prefix>-<time>.pem`, and `<prefix>-current.pem`, which leads to the newest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateStore {
    directory: PathBuf,
    prefix: &'static str,
}

impl CertificateStore {
    /// The files of the client certificate: `kubelet-client-…`.
    pub fn client(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            prefix: "kubelet-client",
        }
    }

    /// The files of the serving certificate: `kubelet-server-…`.
    pub fn serving(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            prefix: "kubelet-server",
        }
    }

    /// The link to the newest.
    #[must_use]
    pub fn current_path(&self) -> PathBuf {
        self.directory.join(format!("{}-current.pem", self.prefix))
    }

    /// The newest, if there is one.
    ///
    /// # Errors
    /// [`CertificateError::File`], and [`CertificateError::Wire`] for a file with something else in it.
    pub fn current(&self) -> Result<Option<KeyAndCertificate>, CertificateError> {
        let path = self.current_path();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(CertificateError::File { path, source }),
        };
        // Both are found in the one text.
        let pair = KeyAndCertificate {
            certificate: pem_blocks(&text, "CERTIFICATE"),
            key: pem_blocks(&text, "PRIVATE KEY"),
        };
        pair.chain()?;
        pair.private_key()?;
        Ok(Some(pair))
    }

    /// Keeps a new one. The one before it is removed.
    ///
    /// # Errors
    /// [`CertificateError::File`].
    pub fn keep(&self, pair: &KeyAndCertificate, now: Timestamp) -> Result<(), CertificateError> {
        let stamp = now.strftime("%Y-%m-%d-%H-%M-%S");
        let name = format!("{}-{stamp}.pem", self.prefix);
        let path = self.directory.join(&name);
        let link = self.current_path();
        let before = fs::read_link(&link).ok();
        self.write(&path, &name, &link, pair)
            .map_err(|source| CertificateError::File {
                path: path.clone(),
                source,
            })?;
        // Only what is ours and is not the new one.
        if let Some(before) = before
            .filter(|before| *before != Path::new(&name) && before.parent() == Some(Path::new("")))
        {
            let _ = fs::remove_file(self.directory.join(before));
        }
        Ok(())
    }

    fn write(
        &self,
        path: &Path,
        name: &str,
        link: &Path,
        pair: &KeyAndCertificate,
    ) -> std::io::Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&self.directory)?;
        let temporary = self.directory.join(format!(".{name}.new"));
        let _ = fs::remove_file(&temporary);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        for text in [&pair.certificate, &pair.key] {
            file.write_all(text.as_bytes())?;
            if !text.ends_with('\n') {
                file.write_all(b"\n")?;
            }
        }
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        let new_link = self.directory.join(format!(".{}-current.new", self.prefix));
        let _ = fs::remove_file(&new_link);
        symlink(name, &new_link)?;
        fs::rename(&new_link, link)?;
        fs::File::open(&self.directory)?.sync_all()
    }
}
