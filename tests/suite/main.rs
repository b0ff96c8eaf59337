//! The tests across crates, in one binary, because every further one is linked anew.

mod house;
