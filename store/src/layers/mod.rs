//! Layers: stores over a store.
