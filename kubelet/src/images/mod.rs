//! Images for containers: fetched when a pod needs them, removed when the disk is full and nobody does.

mod back_off;
mod collector;
mod credentials;
mod duration;
mod keyring;
mod manager;
mod reference;
#[cfg(test)]
mod tests;

pub use self::collector::{CollectError, DiskSpace, ImageCollector};
pub use self::credentials::{CredentialError, Credentials};
pub use self::keyring::Keyring;
pub use self::manager::ImageManager;
pub use self::reference::{ImageName, InvalidName};
