//! The life of a group: prepared, detached, exported, imported, erased.

use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tonic::Status;
use tsujiban_core::id::{GroupId, IncarnationId};
use tsujiban_core::workload::Service;
use tsujiban_database::{Columns, Database, Tx, on, transaction};
use tsujiban_proto::error::Kind;
use tsujiban_proto::lifecycle::v1::{GroupReport, GroupState, ReportResponse};
use tsujiban_proto::time::to_wire;
use tsujiban_sealing::Context;
use tsujiban_service::caller::GroupScope;
use tsujiban_service::lifecycle::{self, Eraser, Holder, Left, Prepared};

use crate::service::{Error, Result, Scratch, count};

/// The class of an export's seal.
const EXPORT: &str = "scratch export";
/// An export is one sealed number.
const MAX_EXPORT: usize = 1024;

/// One incarnation of a group.
struct Group {
    incarnation: IncarnationId,
    id: GroupId,
    state: GroupState,
    prepared_at: Timestamp,
    ended_at: Option<Timestamp>,
}

impl Group {
    fn read(row: &impl Columns) -> Result<Self> {
        let state = match row.text("state")?.as_str() {
            "living" => GroupState::Living,
            "retained" => GroupState::Retained,
            "erased" => GroupState::Erased,
            other => return Err(Error::Corrupt { column: "state", value: other.to_owned() }),
        };
        let time = |value: i64| Timestamp::from_microsecond(value).map_err(|_| corrupt("time", value.to_string()));
        Ok(Self {
            incarnation: parsed("incarnation", row.text("incarnation")?)?,
            id: parsed("group_id", row.text("group_id")?)?,
            state,
            prepared_at: time(row.integer("prepared_at")?)?,
            ended_at: row.integer_or_none("ended_at")?.map(time).transpose()?,
        })
    }

    fn report(self) -> GroupReport {
        GroupReport {
            group: self.id.to_string(),
            incarnation: self.incarnation.to_string(),
            state: self.state.into(),
            prepared_at: Some(to_wire(self.prepared_at)),
            ended_at: self.ended_at.map(to_wire),
            // nothing of it is left that would keep another group from the id
            id_free_at: self.ended_at.filter(|_| self.state == GroupState::Erased).map(to_wire),
            ..GroupReport::default()
        }
    }
}

/// What an export holds.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    value: u64,
}

/// An export under way: what is left to be sent.
pub struct Export(Option<Vec<u8>>);

/// An import under way: what has come so far.
pub struct Import {
    incarnation: IncarnationId,
    sealed: Vec<u8>,
}

impl Holder for Scratch {
    type Error = Error;
    type Export = Export;
    type Import = Import;

    /// The incarnation is the one that is there, or the one that the first service has minted and the caller expects, or a new one.
    async fn prepare(&self, scope: &GroupScope, expected: Option<&IncarnationId>, _log: &str) -> Result<Prepared> {
        let (id, now) = (scope.group(), self.now());
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes)?;
        let minted = IncarnationId::from_bytes(bytes);
        transaction!(self.database, tx => {
            let groups = in_transaction(tx, id).await?;
            if let Some(present) = groups.iter().find(|group| group.state != GroupState::Erased) {
                if let Some(expected) = expected.filter(|expected| **expected != present.incarnation) {
                    return Err(lifecycle::other_incarnation(Service::Scratch, id, expected, Some(&present.incarnation)).into());
                }
                set_state(tx, &present.incarnation, "living", None).await?;
                return Ok(prepared(present.incarnation.clone(), false));
            }
            if let Some(expected) = expected.filter(|expected| groups.iter().any(|group| group.incarnation == **expected)) {
                return Err(lifecycle::erased(id, expected).into());
            }
            let incarnation = expected.unwrap_or(&minted).clone();
            add(tx, id, &incarnation, now).await?;
            Ok(prepared(incarnation, true))
        })
    }

    async fn detach(&self, scope: &GroupScope, incarnation: &IncarnationId) -> Result<()> {
        let now = self.now();
        transaction!(self.database, tx => {
            match exact(tx, scope, incarnation).await?.state {
                GroupState::Living => set_state(tx, incarnation, "retained", Some(now)).await,
                GroupState::Erased => Err(lifecycle::nothing_to_keep(scope.group(), incarnation).into()),
                _ => Ok(()),
            }
        })
    }

    async fn begin_export(&self, scope: &GroupScope, incarnation: &IncarnationId) -> Result<Export> {
        const TEXT: &str = "SELECT value FROM counters WHERE incarnation = $1";
        let value: Option<i64> = transaction!(self.database, tx => {
            exact(tx, scope, incarnation).await?;
            Ok::<_, Error>(on!(tx.on(), c => sqlx::query_scalar(TEXT).bind(incarnation.as_str()).fetch_optional(c).await)?)
        })?;
        let value = count(value.ok_or_else(|| lifecycle::no_incarnation(scope.group(), incarnation))?)?;
        let plain = serde_json::to_vec(&Record { value }).map_err(|_| bad_export())?;
        // by the master key: an export outlives every epoch key
        Ok(Export(Some(self.keyring.master().seal(context(incarnation), &plain, &self.random)?)))
    }

    async fn export(&self, export: &mut Export) -> Result<Option<Vec<u8>>> {
        Ok(export.0.take())
    }

    async fn begin_import(&self, scope: &GroupScope, incarnation: &IncarnationId) -> Result<Import> {
        let group = transaction!(self.database, tx => exact(tx, scope, incarnation).await)?;
        if group.state == GroupState::Erased {
            return Err(lifecycle::no_incarnation(scope.group(), incarnation).into());
        }
        Ok(Import { incarnation: incarnation.clone(), sealed: Vec::new() })
    }

    async fn import(&self, import: &mut Import, piece: &[u8]) -> Result<()> {
        if import.sealed.len() + piece.len() > MAX_EXPORT {
            return Err(bad_export());
        }
        import.sealed.extend_from_slice(piece);
        Ok(())
    }

    /// A counter that has counted since is newer than the export, and stays.
    async fn end_import(&self, import: Import) -> Result<u64> {
        const TEXT: &str = "UPDATE counters SET value = $2 WHERE incarnation = $1 AND value < $2";
        let plain = self.keyring.master().open(context(&import.incarnation), &import.sealed).map_err(|_| bad_export())?;
        let record: Record = serde_json::from_slice(&plain).map_err(|_| bad_export())?;
        let value = i64::try_from(record.value).map_err(|_| bad_export())?;
        let incarnation = import.incarnation.as_str();
        Ok(on!(self.database.writes(), p => sqlx::query(TEXT).bind(incarnation).bind(value).execute(p).await?.rows_affected()))
    }

    async fn erase_group(&self, scope: &GroupScope, incarnation: &IncarnationId, by: Eraser) -> Result<Left> {
        const TEXT: &str = "DELETE FROM counters WHERE incarnation = $1";
        let now = self.now();
        transaction!(self.database, tx => {
            let group = exact(tx, scope, incarnation).await?;
            if by == Eraser::Staff && group.state == GroupState::Living {
                return Err(Error::from(lifecycle::group_lives(scope.group())));
            }
            if group.state == GroupState::Erased {
                return Ok(());
            }
            on!(tx.on(), c => sqlx::query(TEXT).bind(incarnation.as_str()).execute(c).await.map(drop))?;
            set_state(tx, incarnation, "erased", Some(now)).await
        })?;
        // also when it was erased before: that call may have failed here
        self.database.flush_log().await?;
        Ok(Left::default())
    }

    async fn report(&self, only: Option<&GroupId>) -> Result<ReportResponse> {
        let groups = groups(&self.database, only).await?;
        let epochs = match &self.history {
            Some(history) => history.epochs_in_use()?,
            None => Vec::new(),
        };
        Ok(ReportResponse {
            groups: groups.into_iter().map(Group::report).collect(),
            epochs_in_use: epochs.into_iter().map(String::from).collect(),
            writing: Some(self.writing.report()),
            ..ReportResponse::default()
        })
    }

    fn explain(&self, error: Error) -> Status {
        self.writing.explain(error.into()).into()
    }
}

