//! Images.

use std::fmt;
use std::path::PathBuf;

use jiff::Timestamp;

use super::{Labels, SandboxConfig};

/// The id of an image: the digest of its configuration, such as `sha256:…`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageId(String);

impl ImageId {
    /// An id.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which image is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageSpec {
    /// A name with a tag or a digest, or an image's id.
    pub image: String,
    /// The name that the user wrote, where `image` is what it was resolved to. Empty if they are the same.
    pub user_specified: String,
    /// The handler that the image is for; empty for the default.
    pub handler: String,
    /// What else a runtime may want to know.
    pub annotations: Labels,
}

impl ImageSpec {
    /// The image of a name or an id.
    pub fn new(image: impl Into<String>) -> Self {
        Self {
            image: image.into(),
            ..Self::default()
        }
    }
}

impl From<&ImageId> for ImageSpec {
    fn from(id: &ImageId) -> Self {
        Self::new(id.as_str())
    }
}

/// Whom an image runs as when a container says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageUser {
    /// A user id.
    Id(i64),
    /// A user's name, to be looked up in the image.
    Name(String),
}

/// An image that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its id.
    pub id: ImageId,
    /// Its names with tags, in full.
    pub tags: Vec<String>,
    /// Its names with digests, in full.
    pub digests: Vec<String>,
    /// Its size in bytes.
    pub size: u64,
    /// Whom it runs as; `None` for the superuser.
    pub user: Option<ImageUser>,
    /// Whether the collector of unused images must spare it.
    pub pinned: bool,
}

impl Image {
    /// Whether this image is meant by a name or an id. Names are compared as they are: a runtime that completes short names does so
    /// in its own [`Runtime::image`](super::Runtime::image).
    #[must_use]
    pub fn answers_to(&self, name: &str) -> bool {
        self.id.as_str() == name
            || self
                .tags
                .iter()
                .chain(&self.digests)
                .any(|have| have == name)
    }
}

/// What a registry is told about who asks.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RegistryAuth {
    /// The user.
    pub username: String,
    /// The password.
    pub password: String,
    /// User and password as HTTP's basic authentication has them, in base64; stands instead of the two.
    pub basic: String,
    /// The registry that this is for.
    pub server: String,
    /// A token to exchange for an access token.
    pub identity_token: String,
    /// A bearer token to send as it is.
    pub registry_token: String,
}

/// Shows nothing that is secret.
impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryAuth")
            .field("username", &self.username)
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

/// An image to pull.
#[derive(Clone, Debug, Default)]
pub struct PullRequest {
    /// Which.
    pub image: ImageSpec,
    /// Who asks; `None` for anybody.
    pub auth: Option<RegistryAuth>,
    /// The sandbox that it is for, which pulling may be charged to.
    pub sandbox: Option<SandboxConfig>,
}

impl PullRequest {
    /// An image that anybody may pull.
    pub fn new(image: impl Into<String>) -> Self {
        Self {
            image: ImageSpec::new(image),
            ..Self::default()
        }
    }
}

/// How much of a file system something takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesystemUsage {
    /// When it was measured.
    pub at: Timestamp,
    /// Where the file system is mounted.
    pub mountpoint: PathBuf,
    /// Bytes taken.
    pub used_bytes: u64,
    /// Inodes taken, where the file system has such.
    pub inodes_used: Option<u64>,
}

/// The file systems of a runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageFilesystems {
    /// Where images are.
    pub images: Vec<FilesystemUsage>,
    /// Where containers write. The same ones, if a runtime keeps both in one place.
    pub containers: Vec<FilesystemUsage>,
}
