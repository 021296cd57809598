//! Figures about calls, under the names that grpc-prometheus gave them, so that dashboards and rules for those fit.

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};
use tonic::Code;

use super::methods::{Method, Methods};
use crate::plan;

/// Upper bounds in seconds, up to the deadline of unary calls.
const BUCKETS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

#[derive(Debug, Clone)]
pub(super) struct Metrics {
    handled: IntCounterVec,
    seconds: HistogramVec,
}

impl Metrics {
    /// Registers the figures. Every method starts with a zero, so that a method nobody calls is not a gap in the data.
    pub(super) fn register(registry: &Registry, methods: &Methods) -> Result<Self, prometheus::Error> {
        let handled = IntCounterVec::new(
            Opts::new("grpc_server_handled_total", "Calls that were answered, by code."),
            &["grpc_service", "grpc_method", "grpc_code", "plan"],
        )?;
        let seconds = HistogramVec::new(
            HistogramOpts::new("grpc_server_handling_seconds", "Seconds from a call's arrival to the end of its answer.")
                .buckets(BUCKETS.to_vec()),
            &["grpc_service", "grpc_method", "plan"],
        )?;
        registry.register(Box::new(handled.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        for Method { service, name, .. } in methods.iter() {
            for plan in plan::LABELS {
                handled.with_label_values(&[service.as_str(), name, label(Code::Ok), plan]);
            }
        }
        Ok(Self { handled, seconds })
    }

    pub(super) fn record(&self, service: &str, method: &str, code: Code, plan: &str, took: Duration) {
        self.handled.with_label_values(&[service, method, label(code), plan]).inc();
        self.seconds.with_label_values(&[service, method, plan]).observe(took.as_secs_f64());
    }
}

/// The name of a code in metrics and logs.
pub(super) const fn label(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}
