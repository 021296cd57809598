//! The audit service with a new database: an SQLite file with `synchronous=FULL`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures::future::try_join_all;
use prometheus::Registry;
use tempfile::TempDir;
use tsujiban_audit::engine::Addition;
use tsujiban_audit::metrics::Metrics;
use tsujiban_audit::owner::Owner;
use tsujiban_audit::reading::Log;
use tsujiban_audit::rpc;
use tsujiban_audit::service::{Audit, Parts, SCHEMA};
use tsujiban_core::clock::{Clock, SystemClock};
use tsujiban_database::Database;
use tsujiban_objects::Memory;
use tsujiban_sealing::{Keyring, MasterKey, SealedEpochKey, SystemRandom};
use tsujiban_service::writing::WriteState;

use super::entries::{Entries, group};
use crate::load;
use crate::server::Server;

/// How many entries one call brings when a log is filled, and how many such calls there are at the same time.
const FILLING: u64 = 1024;
const AT_ONCE: u64 = 4;

pub struct Service {
    pub audit: Arc<Audit>,
    pub metrics: Metrics,
    pub folder: TempDir,
}

/// What is outside of the service and outlives its database: the bucket, which is memory, and the keys.
pub struct Outside {
    store: Arc<Memory>,
    master: MasterKey,
    epoch: SealedEpochKey,
}

impl Outside {
    pub fn new() -> Result<Self> {
        let random = SystemRandom::new();
        let master = MasterKey::generate(&random)?;
        let epoch = SealedEpochKey::generate(&master, &random, SystemClock.now())?;
        Ok(Self { store: Arc::new(Memory::new(Arc::new(SystemClock), "ap-northeast-1")), master, epoch })
    }
}

impl Service {
    /// On the disk that is measured, with nothing outside.
    pub async fn open(disk: &Path) -> Result<Self> {
        Self::open_beside(disk, &Outside::new()?).await
    }

    /// With a new database on the disk that is measured.
    pub async fn open_beside(disk: &Path, outside: &Outside) -> Result<Self> {
        let folder = super::folder(disk)?;
        let database = Database::sqlite(&folder.path().join("history.db")).await?;
        database.migrate(&SCHEMA).await?;
        let (random, clock) = (Arc::new(SystemRandom::new()), Arc::new(SystemClock));
        let metrics = Metrics::new(&Registry::new())?;
        let parts = Parts {
            store: outside.store.clone(),
            writing: WriteState::new("tsujiban_audit", &Registry::new(), clock.clone())?,
            clock,
            random,
            database,
            folder: Some(folder.path().to_owned()),
            keyring: Arc::new(Keyring::new(outside.master.clone(), std::slice::from_ref(&outside.epoch))?),
            environment: "audit.tsujiban.dev/bench".parse()?,
            metrics: metrics.clone(),
        };
        Ok(Self { audit: Audit::open(parts).await?, metrics, folder })
    }

    pub async fn serve(&self) -> Result<Server> {
        Server::start(rpc::routes(&self.audit), &rpc::SERVICES).await
    }

    /// What each of the callers appends, batch after batch, straight to the engine: how long all of it takes.
    pub async fn append(&self, work: Vec<Vec<Vec<Addition>>>) -> Result<Duration> {
        let engine = self.audit.engine.clone();
        load::closed(work, move |_, batch| {
            let engine = engine.clone();
            async move {
                engine.append(batch).await?;
                Ok(())
            }
        })
        .await
    }

    /// Brings the log of the first group from nothing to a size.
    pub async fn fill(&self, size: u64) -> Result<Log> {
        let entries = Entries::new()?;
        let mut next = 0;
        while next < size {
            let mut calls = Vec::new();
            for _ in 0..AT_ONCE {
                let end = (next + FILLING).min(size);
                let additions = (next..end).map(|n| entries.addition(n, 1)).collect::<Result<Vec<_>>>()?;
                calls.push(self.audit.engine.append(additions));
                next = end;
            }
            try_join_all(calls).await?;
        }
        self.log().await
    }

    /// The log of the first group.
    pub async fn log(&self) -> Result<Log> {
        Ok(self.audit.some_log_of(&Owner::parse(&group(0))?).await?)
    }
}
