//! Waits for what happens asynchronously.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

const LOOK: Duration = Duration::from_millis(50);

/// Calls `look` until it returns something, for at most `limit`. An error counts as "not yet"; an error of the last call is returned.
pub async fn until<T, F>(what: &str, limit: Duration, mut look: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let start = Instant::now();
    loop {
        let last = match look().await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if start.elapsed() > limit {
            match last {
                Some(error) => return Err(error.context(format!("waited {limit:?} for: {what}"))),
                None => bail!("waited {limit:?} for: {what}"),
            }
        }
        sleep(LOOK).await;
    }
}
