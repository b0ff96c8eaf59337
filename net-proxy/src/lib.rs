//! kube-proxy: Services by nftables, for IPv4 and IPv6.
//!
//! A [`Proxy`] follows Services, EndpointSlices and its Node, works out what stands behind every port ([`view`]), and has a [`Backend`]
//! make it so. [`nft`] is the one that a node uses; [`RecordingBackend`] is for tests and for nodes that run nothing.
//!
//! | module | what it knows |
//! |---|---|
//! | [`view`] | traffic policies, hints, endpoints that end, session affinity: what Kubernetes means |
//! | [`nft`] | tables, chains, maps, transactions: what the kernel does |
//! | [`health`] | what load balancers and kubelets ask |
//!
//! ```
//! use std::time::Duration;
//! use orlop_core::env::{SimEnv, TaskGroup};
//! use orlop_core::object::ObjectKey;
//! use orlop_core::resource::Resource;
//! use orlop_core::testing::FakeApi;
//! use orlop_net_proxy::{Family, Proxy, ProxyConfig, RecordingBackend};
//! use serde_json::json;
//!
//! const SERVICES: Resource = Resource::namespaced("", "v1", "services", "Service");
//! let sim = SimEnv::new(1);
//! let env = sim.env();
//! sim.block_on(async move {
//!     let api = FakeApi::new(env.clone());
//!     let mut config = ProxyConfig::new("node-1");
//!     (config.healthz_address, config.metrics_address, config.manage_sysctls) = (None, None, false);
//!     let backend = RecordingBackend::new();
//!     let mut proxy = Proxy::builder(api.client(), env.clone()).config(config).backend(backend.clone()).build().unwrap();
//!     let group = TaskGroup::new(env.clone());
//!     let stop = group.token();
//!     group.spawn("proxy", async move { proxy.run(&stop).await.unwrap() });
//!     let web = json!({"metadata": {"name": "web"}, "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}});
//!     api.client().resource(&SERVICES).namespace("default").create(&web).await.unwrap();
//!     env.sleep(Duration::from_secs(2)).await;
//!     let ports = backend.service(Family::V4, &ObjectKey::new("default", "web"));
//!     assert!(!ports[0].has_endpoints);
//!     group.shutdown().await;
//! });
//! ```

pub mod backend;
mod config;
mod conntrack;
mod error;
mod exec;
pub mod health;
mod metrics;
pub mod nft;
mod proxy;
mod sysctl;
#[doc(hidden)]
pub mod testing;
pub mod view;

pub use self::backend::{Backend, RecordingBackend};
pub use self::config::{ConntrackConfig, Family, NodePortAddresses, ProxyConfig};
pub use self::error::Error;
pub use self::health::ProxyHealth;
pub use self::metrics::ProxyMetrics;
pub use self::nft::NftBackend;
pub use self::proxy::{Proxy, ProxyBuilder};
