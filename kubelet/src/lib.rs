//! The node agent.

pub mod parts;
