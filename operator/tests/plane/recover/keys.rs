//! Keys and certificates of the system namespace go back by an hour in which they changed.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tsujiban_api::names::{SECRET_BACKUP_TLS, SECRET_CA, SECRET_EPOCH_KEYS, SECRET_MASTER_KEY};
use tsujiban_core::clock::{Clock, ManualClock, SystemClock};
use tsujiban_core::id::KeyId;
use tsujiban_operator::metrics::Metrics;
use tsujiban_operator::pki::{Keeper, Keys};
use tsujiban_operator::report::{Facts, Reports};
use tsujiban_operator::service_client::ServiceClient;
use tsujiban_operator::services::Service;
use tsujiban_plane::SYSTEM;
use tsujiban_proto::lifecycle::v1::ReportResponse;
use tsujiban_sealing::SystemRandom;

use super::Data;
use crate::world::World;

const COPY: &str = "an-hour-ago";

/// The part of the operator that keeps keys, and what it is told.
struct Keeping {
    keeper: Keeper,
    clock: Arc<ManualClock>,
    reports: watch::Sender<Reports>,
    bundle: watch::Receiver<Option<String>>,
    keys: watch::Receiver<Keys>,
}

impl Keeping {
    async fn start(world: &World, now: Timestamp) -> Self {
        let clock = Arc::new(ManualClock::new(now));
        let (reports, reports_out) = watch::channel(Reports::default());
        let (bundle_in, bundle) = watch::channel(None);
        let (keys_in, keys) = watch::channel(Keys::Pending);
        let keeper = Keeper {
            client: world.plane.operator().await.unwrap().client().unwrap(),
            namespace: SYSTEM.to_owned(),
            environment: "trial".parse().unwrap(),
            clock: clock.clone(),
            random: Arc::new(SystemRandom::new()),
            metrics: Arc::new(Metrics::new().unwrap()),
            services: vec![Service::Backup],
            reports: reports_out,
            ca_bundle: bundle_in,
            keys: keys_in,
        };
        Self { keeper, clock, reports, bundle, keys }
    }

    /// A round at a moment, after the service has said which epoch keys it uses.
    async fn round(&self, now: Timestamp, in_use: &BTreeSet<KeyId>) {
        self.clock.advance(now.duration_since(self.clock.now()));
        let report = ReportResponse { epochs_in_use: in_use.iter().map(ToString::to_string).collect(), ..ReportResponse::default() };
        self.reports.send_modify(|known| {
            known.take(Service::Backup, Arc::new(Facts::from_wire(&report, now)));
        });
        self.keeper.round().await.unwrap();
        assert_eq!(*self.keys.borrow(), Keys::Ready);
    }
}

async fn data(world: &World, name: &str) -> Data {
    world.secret(SYSTEM, name).await.unwrap()
}

async fn epochs(world: &World) -> BTreeSet<KeyId> {
    data(world, SECRET_EPOCH_KEYS).await.keys().map(|id| id.parse().unwrap()).collect()
}

async fn bundle(world: &World) -> String {
    String::from_utf8(data(world, SECRET_CA).await["ca.crt"].clone()).unwrap()
}

/// Whether a client with this bundle finds a service with this certificate.
async fn meet(world: &World, bundle: &str, certificate: &Data) {
    let endpoint = world.backup.serve_tls(&certificate["tls.crt"], &certificate["tls.key"]).await.unwrap();
    let token = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/plane/token"));
    let client = ServiceClient::new(Service::Backup, endpoint, token, watch::channel(Some(bundle.to_owned())).1);
    client.report().await.unwrap();
}

/// C22: a rotation of the epoch keys and a change of the CA, both within the hour that is lost. The master key stays, no epoch key is
/// destroyed that is in use, none is made under an old name, and service and clients know each other at every moment.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_changed_in_the_lost_hour() {
    let mut world = World::new().await;
    let now = SystemClock.now(); // certificates are judged by the machine's clock
    let before = |hours: i64| now - SignedDuration::from_hours(hours);
    let keeping = Keeping::start(&world, before(245 * 24)).await;
    let nothing = BTreeSet::new();
    keeping.round(before(245 * 24), &nothing).await;
    let very_first = epochs(&world).await;
    keeping.round(before(7 * 24), &nothing).await;
    let first: BTreeSet<KeyId> = epochs(&world).await.difference(&very_first).cloned().collect();
    keeping.round(before(25), &first).await; // the next CA is announced, the very first epoch key destroyed
    assert_eq!((epochs(&world).await, first.len()), (first.clone(), 1));
    let (master, old_ca, old_tls) =
        (data(&world, SECRET_MASTER_KEY).await, data(&world, SECRET_CA).await, data(&world, SECRET_BACKUP_TLS).await);
    assert!(old_ca.contains_key("next.crt"));
    world.plane.copy_etcd(COPY).await.unwrap();

    // the hour: the next CA signs, and a new epoch key wraps
    keeping.round(now, &first).await;
    let lost_tls = data(&world, SECRET_BACKUP_TLS).await;
    let lost: BTreeSet<KeyId> = epochs(&world).await.difference(&first).cloned().collect();
    assert!(lost.len() == 1 && lost_tls["tls.crt"] != old_tls["tls.crt"], "the hour was one in which keys changed");
    world.plane.restore_etcd(COPY).await.unwrap();
    assert_eq!((data(&world, SECRET_CA).await, data(&world, SECRET_BACKUP_TLS).await), (old_ca, old_tls.clone()));

    let restored_bundle = bundle(&world).await;
    for certificate in [&lost_tls, &old_tls] {
        meet(&world, &restored_bundle, certificate).await;
    }
    let in_use: BTreeSet<KeyId> = first.union(&lost).cloned().collect();
    keeping.round(now, &in_use).await;
    assert_eq!(keeping.bundle.borrow().as_deref(), Some(bundle(&world).await.as_str()));
    for certificate in [&lost_tls, &old_tls, &data(&world, SECRET_BACKUP_TLS).await] {
        meet(&world, &bundle(&world).await, certificate).await;
    }
    assert_eq!(data(&world, SECRET_MASTER_KEY).await, master);
    let made: BTreeSet<KeyId> = epochs(&world).await.difference(&first).cloned().collect();
    assert!(made.len() == 1 && made != lost, "a new epoch key, by a name of its own");

    // as long as anything is wrapped with the first epoch key, it stays; the service's report decides
    let in_two_days = now + SignedDuration::from_hours(48);
    keeping.round(in_two_days, &in_use.union(&made).cloned().collect()).await;
    assert_eq!(epochs(&world).await, first.union(&made).cloned().collect());
    keeping.round(in_two_days, &made).await;
    assert_eq!(epochs(&world).await, made);
}
