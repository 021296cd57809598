//! An apiserver that knows Devices and Secrets of one namespace.

use std::collections::BTreeMap;
use std::convert::Infallible;

use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

#[derive(Debug, Clone, Default)]
pub struct Apiserver {
    pub devices: Vec<Value>,
    pub secrets: BTreeMap<String, Value>,
}

impl Apiserver {
    pub fn client(self) -> Client {
        let service = tower::service_fn(move |request: Request<Body>| {
            let (status, answer) = self.answer(request.uri().path(), request.uri().query().unwrap_or_default());
            let response = Response::builder().status(status).body(Body::from(answer.to_string().into_bytes())).unwrap();
            async move { Ok::<_, Infallible>(response) }
        });
        Client::new(service, "tn-acme")
    }

    /// Devices come in pages of two.
    fn answer(&self, path: &str, query: &str) -> (u16, Value) {
        if path == "/apis/tsujiban.dev/v1alpha1/namespaces/tn-acme/devices" {
            let from: usize = query.split('&').find_map(|pair| pair.strip_prefix("continue=")).map_or(0, |at| at.parse().unwrap());
            let page: Vec<&Value> = self.devices.iter().skip(from).take(2).collect();
            let more = if from + 2 < self.devices.len() { (from + 2).to_string() } else { String::new() };
            return (
                200,
                json!({ "apiVersion": "tsujiban.dev/v1alpha1", "kind": "DeviceList", "metadata": { "continue": more }, "items": page }),
            );
        }
        let secret = path.strip_prefix("/api/v1/namespaces/tn-acme/secrets/").and_then(|name| self.secrets.get(name));
        match secret {
            Some(secret) => (200, secret.clone()),
            None => (
                404,
                json!({ "apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "NotFound", "message": format!("{path} not found"), "code": 404 }),
            ),
        }
    }
}
