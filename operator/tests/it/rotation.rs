//! C22: the internal CA is changed under load, and no call fails.
//!
//! The keeper lives by a clock of its own; the connections are real, to the servers' real TLS with its reload. Real TLS checks
//! certificates by the real time, so that the months before are lived through first and the story ends now.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::service::Routes;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tsujiban_core::clock::{Clock as _, ManualClock, SystemClock};
use tsujiban_core::workload;
use tsujiban_operator::metrics::Metrics;
use tsujiban_operator::pki::{Keeper, Keys};
use tsujiban_operator::services::client::ServiceClient;
use tsujiban_operator::state::reports::Reports;
use tsujiban_plane::backup::Backup;
use tsujiban_plane::wait::until;
use tsujiban_proto::lifecycle::v1::ReportRequest;
use tsujiban_proto::lifecycle::v1::lifecycle_service_client::LifecycleServiceClient;
use tsujiban_proto::lifecycle::v1::lifecycle_service_server::LifecycleServiceServer;
use tsujiban_sealing::SystemRandom;
use tsujiban_service::testing::{InProcess, KnownCallers, serve_in_process, with_token};

use crate::apiserver::Apiserver;

const TOKEN: &str = "any-text-is-a-token-here";
const SERVING: &str = "/api/v1/namespaces/tsujiban-system/secrets/tsujiban-backup-tls";
const STEP: SignedDuration = SignedDuration::from_hours(4);
/// How old the bundle may be that a collector holds: it was mounted when its pod began, or its group could not be reached.
const OLD: SignedDuration = SignedDuration::from_hours(20);
const SOON: Duration = Duration::from_secs(30);

/// What the operator had written by some moment.
#[derive(Clone)]
struct Written {
    at: Timestamp,
    bundle: String,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// A keeper that has lived since `born`.
struct Life {
    apiserver: Arc<Apiserver>,
    clock: Arc<ManualClock>,
    keeper: Keeper,
    bundle: watch::Receiver<Option<String>>,
}

impl Life {
    fn new(born: Timestamp) -> Self {
        let (apiserver, clock) = (Arc::new(Apiserver::default()), Arc::new(ManualClock::new(born)));
        let (ca_bundle, bundle) = watch::channel(None);
        let keeper = Keeper {
            client: apiserver.client(),
            namespace: "tsujiban-system".into(),
            environment: "trial".parse().unwrap(),
            clock: clock.clone(),
            random: Arc::new(SystemRandom::new()),
            metrics: Arc::new(Metrics::new().unwrap()),
            services: vec![workload::Service::Backup],
            reports: watch::channel(Reports::default()).1,
            ca_bundle,
            keys: watch::channel(Keys::Pending).0,
        };
        Self { apiserver, clock, keeper, bundle }
    }

    /// One round of the keeper, and what there is after it.
    async fn round(&self) -> Written {
        self.keeper.round().await.unwrap();
        let secret = self.apiserver.get(SERVING).unwrap();
        let data = |key: &str| {
            let bytes: k8s_openapi::ByteString = serde_json::from_value(secret["data"][key].clone()).unwrap();
            bytes.0
        };
        let bundle = self.bundle.borrow().clone().unwrap();
        Written { at: self.clock.now(), bundle, certificate: data("tls.crt"), key: data("tls.key") }
    }

    async fn pass(&self, time: SignedDuration) -> Written {
        self.clock.advance(time);
        self.round().await
    }

    /// Lives on, day by day, until `end`.
    async fn until(&self, end: Timestamp) -> Written {
        self.round().await;
        while end.duration_since(self.clock.now()) > SignedDuration::from_hours(24) {
            self.pass(SignedDuration::from_hours(24)).await;
        }
        self.pass(end.duration_since(self.clock.now())).await
    }
}

/// The service, with its certificate in files as kubelet mounts them.
struct Service(InProcess);

impl Service {
    async fn new(first: &Written) -> Self {
        let routes = Routes::new(LifecycleServiceServer::new(Backup::default()));
        let service = Self(serve_in_process(routes, Arc::new(KnownCallers::new().operator(TOKEN))).await);
        service.mount(first).await;
        service
    }

