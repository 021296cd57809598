//! May this caller call this method?

use tsujiban_proto::access::v1::{Rule, Workload};
use tsujiban_proto::error::{Kind, ServiceError};

use crate::caller;
use crate::identity::{Authenticator, Identity, Principal};

/// Passes when the method's rule lets the identity call: workloads by name, staff by their right.
pub(super) async fn decide(rule: &Rule, identity: &Identity, authenticator: &dyn Authenticator) -> Result<(), ServiceError> {
    let denied = |who: &str, whom: &str| {
        let message = format!("{who} may not call this method of {}; {whom}", rule.function);
        Err(ServiceError::new(Kind::Denied, "NOT_ALLOWED", message))
    };
    let names = |workload| rule.workloads().any(|allowed| allowed == workload);
    match &identity.principal {
        Principal::Operator if names(Workload::Operator) => Ok(()),
        Principal::Operator => denied("the operator", "call as a group's collector or as staff"),
        Principal::Collector { .. } if names(Workload::Collector) => Ok(()),
        Principal::Collector { .. } => denied("a collector", "call as the operator or as staff"),
        Principal::Staff { .. } => match rule.staff_verb() {
            Some(verb) => caller::require(authenticator, identity, &rule.function, verb).await,
            None => denied("staff", "only workloads of the system call it"),
        },
    }
}
