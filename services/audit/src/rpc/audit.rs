use std::sync::Arc;

use futures::stream;
use jiff::Timestamp;
use tonic::{Request, Response, Status};
use tsujiban_history::merkle::Hash;
use tsujiban_history::operation::Phase as Stage;
use tsujiban_proto::audit::v1::audit_service_server::AuditService;
use tsujiban_proto::audit::v1::declare_gap_request::Scope;
use tsujiban_proto::audit::v1::{
    AppendRequest, AppendResponse, AppendedEntry, Coverage, CoveredRequest, CoveredResponse, DamagedEntry, DeclareGapRequest,
    DeclareGapResponse, Entry, ExportEntriesRequest, ExportEntriesResponse, ExportFormat, GetCheckpointRequest, GetCheckpointResponse,
    GetProofRequest, GetProofResponse, ListEntriesRequest, ListEntriesResponse, LogCoverage, LogEntries, NewEntry,
};
use tsujiban_proto::time::to_wire;
use tsujiban_service::answers::{Answers, in_chunks};
use tsujiban_service::caller::Caller;

use super::operation::{from_wire, outcome, to_wire_operation};
use super::parse;
use crate::covered::{self, GroupCoverage};
use crate::engine::{Addition, Phase};
use crate::error::{Error, Result as Done};
use crate::export::{Export, Format};
use crate::owner::Owner;
use crate::reading::{Filter, Listed};
use crate::roots::GapScope;
use crate::service::Audit;

pub struct Api(pub Arc<Audit>);

type Answer<T> = Result<Response<T>, Status>;

const MOST: usize = 256;

/// The owner of the history that a call is about. Fails if the caller may not access that group.
fn owner<T>(request: &Request<T>, group: &str) -> Done<Owner> {
    let caller = Caller::of(request)?;
    match parse::owner(group)? {
        Owner::Platform => Ok(Owner::Platform),
        Owner::Group(_) => Ok(Owner::Group(caller.scope(group)?.group().clone())),
    }
}

#[tonic::async_trait]
impl AuditService for Api {
    type ExportEntriesStream = Answers<ExportEntriesResponse>;

    async fn append(&self, request: Request<AppendRequest>) -> Answer<AppendResponse> {
        Caller::of(&request)?;
        let entries = request.into_inner().entries;
        if !(1..=MOST).contains(&entries.len()) {
            return Err(Error::invalid(format!("{} entries; send 1 to {MOST}", entries.len())).into());
        }
        let additions = entries.into_iter().map(addition).collect::<Done<Vec<_>>>()?;
        let added = self.0.append_all(additions).await?;
        let new = added.iter().filter(|added| !added.is_duplicate).count();
        self.0.metrics.appended.inc_by(u64::try_from(new).unwrap_or_default());
        let entries = added.into_iter().map(|added| AppendedEntry { sequence: added.sequence, is_duplicate: added.is_duplicate });
        Ok(Response::new(AppendResponse { entries: entries.collect() }))
    }

    async fn covered(&self, request: Request<CoveredRequest>) -> Answer<CoveredResponse> {
        Caller::of(&request)?;
        let asked = asked(&request.into_inner().logs)?;
        let logs = self.0.coverage(&asked).await?.iter().map(coverage).collect();
        Ok(Response::new(CoveredResponse { logs }))
    }

    async fn list_entries(&self, request: Request<ListEntriesRequest>) -> Answer<ListEntriesResponse> {
        let owner = owner(&request, &request.get_ref().group)?;
        let request = request.into_inner();
        let size = parse::page_size(request.page_size)?;
        let before = parse::page_token(&request.page_token)?;
        let filter = Filter {
            from: parse::time(request.from.as_ref())?,
            to: parse::time(request.to.as_ref())?,
            result: outcome(request.result()),
            actor: parse::filter(request.actor)?,
            function: parse::filter(request.function)?,
            target: parse::filter(request.target)?,
            intents: request.include_intents,
        };
        // a group that never did anything has an empty history
        let Some(log) = self.0.log_of(&owner).await? else { return Ok(Response::new(ListEntriesResponse::default())) };
        let page = self.0.list(&log, &filter, before, size).await?;
        Ok(Response::new(ListEntriesResponse {
            entries: page.entries.into_iter().map(entry).collect(),
            next_page_token: page.next.map(|next| format!("before-{next}")).unwrap_or_default(),
            damaged: page.damaged.into_iter().rev().map(|(sequence, wrong)| DamagedEntry { sequence, wrong: wrong.to_string() }).collect(),
        }))
    }

    async fn export_entries(&self, request: Request<ExportEntriesRequest>) -> Answer<Self::ExportEntriesStream> {
        let owner = owner(&request, &request.get_ref().group)?;
        let request = request.into_inner();
        let span = (parse::time(request.from.as_ref())?, parse::time(request.to.as_ref())?);
        let format = match request.format() {
            ExportFormat::JsonLines => Format::JsonLines,
            ExportFormat::Csv => Format::Csv,
            ExportFormat::Unspecified => return Err(Error::invalid("say in which format: JSON lines or CSV").into()),
        };
        let log = self.0.some_log_of(&owner).await?;
        let export = Export::begin(&self.0, log, span, format).await?;
        let uncovered = export.uncovered();
        let pieces = stream::try_unfold((Arc::clone(&self.0), export), |(audit, mut export)| async move {
            Ok::<_, Error>(export.next(&audit).await?.map(|piece| (piece, (audit, export))))
        });
        Ok(Response::new(in_chunks(pieces, move |chunk| ExportEntriesResponse { chunk, uncovered })))
    }

