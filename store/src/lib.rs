//! Stores for Orlop: in memory, and durable and embedded.

mod memory;
mod mvcc;
mod shared;
mod watch;

pub use memory::MemoryStore;
