//! Encryption at rest: a layer over any [`Store`](orlop_core::store::Store), configured as in Kubernetes.
