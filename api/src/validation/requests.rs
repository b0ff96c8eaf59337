//! What is posted and never stored: token requests and evictions.

use orlop_core::field::Path;
use serde_json::Value;

use super::errors::Errors;
use super::labels;
use crate::doc;

/// A TokenRequest.
pub(super) fn token_request(errors: &mut Errors, document: &Value) {
    let seconds = doc::int(doc::get(document, "spec"), "expirationSeconds").unwrap_or_default();
    let path = Path::new("spec").child("expirationSeconds");
    if seconds < 600 {
        errors.invalid(
            &path,
            seconds,
            "may not specify a duration less than 10 minutes",
        );
    }
    if seconds > 1 << 32 {
        errors.invalid(
            &path,
            seconds,
            "may not specify a duration larger than 2^32 seconds",
        );
    }
}

/// An `Eviction`.
pub(super) fn eviction(errors: &mut Errors, document: &Value) {
    let options = doc::get(document, "deleteOptions");
    if let Some(policy) = doc::opt_text(options, "propagationPolicy")
        && !matches!(policy, "Background" | "Foreground" | "Orphan")
    {
        errors.not_supported(
            &Path::new("deleteOptions").child("propagationPolicy"),
            policy,
            &["Background", "Foreground", "Orphan"],
        );
    }
    labels::labels(
        errors,
        doc::get(document, "metadata"),
        "labels",
        &Path::new("metadata"),
    );
}
