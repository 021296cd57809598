//! Kubeconfigs, as files and as clients.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// How a user authenticates.
pub(crate) enum Credential<'a> {
    Certificate { certificate: &'a str, key: &'a str },
    Token(&'a str),
}

pub(crate) fn kubeconfig(server: &str, ca: &str, credential: &Credential<'_>) -> Value {
    let encode = |text: &str| STANDARD.encode(text);
    let user = match credential {
        Credential::Certificate { certificate, key } => {
            json!({"client-certificate-data": encode(certificate), "client-key-data": encode(key)})
        }
        Credential::Token(token) => json!({"token": token}),
    };
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "plane",
        "clusters": [{"name": "plane", "cluster": {"server": server, "certificate-authority-data": encode(ca)}}],
        "contexts": [{"name": "plane", "context": {"cluster": "plane", "user": "plane"}}],
        "users": [{"name": "plane", "user": user}],
    })
}
