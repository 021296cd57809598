//! Clients and collectors that work while losses happen, and take down what they were answered.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use tokio::task::{JoinHandle, JoinSet};
use tonic::Code;
use tsujiban_e2e::calls::{BACKUP, Caller};
use tsujiban_e2e::stage::Stage;
use tsujiban_proto::backup::v1::ListSnapshotsRequest;

use crate::oracle::{LISTED, Oracle};

/// How many clients call at the same time.
const CLIENTS: u32 = 4;
/// How many reads are under way at the same time.
const AT_ONCE: usize = 64;
/// How long a client waits between two calls.
const PAUSE: Duration = Duration::from_millis(500);

/// Load that goes on until it is stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    oracle: Arc<Mutex<Oracle>>,
    tasks: Vec<JoinHandle<u64>>,
}

impl Load {
    /// Starts the clients and a collection that follows another.
    pub fn start(stage: &'static Stage, group: &str, oracle: Oracle) -> Self {
        let (stop, oracle) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(oracle)));
        let mut tasks: Vec<_> = (0..CLIENTS)
            .map(|number| tokio::spawn(client(stage, group.to_owned(), number, Arc::clone(&stop), Arc::clone(&oracle))))
            .collect();
        tasks.push(tokio::spawn(collections(stage, group.to_owned(), Arc::clone(&stop))));
        Self { stop, oracle, tasks }
    }

    /// Stops the load. Answers what was acknowledged, and how many calls were answered well.
    pub async fn stop(self) -> Result<(Oracle, u64)> {
        self.stop.store(true, Ordering::Relaxed);
        let mut answered = 0;
        for task in self.tasks {
            answered += task.await?;
        }
        let oracle = self.oracle.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok((oracle, answered))
    }
}

/// Calls that list the group's snapshots, several at a time. Answers how many were answered well.
pub async fn reads(stage: &Stage, group: &str, times: u32) -> Result<u64> {
    let caller = Caller::staff(stage, BACKUP, "tests").await?;
    let request = ListSnapshotsRequest { group: group.to_owned(), page_size: 1, ..ListSnapshotsRequest::default() };
    let mut answered = 0;
    for begin in (0..times).step_by(AT_ONCE) {
        let mut calls = JoinSet::new();
        for _ in begin..times.min(begin.saturating_add(u32::try_from(AT_ONCE)?)) {
            let (caller, request) = (caller.clone(), request.clone());
            calls.spawn(async move { caller.call_with("/tsujiban.backup.v1.BackupService/ListSnapshots", request).await });
        }
        while let Some(call) = calls.join_next().await {
            answered += u64::from(matches!(call?, Ok(Code::Ok)));
        }
    }
    Ok(answered)
}

/// Lists, and reveals the newest config in between. Whatever a list shows was acknowledged.
async fn client(stage: &'static Stage, group: String, number: u32, stop: Arc<AtomicBool>, oracle: Arc<Mutex<Oracle>>) -> u64 {
    let (mut turn, mut answered) = (number, 0);
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        let snapshots = stage.snapshots(&group).await.unwrap_or_default();
        let newest = snapshots.first().and_then(|snapshot| snapshot["id"].as_str()).map(str::to_owned);
        if let Some(newest) = newest.filter(|_| turn % 3 == 0) {
            let shown = stage.tsujiban(&["snapshots", "show", &group, &newest, "--reveal"]).await;
            if shown.is_ok_and(|answer| answer.code == 0) {
                oracle.lock().unwrap_or_else(PoisonError::into_inner).revealed();
                answered += 1;
            }
        }
        let listed = stage.tsujiban(&["audit", "list", &group, "--limit", &LISTED.to_string(), "--intents"]).await;
        let entries = listed.ok().and_then(|answer| answer.json().ok()).map(|listed| listed["entries"].clone());
        if let Some(Value::Array(entries)) = entries {
            oracle.lock().unwrap_or_else(PoisonError::into_inner).remember(&snapshots, &entries);
            answered += 1;
        }
        tokio::time::sleep(PAUSE).await;
    }
    answered
}

/// Backs the group up again and again.
async fn collections(stage: &'static Stage, group: String, stop: Arc<AtomicBool>) -> u64 {
    let mut answered = 0;
    while !stop.load(Ordering::Relaxed) {
        let answer = stage.tsujiban(&["backup", "now", &group]).await;
        answered += u64::from(answer.is_ok_and(|answer| answer.code == 0));
        tokio::time::sleep(PAUSE).await;
    }
    answered
}
