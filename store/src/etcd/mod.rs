//! etcd on both sides: a real etcd as a store ([`client`]), and etcd's API in front of any store ([`server`]).

pub(crate) mod client;
pub(crate) mod proto;
pub(crate) mod server;
