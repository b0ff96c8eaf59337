//! The API with types: [`Api`] and [`Informer`] over `orlop-core`'s untyped client and informers.
//!
//! A [`Kind`] is any type that `k8s-openapi` or kube's `#[derive(CustomResource)]` makes. Objects are decoded once, however many
//! readers ask for them.
//!
//! ```
//! use k8s_openapi::api::core::v1::ConfigMap;
//! use orlop_api::typed::Api;
//! # use orlop_core::env::SimEnv;
//! # use orlop_core::testing::FakeApi;
//!
//! # let sim = SimEnv::new(1);
//! # let env = sim.env();
//! # sim.block_on(async move {
//! # let client = std::sync::Arc::new(FakeApi::new(env)).client();
//! let maps = Api::<ConfigMap>::namespaced(client, "default");
//! let mut map = ConfigMap::default();
//! map.metadata.name = Some("settings".into());
//! map.data = Some([("colour".into(), "green".into())].into());
//! maps.create(&map).await?;
//! assert_eq!(maps.get("settings").await?.data, map.data);
//! # Ok::<(), orlop_core::status::Status>(())
//! # }).unwrap();
//! ```

mod api;
mod informer;
#[cfg(test)]
mod tests;

use kube_core::{ClusterResourceScope, NamespaceResourceScope};
use orlop_core::resource::Resource;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::api::{Api, Event, List};
pub use self::informer::{Informer, Notice, Subscription};

/// A Rust type that is a kind of the API. There is nothing to implement: every type has it that is a `kube_core::Resource` known
/// at compile time, as `k8s-openapi`'s types are and those of `#[derive(CustomResource)]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no kind of the Kubernetes API",
    note = "use a type of `k8s-openapi`, or derive `kube::CustomResource`"
)]
pub trait Kind: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The resource whose objects it describes.
    fn resource() -> Resource;
}

/// Whether objects live in a namespace, said by a type.
pub trait Scope: private::Sealed {
    /// Whether they do.
    const NAMESPACED: bool;
}

impl Scope for ClusterResourceScope {
    const NAMESPACED: bool = false;
}

impl Scope for NamespaceResourceScope {
    const NAMESPACED: bool = true;
}

mod private {
    pub trait Sealed {}
    impl Sealed for kube_core::ClusterResourceScope {}
    impl Sealed for kube_core::NamespaceResourceScope {}
}

impl<K> Kind for K
where
    K: kube_core::Resource<DynamicType = ()> + Serialize + DeserializeOwned + Send + Sync + 'static,
    K::Scope: Scope,
{
    fn resource() -> Resource {
        Resource {
            group: K::group(&()).into_owned().into(),
            version: K::version(&()).into_owned().into(),
            plural: K::plural(&()).into_owned().into(),
            kind: K::kind(&()).into_owned().into(),
            namespaced: K::Scope::NAMESPACED,
        }
    }
}
