//! What a SQLite file forgets. PostgreSQL does not: there the rotation of the epoch keys has to do (docs/keys.md).

use crate::stage::{OPERATOR, Stage, config};

/// C24: the bytes of a destroyed key are not left in the database's files.
#[tokio::test]
async fn a_destroyed_key_leaves_no_bytes() {
    let stage = Stage::prepared().await;
    let incarnation = stage.prepare("acme").await.unwrap();
    stage.put("acme", "SN1", &config("one")).await.unwrap();
    let wrapped: Vec<_> = stage.catalogue.key_table().await.unwrap().into_iter().filter(|key| key.subject != key.group).collect();
    assert_eq!(wrapped.len(), 1);
    let found = async || {
        let needle = &wrapped[0].wrapped.bytes[..];
        stage.world.disk.files().await.iter().filter(|(_, bytes)| bytes.windows(needle.len()).any(|window| window == needle)).count()
    };
    assert!(found().await > 0, "the search finds what is there");
    stage.erase(OPERATOR, "acme", &incarnation, "SN1").await.unwrap();
    assert_eq!(found().await, 0);
}
