//! A runtime over CRI.
