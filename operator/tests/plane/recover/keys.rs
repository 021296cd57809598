//! Keys and certificates of the system namespace go back by an hour in which they changed.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;
use tsujiban_api::names::{ANNOTATION_RESTORE_KEYS, SECRET_CA, SECRET_EPOCH_KEYS, SECRET_MASTER_KEY};
use tsujiban_core::clock::{Clock, ManualClock, SystemClock};
use tsujiban_core::id::KeyId;
use tsujiban_core::workload::Service;
use tsujiban_operator::metrics::Metrics;
use tsujiban_operator::pki::{Keeper, Keys};
use tsujiban_operator::services::client::ServiceClient;
use tsujiban_operator::state::reports::{Facts, Reports};
use tsujiban_plane::SYSTEM;
use tsujiban_plane::wait::until;
use tsujiban_proto::lifecycle::v1::ReportResponse;
use tsujiban_sealing::SystemRandom;

use super::Data;
use crate::world::{SOON, World};

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
    let token = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/plane/tokens/backup/token"));
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
        (data(&world, SECRET_MASTER_KEY).await, data(&world, SECRET_CA).await, data(&world, Service::Backup.row().tls_secret).await);
    assert!(old_ca.contains_key("next.crt"));
    world.plane.copy_etcd(COPY).await.unwrap();

    // the hour: the next CA signs, and a new epoch key wraps
    keeping.round(now, &first).await;
    let lost_tls = data(&world, Service::Backup.row().tls_secret).await;
    let lost: BTreeSet<KeyId> = epochs(&world).await.difference(&first).cloned().collect();
    assert!(lost.len() == 1 && lost_tls["tls.crt"] != old_tls["tls.crt"], "the hour was one in which keys changed");
    world.plane.restore_etcd(COPY).await.unwrap();
    assert_eq!((data(&world, SECRET_CA).await, data(&world, Service::Backup.row().tls_secret).await), (old_ca, old_tls.clone()));

    let restored_bundle = bundle(&world).await;
    for certificate in [&lost_tls, &old_tls] {
        meet(&world, &restored_bundle, certificate).await;
    }
    let in_use: BTreeSet<KeyId> = first.union(&lost).cloned().collect();
    keeping.round(now, &in_use).await;
    assert_eq!(keeping.bundle.borrow().as_deref(), Some(bundle(&world).await.as_str()));
    for certificate in [&lost_tls, &old_tls, &data(&world, Service::Backup.row().tls_secret).await] {
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

/// C22: entries of the epoch keys that were lost are put back as docs/recovery.md says, with the policies in force: by those who are named in the
/// chart's values, with who and why, and nothing else is done to them by anybody.
#[tokio::test(flavor = "multi_thread")]
async fn lost_epoch_keys_are_put_back_by_those_who_may_and_in_no_other_way() {
    let world = World::new().await;
    let chart = world.plane.checkout().join("charts/tsujiban").to_string_lossy().into_owned();
    let restorers = r#"keys={"restorers":["key-keepers"]}"#;
    world.plane.helm(&["upgrade", "tsujiban", &chart, "--namespace", SYSTEM, "--reuse-values", "--set-json", restorers]).unwrap();
    let now = SystemClock.now();
    let keeping = Keeping::start(&world, now - SignedDuration::from_hours(8 * 24)).await;
    let nothing = BTreeSet::new();
    keeping.round(now - SignedDuration::from_hours(8 * 24), &nothing).await;
    keeping.round(now, &nothing).await;
    let whole = data(&world, SECRET_EPOCH_KEYS).await;
    assert_eq!(whole.len(), 2);

    // the loss: of a Secret that the operator alone may change
    let operator: Api<Secret> = Api::namespaced(world.plane.operator().await.unwrap().client().unwrap(), SYSTEM);
    let (lost, bytes) = whole.first_key_value().unwrap();
    let mut secret = operator.get(SECRET_EPOCH_KEYS).await.unwrap();
    secret.data.as_mut().unwrap().remove(lost);
    operator.replace(SECRET_EPOCH_KEYS, &PostParams::default(), &secret).await.unwrap();

    let keeper = world.plane.person("hanako@example.co.jp", Some("key-keepers")).await.unwrap().client().unwrap();
    let other = world.plane.person("taro@example.co.jp", Some("others")).await.unwrap().client().unwrap();
    let said = |text: &str| json!({"annotations": {ANNOTATION_RESTORE_KEYS: text}});
    let entry = json!({lost: ByteString(bytes.clone())});
    let kept = whole.keys().nth(1).unwrap();
    let patch = async |client: &Client, body: &Value| {
        let api: Api<Secret> = Api::namespaced(client.clone(), SYSTEM);
        api.patch(SECRET_EPOCH_KEYS, &PatchParams::default(), &Patch::Merge(body)).await.map(drop).map_err(|error| error.to_string())
    };
    let good = json!({"metadata": said("hanako@example.co.jp: etcd was restored"), "data": entry});
    // the policy takes a moment until it knows the group
    until("those who are named may put keys back", SOON, || async {
        let api: Api<Secret> = Api::namespaced(keeper.clone(), SYSTEM);
        let dry = PatchParams { dry_run: true, ..PatchParams::default() };
        Ok(Some(api.patch(SECRET_EPOCH_KEYS, &dry, &Patch::Merge(&good)).await.map(drop)?))
    })
    .await
    .unwrap();
    for (body, words) in [
        (json!({"data": entry}), "say who puts keys back, and why"),
        (json!({"metadata": said("hanako@example.co.jp: "), "data": entry}), "say who puts keys back, and why"),
        (json!({"metadata": said("taro@example.co.jp: etcd was restored"), "data": entry}), "say who puts keys back, and why"),
        (json!({"metadata": said("hanako@example.co.jp: x"), "data": {kept: null}}), "none is changed or removed"),
        (json!({"metadata": said("hanako@example.co.jp: x"), "data": {kept: "e30="}}), "none is changed or removed"),
        (
            json!({"metadata": {"annotations": {ANNOTATION_RESTORE_KEYS: "hanako@example.co.jp: x"}, "labels": {"a": "b"}}}),
            "only entries and the annotation",
        ),
    ] {
        let refused = patch(&keeper, &body).await.unwrap_err();
        assert!(refused.contains(words), "{body}: {refused}");
    }
    assert!(patch(&other, &good).await.unwrap_err().contains("cannot patch"), "no role grants it");
    let by_admin = json!({"metadata": said("admin: etcd was restored"), "data": entry});
    assert!(patch(&world.admin, &by_admin).await.unwrap_err().contains("nobody changes or deletes it by hand"));

    // the whole Secret: admission comes before it is found that there is one
    let admins: Api<Secret> = Api::namespaced(world.admin.clone(), SYSTEM);
    for (annotations, words) in [
        (json!({}), "say who does and why"),
        (json!({ANNOTATION_RESTORE_KEYS: "taro@example.co.jp: etcd was restored"}), "say who does and why"),
        (json!({ANNOTATION_RESTORE_KEYS: "admin: etcd was restored"}), "already exists"),
    ] {
        let body = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET_EPOCH_KEYS, "annotations": annotations}});
        let refused = admins.create(&PostParams::default(), &serde_json::from_value(body).unwrap()).await.unwrap_err().to_string();
        assert!(refused.contains(words), "{refused}");
    }

    patch(&keeper, &good).await.unwrap();
    assert_eq!(data(&world, SECRET_EPOCH_KEYS).await, whole);
    let overwritten = json!({"metadata": said("hanako@example.co.jp: another reason")});
    assert!(patch(&keeper, &overwritten).await.unwrap_err().contains("etcd was restored; hanako@example.co.jp: REASON"));
    let more = json!({"metadata": said("hanako@example.co.jp: etcd was restored; hanako@example.co.jp: another reason")});
    patch(&keeper, &more).await.unwrap();
    keeping.round(now, &nothing).await;
    assert_eq!(data(&world, SECRET_EPOCH_KEYS).await, whole, "the operator has nothing to mend");
}
