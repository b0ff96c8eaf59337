//! Bootstrap: the objects that a fresh server makes, and keeps.

mod roles;

pub use self::roles::node_rules;
