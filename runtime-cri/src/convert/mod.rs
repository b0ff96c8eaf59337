//! Between the words of [`orlop_core::runtime`] and the messages of CRI.

mod container;
mod engine;
mod image;
mod resources;
mod sandbox;
mod security;
mod stats;

use std::path::Path;

use jiff::Timestamp;
use orlop_core::runtime::{IdMapping, RuntimeError};

pub(crate) use self::container::{container_config, container_filter, listed, looked_up};
pub(crate) use self::engine::runtime_status;
pub(crate) use self::image::{filesystem, image, image_spec, pull_request};
pub(crate) use self::resources::{resources, said_resources};
pub(crate) use self::sandbox::{
    made_with, sandbox_config, sandbox_filter, sandbox_looked_up, sandbox_state,
};
pub(crate) use self::stats::{container_stats, of_containers, sandbox_stats};

use crate::messages as cri;

/// A time in nanoseconds since 1970; `None` for zero, which is how CRI leaves a time out.
pub(crate) fn moment(nanoseconds: i64) -> Option<Timestamp> {
    let at = Timestamp::from_nanosecond(i128::from(nanoseconds));
    // Every i64 fits.
    (nanoseconds > 0).then(|| at.unwrap_or(Timestamp::UNIX_EPOCH))
}

/// A path as text. CRI has no others.
fn path_text(path: &Path) -> Result<String, RuntimeError> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| {
        RuntimeError::InvalidRequest(format!("the path {} is not UTF-8", path.display()))
    })
}

fn id_mappings(mappings: &[IdMapping]) -> Vec<cri::IdMapping> {
    let mappings = mappings.iter().map(|mapping| cri::IdMapping {
        host_id: mapping.host,
        container_id: mapping.container,
        length: mapping.length,
    });
    mappings.collect()
}

fn said_id_mappings(mappings: &[cri::IdMapping]) -> Vec<IdMapping> {
    let mappings = mappings.iter().map(|mapping| IdMapping {
        host: mapping.host_id,
        container: mapping.container_id,
        length: mapping.length,
    });
    mappings.collect()
}

#[cfg(test)]
mod tests;
