//! The etcd v3 server: etcd's gRPC API in front of any [`Store`](orlop_core::store::Store).
