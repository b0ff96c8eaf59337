//! Orlop: Kubernetes as a deck to build on.
//!
//! This crate composes the parts into a control plane. Five traits are the joints; whoever embeds Orlop swaps any of them and keeps
//! the rest:
//!
//! | joint | trait | what comes with Orlop |
//! |---|---|---|
//! | where everything is kept | [`core::store::Store`] | [`store::MemoryStore`], [`store::DurableStore`], [`store::EtcdStore`] |
//! | where pods go | [`core::scheduling`] | the plug-ins of [`sched`] |
//! | what makes it so | [`core::controller::Controller`] | the controllers of [`controllers`] |
//! | what runs containers | [`core::runtime::Runtime`] | [`runtime_cri::CriRuntime`]; simulated nodes, [`sim`] |
//! | what connects them | [`core::network::NetworkPlugin`] | |
//!
//! A control plane in this process:
//!
//! ```
//! use orlop::ControlPlane;
//! use orlop::core::resource::Resource;
//! use serde_json::json;
//!
//! const MAPS: Resource = Resource::namespaced("", "v1", "configmaps", "ConfigMap");
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let plane = ControlPlane::builder().in_memory().with_defaults().start().await?;
//! let client = plane.admin();
//! client.resource(&MAPS).namespace("default").create(&json!({"metadata": {"name": "hello"}})).await?;
//! assert_eq!(client.resource(&MAPS).namespace("default").get("hello").await?.name(), "hello");
//! plane.shutdown().await;
//! # Ok(())
//! # }
//! ```

pub use orlop_api as api;
pub use orlop_apiserver as apiserver;
pub use orlop_controllers as controllers;
pub use orlop_core as core;
pub use orlop_kubelet as kubelet;
pub use orlop_merge as merge;
pub use orlop_net_proxy as net_proxy;
pub use orlop_runtime_cri as runtime_cri;
pub use orlop_sched as sched;
pub use orlop_store as store;
pub use orlop_wire as wire;

mod connector;
mod election;
mod host_node;
mod identities;
#[cfg(feature = "kube")]
mod kube_client;
mod not_acted_on;
mod plane;
pub mod sim;

/// The snippets of the library guide, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../docs/library.md")]
mod library_guide {}

pub use self::connector::KubeletDialer;
pub use self::host_node::HostNode;
pub use self::not_acted_on::not_acted_on;
pub use self::plane::{ControlPlane, ControlPlaneBuilder, Error, ServingAt};
