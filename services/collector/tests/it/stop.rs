//! The order to stop: what is being stored is finished, nothing false is recorded.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tsujiban_collector::outcome::Outcome;

use crate::world::{World, changed};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_being_stored_is_finished() {
    let mut world = World::new();
    world.backup.held().slow = Duration::from_secs(4);
    world.add(&World::router("storing")).await;
    for name in ["silent-1", "silent-2"] {
        let address = world.address();
        world.wires.routers.insert((address, 22).into(), None);
        world.declare(name, &address.to_string());
    }
    world.limits.idle = Duration::from_secs(20);
    let stop = CancellationToken::new();
    let order = async {
        sleep(Duration::from_secs(3)).await;
        stop.cancel();
        Instant::now()
    };
    let (finished, ordered) = tokio::join!(world.run_until(&stop), order);
    assert!(ordered.elapsed() < Duration::from_secs(5), "{:?}", ordered.elapsed());
    assert!(changed(&finished, "storing"));
    for name in ["silent-1", "silent-2"] {
        assert_eq!(finished[name].outcome, Outcome::Interrupted);
    }
    assert!(world.backup.held().attempts.is_empty());
}
