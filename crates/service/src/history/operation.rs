//! The record of a call, in the types of the contract.

use ring::digest;
use tonic::Code;
use tsujiban_api::names;
use tsujiban_core::id::GroupId;
use tsujiban_proto::audit::v1::{Actor, ActorKind, NewEntry, Operation, Phase, Result};

use crate::caller::Caller;

/// How long the id of an entry or an operation is.
pub(crate) const ID_BYTES: usize = 16;

/// The entry of an operation in the history of a group, or in the platform's own. The intent and the outcome of one call are two
/// entries; each has the same id whenever it is sent.
pub fn entry(group: &str, operation: Operation) -> NewEntry {
    let id = entry_id(&operation.id, operation.phase()).to_vec();
    NewEntry { group: group.to_owned(), id, operation: Some(operation) }
}

/// The id of the entry of a phase of an operation.
pub fn entry_id(operation: &[u8], phase: Phase) -> [u8; ID_BYTES] {
    let name = [operation, &i32::from(phase).to_be_bytes()].concat();
    let mut id = [0; ID_BYTES];
    id.iter_mut().zip(digest::digest(&digest::SHA256, &name).as_ref()).for_each(|(to, from)| *to = *from);
    id
}

/// The intent of a call: its record before it did anything.
pub(crate) fn intent(operation: &Operation) -> Operation {
    let mut intent = operation.clone();
    intent.set_phase(Phase::Intent);
    intent.set_result(Result::Pending);
    intent
}

/// The outcome of an intent whose real outcome is unknown, since the service stopped in between.
pub(crate) fn unknown(mut intent: Operation) -> Operation {
    intent.set_phase(Phase::Outcome);
    intent.set_result(Result::Unknown);
    "SERVICE_STOPPED".clone_into(&mut intent.reason);
    intent
}

/// The actor of a call. A collector is named after its group, since each group has one.
pub(crate) fn actor(caller: &Caller) -> Actor {
    let (kind, id) = match caller {
        Caller::Operator => (ActorKind::Workload, names::OPERATOR.to_owned()),
        Caller::Service(service) => (ActorKind::Workload, service.row().host.to_owned()),
        Caller::Collector { group } => (ActorKind::Workload, collector(group)),
        Caller::Staff(staff) => (ActorKind::Staff, staff.name().to_owned()),
        Caller::Person { account, .. } => (ActorKind::Person, account.clone()),
    };
    Actor { kind: kind.into(), id }
}

fn collector(group: &GroupId) -> String {
    format!("{}/{group}", names::COLLECTOR)
}

/// The actor of a call whose caller is unknown.
pub(crate) fn nobody() -> Actor {
    Actor { kind: ActorKind::Unknown.into(), id: String::new() }
}

/// The result of a call that the access layer admitted, by its code. A write that was aborted half-way may or may not have been done.
pub(crate) const fn result(code: Code, is_read: bool) -> Result {
    match code {
        Code::Ok => Result::Allowed,
        Code::PermissionDenied | Code::Unauthenticated => Result::Denied,
        Code::Cancelled | Code::DeadlineExceeded | Code::Unknown if !is_read => Result::Unknown,
        _ => Result::Failed,
    }
}

/// The name that the gRPC documentation gives a code.
pub(crate) const fn code(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intent_and_outcome_are_two_entries_and_each_is_always_the_same() {
        let operation = Operation { id: vec![7; 16], phase: Phase::Outcome.into(), ..Operation::default() };
        let outcome = entry("acme", operation.clone());
        let before = entry("acme", intent(&operation));
        assert_eq!((outcome.id.len(), before.id.len()), (ID_BYTES, ID_BYTES));
        assert_ne!(outcome.id, before.id);
        assert_eq!(entry("acme", unknown(intent(&operation))).id, outcome.id, "an outcome is there once, whatever it is");
        assert_eq!(entry("acme", operation).id, outcome.id);
    }

    #[test]
    fn a_write_that_was_given_up_may_have_been_done() {
        assert_eq!(result(Code::Cancelled, false), Result::Unknown);
        assert_eq!(result(Code::Cancelled, true), Result::Failed);
        assert_eq!(result(Code::PermissionDenied, true), Result::Denied);
        assert_eq!(result(Code::NotFound, false), Result::Failed);
    }
}
