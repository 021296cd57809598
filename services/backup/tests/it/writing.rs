//! A database or a storage that fails: callers are told before anything is left behind, and the service goes on by itself.

use jiff::SignedDuration;
use tonic::Code;
use tsujiban_database::testing::{Fault, Faults};
use tsujiban_objects::list_all;
use tsujiban_proto::error::ServiceError;
use tsujiban_service::writing::Place;

use crate::stage::{Disk, OPERATOR, Stage, config};

async fn faults(stage: &Stage) -> Faults {
    match &stage.world.disk {
        Disk::Sqlite(_) => Faults::sqlite(stage.catalogue.database().clone()),
        Disk::Postgres(fresh) => Faults::postgres(fresh.get().unwrap()).await,
    }
}

/// What the service's job does every few seconds.
async fn tried_again(stage: &Stage) {
    stage.backup.try_write().await.unwrap();
    stage.backup.writing.works(Place::Database);
}

/// Every statement and every COMMIT of taking configs in, preparing, erasing, rotating, forgetting and rebuilding.
#[tokio::test]
async fn after_any_fault_the_next_call_works() {
    let stage = Stage::prepared().await;
    let faults = faults(&stage).await;
    let mut steps = 0_u32;
    for fault in Fault::ALL {
        let mut nth = 1;
        loop {
            steps += 1;
            let (group, device) = (format!("group-{steps}"), format!("SN{steps}"));
            let mut struck = false;
            let what = format!("{fault:?} {nth}");

            faults.arm(fault, nth).await;
            let _ = stage.prepare(&group).await;
            struck |= faults.disarm().await;
            tried_again(&stage).await;
            let incarnation = stage.prepare(&group).await.unwrap_or_else(|error| panic!("{what}: prepare: {error}"));

            faults.arm(fault, nth).await;
            let _ = stage.put("acme", &device, &config("one")).await;
            struck |= faults.disarm().await;
            tried_again(&stage).await;
            stage.put("acme", &device, &config("one")).await.unwrap_or_else(|error| panic!("{what}: put: {error}"));
            stage.put("acme", &device, &config("one")).await.unwrap_or_else(|error| panic!("{what}: put again: {error}"));

            faults.arm(fault, nth).await;
            let _ = stage.erase(OPERATOR, &group, &incarnation, "").await;
            struck |= faults.disarm().await;
            tried_again(&stage).await;
            stage.erase(OPERATOR, &group, &incarnation, "").await.unwrap_or_else(|error| panic!("{what}: erase: {error}"));
            if !struck {
                break;
            }
            nth += 1 + nth / 3;
        }
    }
    for nth in [1, 2, 3, 5, 9] {
        for fault in Fault::ALL {
            stage.advance(SignedDuration::from_hours(25));
            let epochs = [stage.world.epoch()];
            faults.arm(fault, nth).await;
            let _ = stage.backup.rotate_keys(&epochs).await;
            let _ = stage.backup.expire().await;
            let _ = stage.backup.rebuild().await;
            faults.disarm().await;
            tried_again(&stage).await;
            stage.backup.rotate_keys(&epochs).await.unwrap();
            stage.backup.expire().await.unwrap();
            stage.backup.rebuild().await.unwrap();
        }
    }
    assert!(stage.put("acme", "SN1", &config("two")).await.unwrap().changed);
}

/// The storage's outage leaves the service ready: it says what became of each attempt.
#[tokio::test]
async fn a_storage_that_takes_nothing_is_reported_until_it_does() {
    let stage = Stage::prepared().await;
    stage.put("acme", "SN1", &config("one")).await.unwrap();
    assert!(stage.report().await.writing.unwrap().able);
    stage.world.memory.set_outage(Some("no route"));
    stage.put("acme", "SN1", &config("two")).await.unwrap_err();
    let told = stage.report().await.writing.unwrap();
    assert!(!told.able && told.reason.contains("no route"), "{told:?}");
    assert!(stage.backup.writing.is_ready());
    stage.backup.try_write().await.unwrap();
    assert!(!stage.report().await.writing.unwrap().able);
    stage.world.memory.set_outage(None);
    // nobody has to store anything for it
    stage.backup.try_write().await.unwrap();
    assert!(stage.report().await.writing.unwrap().able);
    assert!(list_all(&*stage.world.memory, "canary/").await.unwrap().iter().all(|entry| !entry.key.ends_with("-put")));
}

/// A database that fails makes every call before the next successful write end before it puts an object, which would be in no catalogue.
#[tokio::test]
async fn no_object_is_left_behind_while_nothing_can_be_written() {
    let stage = Stage::prepared().await;
    stage.put("acme", "SN1", &config("one")).await.unwrap();
    let objects = async || list_all(&*stage.world.memory, "v1/").await.unwrap().len();
    let faults = faults(&stage).await;
    // with SQLite the first steps are those of the connection that is prepared
    let mut nth = 1;
    let first = loop {
        faults.arm(Fault::Connection, nth).await;
        let put = stage.put("acme", &format!("SN1{nth}"), &config("two")).await;
        faults.disarm().await;
        match put {
            Ok(_) => nth += 1,
            Err(first) => break first,
        }
    };
    assert_eq!(first.code(), Code::Unavailable, "{first}");
    let before = objects().await;
    assert_eq!(before, usize::try_from(nth).unwrap(), "that of SN1, and of each that was stored");
    for n in 0..5 {
        let refused = stage.put("acme", "SN2", &config(&n.to_string())).await.unwrap_err();
        assert_eq!(ServiceError::from(&refused).reason, "CANNOT_WRITE", "{refused}");
        assert!(refused.message().contains("the database cannot be written"), "{refused}");
    }
    assert_eq!(objects().await, before);
    let told = stage.report().await.writing.unwrap();
    assert!(!told.able && !stage.backup.writing.is_ready());
    // reading goes on
    assert_eq!(stage.list("acme", "SN1").await.unwrap().len(), 1);
    tried_again(&stage).await;
    assert!(stage.put("acme", "SN2", &config("two")).await.unwrap().changed);
}
