//! PersistentVolumes, claims on them, and `storage.k8s.io`.

mod claim;
mod class;
mod csi;
mod volume;

pub(super) use claim::{claim, claim_status, claim_update};
pub(crate) use claim::{claim_spec, claim_template_modes};
pub(super) use class::{attributes_class, class, class_update};
pub(super) use csi::{attachment, csi_capacity, csi_driver, csi_node};
pub(super) use volume::{volume, volume_update};

use orlop_core::field::Path;
use serde_json::Value;

use crate::doc;
use crate::validation::errors::Errors;

/// How a volume may be mounted.
const ACCESS_MODES: &[&str] = &[
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
];

/// The access modes of a claim or a volume.
fn access_modes(errors: &mut Errors, spec: &Value, path: &Path) {
    let path = path.child("accessModes");
    let modes: Vec<&str> = doc::texts(spec, "accessModes").collect();
    let mut once = false;
    for mode in &modes {
        if !ACCESS_MODES.contains(mode) {
            errors.not_supported(&path, *mode, ACCESS_MODES);
        }
        once |= *mode == "ReadWriteOncePod";
    }
    if once && modes.len() > 1 {
        errors.forbidden(
            &path,
            "may not use ReadWriteOncePod with other access modes",
        );
    }
}