    fn endpoint(&self) -> String {
        format!("https://localhost:{}", self.0.address.port())
    }

    /// The files become those of the Secret. In between, the reload meets a certificate and a key that do not belong together.
    async fn mount(&self, written: &Written) {
        let changed = std::fs::read(self.0.tls_dir().join("tls.crt")).unwrap() != written.certificate;
        std::fs::write(self.0.tls_dir().join("tls.crt"), &written.certificate).unwrap();
        assert_eq!(self.0.certificate.reload().await.is_err(), changed);
        std::fs::write(self.0.tls_dir().join("tls.key"), &written.key).unwrap();
        self.0.certificate.reload().await.unwrap();
    }

    /// A connection of somebody who believes these certificates.
    async fn connect(&self, bundle: &str) -> Result<Channel, String> {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(bundle));
        let endpoint = Endpoint::from_shared(self.endpoint()).unwrap().tls_config(tls).unwrap();
        endpoint.connect().await.map_err(|error| format!("{error:?}"))
    }
}

async fn call(channel: Channel) -> Result<(), String> {
    let answer = LifecycleServiceClient::new(channel).report(with_token(TOKEN, ReportRequest::default())).await;
    answer.map(|_| ()).map_err(|status| status.to_string())
}

/// Callers that never pause, and what came of their calls.
struct Load {
    counts: [Arc<AtomicU64>; 3],
    failures: Arc<Mutex<Vec<String>>>,
    /// The bundle that collectors have mounted.
    mounted: Arc<Mutex<String>>,
    _tasks: JoinSet<()>,
}

impl Load {
    /// The operator, which learns of a bundle at once; a collector that was connected before all this and stays so; and collectors
    /// that begin all the time.
    async fn new(service: &Arc<Service>, life: &Life, first: &Written) -> Self {
        let (counts, failures) = (<[Arc<AtomicU64>; 3]>::default(), Arc::<Mutex<Vec<String>>>::default());
        let mounted = Arc::new(Mutex::new(first.bundle.clone()));
        let mut tasks = JoinSet::new();
        let note = |who: usize| {
            let (count, failures) = (Arc::clone(&counts[who]), Arc::clone(&failures));
            move |came: Result<(), String>| match came {
                Ok(()) => {
                    count.fetch_add(1, Ordering::SeqCst);
                }
                Err(error) => failures.lock().unwrap().push(format!("caller {who}: {error}")),
            }
        };
        let token = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/plane/tokens/backup/token");
        assert_eq!(std::fs::read_to_string(token).unwrap().trim(), TOKEN);
        let operator = ServiceClient::new(workload::Service::Backup, service.endpoint(), token.into(), life.bundle.clone());
        let noted = note(0);
        tasks.spawn(async move {
            loop {
                noted(operator.report().await.map(|_| ()).map_err(|error| format!("{error:?}")));
            }
        });
        let (noted, channel) = (note(1), service.connect(&first.bundle).await.unwrap());
        tasks.spawn(async move {
            loop {
                noted(call(channel.clone()).await);
            }
        });
        let (noted, service, bundle) = (note(2), Arc::clone(service), Arc::clone(&mounted));
        tasks.spawn(async move {
            loop {
                let bundle = bundle.lock().unwrap().clone();
                noted(match service.connect(&bundle).await {
                    Ok(channel) => call(channel).await,
                    Err(error) => Err(error),
                });
            }
        });
        Self { counts, failures, mounted, _tasks: tasks }
    }

