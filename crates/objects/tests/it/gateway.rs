//! What only a real storage shows.

use tsujiban_objects::testing::{Gateway, REGION, SECRET};
use tsujiban_objects::{Objects, StoreError, list_all};
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
