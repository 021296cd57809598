//! The connection to the backup service.

use std::io::Write as _;

use tokio::sync::watch;
use tsujiban_core::clock::{Clock as _, SystemClock};
use tsujiban_core::workload::Service;
use tsujiban_operator::pki::authority::Authority;
use tsujiban_operator::pki::serving;
use tsujiban_operator::services::client::ServiceClient;

use tsujiban_plane::backup::Backup;

/// C22: the service is known by the internal CA and by nothing else, the caller by a token that is read anew for each call; a new
/// bundle is taken up without a restart.
#[tokio::test]
async fn the_service_is_known_by_the_internal_ca() {
    let now = SystemClock.now();
    let (ours, other) = (Authority::make(now).unwrap(), Authority::make(now).unwrap());
    let (data, _) = serving::settle(None, &ours, &serving::dns_names(Service::Backup, "tsujiban-system"), now).unwrap();
    let backup = Backup::default();
    let endpoint = backup.serve_tls(&data["tls.crt"], &data["tls.key"]).await.unwrap();
    let mut token = tempfile::NamedTempFile::new().unwrap();
    writeln!(token, "first").unwrap();
    let (bundle_in, bundle) = watch::channel(None);
    let client = ServiceClient::new(Service::Backup, endpoint, token.path().to_owned(), bundle);

    assert!(client.report().await.unwrap_err().to_string().contains("CA is not made yet"));
    bundle_in.send_replace(Some(other.bundle));
    assert!(client.report().await.unwrap_err().to_string().contains("certificate"));
    bundle_in.send_replace(Some(ours.bundle));
    client.report().await.unwrap();
    std::fs::write(token.path(), "second").unwrap();
    client.report().await.unwrap();
    assert_eq!(backup.calls(), ["report with Bearer first", "report with Bearer second"]);
}

/// A service that is not ready says why: reports are asked for by a way that leads to its pods all the same, under the service's own name.
#[tokio::test]
async fn reports_come_from_pods_that_are_not_ready_too() {
    let now = SystemClock.now();
    let ours = Authority::make(now).unwrap();
    let (data, _) = serving::settle(None, &ours, &serving::dns_names(Service::Backup, "tsujiban-system"), now).unwrap();
    let backup = Backup::default();
    let direct = backup.serve_tls(&data["tls.crt"], &data["tls.key"]).await.unwrap().replace("localhost", "127.0.0.1");
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "t").unwrap();
    let (_bundle_in, bundle) = watch::channel(Some(ours.bundle));
    let nobody = "https://localhost:1".to_owned();
    let client = ServiceClient::new(Service::Backup, nobody, token.path().to_owned(), bundle).reporting_at(Some(direct));
    client.report().await.unwrap();
    assert!(client.prepare(&"acme".parse().unwrap(), None, None).await.is_err(), "all else waits until it is ready");
}
