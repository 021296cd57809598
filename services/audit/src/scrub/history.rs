//! Records found and healed damage as entries of the history: in the log of the group whose log it is, or in the platform's.

use std::collections::BTreeMap;

use tsujiban_database::on;
use tsujiban_history::merkle::sha256;
use tsujiban_history::operation::{Access, Actor, ActorKind, Outcome, Phase as Stage};
use tsujiban_history::{EntryId, JstTime, Operation};

use crate::engine::{Addition, EngineError, Standing};
use crate::error::{Error, Result};
use crate::owner::Owner;
use crate::service::Audit;
use crate::signing::NO_LOG;

/// How many things are recorded at once.
const AT_ONCE: i64 = 100;
/// The maximum length of the description of a fault, in characters.
const WRONG: usize = 1_000;

/// A damaged thing that the history has not recorded completely.
struct Unrecorded {
    log: i64,
    place: String,
    wrong: String,
    found_at: i64,
    healed_at: Option<i64>,
    is_recorded: bool,
}

impl Audit {
    /// Records the damage that was found or healed since the last time. While the history is read-only, it is recorded later.
    pub(super) async fn record_damage(&self) -> Result<()> {
        const OF: &str = "SELECT log, place, wrong, found_at, healed_at, is_recorded FROM damages
             WHERE NOT is_recorded OR healed_at IS NOT NULL ORDER BY found_at, log, place LIMIT $1";
        const RECORDED: &str = "UPDATE damages SET is_recorded = TRUE WHERE log = $1 AND place = $2";
        const GONE: &str = "DELETE FROM damages WHERE log = $1 AND place = $2 AND healed_at = $3";
        type Row = (i64, String, String, i64, Option<i64>, bool);
        if self.engine.standing() != Standing::Sound {
            return Ok(());
        }
        let rows: Vec<Row> = on!(self.database.reads(), p => sqlx::query_as(OF).bind(AT_ONCE).fetch_all(p).await)?;
        for (log, place, wrong, found_at, healed_at, is_recorded) in rows {
            let damage = Unrecorded { log, place, wrong, found_at, healed_at, is_recorded };
            let additions = self.entries_about(&damage).await?;
            match self.engine.append(additions).await {
                // it is recorded once the log accepts entries again
                Err(EngineError::LogRefused { .. }) => continue,
                done => drop(done?),
            }
            let Unrecorded { place, healed_at, .. } = damage;
            match healed_at {
                None => on!(self.database.writes(), p => sqlx::query(RECORDED).bind(log).bind(place).execute(p).await.map(drop))?,
                Some(at) => on!(self.database.writes(), p => sqlx::query(GONE).bind(log).bind(place).bind(at).execute(p).await.map(drop))?,
            }
        }
        Ok(())
    }

    async fn entries_about(&self, damage: &Unrecorded) -> Result<Vec<Addition>> {
        let (owner, log_id) = self.recorded_in(damage.log).await?;
        let mut additions = Vec::new();
        if !damage.is_recorded {
            additions.push(self.entry_about(damage, &owner, &log_id, None)?);
        }
        if let Some(healed_at) = damage.healed_at {
            additions.push(self.entry_about(damage, &owner, &log_id, Some(healed_at))?);
        }
        Ok(additions)
    }

    /// In whose history damage of a log is recorded: in its owner's if this is the newest log and accepts entries, else in the platform's.
    async fn recorded_in(&self, number: i64) -> Result<(Owner, String)> {
        if number == NO_LOG {
            return Ok((Owner::Platform, String::new()));
        }
        let log = match self.log_by_number(number).await {
            Ok(Some(log)) => log,
            Ok(None) | Err(Error::Damaged(_)) => return Ok((Owner::Platform, String::new())),
            Err(error) => return Err(error),
        };
        let id = log.id.to_string();
        let Some(owner) = Owner::parse(&log.owner).ok().filter(|_| log.is_sealed) else { return Ok((Owner::Platform, id)) };
        let is_newest = self.log_of(&owner).await?.is_some_and(|newest| newest.number == number);
        let takes = is_newest && self.engine.refused().why(number).is_none();
        Ok((if takes { owner } else { Owner::Platform }, id))
    }

    fn entry_about(&self, damage: &Unrecorded, owner: &Owner, log_id: &str, healed_at: Option<i64>) -> Result<Addition> {
        let Unrecorded { log, place, wrong, found_at, .. } = damage;
        // the id follows from the damage and its time, so that a repeated addition is a duplicate
        let name = sha256(format!("{log} {place} {found_at} {}", healed_at.unwrap_or_default()).as_bytes());
        let id = name.as_bytes().first_chunk::<16>().copied().unwrap_or_default();
        let mut detail = BTreeMap::from([("wrong".to_owned(), wrong.chars().take(WRONG).collect::<String>())]);
        if !log_id.is_empty() {
            detail.insert("log".to_owned(), log_id.to_owned());
        }
        let (result, code, reason) =
            if healed_at.is_some() { (Outcome::Allowed, "OK", "HEALED") } else { (Outcome::Failed, "DATA_LOSS", "DAMAGED") };
        let operation = Operation {
            id: EntryId::from_bytes(id),
            phase: Stage::Observed,
            time: JstTime::new(self.now()),
            actor: Actor { kind: ActorKind::Workload, id: "audit".to_owned() },
            from: String::new(),
            service: "tsujiban.audit.v1.AuditService".to_owned(),
            method: "Scrub".to_owned(),
            function: "history".to_owned(),
            operation: Access::Operate,
            target: place.clone(),
            result,
            code: code.to_owned(),
            reason: reason.to_owned(),
            duration_us: 0,
            request_id: String::new(),
            trace_id: String::new(),
            detail,
        };
        Addition::observed(owner.clone(), &operation).map_err(|error| Error::invalid(error.to_string()))
    }
}
