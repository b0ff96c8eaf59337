//! [`orlop_store::EtcdServer`] with the real `etcdctl`: what it answers is what the real etcd answers.
//!
//! `etcd` and `etcdctl` are taken from the path. Where they are missing, the tests say that they were skipped.

mod commands;
mod compare;
mod security;
mod support;
