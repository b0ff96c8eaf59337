//! Why a volume is not ready.

use std::io;
use std::path::Path;

use orlop_core::status::Status;

use crate::downward::DownwardError;
use crate::parts::ReadyVolume;
use crate::tokens::TokenError;

/// Why a volume cannot be made ready, or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VolumeError {
    /// What the pod asks for is not there or not right, in a sentence for the user.
    #[error("{0}")]
    Refused(String),
    /// No volume can be made of what the pod says, at all: what upstream finds out before it mounts anything.
    #[error("{0}")]
    Unprocessable(String),
    /// The volume is ready, but could not be brought up to date: it shows what it showed before. The pod goes on; the failure is
    /// [reported](super::VolumeManager::on_outdated).
    #[error("{source}")]
    Outdated {
        /// The volume as it is.
        ready: ReadyVolume,
        /// Why it is not up to date.
        source: Box<VolumeError>,
    },
    /// What a claim is bound to is not there.
    #[error("{0}")]
    NoMounter(String),
    /// What the pod calls a volume is another one: that which its claim is bound to.
    #[error("{source}")]
    Bound {
        /// The name of the persistent volume.
        name: String,
        /// Why that is not ready.
        source: Box<VolumeError>,
    },
    /// The API refused.
    #[error("{0}")]
    Api(#[from] Status),
    /// A token is missing.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The pod cannot be told of itself.
    #[error(transparent)]
    Downward(#[from] DownwardError),
    /// Several parts of one volume are missing.
    #[error("[{}]", .0.join(", "))]
    Several(Vec<String>),
    /// The file system or the kernel refused.
    #[error("{what}: {}", reason(.source))]
    Io {
        /// What was tried, with the path.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl VolumeError {
    /// What the user is told of a volume that is not ready, in the words of Kubernetes' `FailedMount` events.
    #[must_use]
    pub fn message(&self, volume: &str) -> String {
        match self {
            Self::Unprocessable(why) => format!(
                "Unable to attach or mount volumes: unmounted volumes=[{volume}], unattached volumes=[], failed to process \
                 volumes=[{volume}]: {why}"
            ),
            Self::NoMounter(why) => {
                format!(
                    "MountVolume.NewMounter initialization failed for volume \"{volume}\" : {why}"
                )
            }
            Self::Bound { name, source } => source.message(name),
            Self::Outdated { source, .. } => source.message(volume),
            other => format!("MountVolume.SetUp failed for volume \"{volume}\" : {other}"),
        }
    }

    /// The refusal of one part, or of several parts together.
    pub(super) fn of_all(mut errors: Vec<Self>) -> Result<(), Self> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Self::Several(
                errors.iter().map(ToString::to_string).collect(),
            )),
        }
    }
}

/// The system's reason alone, as other programs write it: `no space left on device`.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_ascii_lowercase());
    first.into_iter().chain(chars).collect()
}

/// Says what was tried, and where, when it failed.
pub(super) trait Tried<T> {
    /// The same result with `what path` before its reason.
    fn tried(self, what: &str, path: &Path) -> Result<T, VolumeError>;
}

impl<T, E: Into<io::Error>> Tried<T> for Result<T, E> {
    fn tried(self, what: &str, path: &Path) -> Result<T, VolumeError> {
        self.map_err(|error| VolumeError::Io {
            what: format!("{what} {}", path.display()),
            source: error.into(),
        })
    }
}
