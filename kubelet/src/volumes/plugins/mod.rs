//! The kinds of volumes that every node has.

mod claims;
mod contents;
mod empty_dir;
mod host_path;
mod projected;
mod refused;

pub use self::claims::PersistentVolumes;
pub use self::contents::{AllocatableSource, ConfigMaps, Contents, DownwardApi, Secrets};
pub use self::empty_dir::EmptyDir;
pub use self::host_path::HostPath;
pub use self::projected::Projected;
pub(super) use self::refused::refusal;
