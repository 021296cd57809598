//! Operations on the wire.

use tsujiban_history::operation::{Access, Actor, ActorKind, Outcome, Phase};
use tsujiban_history::{EntryId, JstTime, Operation};
use tsujiban_proto::access::v1::Operation as Verb;
use tsujiban_proto::audit::v1 as wire;
use tsujiban_proto::time::to_wire;

use super::parse;
use crate::error::{Error, Result};

/// Checks that all fields are set. Texts stay unchanged: they are escaped when they are shown.
pub fn from_wire(operation: wire::Operation) -> Result<Operation> {
    let missing = |what: &str| Error::invalid(format!("the operation has no {what}"));
    let id = EntryId::from_bytes(parse::id(&operation.id, "id of the operation")?);
    let time = parse::time(operation.time.as_ref())?.ok_or_else(|| missing("time"))?;
    let phase = phase(operation.phase()).ok_or_else(|| missing("phase"))?;
    let result = outcome(operation.result()).ok_or_else(|| missing("result"))?;
    let access = access(operation.operation()).ok_or_else(|| missing("kind of operation"))?;
    let actor = operation.actor.ok_or_else(|| missing("actor"))?;
    let kind = actor_kind(actor.kind()).ok_or_else(|| missing("kind of actor"))?;
    Ok(Operation {
        id,
        phase,
        time: JstTime::new(time),
        actor: Actor { kind, id: actor.id },
        from: operation.from,
        service: operation.service,
        method: operation.method,
        function: operation.function,
        operation: access,
        target: operation.target,
        result,
        code: operation.code,
        reason: operation.reason,
        duration_us: operation.duration_us,
        request_id: operation.request_id,
        trace_id: operation.trace_id,
        detail: operation.detail.into_iter().collect(),
    })
}

pub fn to_wire_operation(operation: Operation) -> wire::Operation {
    wire::Operation {
        id: operation.id.as_bytes().to_vec(),
        phase: match operation.phase {
            Phase::Intent => wire::Phase::Intent,
            Phase::Outcome => wire::Phase::Outcome,
            Phase::Observed => wire::Phase::Observed,
        }
        .into(),
        time: Some(to_wire(operation.time.timestamp())),
        actor: Some(wire::Actor { kind: wire_actor_kind(operation.actor.kind).into(), id: operation.actor.id }),
        from: operation.from,
        service: operation.service,
        method: operation.method,
        function: operation.function,
        operation: match operation.operation {
            Access::View => Verb::View,
            Access::Create => Verb::Create,
            Access::Operate => Verb::Operate,
            Access::Delete => Verb::Delete,
            Access::Administer => Verb::Administer,
        }
        .into(),
        target: operation.target,
        result: match operation.result {
            Outcome::Allowed => wire::Result::Allowed,
            Outcome::Denied => wire::Result::Denied,
            Outcome::Failed => wire::Result::Failed,
            Outcome::Unknown => wire::Result::Unknown,
            Outcome::Pending => wire::Result::Pending,
        }
        .into(),
        code: operation.code,
        reason: operation.reason,
        duration_us: operation.duration_us,
        request_id: operation.request_id,
        trace_id: operation.trace_id,
        detail: operation.detail.into_iter().collect(),
    }
}

pub fn outcome(result: wire::Result) -> Option<Outcome> {
    match result {
        wire::Result::Unspecified => None,
        wire::Result::Allowed => Some(Outcome::Allowed),
        wire::Result::Denied => Some(Outcome::Denied),
        wire::Result::Failed => Some(Outcome::Failed),
        wire::Result::Unknown => Some(Outcome::Unknown),
        wire::Result::Pending => Some(Outcome::Pending),
    }
}

fn phase(phase: wire::Phase) -> Option<Phase> {
    match phase {
        wire::Phase::Unspecified => None,
        wire::Phase::Intent => Some(Phase::Intent),
        wire::Phase::Outcome => Some(Phase::Outcome),
        wire::Phase::Observed => Some(Phase::Observed),
    }
}

fn access(operation: Verb) -> Option<Access> {
    match operation {
        Verb::Unspecified => None,
        Verb::View => Some(Access::View),
        Verb::Create => Some(Access::Create),
        Verb::Operate => Some(Access::Operate),
        Verb::Delete => Some(Access::Delete),
        Verb::Administer => Some(Access::Administer),
    }
}

fn actor_kind(kind: wire::ActorKind) -> Option<ActorKind> {
    match kind {
        wire::ActorKind::Unspecified => None,
        wire::ActorKind::Workload => Some(ActorKind::Workload),
        wire::ActorKind::Staff => Some(ActorKind::Staff),
        wire::ActorKind::Person => Some(ActorKind::Person),
        wire::ActorKind::Kubernetes => Some(ActorKind::Kubernetes),
        wire::ActorKind::Unknown => Some(ActorKind::Unknown),
    }
}

fn wire_actor_kind(kind: ActorKind) -> wire::ActorKind {
    match kind {
        ActorKind::Workload => wire::ActorKind::Workload,
        ActorKind::Staff => wire::ActorKind::Staff,
        ActorKind::Person => wire::ActorKind::Person,
        ActorKind::Kubernetes => wire::ActorKind::Kubernetes,
        ActorKind::Unknown => wire::ActorKind::Unknown,
    }
}
