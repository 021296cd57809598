//! Two replicas never write at once.
//!
//! A replica leads until a time that it computes itself, and another one takes over only [`SPARE`] and [`TRANSIT`] later. The fence ensures
//! that no write happens after that. It passes a write only before the replica's time is over, checked when the bytes are sent (a process
//! that was paused in between sends nothing when it resumes). Each write carries a deadline for the apiserver, so that one that waits in a
//! queue there is not carried out later. The kernel gives up on bytes that are not acknowledged. A replica that releases the lease early
//! waits for the answers to its writes.

mod stream;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

pub use stream::{Fenced, FencedStream};

/// How long sent bytes may stay unacknowledged. The kernel then closes the connection.
pub const TRANSIT: Duration = Duration::from_secs(3);
/// How long the server may work on a write after this replica's right to lead has expired. With [`TRANSIT`], a third of the lease's time to
/// live.
pub const SPARE: Duration = Duration::from_secs(2);

const OPEN: u64 = u64::MAX;

/// Passes writes while this replica leads. Clones share the state.
#[derive(Debug, Clone)]
pub struct Fence(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    start: Instant,
    /// In milliseconds since the start; 0 is shut.
    until: AtomicU64,
    traffic: Mutex<Traffic>,
    answered: Notify,
}

#[derive(Debug, Default)]
struct Traffic {
    closing: bool,
    under_way: usize,
    /// Until when a write may still take effect whose answer did not arrive.
    uncertain: Option<Instant>,
}

impl Fence {
    fn at(until: u64) -> Self {
        Self(Arc::new(Shared { start: Instant::now(), until: AtomicU64::new(until), traffic: Mutex::default(), answered: Notify::new() }))
    }

    /// A fence that passes nothing until [`lead`](Self::lead) is called.
    pub fn shut() -> Self {
        Self::at(0)
    }

    /// A fence that passes everything for ever, for use where no other replica could lead.
    pub fn open() -> Self {
        Self::at(OPEN)
    }

    /// Sets until when this replica leads; `None` when it does not.
    pub fn lead(&self, until: Option<Instant>) {
        let until = until.map_or(0, |until| u64::try_from(until.duration_since(self.0.start).as_millis()).unwrap_or(0));
        self.0.until.store(until, Ordering::SeqCst);
    }

    /// How long bytes may still be sent.
    pub fn left(&self) -> Duration {
        match self.0.until.load(Ordering::SeqCst) {
            OPEN => Duration::MAX,
            until => Duration::from_millis(until).saturating_sub(self.0.start.elapsed()),
        }
    }

    /// Whether bytes may be sent now.
    pub fn is_open(&self) -> bool {
        !self.left().is_zero()
    }

    /// Begins a write on which the server may work for at most `patience`, and less when less time is left. `None`: the fence is shut, and
    /// stays so, since this process is about to end.
    pub fn enter(&self, patience: Duration) -> Option<Pass> {
        let left = self.left();
        let mut traffic = self.traffic();
        if left.is_zero() || traffic.closing {
            return None;
        }
        traffic.under_way += 1;
        let deadline = patience.min(left.saturating_add(SPARE));
        Some(Pass { fence: self.clone(), deadline, settled: Instant::now() + TRANSIT + deadline, is_settled: false })
    }

    /// Passes no new write, and waits until all begun ones are answered or can no longer take effect. Returns whether they are, so that
    /// another replica may lead.
    pub async fn drain(&self, limit: Duration) -> bool {
        self.traffic().closing = true;
        let until = Instant::now() + limit;
        loop {
            let answered = self.0.answered.notified();
            let wait = {
                let traffic = self.traffic();
                match (traffic.under_way, traffic.uncertain.filter(|uncertain| *uncertain > Instant::now())) {
                    (0, None) => return true,
                    (0, Some(uncertain)) => uncertain.min(until),
                    _ => until,
                }
            };
            let _either = timeout_at(wait, answered).await;
            if Instant::now() >= until {
                let traffic = self.traffic();
                return traffic.under_way == 0 && traffic.uncertain.is_none_or(|uncertain| uncertain <= Instant::now());
            }
        }
    }

    fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.0.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A write in progress.
#[derive(Debug)]
pub struct Pass {
    fence: Fence,
    /// How long the server may work on it.
    pub deadline: Duration,
    settled: Instant,
    is_settled: bool,
}

impl Pass {
    /// Waits for the answer, for as long as the server may take. `is_final` distinguishes an answer, or a request that was never sent, from
    /// a broken connection.
    pub async fn answer<T>(mut self, answer: impl Future<Output = T>, is_final: impl FnOnce(&T) -> bool) -> Option<T> {
        let answer = timeout(TRANSIT.saturating_add(self.deadline), answer).await.ok();
        self.is_settled = answer.as_ref().is_some_and(is_final);
        answer
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut traffic = self.fence.traffic();
        traffic.under_way = traffic.under_way.saturating_sub(1);
        if !self.is_settled {
            traffic.uncertain = traffic.uncertain.max(Some(self.settled));
        }
        self.fence.0.answered.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;
    use crate::lease::TTL;

    const S: Duration = Duration::from_secs(1);
    const SHORT: Duration = Duration::from_millis(100);

    /// What was let through in the last moment has happened, or never will, before another one leads.
    #[test]
    fn the_margin_is_that_of_the_lease() {
        assert_eq!(SPARE + TRANSIT, TTL / 3);
    }

    #[tokio::test]
    async fn nothing_passes_before_and_after() {
        let fence = Fence::shut();
        assert!(fence.enter(S).is_none());
        fence.lead(Some(Instant::now() + S * 10));
        let deadline = fence.enter(S * 60).unwrap().deadline;
        assert!(deadline > S * 9 + SPARE && deadline <= S * 10 + SPARE, "{deadline:?}");
        assert_eq!(fence.enter(S).unwrap().deadline, S);
        fence.lead(Some(Instant::now() + SHORT));
        sleep(SHORT).await;
        assert!(!fence.is_open() && fence.enter(S).is_none());
        fence.lead(Some(Instant::now() + S));
        fence.lead(None);
        assert!(!fence.is_open() && fence.enter(S).is_none());
    }

    #[tokio::test]
    async fn handing_over_waits_for_answers() {
        let fence = Fence::open();
        let slow = tokio::spawn(fence.enter(S * 20).unwrap().answer(sleep(SHORT * 2), |()| true));
        assert!(!fence.drain(SHORT).await, "it is not answered yet");
        assert!(fence.enter(S).is_none(), "nothing begins any more");
        assert!(fence.drain(S).await);
        assert_eq!(slow.await.unwrap(), Some(()));
    }

    /// A request that was given up may still be worked on.
    #[tokio::test]
    async fn a_write_without_an_answer_is_waited_for() {
        let fence = Fence::open();
        drop(fence.enter(S * 4).unwrap());
        assert!(!fence.drain(SHORT).await);
        let fence = Fence::open();
        let mut pass = fence.enter(S).unwrap();
        pass.settled = Instant::now() + SHORT;
        assert_eq!(pass.answer(async {}, |()| false).await, Some(()));
        assert!(fence.drain(S).await, "by then it has happened or never will");
    }
}
