//! The cables of Orlop: PKI, TLS listener, kubeconfig and the remote client.