    /// Lets everybody call a few times.
    async fn some_calls(&self) {
        let wanted = self.counts.each_ref().map(|count| count.load(Ordering::SeqCst) + 2);
        until("everybody has called", SOON, || async {
            let failures = self.failures.lock().unwrap().clone();
            assert!(failures.is_empty(), "{failures:#?}");
            let done = self.counts.iter().zip(wanted).all(|(count, wanted)| count.load(Ordering::SeqCst) >= wanted);
            Ok(done.then_some(()))
        })
        .await
        .unwrap();
    }
}

/// Lives from `born` until now, the last three days under load in steps of four hours. What a collector has mounted is 20 hours old, and the
/// service has the new certificate later than everybody has the bundle, or the other way round. Answers the bundles that there were.
async fn lived_through(born: Timestamp) -> Vec<String> {
    let now = SystemClock.now();
    let life = Life::new(born);
    let first = life.until(now.checked_sub(SignedDuration::from_hours(72)).unwrap()).await;
    let service = Arc::new(Service::new(&first).await);
    let load = Load::new(&service, &life, &first).await;
    let mut history = vec![first];
    while now.duration_since(life.clock.now()) >= STEP {
        let written = life.pass(STEP).await;
        load.some_calls().await; // the operator knows the new bundle, the service has its old certificate
        service.mount(&written).await;
        load.some_calls().await; // collectors know the bundle of long ago
        let old = history.iter().rev().find(|earlier| written.at.duration_since(earlier.at) >= OLD);
        load.mounted.lock().unwrap().clone_from(&old.unwrap_or(&history[0]).bundle);
        load.some_calls().await;
        history.push(written);
    }
    let mut bundles: Vec<String> = history.into_iter().map(|written| written.bundle).collect();
    bundles.dedup();
    bundles
}

fn ago(days: i64) -> Timestamp {
    SystemClock.now().checked_sub(SignedDuration::from_hours(24 * days)).unwrap()
}

fn certificates(bundle: &str) -> usize {
    bundle.matches("BEGIN CERTIFICATE").count()
}

/// Announced after two thirds of its life, promoted a day later.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_ca_is_announced_and_promoted_under_load() {
    let bundles = lived_through(ago(245)).await;
    assert_eq!(bundles.iter().map(|bundle| certificates(bundle)).collect::<Vec<_>>(), [1, 2, 2]);
    assert_ne!(bundles[1][..200], bundles[2][..200], "the new one signs");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_ca_is_retired_under_load() {
    let bundles = lived_through(ago(366)).await;
    assert_eq!(bundles.iter().map(|bundle| certificates(bundle)).collect::<Vec<_>>(), [2, 1]);
}

/// What the order of things stands, and what it does not: who has a bundle from before the announcement is lost once the new CA signs.
#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_may_be_late_by_a_day_and_a_certificate_by_weeks() {
    let life = Life::new(ago(245));
    let start = life.until(ago(3)).await;
    let service = Service::new(&start).await;
    let (mut before, mut announced, mut promoted) = (start, None, None);
    while SystemClock.now().duration_since(life.clock.now()) >= STEP {
        let written = life.pass(STEP).await;
        match (certificates(&written.bundle), &announced) {
            (1, _) => before = written,
            (_, None) => announced = Some(written),
            (_, Some(_)) if written.certificate != before.certificate && promoted.is_none() => promoted = Some(written),
            _ => {}
        }
    }
    let (announced, promoted) = (announced.unwrap(), promoted.unwrap());
    assert!(promoted.at.duration_since(announced.at) >= OLD, "{} to {}", announced.at, promoted.at);
    for (bundle, certificate, wanted) in [
        (&before, &before, true),
        (&announced, &before, true),
        (&promoted, &before, true),
        (&announced, &promoted, true),
        (&promoted, &promoted, true),
        (&before, &promoted, false),
    ] {
        service.mount(certificate).await;
        let came = service.connect(&bundle.bundle).await;
        assert_eq!(came.is_ok(), wanted, "bundle of {}, certificate of {}: {:?}", bundle.at, certificate.at, came.err());
    }
}
