//! Is this history the newest one?

use jiff::Timestamp;
use tsujiban_database::on;
use tsujiban_history::merkle::Hash;
use tsujiban_history::roots::{Chain, RootList, Scope};
use tsujiban_history::{LogId, TreeHead};

use crate::engine::Standing;
use crate::error::Result;
use crate::service::Audit;

impl Audit {
    /// Whether all that the bucket says of the logs is so. If not, the history turns read-only; if so, and it was read-only for that reason,
    /// it is whole again.
    pub(super) async fn compare(&self, at_start: bool) -> Result<()> {
        let fault = self.fault(at_start).await?;
        match (&fault, self.engine.standing()) {
            (Some(fault), standing) => {
                if standing == Standing::Sound {
                    tracing::error!(fault, "the history is read-only: it is not the newest one");
                    self.turned_read_only().await?;
                }
                self.engine.set_standing(Standing::Forked(fault.as_str().into()));
            }
            (None, Standing::Forked(why)) if !self.engine.lost_tail() => {
                tracing::warn!(was = &*why, "the history is whole again");
                self.engine.set_standing(Standing::Sound);
            }
            (None, _) => {}
        }
        self.metrics.forked.set(i64::from(self.engine.standing() != Standing::Sound));
        Ok(())
    }

    async fn fault(&self, at_start: bool) -> Result<Option<String>> {
        let known = self.known().await?;
        let number = known.as_ref().map_or(0, |known| known.number);
        let newer = self.lying_after(number).await?;
        let mut chain = Chain::new();
        if let Some(known) = &known
            && (at_start || !newer.is_empty())
        {
            let list = match self.fetch(&RootList::object_name(number), None).await? {
                Ok(list) => list,
                Err(fault) => return Ok(Some(fault)),
            };
            if list.digest() != known.hash {
                return Ok(Some(format!("root list {number} in the bucket is another one than this database knows")));
            }
            if at_start && let Some(fault) = self.lacks(&list).await? {
                return Ok(Some(fault));
            }
            chain = Chain::after(&list);
        }
        for lying in &newer {
            let list = match self.fetch(&lying.key, Some(&lying.version)).await? {
                Ok(list) => list,
                Err(fault) => return Ok(Some(fault)),
            };
            if number == 0 && lying.number != 1 && chain.next().is_none() {
                return Ok(Some(format!("the bucket has root lists, the first of them {}, and this database knows none", lying.number)));
            }
            if let Err(broken) = chain.follow(&list) {
                return Ok(Some(broken.to_string()));
            }
            if let Some(fault) = self.lacks(&list).await? {
                return Ok(Some(fault));
            }
            // another replica wrote it, or this one, and was stopped before it could note it
            self.note(&list).await?;
        }
        Ok(None)
    }

    /// What of a list is not so, in words.
    async fn lacks(&self, list: &RootList) -> Result<Option<String>> {
        for (log, head) in &list.roots {
            if let Some(lack) = self.lack(*log, *head).await? {
                return Ok(Some(format!("root list {} of {} says more: {lack}", list.number, list.time)));
            }
        }
        Ok(None)
    }

    /// Whether a log is not what a head says, in words.
    pub(super) async fn lack(&self, log: LogId, head: TreeHead) -> Result<Option<String>> {
        let Some(here) = self.log_by_id(&log).await? else {
            return Ok(Some(format!("log {log} has {} entries there and is not here", head.size)));
        };
        if here.size() < head.size {
            return Ok(Some(format!("log {log} has {} entries there and {} here", head.size, here.size())));
        }
        if self.root_at(&here, head.size).await? != head.root {
            return Ok(Some(format!("log {log} has other entries there among its first {}", head.size)));
        }
        Ok(None)
    }

    /// Notes that a list lies in the bucket.
    pub(super) async fn note(&self, list: &RootList) -> Result<()> {
        const LIST: &str = "INSERT INTO root_lists (number, hash, day, is_full, at) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
        const LOG: &str = "INSERT INTO listed (log, size) SELECT number, $2 FROM logs WHERE log_id = $1
             ON CONFLICT (log) DO UPDATE SET size = excluded.size";
        let at = list.time.timestamp();
        tsujiban_database::transaction!(self.database, tx => {
            on!(tx.on(), c => sqlx::query(LIST)
                .bind(list.number.cast_signed())
                .bind(list.digest().as_bytes().to_vec())
                .bind(list.time.day().number())
                .bind(list.scope == Scope::Full)
                .bind(at.as_microsecond())
                .execute(c)
                .await
                .map(drop))?;
            for (log, head) in &list.roots {
                on!(tx.on(), c => sqlx::query(LOG)
                    .bind(log.as_bytes().to_vec()).bind(head.size.cast_signed()).execute(c).await.map(drop))?;
            }
            Ok::<(), crate::error::Error>(())
        })?;
        self.metrics.root_list_number.set(list.number.cast_signed());
        self.metrics.root_list_timestamp.set(at.as_duration().as_secs_f64());
        Ok(())
    }

    /// Remembers since when nothing was written.
    async fn turned_read_only(&self) -> Result<()> {
        const PUT: &str =
            "INSERT INTO meta (name, value) VALUES ('read-only since', $1) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        let now = self.now().to_string();
        on!(self.database.writes(), p => sqlx::query(PUT).bind(now).execute(p).await.map(drop))?;
        Ok(())
    }

    pub(super) async fn read_only_since(&self) -> Result<Timestamp> {
        const GET: &str = "SELECT value FROM meta WHERE name = 'read-only since'";
        let since: Option<String> = on!(self.database.reads(), p => sqlx::query_scalar(GET).fetch_optional(p).await)?;
        Ok(since.and_then(|since| since.parse().ok()).unwrap_or_else(|| self.now()))
    }
}

/// What the first list names as the one before.
pub(super) const NONE_BEFORE: Hash = Hash::EMPTY;
