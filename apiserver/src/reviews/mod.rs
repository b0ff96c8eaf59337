//! The review resources: questions about who somebody is and what they may do, answered and not kept.
//!
//! Each function takes the body as it was posted (defaults filled in, unknown fields dropped) and gives the answer to be sent.

mod access;
mod identity;
#[cfg(test)]
mod tests;

pub use self::access::{
    local_subject_access_review, self_subject_access_review, self_subject_rules_review,
    subject_access_review,
};
pub use self::identity::{self_subject_review, token_review};
