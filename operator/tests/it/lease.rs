//! Which replica leads.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kube::{Api, Client};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tsujiban_core::clock::{Clock, ManualClock};
use tsujiban_operator::fence::Fence;
use tsujiban_operator::lease::Lease;

use crate::apiserver::Apiserver;

/// Short, since these tests live through it.
const TTL: Duration = Duration::from_millis(1500);
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/system/leases/operator";

fn lease(client: Client, identity: &str) -> Arc<Lease> {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH));
    let api = Api::namespaced(client, "system");
    Arc::new(Lease { api, name: "operator".into(), identity: identity.into(), ttl: TTL, clock, fence: Fence::shut() })
}

fn start(lease: &Arc<Lease>) -> (watch::Receiver<bool>, JoinHandle<()>) {
    let (leads_in, leads) = watch::channel(false);
    let lease = Arc::clone(lease);
    (leads, tokio::spawn(async move { lease.run(leads_in).await }))
}

/// Two connections to the same apiserver, the first of which can be cut.
fn two_ways() -> (Arc<Apiserver>, Client, Client) {
    let apiserver = Arc::new(Apiserver::default());
    let (first, second) = (apiserver.client(), apiserver.client());
    (apiserver, first, second)
}

#[tokio::test]
async fn a_released_lease_is_taken_at_once() {
    let (apiserver, one, two) = two_ways();
    let (first, second) = (lease(one, "first"), lease(two, "second"));
    let (mut first_leads, task) = start(&first);
    first_leads.wait_for(|leads| *leads).await.unwrap();
    let (mut second_leads, _task) = start(&second);
    sleep(TTL * 2).await;
    assert!(*first_leads.borrow() && !*second_leads.borrow(), "a lease that is renewed stays");
    task.abort();
    first.release().await;
    let released = Instant::now();
    second_leads.wait_for(|leads| *leads).await.unwrap();
    assert!(released.elapsed() < TTL / 2);
    assert!(second.fence.is_open());
    assert_eq!(apiserver.get(LEASE).unwrap()["spec"]["holderIdentity"], "second");
}

#[tokio::test]
async fn a_holder_that_is_cut_off_gives_up_before_another_takes_over() {
    let apiserver = Arc::new(Apiserver::default());
    let first = lease(apiserver.client(), "first");
    let (mut leads, _task) = start(&first);
    leads.wait_for(|leads| *leads).await.unwrap();
    sleep(TTL).await;
    assert!(first.fence.is_open());
    apiserver.is_cut_off.store(true, Ordering::SeqCst);
    let cut = Instant::now();
    timeout(TTL, leads.wait_for(|leads| !*leads)).await.expect("the holder must give up by itself").unwrap();
    assert!(cut.elapsed() < TTL * 9 / 10, "{:?}", cut.elapsed());
    assert!(!first.fence.is_open(), "nothing it began goes on");
}

#[tokio::test]
async fn a_dead_holder_is_succeeded_after_the_time_to_live() {
    let (_apiserver, one, two) = two_ways();
    let (mut first_leads, task) = start(&lease(one, "first"));
    first_leads.wait_for(|leads| *leads).await.unwrap();
    task.abort();
    let died = Instant::now();
    let (mut second_leads, _task) = start(&lease(two, "second"));
    second_leads.wait_for(|leads| *leads).await.unwrap();
    assert!(died.elapsed() >= TTL * 9 / 10 && died.elapsed() < TTL * 2, "{:?}", died.elapsed());
}

/// The fence shuts by the clock alone: it needs no task that runs, so that a process that was stopped and goes on writes nothing.
#[tokio::test]
async fn the_fence_of_a_holder_that_does_not_run_shuts() {
    let (_apiserver, one, _) = two_ways();
    let first = lease(one, "first");
    let (mut leads, task) = start(&first);
    leads.wait_for(|leads| *leads).await.unwrap();
    task.abort();
    let left = first.fence.left();
    assert!(left <= TTL * 2 / 3, "{left:?}");
    sleep(left).await;
    assert!(!first.fence.is_open() && *leads.borrow());
}

/// A cluster that is brought back to a copy shows an older lease of the same holder: what the holder knows is void, so it begins anew.
#[tokio::test]
async fn a_holder_that_meets_an_older_lease_begins_anew() {
    let apiserver = Arc::new(Apiserver::default());
    let (mut leads, _task) = start(&lease(apiserver.client(), "first"));
    leads.wait_for(|leads| *leads).await.unwrap();
    let copy = apiserver.get(LEASE).unwrap();
    sleep(TTL).await;
    assert!(*leads.borrow(), "it renews");
    leads.mark_unchanged();
    apiserver.edit(LEASE, |lease| *lease = copy);
    timeout(TTL / 2, leads.changed()).await.expect("it must notice").unwrap();
    assert!(!*leads.borrow_and_update());
    timeout(TTL, leads.wait_for(|leads| *leads)).await.expect("it leads again").unwrap();

    apiserver.remove(LEASE);
    timeout(TTL / 2, leads.wait_for(|leads| !*leads)).await.expect("a lease that is gone was held by nobody").unwrap();
}
