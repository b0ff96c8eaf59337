//! The tests across crates, in one binary, because every further one is linked anew.

mod documents;
mod encryption;
mod etcd;
mod house;
mod in_process;
mod kubectl;
mod node;
mod probe_rules;
mod process;
mod simulation;
mod support;
