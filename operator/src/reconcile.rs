//! What every reconcile goes through: a deadline, metrics, a log line when it fails, and back-off for each object.

use std::error::Error;
use std::future::Future;
use std::time::{Duration, Instant};

use kube::ResourceExt;
use kube::runtime::controller::Action;
use tracing::Instrument as _;
use tsujiban_core::error::chain;

use crate::backoff::Backoff;
use crate::context::Shared;
use crate::services::client::CallError;
use crate::stall::End;

/// A reconcile that takes longer is given up and tried again: some request hangs.
const DEADLINE: Duration = Duration::from_mins(1);

/// The error of a reconcile: the step that failed, which is a label of the metrics, and why it failed.
#[derive(Debug, thiserror::Error)]
#[error("reconcile failed at step {step}")]
pub struct StepFailed {
    step: &'static str,
    source: Box<dyn Error + Send + Sync>,
}

/// Names the step that an error comes from, for `map_err`.
pub fn at<E: Error + Send + Sync + 'static>(step: &'static str) -> impl FnOnce(E) -> StepFailed {
    move |error| StepFailed { step, source: Box::new(error) }
}

/// Why a reconcile did not complete.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Step(#[from] StepFailed),
    #[error("reconcile took longer than 60 s and was given up; a request to the apiserver or a service hangs")]
    Deadline,
}

impl Failure {
    fn step(&self) -> &'static str {
        match self {
            Self::Step(failed) => failed.step,
            Self::Deadline => "deadline",
        }
    }
}

/// Runs one reconcile.
pub async fn observed(
    shared: &Shared,
    kind: &'static str,
    object: &str,
    work: impl Future<Output = Result<Action, StepFailed>>,
) -> Result<Action, Failure> {
    shared.metrics.started(kind, object);
    let start = Instant::now();
    let span = tracing::info_span!("reconcile", kind, object);
    let result = match tokio::time::timeout(DEADLINE, work.instrument(span)).await {
        Ok(result) => result.map_err(Failure::Step),
        Err(_) => Err(Failure::Deadline),
    };
    let end = match &result {
        Ok(_) => End::Well,
        Err(Failure::Step(_)) => End::Failed,
        Err(Failure::Deadline) => End::GivenUp,
    };
    shared.metrics.finished(kind, object, start.elapsed(), end, result.as_ref().err().map(Failure::step));
    if result.is_ok() {
        shared.backoff.succeeded(&key(kind, object));
    }
    result
}

/// What happens after an error: wait, longer each time.
pub fn after_error<K: ResourceExt>(kind: &'static str, object: &K, failure: &Failure, backoff: &Backoff) -> Action {
    let name = name(object);
    let wait = backoff.failed(&key(kind, &name), is_lasting(failure));
    tracing::warn!(kind, name, step = failure.step(), error = chain(failure), retry_seconds = wait.as_secs(), "reconcile failed");
    Action::requeue(wait)
}

/// Whether a retry fails again until somebody changes something: the apiserver or a service understood the request and refused it.
fn is_lasting(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let kube = error.downcast_ref::<kube::Error>().or_else(|| error.downcast_ref::<Box<kube::Error>>().map(|boxed| &**boxed));
        if let Some(kube::Error::Api(status)) = kube {
            let causes = status.details.as_ref().map(|details| details.causes.as_slice()).unwrap_or_default();
            let is_terminating = causes.iter().any(|cause| cause.reason == "NamespaceTerminating");
            return matches!(status.code, 400..=403 | 405 | 413 | 422) && !is_terminating;
        }
        if let Some(call) = error.downcast_ref::<CallError>() {
            return call.refusal().is_some();
        }
        cause = error.source();
    }
    false
}

/// Namespace and name.
pub fn name<K: ResourceExt>(object: &K) -> String {
    match object.namespace() {
        Some(namespace) => format!("{namespace}/{}", object.name_any()),
        None => object.name_any(),
    }
}

fn key(kind: &str, object: &str) -> String {
    format!("{kind} {object}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::failed;
    use k8s_openapi::api::core::v1::Namespace;
    use serde_json::json;
    use tsujiban_core::workload::Service;
    use tsujiban_proto::error::{Kind, ServiceError};

    fn answered(code: u16, cause: &str) -> Failure {
        let status = json!({"code": code, "reason": "x", "message": "x", "details": {"causes": [{"reason": cause}]}});
        let error = kube::Error::Api(serde_json::from_value(status).unwrap());
        Failure::Step(at("namespace")(failed::<Namespace>("apply", None, "x")(error)))
    }

    fn refused(kind: Kind) -> Failure {
        Failure::Step(at("keys")(CallError::Service { service: Service::Backup, error: ServiceError::new(kind, "X", "x") }))
    }

    #[test]
    fn an_error_names_its_step_and_what_went_wrong() {
        let failure = answered(403, "");
        assert_eq!(failure.step(), "namespace");
        assert!(chain(&failure).starts_with("reconcile failed at step namespace: "), "{}", chain(&failure));
        assert!(chain(&failure).contains("Namespace x"), "{}", chain(&failure));
    }

    #[test]
    fn what_lasts_and_what_passes() {
        assert!([400, 403, 422].into_iter().all(|code| is_lasting(&answered(code, ""))));
        assert!([404, 409, 410, 429, 500, 503].into_iter().all(|code| !is_lasting(&answered(code, ""))));
        assert!(!is_lasting(&answered(403, "NamespaceTerminating")));
        assert!(is_lasting(&refused(Kind::Precondition)) && !is_lasting(&refused(Kind::Unavailable)));
        assert!(!is_lasting(&Failure::Deadline));
    }
}
