//! What only a real storage shows.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tsujiban_objects::testing::{Gateway, REGION, SECRET};
use tsujiban_objects::{Objects, S3, S3Settings, StoreError, list_all};
use tsujiban_service::testing::Ca;

#[tokio::test]
async fn facts_of_buckets() {
    let gateway = Gateway::start().await;
    let locked = gateway.bucket("locked", true).await.facts().await.unwrap();
    assert_eq!((locked.region.as_str(), locked.object_lock), (REGION, true));
    assert!(!gateway.bucket("plain", false).await.facts().await.unwrap().object_lock);
    let refused = gateway.store("locked", "wrong").facts().await.unwrap_err().to_string();
    assert!(refused.contains("refused") && !refused.contains(SECRET), "{refused}");
}

/// C23: somebody who deletes without naming a version hides an object and deletes nothing; the marker is found and goes.
#[tokio::test]
async fn delete_markers_are_seen_and_taken_away() {
    let gateway = Gateway::start().await;
    let store = gateway.bucket("hidden", true).await;
    let version = store.put("v1/a", "kept".into(), None).await.unwrap();
    gateway.client().delete_object().bucket("hidden").key("v1/a").send().await.unwrap();
    assert!(matches!(store.get("v1/a", None).await, Err(StoreError::NotFound { .. })));
    let entries = list_all(&store, "v1/").await.unwrap();
    let (markers, versions): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.delete_marker);
    assert_eq!((markers.len(), versions.len()), (1, 1));
    store.delete("v1/a", &markers[0].version).await.unwrap();
    assert_eq!(store.get("v1/a", None).await.unwrap(), "kept");
    assert_eq!(versions[0].version, version);
}

/// C22: what is sent is encrypted, and only to a storage whose certificate is of the given authority.
#[tokio::test]
async fn only_a_storage_of_the_given_authority_is_trusted() {
    let ca = Ca::new();
    let certificate = tempfile::tempdir().unwrap();
    ca.issue_into(certificate.path());
    let gateway = Gateway::start_with_tls(certificate.path()).await;
    let trusting = gateway.store_trusting("nothing", SECRET, Some(ca.pem().into_bytes()));
    assert!(matches!(trusting.facts().await, Err(StoreError::NotFound { .. })), "it is spoken to, and has no such bucket");
    for other in [Some(Ca::new().pem().into_bytes()), None] {
        let refused = gateway.store_trusting("nothing", SECRET, other).facts().await.unwrap_err();
        assert!(matches!(refused, StoreError::Unreachable { .. }) && refused.to_string().contains("certificate"), "{refused}");
    }
}

type Change = fn(&mut Vec<u8>);

/// Bytes that changed on the storage's disk, a file that was cut or emptied: the storage is there and the object is not what was stored.
#[tokio::test]
async fn what_changed_on_the_storages_disk_is_damaged() {
    let gateway = Gateway::start().await;
    let store = gateway.bucket("damaged", true).await;
    let body: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let inputs: [(&str, Change); 3] =
        [("flipped", |body| body[150_000] ^= 1), ("cut", |body| body.truncate(299_900)), ("emptied", Vec::clear)];
    for (key, change) in inputs {
        store.put(key, body.clone().into(), None).await.unwrap();
        let file = gateway.file("damaged", key);
        let mut bytes = std::fs::read(&file).unwrap();
        change(&mut bytes);
        // written in place: the gateway keeps what it knows of an object in the file's attributes
        std::fs::write(&file, bytes).unwrap();
        let found = store.get(key, None).await;
        assert!(matches!(&found, Err(StoreError::Damaged { key: named, .. }) if named == key), "{key}: {found:?}");
    }
    store.put("sound", body.clone().into(), None).await.unwrap();
    assert_eq!(store.get("sound", None).await.unwrap(), body);
}

/// A connection that ends within a body is no damage: the object may come whole the next time.
#[tokio::test]
async fn a_body_that_is_cut_on_its_way_is_no_damage() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\nx-amz-checksum-crc32: AAAAAA==\r\n\r\nonly this";
            let _ = stream.write_all(answer).await;
        }
    });
    let settings = S3Settings { endpoint: Some(endpoint), region: REGION.into(), bucket: "cut".into(), path_style: true, ca: None };
    let cut = S3::new(settings, "access", "secret").unwrap().get("x", None).await;
    assert!(matches!(cut, Err(StoreError::Unreachable { .. })), "{cut:?}");
}
