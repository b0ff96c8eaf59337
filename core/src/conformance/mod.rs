//! The conformance suites: what every implementation of a joint must do, as checks that it runs from its own tests.
//!
//! A suite is a function that takes a way to make what is to be tested, runs all checks, and panics with the name of the first
//! that fails.

mod check;
pub mod network;
pub mod runtime;
pub mod scheduling;
pub mod store;

pub use self::network::{network, policy};
pub use self::runtime::runtime;
pub use self::scheduling::scheduling;
pub use self::store::store;
