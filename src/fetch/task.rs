//! Work beside the tasks of the runtime.

use crate::error::{Error, Result};

/// Runs what blocks on a thread for such work.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(broken_task)?
}

/// A panic goes on in the task that waited for it; the only other cause is a runtime that ends.
fn broken_task(error: tokio::task::JoinError) -> Error {
    match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(error) => Error::Io {
            action: "go on with",
            path: "the pull".into(),
            source: std::io::Error::other(error),
        },
    }
}
