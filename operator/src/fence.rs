//! Two replicas never write at once.
//!
//! A replica leads until a moment that it knows by itself, and another one takes over only [`SPARE`] and [`TRANSIT`] later. The fence
//! makes sure of what lies between: a write is let through only before that moment, looked at when its bytes leave (a process that
//! was stopped in between sends nothing when it wakes); it carries a deadline for the apiserver, so that one that waits in a queue
//! there is not done later; and the kernel gives up on bytes that nobody acknowledges. Who hands over before its time waits for
//! the answers to what it wrote.

mod stream;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

pub use stream::{Fenced, FencedStream};

/// How long bytes may be under way to the other side. The kernel is told to give up then.
pub const TRANSIT: Duration = Duration::from_secs(3);
/// How long a write that arrived may go on after the right to lead ran out. With [`TRANSIT`], a third of the lease's time to live.
pub const SPARE: Duration = Duration::from_secs(2);

const OPEN: u64 = u64::MAX;

/// Lets writes through while this replica leads. Clones share what they know.
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
    /// Until when something may still happen that was sent and whose answer nobody waited for.
    uncertain: Option<Instant>,
}

impl Fence {
    fn at(until: u64) -> Self {
        Self(Arc::new(Shared { start: Instant::now(), until: AtomicU64::new(until), traffic: Mutex::default(), answered: Notify::new() }))
    }

    /// Lets nothing through until somebody leads.
    pub fn shut() -> Self {
        Self::at(0)
    }

    /// Lets everything through for ever, where there is only one that could lead.
    pub fn open() -> Self {
        Self::at(OPEN)
    }

    /// Sets until when this replica leads; `None` when it does not.
    pub fn lead(&self, until: Option<Instant>) {
        let until = until.map_or(0, |until| u64::try_from(until.duration_since(self.0.start).as_millis()).unwrap_or(0));
        self.0.until.store(until, Ordering::SeqCst);
    }

    /// How long bytes may leave from now on.
    pub fn left(&self) -> Duration {
        match self.0.until.load(Ordering::SeqCst) {
            OPEN => Duration::MAX,
            until => Duration::from_millis(until).saturating_sub(self.0.start.elapsed()),
        }
    }

    /// Whether bytes may leave now.
    pub fn is_open(&self) -> bool {
        !self.left().is_zero()
    }

    /// Begins a write that the other side works on for at most `patience`, and less when there is less time left. `None`: not now,
    /// and since this process is about to end, never.
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

    /// Begins nothing more, and waits until all that was begun is answered. Answers whether it is, and another replica may lead.
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

/// A write that is under way.
#[derive(Debug)]
pub struct Pass {
    fence: Fence,
    /// How long the other side may work on it.
    pub deadline: Duration,
    settled: Instant,
    is_settled: bool,
}

impl Pass {
    /// Waits for the answer, for as long as the other side may take. `is_final` tells an answer, or a request that never left, from
    /// a connection that broke.
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
