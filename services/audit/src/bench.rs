//! What the engine is measured by: durable appends, proofs and pages in process, on an SQLite file with `synchronous=FULL`.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::Registry;
use tokio::task::JoinSet;
use tsujiban_core::clock::{Clock, SystemClock};
use tsujiban_core::error::chain;
use tsujiban_core::id::EnvironmentName;
use tsujiban_database::Database;
use tsujiban_history::operation::{Access, Actor, ActorKind, Outcome, Phase as Stage};
use tsujiban_history::{EntryId, JstTime, Operation};
use tsujiban_objects::Memory;
use tsujiban_sealing::{Keyring, MasterKey, SealedEpochKey, SystemRandom};

use crate::engine::{Addition, Phase};
use crate::error::{Error, Result};
use crate::owner::Owner;
use crate::reading::Filter;
use crate::service::{Audit, Parts, migrations};

/// How long a body is, in bytes.
pub const BODY: usize = 300;
/// How many entries one call brings when a log is filled.
const FILLING: u64 = 1024;

/// A service with a new database.
pub struct Bench {
    audit: Arc<Audit>,
    next: u64,
}

impl Bench {
    /// In an empty folder.
    pub async fn open(folder: &Path) -> Result<Self> {
        let failed = |error: &dyn std::error::Error| Error::Damaged(error.to_string());
        let database = Database::sqlite(&folder.join("history.db")).await?;
        database.migrate(&migrations()).await.map_err(|error| failed(&error))?;
        let (random, clock) = (Arc::new(SystemRandom::new()), Arc::new(SystemClock));
        let master = MasterKey::generate(&random)?;
        let epoch = SealedEpochKey::generate(&master, &random, clock.now())?;
        let environment: EnvironmentName = "bench".parse().map_err(|error| failed(&error))?;
        let parts = Parts {
            store: Arc::new(Memory::new(clock.clone(), "ap-northeast-1")),
            clock,
            random,
            database,
            folder: Some(folder.to_owned()),
            keyring: Arc::new(Keyring::new(master, &[epoch])?),
            environment,
            metrics: crate::metrics::Metrics::new(&Registry::new()).map_err(|error| failed(&error))?,
        };
        Ok(Self { audit: Audit::open(parts).await?, next: 0 })
    }

    /// The service, to be served over TLS for `audit_append_rpc`.
    pub fn audit(&self) -> &Arc<Audit> {
        &self.audit
    }

    /// [audit_append, audit_append_wide, audit_groups] Appends so many entries one at a time, with so many calls in flight, spread over so
    /// many groups by chance. Answers how long all of it took, and the 99th percentile of one call.
    pub async fn append(&mut self, in_flight: u64, groups: u64, entries: u64) -> Result<(Duration, Duration)> {
        let each = entries / in_flight.max(1);
        let begun = Instant::now();
        let mut callers = JoinSet::new();
        for caller in 0..in_flight {
            let (audit, first) = (Arc::clone(&self.audit), self.next + caller * each);
            callers.spawn(async move {
                let mut took = Vec::new();
                for n in first..first + each {
                    let addition = addition(n, mix(n) % groups.max(1))?;
                    let begun = Instant::now();
                    audit.engine.append(vec![addition]).await?;
                    took.push(begun.elapsed());
                }
                Ok::<_, Error>(took)
            });
        }
        self.next += in_flight * each;
        let mut took = Vec::new();
        while let Some(caller) = callers.join_next().await {
            took.extend(caller.map_err(|error| Error::Damaged(error.to_string()))??);
        }
        Ok((begun.elapsed(), percentile(took, 99)))
    }

    /// Brings the log of group 0 to a size.
    pub async fn fill(&mut self, size: u64) -> Result<()> {
        while self.next < size {
            let calls = (0..4_u64).map(|_| {
                let end = (self.next + FILLING).min(size);
                let additions = (self.next..end).map(|n| addition(n, 0)).collect::<Result<Vec<_>>>();
                self.next = end;
                additions
            });
            let calls: Vec<_> = calls.collect::<Result<_>>()?;
            for done in futures::future::join_all(calls.into_iter().map(|call| self.audit.engine.append(call))).await {
                done?;
            }
        }
        Ok(())
    }

    /// [audit_proof] Proves entries of group 0 by chance. Answers the 99th percentile, and the most hashes of one proof.
    pub async fn prove(&self, times: u64) -> Result<(Duration, usize)> {
        let (mut took, mut most) = (Vec::new(), 0);
        for n in 0..times {
            let begun = Instant::now();
            let log = self.audit.some_log_of(&owner(0)?).await?;
            let hashes = self.audit.prove_inclusion(&log, mix(n) % log.size().max(1), log.size()).await?;
            took.push(begun.elapsed());
            most = most.max(hashes.len());
        }
        Ok((percentile(took, 99), most))
    }

    /// [audit_list] Lists the first page of group 0. Answers the 99th percentile.
    pub async fn list(&self, times: u64, page: usize) -> Result<Duration> {
        let mut took = Vec::new();
        for _ in 0..times {
            let begun = Instant::now();
            let log = self.audit.some_log_of(&owner(0)?).await?;
            let found = self.audit.list(&log, &Filter::default(), None, page).await?;
            took.push(begun.elapsed());
            if found.entries.len() != page {
                return Err(Error::Damaged(format!("a page has {} entries", found.entries.len())));
            }
        }
        Ok(percentile(took, 99))
    }
}

fn owner(group: u64) -> Result<Owner> {
    Owner::parse(&format!("group-{group}")).map_err(|error| Error::Damaged(chain(&error)))
}

/// The n-th entry: its id is as good as random.
fn addition(n: u64, group: u64) -> Result<Addition> {
    let now = SystemClock.now();
    let id = (u128::from(mix(n)) << 64 | u128::from(n)).to_be_bytes();
    let mut operation = Operation {
        id: EntryId::from_bytes(id),
        phase: Stage::Outcome,
        time: JstTime::new(now),
        actor: Actor { kind: ActorKind::Staff, id: String::new() },
        from: String::new(),
        service: String::new(),
        method: String::new(),
        function: String::new(),
        operation: Access::View,
        target: String::new(),
        result: Outcome::Allowed,
        code: String::new(),
        reason: String::new(),
        duration_us: 0,
        request_id: String::new(),
        trace_id: String::new(),
        detail: std::collections::BTreeMap::new(),
    };
    let invalid = |error| Error::Damaged(chain(&error));
    let room = BODY.saturating_sub(operation.encode().map_err(invalid)?.len());
    operation.target = "x".repeat(room);
    let body = operation.encode().map_err(invalid)?;
    Ok(Addition { owner: owner(group)?, id, operation: id, phase: Phase::Outcome, time: now, body })
}

fn percentile(mut took: Vec<Duration>, percent: usize) -> Duration {
    took.sort_unstable();
    took.get((took.len() * percent / 100).min(took.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// The finalizer of SplitMix64.
fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}
