//! Ending pods that nobody looks after any more.

use futures::{StreamExt, TryStreamExt};
use orlop::core::runtime::{Runtime, RuntimeError, Sandbox, SandboxFilter};

/// How many are ended at a time.
const AT_ONCE: usize = 8;

/// Ends the pods that are meant, without grace: all their containers, their network, what the runtime knows of them.
pub(super) async fn end(
    runtime: &dyn Runtime,
    meant: impl Fn(&Sandbox) -> bool,
) -> Result<(), RuntimeError> {
    let mut sandboxes = runtime.sandboxes(&SandboxFilter::default()).await?;
    sandboxes.retain(meant);
    futures::stream::iter(&sandboxes)
        .map(|sandbox| async {
            runtime.stop_sandbox(&sandbox.id).await?;
            runtime.remove_sandbox(&sandbox.id).await
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}
