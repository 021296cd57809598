//! The bodies that clients get, and the errors of a lost connection.

use std::io;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use serde_json::{Value, json};
use tower::BoxError;

/// The body that a client gets: a whole answer, or a watch with its faults.
pub(super) type Given = UnsyncBoxBody<Bytes, BoxError>;

pub(super) fn status(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code, "message": "a fault of the test"})
}

pub(super) fn broken() -> BoxError {
    io::Error::new(io::ErrorKind::ConnectionReset, "a connection was lost by the test").into()
}
