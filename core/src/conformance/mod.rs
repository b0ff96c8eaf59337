//! The conformance suites: what every implementation of a joint must do, as checks that it runs from its own tests.
//!
//! A suite is a function that takes a way to make what is to be tested, runs all checks, and panics with the name of the first
//! that fails.

pub mod scheduling;
pub mod store;

pub use self::scheduling::scheduling;
pub use self::store::store;
