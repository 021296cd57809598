//! Work that a service does by itself, again and again.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Runs a job at once, and again after the time that it returns, until `stop` is cancelled.
pub async fn repeat<F: Future<Output = Duration>>(stop: &CancellationToken, job: impl Fn() -> F) {
    loop {
        let wait = job().await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// How often a check that reads everything begins at most.
const CHECK_EVERY: Duration = Duration::from_mins(1);

/// How long a check that reads everything pauses after a run that took `took`: it runs for at most a hundredth of the time, so that a small
/// database is checked every minute and a large one is not slowed down.
pub fn rest_after(took: Duration) -> Duration {
    CHECK_EVERY.max(took.saturating_mul(100))
}

/// Runs jobs that may be aborted at any moment when `stop` is cancelled, such as a long read.
pub async fn interrupted(stop: &CancellationToken, jobs: impl Future<Output = ()>) {
    tokio::select! {
        () = jobs => {}
        () = stop.cancelled() => {}
    }
}

/// Logs why a job failed. It is tried again: no failure ends the process.
pub fn report<T>(job: &str, result: Result<T, String>) {
    if let Err(error) = result {
        tracing::error!(job, error, "a job failed; it is tried again");
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_check_has_a_hundredth_of_the_time() {
        assert_eq!(rest_after(Duration::from_millis(20)), Duration::from_mins(1));
        assert_eq!(rest_after(Duration::from_secs(30)), Duration::from_mins(50));
    }

    #[tokio::test]
    async fn a_long_reading_does_not_hold_up_the_end() {
        let stop = CancellationToken::new();
        stop.cancel();
        interrupted(&stop, std::future::pending()).await;
    }

    #[tokio::test]
    async fn a_job_runs_until_it_is_told_to_stop_and_is_not_cut_off() {
        let (stop, begun, ended) = (CancellationToken::new(), Cell::new(0), Cell::new(0));
        repeat(&stop, || async {
            begun.set(begun.get() + 1);
            if begun.get() == 3 {
                stop.cancel();
            }
            tokio::task::yield_now().await;
            ended.set(ended.get() + 1);
            Duration::from_millis(1)
        })
        .await;
        assert_eq!((begun.get(), ended.get()), (3, 3));
    }
}
