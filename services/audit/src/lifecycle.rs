//! The lifecycle of a group in the history. Its log is made when it is prepared or at its first entry. After it is erased its days expire
//! one by one, the last one after 365 days (table 2). Until then its id is not free, so that no other group inherits its history.

use jiff::Timestamp;
use tonic::Status;
use tsujiban_core::error::chain;
use tsujiban_core::id::{GroupId, IncarnationId};
use tsujiban_core::workload::Service;
use tsujiban_database::{Backend, on};
use tsujiban_history::{Day, LogId};
use tsujiban_proto::error::Kind;
use tsujiban_proto::lifecycle::v1 as wire;
use tsujiban_proto::time::to_wire;
use tsujiban_sealing::Random as _;
use tsujiban_service::caller::GroupScope;
use tsujiban_service::lifecycle::{self, Eraser, Holder, Left, Prepared};

use crate::error::{Error, Result};
use crate::owner::{Owner, UNCLAIMED};
use crate::reading::Log;
use crate::scrub::{self, Integrity};
use crate::seals;
use crate::service::Audit;
use crate::snapshot::{Import, Snapshot};
use crate::synchronised::Synchronisation;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupState {
    Living,
    Retained,
    Erased,
}

/// A group's incarnation as the history knows it.
#[derive(Debug, Clone)]
pub struct Group {
    pub number: i64,
    pub group: String,
    pub incarnation: Option<IncarnationId>,
    pub state: GroupState,
    pub made_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    /// When its last day expires; `None` when there is none left.
    pub last_until: Option<Timestamp>,
    /// Whether a seal proves that the log is this group's. If not, calls on it fail, and no report contains it.
    pub is_sealed: bool,
}

impl Group {
    fn must_be_sealed(&self) -> Result<()> {
        if self.is_sealed { Ok(()) } else { Err(Error::Damaged(seals::other_owner(self.number, &self.group))) }
    }
}

type Row = (i64, String, Option<String>, String, i64, Option<i64>, Option<i64>, Vec<u8>, Option<Vec<u8>>);

impl Holder for Audit {
    type Error = Error;
    type Export = Snapshot;
    type Import = Import;

    /// The incarnation is the living one, or the one that another service has minted and the caller expects, or a new one. A log that was
    /// restored from the bucket is assigned to the group that expects it.
    async fn prepare(&self, scope: &GroupScope, expected: Option<&IncarnationId>, expected_log: &str) -> Result<Prepared> {
        let id = scope.group();
        if !expected_log.is_empty() {
            let invalid = |error: tsujiban_history::id::InvalidId| Error::invalid(error.to_string());
            self.claim(id, expected, expected_log.parse().map_err(invalid)?).await?;
        }
        let (incarnation, created) = self.prepare_incarnation(id, expected).await?;
        let owner = Owner::Group(id.clone());
        let log = self.some_log_of(&owner).await?.id.to_string();
        Ok(Prepared { incarnation, created, log })
    }

    async fn detach(&self, scope: &GroupScope, incarnation: &IncarnationId) -> Result<()> {
        let group = self.incarnation(scope.group(), incarnation).await?;
        match group.state {
            GroupState::Retained => Ok(()),
            GroupState::Living => self.set_state(group.number, "retained", Some(self.now())).await,
            GroupState::Erased => Err(lifecycle::nothing_to_keep(scope.group(), incarnation).into()),
        }
    }

    async fn begin_export(&self, scope: &GroupScope, incarnation: &IncarnationId) -> Result<Snapshot> {
        Snapshot::begin(self, scope, incarnation).await
    }

    async fn export(&self, export: &mut Snapshot) -> Result<Option<Vec<u8>>> {
        export.next(self).await
    }

    async fn begin_import(&self, scope: &GroupScope, incarnation: &IncarnationId) -> Result<Import> {
        Import::begin(self, scope, incarnation).await
    }

    async fn import(&self, import: &mut Import, piece: &[u8]) -> Result<()> {
        import.push(self, piece).await
    }

    async fn end_import(&self, import: Import) -> Result<u64> {
        import.end(self).await
    }

    /// Marks the group as erased. Its days stay until they expire.
    async fn erase_group(&self, scope: &GroupScope, incarnation: &IncarnationId, by: Eraser) -> Result<Left> {
        let group = self.incarnation(scope.group(), incarnation).await?;
        if by == Eraser::Staff && group.state == GroupState::Living {
            return Err(lifecycle::group_lives(scope.group()).into());
        }
        if group.state != GroupState::Erased {
            self.set_state(group.number, "erased", Some(self.now())).await?;
            tracing::info!(group = %incarnation, "group erased: its history goes as its days pass");
            if let Err(error) = self.archive_erasures().await {
                tracing::warn!(error = chain(&error), "that a group was erased is not in the bucket yet; it is tried again every minute");
            }
        }
        Ok(Left { snapshots: 0, last_object_until: group.last_until })
    }

