//! May this caller call this method?

use tsujiban_core::id::GroupId;
use tsujiban_proto::access::v1::History;
use tsujiban_proto::error::{Kind, ServiceError};

use super::methods::Method;
use super::subject::Subject;
use crate::caller::{self, Caller};
use crate::identity::{Authenticator, Identity, PermissionRequest, Principal};

/// Passes when the method's rule lets the identity call: workloads by name, staff by their right. A person passes where a request names
/// a group, and is asked for their right in it by [`decide_in`].
pub(super) async fn decide(method: &Method, identity: &Identity, authenticator: &dyn Authenticator) -> Result<(), ServiceError> {
    let rule = &method.rule;
    let denied = |who: &str, whom: &str| {
        let message = format!("{who} may not call this method of {}; {whom}", rule.function);
        Err(ServiceError::new(Kind::Denied, "NOT_ALLOWED", message))
    };
    if identity.principal.workload().is_some_and(|workload| rule.lets(workload)) {
        return Ok(());
    }
    match &identity.principal {
        Principal::Operator => denied("the operator", "call as a group's collector or as staff"),
        Principal::Collector { .. } => denied("a collector", "call as the operator or as staff"),
        Principal::Service(service) => denied(&format!("the {service}"), "call as the operator or as staff"),
        Principal::Staff { .. } => match rule.staff_verb() {
            Some(verb) => caller::require(authenticator, identity, &rule.function, verb).await,
            None => denied("staff", "only workloads of the system call it"),
        },
        Principal::Person { .. } if method.fields.name_a_group() => Ok(()),
        Principal::Person { .. } => denied("an account", "it is about no group; only staff and workloads of the system call it"),
    }
}

/// How a call is recorded: by its method's rule, and strictly where it reveals secrets.
pub(super) fn history(method: &Method, subject: &Subject) -> History {
    if subject.reveals { History::Strict } else { method.rule.history() }
}

/// Passes a call that reveals secrets when its caller has the right to. Only staff can have it.
pub(super) async fn decide_revealing(method: &Method, subject: &Subject, caller: &Caller) -> Result<(), ServiceError> {
    if subject.reveals { caller.require(&method.rule.function, caller::REVEAL).await } else { Ok(()) }
}

/// Passes when a person's roles in the group let them call the method. [`decide`] has checked all other callers.
pub(super) async fn decide_in(
    group: &GroupId,
    method: &Method,
    identity: &Identity,
    authenticator: &dyn Authenticator,
) -> Result<(), ServiceError> {
    let Principal::Person { .. } = identity.principal else { return Ok(()) };
    let permission = PermissionRequest { group, function: &method.rule.function, operation: method.rule.operation() };
    if authenticator.permitted(identity, permission).await? {
        return Ok(());
    }
    let message = format!(
        "your roles in group {group} do not let you {} {}; ask an administrator of the group",
        permission.operation.word(),
        permission.function
    );
    Err(ServiceError::new(Kind::Denied, "MISSING_PERMISSION", message))
}
