//! A server's life: waits for its certificate, becomes ready, shows its metrics, drains and ends.
#![allow(clippy::unwrap_used)] // a test: what goes wrong here fails it

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tsujiban_service::access::Guard;
use tsujiban_service::health::{Health, READINESS};
use tsujiban_service::server::{ServerArgs, serve};
use tsujiban_service::telemetry::TelemetryArgs;
use tsujiban_service::testing::{Ca, KnownCallers};

fn free() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

async fn status(probe: &mut HealthClient<Channel>, service: &str) -> ServingStatus {
    let request = HealthCheckRequest { service: service.to_owned() };
    probe.check(request).await.unwrap().into_inner().status()
}

/// Asks again until the status is the wanted one, for at most ten seconds.
async fn until(probe: &mut HealthClient<Channel>, wanted: ServingStatus) {
    let asking = async {
        while status(probe, READINESS).await != wanted {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(10), asking).await.unwrap();
}

async fn metrics(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn from_the_first_probe_to_the_last() {
    let (ca, tls) = (Ca::new(), tempfile::tempdir().unwrap());
    let args = ServerArgs {
        listen: free(),
        health_listen: free(),
        metrics_listen: free(),
        tls_dir: tls.path().to_owned(),
        trusted_proxies: Vec::new(),
        telemetry: TelemetryArgs { log_level: "info".into(), otlp_endpoint: None },
    };
    let (health, shutdown) = (Health::new(), CancellationToken::new());
    let server = {
        let (args, health, shutdown) = (args.clone(), health.clone(), shutdown.clone());
        tokio::spawn(async move {
            let guard = Guard::new(Arc::new(KnownCallers::new()), prometheus::Registry::new());
            serve(&args, Routes::default(), guard, health, shutdown).await
        })
    };
    let endpoint = Endpoint::from_shared(format!("http://{}", args.health_listen)).unwrap();
    let channel = loop {
        match endpoint.connect().await {
            Ok(channel) => break channel,
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    };
    let mut probe = HealthClient::new(channel);
    assert_eq!(status(&mut probe, "").await, ServingStatus::Serving, "alive while it waits for its certificate");
    assert_eq!(status(&mut probe, READINESS).await, ServingStatus::NotServing);
    TcpStream::connect(args.listen).await.unwrap_err();

    ca.issue_into(tls.path());
    until(&mut probe, ServingStatus::Serving).await;
    TcpStream::connect(args.listen).await.unwrap();
    assert!(metrics(args.metrics_listen).await.contains("tsujiban_tls_certificate_healthy 1"));

    health.set_able(false).await;
    assert_eq!(status(&mut probe, READINESS).await, ServingStatus::NotServing);
    health.set_able(true).await;
    shutdown.cancel();
    timeout(Duration::from_secs(10), server).await.unwrap().unwrap().unwrap();
}
