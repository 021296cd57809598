//! Epochs: old copies of the key table open nothing once the old epoch key is gone.

use jiff::SignedDuration;
use tsujiban_backup::error::Error;
use tsujiban_backup::keys;
use tsujiban_sealing::{KeyError, Keyring};

use crate::stage::{STAFF, Stage, config};

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// C22, C24: after a rotation both wrappings stay for 24 hours, then the old epoch key is not needed any more, and with it go
/// all copies of the database from before.
#[tokio::test]
async fn an_old_copy_of_the_database_opens_nothing_after_a_rotation() {
    let stage = Stage::prepared().await;
    let id = stage.put("acme", "SN1", &config("one")).await.unwrap().snapshot.unwrap().id;
    let old_epoch = stage.epochs[0].clone();
    let (world, epochs) = stage.stop().await;
    let copy = world.disk.copy().await;
    let store = world.memory.clone();
    let mut stage = world.try_start(epochs, store).await.unwrap();

    stage.advance(DAY);
    let new_epoch = stage.world.epoch();
    stage.epochs.push(new_epoch.clone());
    stage.backup.rotate_keys(&stage.epochs).await.unwrap();
    assert_eq!(stage.report().await.epochs_in_use.len(), 2);
    assert_eq!(stage.get(STAFF, "acme", &id, true).await.unwrap(), config("one"));

    stage.advance(DAY - SignedDuration::from_secs(1));
    stage.backup.rotate_keys(&stage.epochs).await.unwrap();
    assert_eq!(stage.report().await.epochs_in_use.len(), 2, "not before 24 hours");
    stage.advance(SignedDuration::from_secs(1));
    stage.backup.rotate_keys(&stage.epochs).await.unwrap();
    assert_eq!(stage.report().await.epochs_in_use, [new_epoch.id.to_string()]);

    // the operator destroys the old epoch key
    stage.epochs = vec![new_epoch.clone()];
    stage.backup.rotate_keys(&stage.epochs).await.unwrap();
    assert_eq!(stage.get(STAFF, "acme", &id, true).await.unwrap(), config("one"));
    let old = copy.catalogue().await;
    let table = old.key_table().await.unwrap();
    assert_eq!(table.len(), 3, "two groups and a device");
    let now = Keyring::new(stage.world.master.clone(), &[new_epoch]).unwrap();
    for key in &table {
        assert!(matches!(keys::unwrap(&now, std::slice::from_ref(key)), Err(KeyError::EpochMissing(_))));
    }
    let then = Keyring::new(stage.world.master.clone(), &[old_epoch]).unwrap();
    assert!(table.iter().all(|key| keys::unwrap(&then, std::slice::from_ref(key)).is_ok()), "the control: it was the epoch key");

    let stage = stage.restart().await;
    assert_eq!(stage.get(STAFF, "acme", &id, true).await.unwrap(), config("one"));
}

#[tokio::test]
async fn without_an_epoch_key_everything_stays_as_it_was() {
    let stage = Stage::prepared().await;
    assert!(matches!(stage.backup.rotate_keys(&[]).await, Err(Error::Key(KeyError::NoEpoch))));
    stage.put("acme", "SN1", &config("one")).await.unwrap();
}