    async fn report(&self, only: Option<&GroupId>) -> Result<wire::ReportResponse> {
        let groups = self.groups(only).await?;
        let known = self.integrity().await?;
        let shared_integrity = match only {
            None => Some(integrity(self.shared_integrity(&known).await?)),
            Some(_) => None,
        };
        let with_integrity = |group: &Group| {
            let known = known.get(&group.number).cloned().unwrap_or_default();
            let writing = self.refusal_of(group.number);
            Some(wire::GroupReport { integrity: Some(integrity(known)), writing, ..report(group)? })
        };
        Ok(wire::ReportResponse {
            groups: groups.iter().filter(|group| group.is_sealed).filter_map(with_integrity).collect(),
            canary: None,
            epochs_in_use: self.epochs_in_use().await?,
            erased_devices: Vec::new(),
            clock_synchronised: Synchronisation::read().ok().map(|clock| clock.synchronised),
            writing: Some(self.writing_report()),
            shared_integrity,
        })
    }

    fn explain(&self, error: Error) -> Status {
        self.writing.explain(error.into()).into()
    }
}

impl Audit {
    async fn prepare_incarnation(&self, id: &GroupId, expected: Option<&IncarnationId>) -> Result<(IncarnationId, bool)> {
        let now = self.now();
        let groups = self.sealed_groups(id).await?;
        if let Some(group) = groups.iter().find(|group| group.state != GroupState::Erased) {
            if let Some(incarnation) = &group.incarnation {
                check_expected(id, expected, incarnation)?;
                self.set_state(group.number, "living", None).await?;
                return Ok((incarnation.clone(), false));
            }
            // the log was made by an entry, before the group was prepared
            let incarnation = self.expected_or_new(expected)?;
            self.adopt(group.number, &incarnation).await?;
            return Ok((incarnation, true));
        }
        if let Some(expected) = expected.filter(|expected| groups.iter().any(|group| group.incarnation.as_ref() == Some(expected))) {
            return Err(lifecycle::erased(id, expected).into());
        }
        if let Some(free_at) = groups.iter().filter_map(|group| group.last_until).max().filter(|free_at| *free_at > now) {
            return Err(lifecycle::id_not_free(id, free_at).into());
        }
        let incarnation = self.expected_or_new(expected)?;
        let number = self.engine.make_log(Owner::Group(id.clone()), incarnation.to_string()).await?;
        // another call may have made the log first, with another incarnation
        let made = self.sealed_groups(id).await?.into_iter().find(|group| group.number == number);
        let made = made.and_then(|group| group.incarnation).ok_or_else(|| Error::Damaged(format!("log {number} was not made")))?;
        check_expected(id, expected, &made)?;
        let created = made == incarnation;
        Ok((made, created))
    }

    /// Assigns the expected log to the group, if it was restored from the bucket and is unclaimed. A group that has a log keeps that one.
    async fn claim(&self, id: &GroupId, incarnation: Option<&IncarnationId>, log: LogId) -> Result<()> {
        let Some(found) = self.log_by_id(&log).await? else { return Ok(()) };
        if !found.is_sealed {
            return self.take_back(id, &found).await;
        }
        if found.owner == id.as_str() {
            return Ok(());
        }
        if !found.owner.starts_with(UNCLAIMED) {
            let message = format!("log {log} is not the history of group {id}; remove the annotation of the namespace that names it");
            return Err(Error::refuse(Kind::Precondition, "OTHER_LOG", message));
        }
        if self.sealed_groups(id).await?.iter().any(|group| group.state != GroupState::Erased) {
            tracing::warn!(%log, "a log that came back stays nobody's: the group that expects it has another one by now");
            return Ok(());
        }
        self.take_claimed(id, incarnation, &found).await?;
        tracing::info!(%log, "a log that came back from the bucket has its group again");
        Ok(())
    }

