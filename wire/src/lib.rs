//! The cables of Orlop: what meets the outside on more than one side.
//!
//! - [`pki`]: the cluster's certificate authority, the certificates and keys that it issues, and who a certificate says somebody is;
//! - [`listener`]: the TLS listener that puts a `tower` service on a socket, HTTP/2 and HTTP/1.1 alike;
//! - [`kubeconfig`]: the file by which clients find and enter a cluster;
//! - [`remote`]: [`orlop_core::client::Client`] over HTTP;
//! - [`stream`]: many streams over one connection, for `exec`, `attach` and `port-forward`;
//! - [`upgrade`]: HTTP/1.1 connections that become something else;
//! - [`yaml`]: YAML as Kubernetes reads and writes it, to and from JSON documents;
//! - [`executor`]: runs the tasks of an HTTP/2 connection, and ends them with it;
//! - [`body`]: the one body type that requests and answers are made of.

pub mod body;
mod clock;
mod error;
pub mod executor;
mod files;
pub mod kubeconfig;
pub mod listener;
pub mod pki;
pub mod remote;
pub mod stream;
pub mod upgrade;
pub mod yaml;

pub use error::Error;
