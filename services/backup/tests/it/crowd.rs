//! Many at the same time.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::stage::{Stage, config, device};

const DEVICES: usize = 120;

/// C23: collectors of several groups store at the same time, and everything is there: nobody is told that others were in the way, and
/// whoever follows the attempts by their cursors misses none.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_crowd_of_collectors_loses_nothing() {
    let stage = Arc::new(Stage::prepared().await);
    for round in ["first", "second", "second"] {
        let mut tasks = JoinSet::new();
        for n in 0..DEVICES {
            let stage = stage.clone();
            let group = if n % 2 == 0 { "acme" } else { "other" };
            tasks.spawn(async move {
                stage.put(group, &format!("SN{n}"), &config(&format!("{round} {n}"))).await.map(|stored| (group, n, stored))
            });
        }
        for stored in tasks.join_all().await {
            let (group, n, stored) = stored.unwrap();
            assert_eq!(stored.snapshot.unwrap().device.unwrap().serial, device(group, &format!("SN{n}")).serial);
        }
    }
    for group in ["acme", "other"] {
        let listed = stage.list(group, "").await.unwrap();
        assert_eq!(listed.len(), DEVICES, "two configs of each device, half of the devices");
        assert_eq!(listed.iter().map(|snapshot| snapshot.sightings).sum::<u64>(), DEVICES as u64 / 2 * 3);
    }
    let mut followed = BTreeSet::new();
    let (mut cursor, mut cursors) = (0, BTreeSet::new());
    loop {
        let attempts = stage.attempts(cursor).await;
        let Some(last) = attempts.last() else { break };
        cursor = last.cursor;
        cursors.extend(attempts.iter().map(|attempt| attempt.cursor));
        followed.extend(attempts.into_iter().map(|attempt| attempt.device.unwrap().serial));
    }
    assert_eq!((followed.len(), cursors.len()), (DEVICES, DEVICES));
}