    /// Assigns a log to the group for which it was sealed, if its row names another group. The log that has the group's name meanwhile gets
    /// that other name, until its own group is prepared. With PostgreSQL the service has no right to change the group of a log.
    async fn take_back(&self, id: &GroupId, log: &Log) -> Result<()> {
        const SEAL: &str = "SELECT seal FROM log_seals WHERE log = $1";
        const HOLDER: &str =
            "SELECT number, log_id, (SELECT seal FROM log_seals WHERE log = number) FROM logs WHERE group_id = ? AND state <> 'erased'";
        const NAME: &str = "UPDATE logs SET group_id = ? WHERE number = ?";
        type Holder = (i64, Vec<u8>, Option<Vec<u8>>);
        let other_owner = || Error::Damaged(seals::other_owner(log.number, &log.owner));
        let seal: Option<Vec<u8>> = on!(self.database.reads(), p => sqlx::query_scalar(SEAL).bind(log.number).fetch_optional(p).await)?;
        if !seals::is_sealed(&self.keyring, log.number, &log.id, id.as_str(), seal.as_deref()) {
            return Err(other_owner());
        }
        let now_us = self.now().as_microsecond();
        tsujiban_database::transaction!(self.database, tx => {
            let Backend::Sqlite(c) = tx.on() else { return Err(other_owner()) };
            let mut healed = vec![log.number];
            let holder: Option<Holder> = sqlx::query_as(HOLDER).bind(id.as_str()).fetch_optional(&mut *c).await?;
            if let Some((number, holder_id, seal)) = &holder {
                let holder_id = <[u8; 16]>::try_from(holder_id.as_slice()).map(LogId::from_bytes).map_err(|_| other_owner())?;
                if seals::is_sealed(&self.keyring, *number, &holder_id, id.as_str(), seal.as_deref()) {
                    return Err(other_owner());
                }
                if seals::is_sealed(&self.keyring, *number, &holder_id, &log.owner, seal.as_deref()) {
                    healed.push(*number); // the two were exchanged
                }
                // a temporary name that no group can have
                sqlx::query(NAME).bind("~").bind(number).execute(&mut *c).await?;
            }
            sqlx::query(NAME).bind(id.as_str()).bind(log.number).execute(&mut *c).await?;
            if let Some((number, ..)) = holder {
                sqlx::query(NAME).bind(log.owner.clone()).bind(number).execute(&mut *c).await?;
            }
            // the scrub may never see this damage, so it is recorded in the transaction that heals it
            for number in healed {
                sqlx::query(scrub::PUT_HEALED_HEAD).bind(number).bind(seals::NOT_SEALED).bind(now_us).execute(&mut *c).await?;
            }
            Ok::<_, Error>(())
        })?;
        tracing::error!(log = %log.id, group = %id, was = log.owner, "the row of a log named another group than its seal; the group has it again");
        self.engine.forget().await?;
        Ok(())
    }

    pub(crate) async fn take_claimed(&self, id: &GroupId, incarnation: Option<&IncarnationId>, log: &Log) -> Result<()> {
        const CLAIM: &str = "UPDATE logs SET group_id = ?, incarnation = ? WHERE log_id = ? AND substr(group_id, 1, 1) = '?'";
        const SEAL: &str = "INSERT INTO log_seals (log, seal) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        let seal = seals::seal(&self.keyring, log.number, &log.id, id.as_str()).to_vec();
        tsujiban_database::transaction!(self.database, tx => {
            let (group, incarnation) = (id.to_string(), incarnation.map(IncarnationId::to_string));
            let log_id = log.id.as_bytes().to_vec();
            match tx.on() {
                Backend::Sqlite(c) => {
                    sqlx::query(CLAIM).bind(group).bind(incarnation).bind(log_id).execute(c).await?;
                }
                Backend::Postgres(c) => {
                    let claim = sqlx::query("SELECT claim_log($1, $2, $3)").bind(log_id).bind(group).bind(incarnation);
                    claim.execute(c).await?;
                }
            }
            on!(tx.on(), c => sqlx::query(SEAL).bind(log.number).bind(seal.clone()).execute(c).await.map(drop))?;
            Ok::<_, Error>(())
        })
    }

    /// The incarnations of one group, or of all groups, in the history.
    pub async fn groups(&self, of: Option<&GroupId>) -> Result<Vec<Group>> {
        const GROUPS: &str = "SELECT l.number, l.group_id, l.incarnation, l.state, l.made_at, l.ended_at,
                (SELECT MAX(k.day) FROM day_keys k WHERE k.log = l.number), l.log_id, s.seal
             FROM logs l LEFT JOIN log_seals s ON s.log = l.number WHERE l.group_id <> '' AND substr(l.group_id, 1, 1) <> '?' AND ($1 = '' OR l.group_id = $1) ORDER BY l.number";
        let of = of.map_or("", GroupId::as_str);
        let rows: Vec<Row> = on!(self.database.reads(), p => sqlx::query_as(GROUPS).bind(of).fetch_all(p).await)?;
        let groups = rows.into_iter().map(|row| self.group(row));
        if of.is_empty() {
            // an unreadable row must not hide the other groups
            return Ok(groups
                .filter_map(|group| group.inspect_err(|error| tracing::error!(%error, "a group is in no report")).ok())
                .collect());
        }
        groups.collect()
    }

