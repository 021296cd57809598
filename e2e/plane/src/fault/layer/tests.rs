use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::{Body, ClientBuilder};
use serde_json::json;

use super::super::{Aim, Crash, EventFault, Faults, Mode, Plan};
use super::FaultLayer;

/// An apiserver that answers every request with how many there have been, and a watch with five events.
fn client(faults: &Faults) -> (Client, Arc<AtomicU64>) {
    let count = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&count);
    let service = tower::service_fn(move |request: Request<Body>| {
        let nth = counter.fetch_add(1, Ordering::SeqCst);
        let event = |name: u64| format!("{}\n", json!({"type": "ADDED", "object": {"metadata": {"name": name.to_string()}}}));
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch"));
        let text = if is_watch { (0..5).map(event).collect() } else { nth.to_string() };
        async move { Ok::<_, std::convert::Infallible>(Response::new(Body::from(text.into_bytes()))) }
    });
    (ClientBuilder::new(service, "default").with_layer(&FaultLayer::new(faults.clone())).build(), count)
}

fn request(method: &Method, uri: &str) -> Request<Body> {
    Request::builder().method(method).uri(uri).body(Body::empty()).unwrap()
}

async fn get(client: &Client, uri: &str) -> Result<String, kube::Error> {
    let answer = client.send(request(&Method::GET, uri)).await?;
    let body = answer.into_body().collect().await.map_err(|error| kube::Error::Service(error.into()))?;
    Ok(String::from_utf8(body.to_bytes().to_vec()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_crash_after_the_second_write() {
    let crash = Crash::default();
    crash.aim("acme", Some(Aim::Nth(2)));
    let (client, count) = client(&Faults::new(Mode::Crash(crash.clone())));
    let write = || client.send(request(&Method::DELETE, "/api/v1/namespaces/tn-acme"));
    let hangs = async |result| tokio::time::timeout(Duration::from_secs(9), result).await.is_err();
    write().await.unwrap();
    get(&client, "/api/v1/namespaces/tn-acme").await.unwrap();
    assert!(hangs(write()).await);
    assert_eq!(count.load(Ordering::SeqCst), 3); // it was done all the same
    assert!(hangs(write()).await);
    assert!(tokio::time::timeout(Duration::from_secs(9), get(&client, "/api/v1/namespaces/tn-acme")).await.is_err());
    assert_eq!(count.load(Ordering::SeqCst), 3); // and nothing after it
    get(&client, "/api/v1/namespaces/tn-other").await.unwrap();
    assert_eq!(crash.struck("acme").as_deref(), Some("DELETE namespaces/tn-acme"));
}

#[tokio::test(start_paused = true)]
async fn mixed_faults_are_seen_by_the_client_and_end_when_healed() {
    let faults = Faults::new(Mode::Mixed(Plan::new(3)));
    let (client, count) = client(&faults);
    let mut seen = BTreeMap::<&str, u32>::new();
    let mut newest = 0;
    for _ in 0..2000 {
        let answer = tokio::time::timeout(Duration::from_secs(9), get(&client, "/api/v1/namespaces/tn-acme")).await;
        let what = match answer {
            Err(_) => "hangs",
            Ok(Err(_)) => "broken",
            Ok(Ok(text)) => match text.parse::<u64>() {
                Ok(number) if number < newest => "stale",
                Ok(number) => {
                    newest = number;
                    "answered"
                }
                Err(_) => "refused",
            },
        };
        *seen.entry(what).or_default() += 1;
    }
    assert!(["hangs", "broken", "stale", "answered", "refused"].iter().all(|what| seen[what] > 0), "{seen:?}");
    faults.heal();
    let before = count.load(Ordering::SeqCst);
    for nth in 0..200 {
        assert_eq!(get(&client, "/api/v1/namespaces/tn-acme").await.unwrap(), (before + nth).to_string());
    }
}

#[tokio::test(start_paused = true)]
async fn events_of_a_watch() {
    for (fault, names) in [
        (EventFault::None, "01234"),
        (EventFault::Dropped, "0134"),
        (EventFault::Twice, "012234"),
        (EventFault::Late(Duration::from_secs(5)), "01234"),
        (EventFault::Expired, "01E"),
        (EventFault::Cut, "01!"),
        (EventFault::Silent, "01 "),
    ] {
        let faults = Faults::new(Mode::Events(Arc::new(
            move |_, event| {
                if event["object"]["metadata"]["name"] == "2" { fault } else { EventFault::None }
            },
        )));
        let (client, _) = client(&faults);
        let answer = client.send(request(&Method::GET, "/api/v1/namespaces?watch=true")).await.unwrap();
        let mut lines = answer.into_body().into_data_stream();
        let mut found = String::new();
        loop {
            match tokio::time::timeout(Duration::from_secs(9), lines.next()).await {
                Err(_) => found.push(' '),
                Ok(None) => break,
                Ok(Some(Err(_))) => found.push('!'),
                Ok(Some(Ok(line))) => {
                    let event: serde_json::Value = serde_json::from_slice(&line).unwrap();
                    found.push_str(event["object"]["metadata"]["name"].as_str().unwrap_or("E"));
                }
            }
            if found.ends_with([' ', '!']) {
                break;
            }
        }
        assert_eq!(found, names, "{fault:?}");
    }
}
