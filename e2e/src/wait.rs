//! Waits for asynchronous work of a control plane.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// How long the control plane may take for anything.
pub const SOON: Duration = Duration::from_mins(1);

/// Asks again and again until the answer is `Ok(Some(_))`. Fails with the last answer when the time is over.
pub async fn until<T, F, Fut>(what: &str, limit: Duration, mut ask: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Option<T>>>,
{
    let end = Instant::now() + limit;
    loop {
        let answer = ask().await;
        match answer {
            Ok(Some(found)) => return Ok(found),
            Ok(None) if Instant::now() >= end => bail!("not within {limit:?}: {what}"),
            Err(error) if Instant::now() >= end => return Err(error.context(format!("not within {limit:?}: {what}"))),
            Ok(None) | Err(_) => sleep(Duration::from_millis(300)).await,
        }
    }
}

/// Checks that an answer stays the same for a while.
pub async fn stays<T, F, Fut>(what: &str, time: Duration, mut ask: F) -> Result<()>
where
    T: PartialEq + Debug,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let first = ask().await?;
    let end = Instant::now() + time;
    while Instant::now() < end {
        sleep(Duration::from_millis(500)).await;
        let now = ask().await?;
        if now != first {
            bail!("{what} changed from {first:?} to {now:?}");
        }
    }
    Ok(())
}
