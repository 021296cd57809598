//! Errors as people read them.

use std::error::Error;

use crate::service_client::CallError;

/// An error with everything that caused it, in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Whether the same would fail again until somebody changes something: the apiserver or a service understood, and refused.
pub fn is_lasting(error: &(dyn Error + 'static)) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::failed;
    use crate::reconcile::Failure;
    use crate::tenant::TenantError;
    use k8s_openapi::api::core::v1::Namespace;
    use serde_json::json;
    use tsujiban_core::workload::Service;
    use tsujiban_proto::error::{Kind, ServiceError};

    fn answered(code: u16, cause: &str) -> Failure<TenantError> {
        let status = json!({"code": code, "reason": "x", "message": "x", "details": {"causes": [{"reason": cause}]}});
        let error = kube::Error::Api(serde_json::from_value(status).unwrap());
        Failure::Step(TenantError::Namespace(failed::<Namespace>("apply", None, "x")(error)))
    }

    fn refused(kind: Kind) -> Failure<TenantError> {
        Failure::Step(TenantError::Keys(CallError::Service { service: Service::Backup, error: ServiceError::new(kind, "X", "x") }))
    }

    #[test]
    fn what_lasts_and_what_passes() {
        assert!([400, 403, 422].into_iter().all(|code| is_lasting(&answered(code, ""))));
        assert!([404, 409, 410, 429, 500, 503].into_iter().all(|code| !is_lasting(&answered(code, ""))));
        assert!(!is_lasting(&answered(403, "NamespaceTerminating")));
        assert!(is_lasting(&refused(Kind::Precondition)) && !is_lasting(&refused(Kind::Unavailable)));
        assert!(!is_lasting(&Failure::<TenantError>::Deadline));
    }
}