    async fn get_proof(&self, request: Request<GetProofRequest>) -> Answer<GetProofResponse> {
        let owner = owner(&request, &request.get_ref().group)?;
        let GetProofRequest { sequence, tree_size, .. } = request.into_inner();
        let log = self.0.some_log_of(&owner).await?;
        let size = if tree_size == 0 { log.size() } else { tree_size };
        if size > log.size() || sequence >= size {
            let message = format!("the history of {owner} has {} entries; ask for an entry and a size within", log.size());
            return Err(Error::invalid(message).into());
        }
        let leaf = self.0.leaf(&log, sequence).await?;
        let hashes = self.0.prove_inclusion(&log, sequence, size).await?;
        Ok(Response::new(GetProofResponse { leaf, tree_size: size, hashes: bytes(&hashes) }))
    }

    async fn get_checkpoint(&self, request: Request<GetCheckpointRequest>) -> Answer<GetCheckpointResponse> {
        let owner = owner(&request, &request.get_ref().group)?;
        let log = self.0.covered(&self.0.some_log_of(&owner).await?).await?;
        let from = request.get_ref().from_size;
        if from > log.size() {
            let message = format!("the history of {owner} has {} entries, which is less than {from}", log.size());
            return Err(Error::invalid(message).into());
        }
        let consistency = if from == 0 { Vec::new() } else { self.0.prove_consistency(&log, from, log.size()).await? };
        let checkpoint = self.0.sign(log.id, log.head())?;
        Ok(Response::new(GetCheckpointResponse { checkpoint, tree_size: log.size(), consistency: bytes(&consistency) }))
    }

    async fn declare_gap(&self, request: Request<DeclareGapRequest>) -> Answer<DeclareGapResponse> {
        let caller = Caller::of(&request)?.clone();
        let scope = match request.get_ref().scope.as_ref() {
            Some(Scope::Group(group)) => GapScope::Of(owner(&request, group)?),
            Some(Scope::All(true)) => GapScope::All,
            Some(Scope::All(false)) | None => return Err(Error::invalid("say for which log: a group, or all").into()),
        };
        let reason = parse::reason(&request.get_ref().reason)?.to_owned();
        let audit = Arc::clone(&self.0);
        // in its own task, so that the declaration is completed even if the caller disconnects
        let declared = tokio::spawn(async move { audit.declare_gap(&scope, &reason, caller.id()).await }).await;
        let logs = declared.map_err(|_| Status::internal("the gap could not be declared; the service's log says more"))??;
        Ok(Response::new(DeclareGapResponse { logs }))
    }
}

/// The entries that a request asks for.
pub fn asked(logs: &[LogEntries]) -> Done<Vec<(Owner, Vec<[u8; 16]>)>> {
    let count: usize = logs.iter().map(|log| log.ids.len()).sum();
    if !(1..=covered::MOST).contains(&count) || logs.len() > covered::MOST {
        return Err(Error::invalid(format!("{count} ids; ask for 1 to {}", covered::MOST)));
    }
    let log = |log: &LogEntries| {
        let ids = log.ids.iter().map(|id| parse::id(id, "id of an entry")).collect::<Done<Vec<_>>>()?;
        Ok((parse::owner(&log.group)?, ids))
    };
    logs.iter().map(log).collect()
}

/// Converts the coverage of a group's entries to the wire type.
pub fn coverage(group: &GroupCoverage) -> LogCoverage {
    let entry = |coverage: &covered::Coverage| match coverage {
        covered::Coverage::Covered => Coverage::Covered.into(),
        covered::Coverage::Pending => Coverage::Pending.into(),
        covered::Coverage::Unknown => Coverage::Unknown.into(),
    };
    LogCoverage { is_erased: group.is_erased, entries: group.entries.iter().map(entry).collect() }
}

/// Converts an entry to the engine's type.
pub fn addition(entry: NewEntry) -> Done<Addition> {
    let owner = parse::owner(&entry.group)?;
    let id = parse::id(&entry.id, "id of an entry")?;
    let operation = from_wire(entry.operation.ok_or_else(|| Error::invalid("an entry has no operation"))?)?;
    Ok(Addition {
        owner,
        id,
        operation: *operation.id.as_bytes(),
        phase: match operation.phase {
            Stage::Intent => Phase::Intent,
            Stage::Outcome => Phase::Outcome,
            Stage::Observed => Phase::Observed,
        },
        time: operation.time.timestamp(),
        body: operation.encode().map_err(|error| Error::refuse(tsujiban_proto::error::Kind::Invalid, "TOO_LARGE", error.to_string()))?,
    })
}

fn entry(listed: Listed) -> Entry {
    Entry {
        sequence: listed.sequence,
        appended_at: Timestamp::from_microsecond(listed.appended_us).ok().map(to_wire),
        operation: Some(to_wire_operation(listed.operation)),
    }
}

fn bytes(hashes: &[Hash]) -> Vec<Vec<u8>> {
    hashes.iter().map(|hash| hash.as_bytes().to_vec()).collect()
}
