//! An operator that stands still says so within a minute, and is well again when what held it up is gone.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::{Method, Request};
use kube::Client;
use kube::client::Body;
use serde_json::json;
use tokio::sync::watch;
use tsujiban_plane::wait::until;

use crate::operator::Operator;
use crate::world::World;

/// What is wrong is to be seen within a minute; a little is for the machine.
const SAID: Duration = Duration::from_mins(1);
const RECOVERED: Duration = Duration::from_secs(90);

type Rule = fn(&Request<Body>) -> bool;

/// A way to the apiserver on which some requests get no answer until that is over.
#[derive(Clone)]
struct Hang {
    rule: Arc<Mutex<Option<Rule>>>,
    over: watch::Sender<u64>,
}

impl Hang {
    fn new() -> Self {
        Self { rule: Arc::default(), over: watch::channel(0).0 }
    }

    fn client(&self, inner: Client) -> Client {
        let (hang, namespace) = (self.clone(), inner.default_namespace().to_owned());
        let service = tower::service_fn(move |request: Request<Body>| {
            let (hang, inner) = (hang.clone(), inner.clone());
            async move {
                let hangs = hang.rule.lock().unwrap().is_some_and(|rule| rule(&request));
                if hangs {
                    let _over = hang.over.subscribe().changed().await;
                }
                inner.send(request).await
            }
        });
        Client::new(service, namespace)
    }

    fn begin(&self, rule: Rule) {
        *self.rule.lock().unwrap() = Some(rule);
    }

    fn end(&self) {
        *self.rule.lock().unwrap() = None;
        self.over.send_modify(|times| *times += 1);
    }
}

async fn said(operator: &Operator, what: &str) -> Duration {
    let start = Instant::now();
    until(&format!("it says: {what}"), SAID, || async {
        let reasons = operator.metrics.watchdog.reasons(Instant::now());
        anyhow::ensure!(reasons.iter().any(|reason| reason.contains(what)), "{reasons:?}");
        Ok(Some(()))
    })
    .await
    .unwrap();
    start.elapsed()
}

async fn recovered(operator: &Operator) {
    until("it is well again", RECOVERED, || async {
        let reasons = operator.metrics.watchdog.reasons(Instant::now());
        anyhow::ensure!(reasons.is_empty(), "{reasons:?}");
        Ok(Some(()))
    })
    .await
    .unwrap();
}

fn lag(operator: &Operator, kind: &str) -> Duration {
    operator.metrics.watchdog.ages(Instant::now()).into_iter().find(|(name, ..)| *name == kind).unwrap().1
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_still_is_said_within_a_minute_and_recovers() {
    let world = World::new().await;
    let hang = Hang::new();
    let operator = Operator::start(hang.client(world.plane.operator().await.unwrap().client().unwrap()), &world.endpoint);
    world.tenant("acme", json!({})).await;
    world.tenant_is("acme", "True").await;
    assert_eq!(operator.metrics.watchdog.reasons(Instant::now()), Vec::<String>::new());

    // every slot is held by a call that hangs, and so is the watch of the other kind
    hang.begin(|request| {
        let path = request.uri().path();
        (request.method() == Method::PATCH && path.contains("/tenants/")) || path == "/apis/tsujiban.dev/v1alpha1/devices"
    });
    world.tenant("acme", json!({"displayName": "another name"})).await;
    until("the lag is measured", Duration::from_secs(30), || async { Ok((!lag(&operator, "Tenant").is_zero()).then_some(())) })
        .await
        .unwrap();
    let took = said(&operator, "Tenant: a change has waited").await;
    eprintln!("reconciles that hang, and are given up again and again, were said after {took:?}");
    assert!(lag(&operator, "Tenant") >= Duration::from_secs(40));
    let text = String::from_utf8(operator.metrics.text().unwrap()).unwrap();
    assert!(text.contains("tsujiban_operator_stalled 1"), "{text}");
    let silent = until("the watch is missed", SAID, || async {
        Ok(operator
            .metrics
            .watchdog
            .reasons(Instant::now())
            .into_iter()
            .find(|reason| reason.contains("Device: the watch was not answered")))
    });
    eprintln!("{}", silent.await.unwrap());

    hang.end();
    recovered(&operator).await;
    world.tenant_is("acme", "True").await;
    until("nothing is behind", RECOVERED, || async { Ok(lag(&operator, "Tenant").is_zero().then_some(())) }).await.unwrap();

    // a service that is away is no alarm of this kind
    world.backup.set_away(true);
    world.tenant("waits", json!({})).await;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(52) {
        assert_eq!(operator.metrics.watchdog.reasons(Instant::now()), Vec::<String>::new());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
