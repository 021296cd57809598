//! A start that waits for what starts at the same time, such as a database or a storage.

use std::error::Error;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tsujiban_core::error::chain;

/// How often something that cannot be reached is tried, and how long to wait between tries: two minutes in all.
const TRIES: u32 = 60;
const PAUSE: Duration = Duration::from_secs(2);

/// Why something did not come to be.
#[derive(Debug, thiserror::Error)]
pub enum NotStarted<E: Error + 'static> {
    #[error("told to stop while waiting for the database or the storage")]
    Stopped,
    #[error(transparent)]
    Failed(E),
}

/// Tries until it succeeds, fails of something that does not pass by itself, or has been tried for two minutes.
pub async fn retry_startup<T, E: Error + 'static>(
    stop: &CancellationToken,
    attempt: impl AsyncFn() -> Result<T, E>,
    is_transient: fn(&E) -> bool,
) -> Result<T, NotStarted<E>> {
    for _ in 1..TRIES {
        match attempt().await {
            Err(error) if is_transient(&error) => tracing::warn!(error = chain(&error), "waiting"),
            done => return done.map_err(NotStarted::Failed),
        }
        tokio::select! {
            () = stop.cancelled() => return Err(NotStarted::Stopped),
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
    attempt().await.map_err(NotStarted::Failed)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io;

    use super::*;

    fn is_refused(error: &io::Error) -> bool {
        error.kind() == io::ErrorKind::ConnectionRefused
    }

    #[tokio::test]
    async fn only_what_passes_by_itself_is_waited_for() {
        let (stop, tries) = (CancellationToken::new(), Cell::new(0));
        let second = retry_startup(
            &stop,
            async || {
                tries.set(tries.get() + 1);
                if tries.get() == 1 { Err(io::ErrorKind::ConnectionRefused.into()) } else { Ok(tries.get()) }
            },
            is_refused,
        );
        assert_eq!(second.await.unwrap(), 2);
        let damaged = retry_startup(&stop, async || Err::<(), _>(io::Error::other("damaged")), is_refused).await.unwrap_err();
        assert_eq!(damaged.to_string(), "damaged");
    }

    #[tokio::test]
    async fn whoever_waits_can_be_told_to_stop() {
        let stop = CancellationToken::new();
        stop.cancel();
        let refused = async || Err::<(), io::Error>(io::ErrorKind::ConnectionRefused.into());
        assert!(matches!(retry_startup(&stop, refused, is_refused).await, Err(NotStarted::Stopped)));
    }
}
