//! Retries failures that pass by themselves, such as those of a database, a storage or a service that starts at the same time.

use std::error::Error;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tsujiban_core::backoff::Backoff;
use tsujiban_core::error::chain;

/// How often something that cannot be reached is tried at the start, and how long to wait between tries: two minutes in all.
const TRIES: u32 = 60;
const PAUSE: Backoff = Backoff::constant(Duration::from_secs(2));

/// The last failure: nothing is tried after it.
#[derive(Debug)]
pub struct GivenUp<E> {
    pub error: E,
    /// Whether there would have been another try if it had not been told to stop.
    pub is_stopped: bool,
}

/// How something is tried again.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    backoff: Backoff,
    limit: Limit,
}

/// After which failure nothing is tried again.
#[derive(Debug, Clone, Copy)]
enum Limit {
    Tries(u32),
    Until(Instant),
}

impl Retry {
    /// At most so many tries in all.
    pub const fn times(tries: u32, backoff: Backoff) -> Self {
        Self { backoff, limit: Limit::Tries(tries) }
    }

    /// As long as a try fails before this moment.
    pub const fn until(moment: Instant, backoff: Backoff) -> Self {
        Self { backoff, limit: Limit::Until(moment) }
    }

    /// Tries until it succeeds, fails permanently, or reaches its limit. `draw` makes the waits random ([`Backoff::jittered`]).
    pub async fn run<T, E>(
        self,
        draw: impl Fn(u64) -> u64,
        attempt: impl AsyncFnMut() -> Result<T, E>,
        is_transient: impl Fn(&E) -> bool,
    ) -> Result<T, E> {
        let never = CancellationToken::new();
        self.run_until(&never, draw, attempt, is_transient).await.map_err(|last| last.error)
    }

    /// The same, unless it is told to stop while it waits for the next try. A try itself is not cut off.
    pub async fn run_until<T, E>(
        self,
        stop: &CancellationToken,
        draw: impl Fn(u64) -> u64,
        mut attempt: impl AsyncFnMut() -> Result<T, E>,
        is_transient: impl Fn(&E) -> bool,
    ) -> Result<T, GivenUp<E>> {
        let mut failures = 0_u32;
        loop {
            let error = match attempt().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let is_last = match self.limit {
                Limit::Tries(tries) => failures.saturating_add(1) >= tries,
                Limit::Until(moment) => Instant::now() >= moment,
            };
            if is_last || !is_transient(&error) {
                return Err(GivenUp { error, is_stopped: false });
            }
            tokio::select! {
                () = stop.cancelled() => return Err(GivenUp { error, is_stopped: true }),
                () = tokio::time::sleep(self.backoff.jittered(failures, &draw)) => {}
            }
            failures = failures.saturating_add(1);
        }
    }
}

/// For [`Retry`]: waits are exactly as long as the back-off says.
pub fn no_jitter(_most: u64) -> u64 {
    0
}

/// Why something did not start.
#[derive(Debug, thiserror::Error)]
pub enum NotStarted<E: Error + 'static> {
    #[error("told to stop while waiting for the database or the storage")]
    Stopped,
    #[error(transparent)]
    Failed(E),
}

/// Tries until it succeeds, fails permanently, or has been tried for two minutes.
pub async fn retry_startup<T, E: Error + 'static>(
    stop: &CancellationToken,
    attempt: impl AsyncFn() -> Result<T, E>,
    is_transient: fn(&E) -> bool,
) -> Result<T, NotStarted<E>> {
    let is_waited_for = |error: &E| {
        let waits = is_transient(error);
        if waits {
            tracing::warn!(error = chain(error), "waiting");
        }
        waits
    };
    let done = Retry::times(TRIES, PAUSE).run_until(stop, no_jitter, attempt, is_waited_for).await;
    done.map_err(|last| if last.is_stopped { NotStarted::Stopped } else { NotStarted::Failed(last.error) })
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

    #[tokio::test(start_paused = true)]
    async fn trying_ends_by_its_limit() {
        let second = Duration::from_secs(1);
        let (begun, tries) = (Instant::now(), Cell::new(0));
        let refused = async || {
            tries.set(tries.get() + 1);
            Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionRefused))
        };
        let few = Retry::times(3, Backoff::new(second, second * 60));
        few.run(|most| most, refused, is_refused).await.unwrap_err();
        assert_eq!((tries.replace(0), begun.elapsed().as_secs()), (3, 2 + 4), "no wait follows the last try");
        Retry::until(Instant::now() + second * 3, Backoff::constant(second)).run(no_jitter, refused, is_refused).await.unwrap_err();
        assert_eq!(tries.get(), 4, "one at once, and one a second");
    }
}
