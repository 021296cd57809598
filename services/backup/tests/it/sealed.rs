//! What lies on disks of ours is sealed (C22).

use tsujiban_objects::{Objects, list_all};
use tsujiban_proto::backup::v1::{PinHostKeyRequest, Reason, RecordAttemptRequest};
use tsujiban_proto::lifecycle::v1::EraseRequest;
use tsujiban_service::testing::with_token;

use crate::POSTGRES;
use crate::stage::{HOST_KEY, OPERATOR, Stage, config, device, header};

/// C22: neither the database's files nor the storage hold anything that a customer or their device said.
#[tokio::test]
async fn no_plain_text_anywhere() {
    let stage = Stage::prepared().await;
    let pin = PinHostKeyRequest { device: Some(device("acme", "SERIAL-77")), host_key: HOST_KEY.into() };
    stage.backup().pin_host_key(with_token("acme", pin)).await.unwrap();
    stage.put("acme", "SERIAL-77", &config("plainhost")).await.unwrap();
    stage.put("acme", "SERIAL-77", &config("plainhost2")).await.unwrap();
    let failed = RecordAttemptRequest {
        device: Some(device("acme", "SERIAL-78")),
        idempotency_key: header("acme", "SERIAL-78").idempotency_key,
        reason: Reason::Protocol.into(),
        message: "unexpected prompt tell-tale".into(),
        host_key: HOST_KEY.into(),
    };
    stage.backup().record_attempt(with_token("acme", failed)).await.unwrap();
    let (incarnation, gone) = (stage.prepare("acme").await.unwrap(), device("acme", "SERIAL-79"));
    let erase = EraseRequest { group: gone.group, incarnation, device_serial: gone.serial, device_uid: gone.uid.clone() };
    stage.erase_as(OPERATOR, erase).await.unwrap();

    let mut files = stage.world.disk.files().await;
    assert!(POSTGRES || files.iter().any(|(name, _)| name.ends_with("-wal")), "the log is looked at as well");
    for entry in list_all(&*stage.world.memory, "").await.unwrap() {
        files.push((entry.key.clone(), stage.world.memory.get(&entry.key, Some(&entry.version)).await.unwrap().to_vec()));
        files.push((entry.key.clone(), entry.key.into_bytes()));
    }
    let key = HOST_KEY.split(' ').nth(1).unwrap();
    for typed in [
        gone.uid.as_str(),
        "SERIAL-77",
        "SERIAL-78",
        "SERIAL-79",
        "router-serial-77",
        "plainhost",
        "hunter2",
        "frr version",
        "tell-tale",
        key,
    ] {
        for (name, bytes) in &files {
            assert!(!bytes.windows(typed.len()).any(|window| window.eq_ignore_ascii_case(typed.as_bytes())), "{typed} in {name}");
        }
    }
    assert!(files.iter().any(|(_, bytes)| bytes.windows(4).any(|window| window == b"acme")), "the search finds what is there");
}
