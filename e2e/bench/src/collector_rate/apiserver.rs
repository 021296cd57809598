//! A stand-in for the apiserver at the edge of the collector: it knows the Devices of one namespace, and the Secret they name.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::fleet::{Fleet, PASSWORD, PORT, Router, USER};
use super::store;

pub const NAMESPACE: &str = "tn-bench";

/// What is asked for, ready to be sent.
struct Held {
    /// The Devices before their first backup, and after.
    devices: [Bytes; 2],
    backed_up: AtomicBool,
    secret: Bytes,
    missing: Bytes,
}

pub struct Apiserver {
    pub address: SocketAddr,
    held: Arc<Held>,
}

impl Apiserver {
    /// Serves the fleet's Devices on a free local port until the runtime ends.
    pub async fn listen(fleet: &Fleet) -> Result<Self> {
        let bytes = |value: Value| Bytes::from(value.to_string());
        let devices = |last_result: Option<&str>| -> Result<Bytes> {
            let items: Vec<Value> = fleet.routers.iter().map(|router| device(router, last_result)).collect::<Result<_>>()?;
            Ok(bytes(json!({ "apiVersion": "tsujiban.dev/v1alpha1", "kind": "DeviceList", "metadata": {}, "items": items })))
        };
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "login", "namespace": NAMESPACE },
            "type": "tsujiban.dev/device-credentials", "data": { "username": base64(USER), "password": base64(PASSWORD) },
        });
        let missing = json!({ "apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404 });
        let devices = [devices(None)?, devices(Some("Changed"))?];
        let held = Arc::new(Held { devices, backed_up: AtomicBool::new(false), secret: bytes(secret), missing: bytes(missing) });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let apiserver = Self { address: listener.local_addr()?, held: Arc::clone(&held) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let held = Arc::clone(&held);
                let answers = service_fn(move |request: Request<Incoming>| {
                    let response = held.answer(request.uri().path());
                    async move { Ok::<_, Infallible>(response) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answers));
            }
        });
        Ok(apiserver)
    }

    /// From now on the Devices say that their last attempt ended well, as the operator writes it.
    pub fn all_backed_up(&self) {
        self.held.backed_up.store(true, Ordering::Relaxed);
    }
}

impl Held {
    fn answer(&self, path: &str) -> Response<Full<Bytes>> {
        let [before, after] = &self.devices;
        let found = match path {
            "/apis/tsujiban.dev/v1alpha1/namespaces/tn-bench/devices" if self.backed_up.load(Ordering::Relaxed) => Some(after),
            "/apis/tsujiban.dev/v1alpha1/namespaces/tn-bench/devices" => Some(before),
            "/api/v1/namespaces/tn-bench/secrets/login" => Some(&self.secret),
            _ => None,
        };
        let mut response = Response::new(Full::from(found.unwrap_or(&self.missing).clone()));
        if found.is_none() {
            *response.status_mut() = http::StatusCode::NOT_FOUND;
        }
        response
    }
}

fn device(router: &Router, last_result: Option<&str>) -> Result<Value> {
    let status = last_result.map(|result| json!({ "lastAttempt": { "time": "2026-01-01T00:00:00Z", "result": result } }));
    Ok(json!({
        "apiVersion": "tsujiban.dev/v1alpha1", "kind": "Device", "status": status,
        "metadata": { "name": router.name, "namespace": NAMESPACE, "uid": store::uid(&router.name) },
        "spec": {
            "siteRef": { "name": "tokyo" }, "serialNumber": store::serial(&router.name), "driver": "Frr",
            "connection": {
                "host": router.address.to_string(), "port": PORT, "hostKey": router.public_key()?,
                "credentialsSecretRef": { "name": "login" },
            },
        },
    }))
}

/// As Kubernetes carries the data of a Secret.
fn base64(text: &str) -> String {
    base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text)
}
