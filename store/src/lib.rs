//! Stores for Orlop: in memory, and durable and embedded.
