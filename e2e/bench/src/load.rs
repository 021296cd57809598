//! Callers who want something done: as fast as they get answers, or at a pace of their own.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;

/// Each of the callers does its own work in order, one thing after the other, at the same time as all others. Answers how long it took until
/// the last one was done.
pub async fn closed<W, F>(work: Vec<Vec<W>>, call: impl Fn(usize, W) -> F + Clone + Send + 'static) -> Result<Duration>
where
    W: Send + 'static,
    F: Future<Output = Result<()>> + Send,
{
    let begun = Instant::now();
    let mut callers = JoinSet::new();
    for (caller, work) in work.into_iter().enumerate() {
        let call = call.clone();
        callers.spawn(async move {
            for item in work {
                call(caller, item).await?;
            }
            Ok::<_, anyhow::Error>(())
        });
    }
    while let Some(done) = callers.join_next().await {
        done??;
    }
    Ok(begun.elapsed())
}

/// One call every so often, whether or not those before were answered. Answers how long after its time each was answered: who has to wait
/// for a turn has waited, too.
pub async fn paced<W, F>(work: Vec<W>, every: Duration, call: impl Fn(usize, W) -> F) -> Result<Vec<Duration>>
where
    W: Send + 'static,
    F: Future<Output = Result<()>> + Send + 'static,
{
    let mut calls = JoinSet::new();
    let mut due = tokio::time::Instant::now();
    for (number, item) in work.into_iter().enumerate() {
        tokio::time::sleep_until(due).await;
        let (running, since) = (call(number, item), due);
        calls.spawn(async move {
            running.await?;
            Ok::<_, anyhow::Error>(since.elapsed())
        });
        due += every;
    }
    let mut took = Vec::new();
    while let Some(done) = calls.join_next().await {
        took.push(done??);
    }
    Ok(took)
}