    /// The incarnations of a group. Fails if one is not sealed as the group's: if rows were exchanged, nothing is made, kept or erased.
    async fn sealed_groups(&self, id: &GroupId) -> Result<Vec<Group>> {
        let groups = self.groups(Some(id)).await?;
        groups.iter().try_for_each(Group::must_be_sealed)?;
        Ok(groups)
    }

    fn group(&self, (number, group, incarnation, state, made_at, ended_at, last_day, log, seal): Row) -> Result<Group> {
        let damaged = || Error::Damaged(format!("the row of log {number}"));
        let time = |us: i64| Timestamp::from_microsecond(us).map_err(|_| damaged());
        let log = log.try_into().map(LogId::from_bytes).map_err(|_| damaged())?;
        Ok(Group {
            number,
            incarnation: incarnation.map(|incarnation| incarnation.parse().map_err(|_| damaged())).transpose()?,
            state: match state.as_str() {
                "living" => GroupState::Living,
                "retained" => GroupState::Retained,
                "erased" => GroupState::Erased,
                _ => return Err(damaged()),
            },
            made_at: time(made_at)?,
            ended_at: ended_at.map(time).transpose()?,
            last_until: last_day.map(|day| Day::from_number(day).map(Day::expires_at).ok_or_else(damaged)).transpose()?,
            is_sealed: seals::is_sealed(&self.keyring, number, &log, &group, seal.as_deref()),
            group,
        })
    }

    /// An incarnation of this group, in any state. Fails if its log is not sealed as the group's.
    pub async fn incarnation(&self, id: &GroupId, incarnation: &IncarnationId) -> Result<Group> {
        let found = self.groups(Some(id)).await?.into_iter().find(|group| group.incarnation.as_ref() == Some(incarnation));
        let found = found.ok_or_else(|| lifecycle::no_incarnation(id, incarnation))?;
        found.must_be_sealed()?;
        Ok(found)
    }

    fn expected_or_new(&self, expected: Option<&IncarnationId>) -> Result<IncarnationId> {
        if let Some(expected) = expected {
            return Ok(expected.clone());
        }
        let mut id = [0; 16];
        self.random.fill(&mut id)?;
        Ok(IncarnationId::from_bytes(id))
    }

    async fn set_state(&self, number: i64, state: &'static str, ended: Option<Timestamp>) -> Result<()> {
        const SET: &str = "UPDATE logs SET state = $2, ended_at = $3 WHERE number = $1 AND state <> 'erased' AND state <> $2";
        let ended = ended.map(Timestamp::as_microsecond);
        on!(self.database.writes(), p => sqlx::query(SET).bind(number).bind(state).bind(ended).execute(p).await.map(drop))?;
        Ok(())
    }

    async fn adopt(&self, number: i64, incarnation: &IncarnationId) -> Result<()> {
        const SET: &str = "UPDATE logs SET incarnation = $2 WHERE number = $1 AND incarnation IS NULL";
        let incarnation = incarnation.to_string();
        on!(self.database.writes(), p => sqlx::query(SET).bind(number).bind(incarnation).execute(p).await.map(drop))?;
        Ok(())
    }
}

/// The incarnation that the namespace's annotation names, if any, must be the one that has the history.
fn check_expected(group: &GroupId, expected: Option<&IncarnationId>, present: &IncarnationId) -> Result<()> {
    match expected.filter(|expected| *expected != present) {
        Some(expected) => Err(lifecycle::other_incarnation(Service::Audit, group, expected, Some(present)).into()),
        None => Ok(()),
    }
}

fn integrity(integrity: Integrity) -> wire::Integrity {
    let state = match &integrity {
        Integrity { damaged_count: 1.., .. } => wire::IntegrityState::Damaged,
        Integrity { checked_at: Some(_), .. } => wire::IntegrityState::Intact,
        Integrity { checked_at: None, .. } => wire::IntegrityState::Unspecified,
    };
    wire::Integrity {
        state: state.into(),
        damaged: integrity.damaged,
        damaged_count: integrity.damaged_count,
        checked_at: integrity.checked_at.map(to_wire),
    }
}

/// `None` for the log of a group that was never prepared: it has no incarnation yet.
fn report(group: &Group) -> Option<wire::GroupReport> {
    let state = match group.state {
        GroupState::Living => wire::GroupState::Living,
        GroupState::Retained => wire::GroupState::Retained,
        GroupState::Erased => wire::GroupState::Erased,
    };
    Some(wire::GroupReport {
        group: group.group.clone(),
        incarnation: group.incarnation.as_ref()?.to_string(),
        state: state.into(),
        prepared_at: Some(to_wire(group.made_at)),
        ended_at: group.ended_at.map(to_wire),
        id_free_at: group.last_until.filter(|_| group.state == GroupState::Erased).map(to_wire),
        devices: 0,
        snapshots: 0,
        stored_bytes: 0,
        integrity: None,
        writing: None,
    })
}
