//! Kubernetes' controllers, and the manager that runs any [`Controller`](orlop_core::controller::Controller).
//!
//! | module | what it does |
//! |---|---|
//! | [`manager`] | runs controllers: informers, queues, retries, metrics, leader election, shutdown |
//! | [`deployment`] | Deployments: ReplicaSets of theirs, rollouts, history |
//! | [`daemonset`] | DaemonSets: a pod on each node |
//! | [`replicaset`] | ReplicaSets: so many pods of a template |
//! | [`job`], [`ttl_after_finished`] | Jobs: pods that end, and what happens afterwards |
//! | [`endpoints`], [`endpointslice`] | which pods stand behind a Service |
//! | [`namespace`] | empties namespaces that go |
//! | [`garbage_collector`] | deletes what has lost its owners, cascades deletions |
//! | [`serviceaccount`], [`root_ca`] | what every namespace has |
//! | [`node_lifecycle`] | nodes that are not heard of, their taints, evictions |
//! | [`node_ipam`] | every node's range of pod addresses |
//! | [`certificates`], [`bootstrap_token`] | how machines join: requests for certificates, tokens |
//! | [`pod_gc`] | pods that nobody will clean up |
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//! use orlop_controllers::manager::{ControllerManager, FixedCatalog};
//! use orlop_core::client::Client;
//! use orlop_core::env::{SimEnv, TaskGroup};
//! use orlop_core::resource::Resource;
//! use orlop_core::testing::FakeApi;
//! use serde_json::json;
//!
//! const NAMESPACES: Resource = Resource::cluster("", "v1", "namespaces", "Namespace");
//! const ACCOUNTS: Resource = Resource::namespaced("", "v1", "serviceaccounts", "ServiceAccount");
//! let sim = SimEnv::new(1);
//! let env = sim.env();
//! sim.block_on(async move {
//!     let api = FakeApi::new(env.clone());
//!     let client = api.client();
//!     let manager = ControllerManager::builder(move |_identity| client.clone(), env.clone())
//!         .catalog(FixedCatalog::new([NAMESPACES, ACCOUNTS]))
//!         .with_defaults()
//!         .build()
//!         .unwrap();
//!     let group = TaskGroup::new(env.clone());
//!     let stop = group.token();
//!     group.spawn("controller-manager", async move { manager.run(&stop).await });
//!     api.client().resource(&NAMESPACES).create(&json!({"metadata": {"name": "team"}})).await.unwrap();
//!     env.sleep(Duration::from_secs(5)).await;
//!     assert!(api.object(&ACCOUNTS, "team", "default").is_some());
//!     group.shutdown().await;
//! });
//! ```

pub mod bootstrap_token;
pub mod certificates;
mod common;
pub mod daemonset;
pub mod deployment;
pub mod endpoints;
pub mod endpointslice;
pub mod garbage_collector;
pub mod job;
pub mod manager;
pub mod namespace;
pub mod node_ipam;
pub mod node_lifecycle;
pub mod pod_gc;
pub mod replicaset;
pub mod root_ca;
pub mod serviceaccount;
#[cfg(test)]
mod testing;
pub mod ttl_after_finished;
