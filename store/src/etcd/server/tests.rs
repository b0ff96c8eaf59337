//! The server, called by a client in the same process.
