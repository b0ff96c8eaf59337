//! What an operator asks of a store beside reads and writes.

use async_trait::async_trait;
use orlop_core::store::StoreError;

/// How much room a store takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreSize {
    /// Bytes on disk; in memory for a store that has no disk.
    pub total: u64,
    /// How many of them are needed by the state that there is. [`Upkeep::defragment`] gives the others back.
    pub in_use: u64,
}

/// What an operator can ask of a store. The etcd server answers its maintenance calls with it.
#[async_trait]
pub trait Upkeep: Send + Sync + 'static {
    /// How much room it takes.
    fn size(&self) -> StoreSize;

    /// Gives room back that nothing needs any more. Reads and writes go on meanwhile.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`], [`StoreError::Unavailable`]: nothing was lost.
    async fn defragment(&self) -> Result<(), StoreError>;
}
