//! Calls that wait for a disk or a mount.

/// Does something that blocks, on a thread for such where there is a tokio runtime, else here (as in a simulation, which has none).
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else {
        return work();
    };
    match runtime.spawn_blocking(work).await {
        Ok(value) => value,
        // The work is never cancelled, so it panicked: so does who waits for it.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