const fn prepared(incarnation: IncarnationId, created: bool) -> Prepared {
    Prepared { incarnation, created, log: String::new() }
}

fn context(incarnation: &IncarnationId) -> Context<'_> {
    Context { class: EXPORT, record: incarnation.as_str().as_bytes() }
}

fn bad_export() -> Error {
    Error::refuse(Kind::Invalid, "BAD_EXPORT", "the export is damaged, or of another group; export again")
}

fn corrupt(column: &'static str, value: String) -> Error {
    Error::Corrupt { column, value }
}

fn parsed<T: FromStr>(column: &'static str, value: String) -> Result<T> {
    value.parse().map_err(|_| corrupt(column, value))
}

/// All incarnations, or those of one group, oldest first.
async fn groups(database: &Database, only: Option<&GroupId>) -> Result<Vec<Group>> {
    const TEXT: &str = "SELECT * FROM groups WHERE $1 IS NULL OR group_id = $1 ORDER BY prepared_at, incarnation";
    on!(database.reads(), p => {
        let rows = sqlx::query(TEXT).bind(only.map(GroupId::as_str)).fetch_all(p).await?;
        rows.iter().map(Group::read).collect()
    })
}

async fn in_transaction(tx: &mut Tx, id: &GroupId) -> Result<Vec<Group>> {
    const TEXT: &str = "SELECT * FROM groups WHERE group_id = $1";
    on!(tx.on(), c => {
        let rows = sqlx::query(TEXT).bind(id.as_str()).fetch_all(c).await?;
        rows.iter().map(Group::read).collect()
    })
}

/// An incarnation of this very group, whatever became of it.
async fn exact(tx: &mut Tx, scope: &GroupScope, incarnation: &IncarnationId) -> Result<Group> {
    let found = in_transaction(tx, scope.group()).await?.into_iter().find(|group| group.incarnation == *incarnation);
    found.ok_or_else(|| lifecycle::no_incarnation(scope.group(), incarnation).into())
}

async fn add(tx: &mut Tx, id: &GroupId, incarnation: &IncarnationId, now: Timestamp) -> Result<()> {
    const GROUP: &str = "INSERT INTO groups (incarnation, group_id, state, prepared_at) VALUES ($1, $2, 'living', $3)";
    const COUNTER: &str = "INSERT INTO counters (incarnation, value) VALUES ($1, 0)";
    let (id, incarnation, now) = (id.as_str(), incarnation.as_str(), now.as_microsecond());
    on!(tx.on(), c => sqlx::query(GROUP).bind(incarnation).bind(id).bind(now).execute(c).await.map(drop))?;
    on!(tx.on(), c => sqlx::query(COUNTER).bind(incarnation).execute(c).await.map(drop))?;
    Ok(())
}

async fn set_state(tx: &mut Tx, incarnation: &IncarnationId, state: &str, ended_at: Option<Timestamp>) -> Result<()> {
    const TEXT: &str = "UPDATE groups SET state = $2, ended_at = $3 WHERE incarnation = $1";
    let ended_at = ended_at.map(Timestamp::as_microsecond);
    on!(tx.on(), c => sqlx::query(TEXT).bind(incarnation.as_str()).bind(state).bind(ended_at).execute(c).await.map(drop))?;
    Ok(())
}
