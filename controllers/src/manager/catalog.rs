//! Which resources the API has.

use async_trait::async_trait;
use orlop_core::resource::Resource;
use orlop_core::status::Status;

/// Knows which resources the API has at the moment. Who composes a control plane answers from discovery.
#[async_trait]
pub trait Catalog: Send + Sync + 'static {
    /// All resources (no subresources) in their preferred version whose objects can be listed, watched and deleted.
    ///
    /// # Errors
    /// Why it cannot tell. Who asks will ask again, and do nothing in between that needs the whole answer.
    async fn resources(&self) -> Result<Vec<Resource>, Status>;
}

/// A catalog that never changes.
#[derive(Clone, Debug)]
pub struct FixedCatalog(Vec<Resource>);

impl FixedCatalog {
    /// A catalog of these resources.
    pub fn new(resources: impl IntoIterator<Item = Resource>) -> Self {
        Self(resources.into_iter().collect())
    }
}

#[async_trait]
impl Catalog for FixedCatalog {
    async fn resources(&self) -> Result<Vec<Resource>, Status> {
        Ok(self.0.clone())
    }
}
