//! `EtcdStore`: a real etcd cluster as a [`Store`](orlop_core::store::Store).
