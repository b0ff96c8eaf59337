//! Stores for Orlop: in memory, and durable and embedded.

mod durable;
mod memory;
#[cfg(test)]
mod model;
mod mvcc;
mod shared;
mod watch;

pub use durable::{DurableOptions, DurableStore};
pub use memory::MemoryStore;
