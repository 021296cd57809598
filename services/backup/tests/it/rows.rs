//! Rows of the catalogue that cannot be decoded: each costs itself alone, is named, and comes back from the bucket where that has it.

use tonic::Code;
use tsujiban_backup::catalogue::{Rows, Unreadable};

use crate::stage::{OPERATOR, STAFF, Stage, config};

/// What is damaged, how, and whether it comes back by itself.
const DAMAGES: [(&str, &str); 9] = [
    ("snapshots", "UPDATE snapshots SET driver = 'no driver' WHERE id = '{id}'"),
    ("snapshots", "UPDATE snapshots SET taken_at = 9223372036854775807, seen_at = 9223372036854775807 WHERE id = '{id}'"),
    ("snapshots", "UPDATE snapshots SET bytes = -1 WHERE id = '{id}'"),
    ("devices", "UPDATE devices SET key_id = 'none' WHERE incarnation = '{device}'"),
    ("attempts", "UPDATE attempts SET reason = 'Weather' WHERE device = '{device}'"),
    ("keys", "UPDATE keys SET epoch = 'none' WHERE subject = '{device}'"),
    ("keys", "UPDATE keys SET group_incarnation = 'none' WHERE subject = '{device}'"),
    ("groups", "UPDATE groups SET prepared_at = 9223372036854775807 WHERE incarnation = '{other}'"),
    ("erasures", "UPDATE erasures SET erased_at = 9223372036854775807"),
];

/// What the jobs do every few minutes, and the scrub at its end.
async fn looked_after(stage: &Stage) {
    stage.catalogue.read_all_rows().await.unwrap();
    stage.backup.compare_key_table().await.unwrap();
    stage.backup.check_wrappings().await.unwrap();
    stage.backup.follow_key_loss().await.unwrap();
    stage.backup.heal_rows().await.unwrap();
}

#[tokio::test]
async fn one_row_that_cannot_be_read_hides_no_other() {
    for (table, damage) in DAMAGES {
        let stage = Stage::prepared().await;
        let acme = stage.prepare("acme").await.unwrap();
        let other = stage.prepare("other").await.unwrap();
        stage.store("acme", "GONE", "gone").await;
        stage.erase(OPERATOR, "acme", &acme, "GONE").await.unwrap();
        let (id, object) = stage.store("acme", "SN1", "one").await;
        let (sound, _) = stage.store("acme", "SN2", "two").await;
        let device = object.split('/').nth(2).unwrap();
        stage.world.disk.change(&damage.replace("{id}", &id).replace("{device}", device).replace("{other}", &other)).await;

        let listed: Vec<_> = stage.list("acme", "").await.unwrap().into_iter().map(|listed| listed.id).collect();
        assert!(listed.contains(&sound), "{damage}");
        assert_eq!(stage.get(STAFF, "acme", &sound, true).await.unwrap(), config("two"), "{damage}");
        assert!(stage.attempts(0).await.iter().any(|attempt| attempt.device.as_ref().unwrap().serial == "SN2"), "{damage}");
        assert!(stage.put("acme", "SN2", &config("three")).await.unwrap().changed, "{damage}");
        assert!(stage.report().await.groups.iter().any(|group| group.group == "acme"), "{damage}");
        stage.backup.compare().await.unwrap();
        stage.backup.expire().await.unwrap();
        stage.scrub().await;
        stage.catalogue.read_all_rows().await.unwrap();
        stage.backup.report_damage().await.unwrap();

        looked_after(&stage).await;
        if table == "attempts" {
            let named = stage.catalogue.damaged_names("row ").await.unwrap();
            assert_eq!(named, [format!("row {device} of table attempts")]);
            stage.put("acme", "SN1", &config("one")).await.unwrap();
            looked_after(&stage).await;
        }
        assert_eq!(stage.catalogue.damaged_names("").await.unwrap(), Vec::<String>::new(), "{damage}: all is healed");
        assert_eq!(stage.get(STAFF, "acme", &id, true).await.unwrap(), config("one"), "{damage}");
        assert_eq!(stage.list("acme", "SN1").await.unwrap()[0].id, id, "{damage}");
        assert!(!stage.put("acme", "SN1", &config("one")).await.unwrap().changed, "{damage}");
        assert_eq!(stage.prepare("other").await.unwrap(), other, "{damage}");
        let refused = stage.list("acme", "GONE").await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound, "{damage}");
    }
}

/// A row is told by its name before anything heals it.
#[tokio::test]
async fn a_row_that_cannot_be_read_is_named() {
    let stage = Stage::prepared().await;
    let (id, object) = stage.store("acme", "SN1", "one").await;
    stage.world.memory.set_broken(&object, true);
    stage.world.disk.change(&format!("UPDATE snapshots SET driver = 'no driver' WHERE id = '{id}'")).await;
    assert!(stage.list("acme", "").await.unwrap().is_empty());
    stage.backup.report_damage().await.unwrap();
    let report = stage.report().await;
    let acme = report.groups.iter().find(|group| group.group == "acme").unwrap().integrity.clone().unwrap();
    let name = format!("row {id} of table snapshots");
    assert_eq!(acme.damaged, std::slice::from_ref(&name));
    assert_eq!(Unreadable::of_name(&name), Some((Rows::Snapshots, id.as_str())));
}

/// After a rollback a snapshot of the newer version's driver is listed as such, hides no other, and is not taken for damaged.
#[tokio::test]
async fn a_snapshot_of_a_newer_version_is_listed_with_its_driver() {
    let stage = Stage::prepared().await;
    stage.prepare("acme").await.unwrap();
    let (newer, _) = stage.store("acme", "SN1", "one").await;
    let (sound, _) = stage.store("acme", "SN2", "two").await;
    stage.world.disk.change(&format!("UPDATE snapshots SET driver = 'OfNextYear' WHERE id = '{newer}'")).await;
    looked_after(&stage).await;
    stage.scrub().await;
    let listed = stage.list("acme", "").await.unwrap();
    let drivers: std::collections::BTreeMap<_, _> = listed.into_iter().map(|listed| (listed.id, (listed.driver, listed.damaged))).collect();
    assert_eq!(drivers[&newer], ("OfNextYear".to_owned(), false));
    assert_eq!(drivers[&sound], ("Frr".to_owned(), false));
    assert_eq!(stage.catalogue.damaged_names("").await.unwrap(), Vec::<String>::new());
}
