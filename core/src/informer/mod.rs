//! Local copies of collections, kept up to date by watches.
//!
//! A [`Reflector`] lists a collection, then watches it, and writes what it learns into a [`DeltaFifo`]. A [`SharedInformer`]
//! drains that queue into an [`Indexer`], which anybody may read at any time, and tells its [`Subscription`]s. An
//! [`InformerFactory`] hands out one informer for each collection, so that ten controllers that look at pods share one watch
//! and one copy.
//!
//! ```
//! use std::sync::Arc;
//! use orlop_core::env::{SimEnv, TaskGroup};
//! use orlop_core::informer::{InformerFactory, Notice};
//! use orlop_core::resource::Resource;
//! use orlop_core::testing::FakeApi;
//! use serde_json::json;
//!
//! const PODS: Resource = Resource::namespaced("", "v1", "pods", "Pod");
//! let sim = SimEnv::new(1);
//! let env = sim.env();
//! sim.block_on(async move {
//!     let api = Arc::new(FakeApi::new(env.clone()));
//!     let group = TaskGroup::new(env.clone());
//!     let factory = InformerFactory::new(api.clone(), env.clone());
//!     let pods = factory.informer(&PODS);
//!     let mut changes = pods.subscribe();
//!     factory.start(&group);
//!     pods.synced().await;
//!     api.client().resource(&PODS).namespace("default").create(&json!({"metadata": {"name": "web"}})).await.unwrap();
//!     assert!(matches!(changes.next().await, Some(Notice::Added { object, .. }) if object.name() == "web"));
//!     assert_eq!(pods.indexer().len(), 1);
//!     group.shutdown().await;
//! });
//! ```

mod delta_fifo;
mod factory;
mod indexer;
mod reflector;
mod shared;
#[cfg(test)]
mod tests;

pub use self::delta_fifo::{Delta, DeltaFifo, DeltaItem, DeltaKind, Tombstone};
pub use self::factory::{InformerFactory, Scope};
pub use self::indexer::{IndexFn, Indexer, by_controller_uid, by_namespace, by_owner_uid, index};
pub use self::reflector::{Reflector, ReflectorOptions};
pub use self::shared::{HandlerSync, InformerOptions, Notice, SharedInformer, Subscription};
