//! A whole cluster on virtual time.
