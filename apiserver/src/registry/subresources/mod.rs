//! Subresources that do something of their own. Those that are a part of the object (`status`, `approval`, `ephemeralcontainers`,
//! `resize`, `finalize`) are updates of it, which the kind's strategy confines to that part.

mod binding;
mod eviction;
mod scale;

use orlop_core::status::Status;

/// What a subresource answers that has no object to show: success, as created.
pub(crate) fn created() -> Status {
    Status {
        status: "Success".to_owned(),
        code: 201,
        ..Status::default()
    }
}
