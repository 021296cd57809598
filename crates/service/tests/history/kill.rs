//! kill -9 while operations are being spooled.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::Notify;
use tsujiban_proto::audit::v1::{Phase, Result as AuditResult};
use tsujiban_service::history::ClientArgs;
use tsujiban_service::testing::{Epochs, FakeAudit, Mood};

use crate::stage::{Stage, history, until};

/// How often a process is killed.
const ROUNDS: u32 = 20;
const FOLDER: &str = "TSUJIBAN_TEST_SPOOL";
const STRICT: &str = "/tsujiban.lifecycle.v1.LifecycleService/Prepare";
const SPOOLED: &str = "/tsujiban.backup.v1.BackupService/RecordAttempt";

/// No operation that was answered is lost, none is there twice, and no intent stays open, however often the process is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answered_operation_is_lost_when_the_process_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let audit = FakeAudit::start().await;
    let epochs = Epochs::in_folder(folder.path());
    let mut answered = BTreeSet::new();
    for round in 0..ROUNDS {
        // now and then the history is away as well
        audit.is(if round % 3 == 2 { Mood::Down } else { Mood::Good });
        answered.extend(killed(folder.path(), &audit, Duration::from_millis(u64::from(round * 37 % 200))).await);
    }
    audit.is(Mood::Good);
    let registry = prometheus::Registry::new();
    let (history, _stop) = history(&folder.path().join("spool"), &epochs, &audit.args(), 0, &registry).await;
    until(|| history.depth() == 0).await;
    let entries = audit.entries();
    let mut outcomes = BTreeMap::new();
    let mut intents = BTreeSet::new();
    for entry in &entries {
        let operation = entry.operation.as_ref().unwrap();
        match operation.phase() {
            Phase::Outcome => assert!(outcomes.insert(operation.id.clone(), operation.clone()).is_none(), "an outcome is there twice"),
            Phase::Intent => drop(intents.insert(operation.id.clone())),
            // the spool began
            _ => {}
        }
    }
    let requests: BTreeSet<_> = outcomes.values().map(|operation| operation.request_id.clone()).collect();
    let lost: Vec<_> = answered.difference(&requests).collect();
    assert!(answered.len() > 20, "{}", answered.len());
    assert!(lost.is_empty(), "{} of {} are lost", lost.len(), answered.len());
    let open: Vec<_> = intents.iter().filter(|id| !outcomes.contains_key(*id)).collect();
    assert!(open.is_empty(), "{} intents stay open", open.len());
    let unknown = outcomes.values().filter(|operation| operation.result() == AuditResult::Unknown).count();
    println!("{} answered, {} outcomes, {unknown} unknown, {} intents", answered.len(), outcomes.len(), intents.len());
}

/// Runs a process until it has answered something, and for a while more, kills it, and answers the request ids of the calls that it answered.
async fn killed(folder: &Path, audit: &FakeAudit, time: Duration) -> Vec<String> {
    let args = audit.args();
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "kill::the_process_that_is_killed", "--nocapture"])
        .env(FOLDER, folder)
        .env("AUDIT_ENDPOINT", &args.endpoint)
        .env("AUDIT_FOLDER", args.ca_file.parent().unwrap())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = child.stdout.take().unwrap();
    let begun = Arc::new(Notify::new());
    let ring = Arc::clone(&begun);
    let reading = tokio::task::spawn_blocking(move || {
        let lines = BufReader::new(out).split(b'\n').map_while(Result::ok);
        // a line that was cut off was not said
        let ids = lines.filter_map(|line| Some(String::from_utf8(line).ok()?.strip_prefix("answered ")?.strip_suffix('.')?.to_owned()));
        ids.inspect(|_| ring.notify_one()).collect()
    });
    // with the history away it may take its time
    let _ = tokio::time::timeout(Duration::from_mins(1), begun.notified()).await;
    tokio::time::sleep(time).await;
    child.kill().unwrap();
    child.wait().unwrap();
    reading.await.unwrap()
}

/// The process that is killed, when the test above starts it; nothing otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_process_that_is_killed() {
    let Some(folder) = env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let audit = Path::new(&env::var_os("AUDIT_FOLDER").unwrap()).to_owned();
    let args = ClientArgs { endpoint: env::var("AUDIT_ENDPOINT").unwrap(), ca_file: audit.join("ca.crt"), token_file: audit.join("token") };
    let stage = Stage::calling(&args, folder).await;
    for batch in 0.. {
        let calls = (0..16).map(|number| {
            let id = format!("{}-{batch}-{number}", std::process::id());
            let (path, token) = if number % 4 == 0 { (STRICT, "Bearer operator") } else { (SPOOLED, "Bearer collector") };
            let metadata = [("authorization", token), ("x-request-id", id.as_str())].map(|(key, value)| (key, value.to_owned()));
            let stage = &stage;
            async move {
                let metadata: Vec<_> = metadata.iter().map(|(key, value)| (*key, value.as_str())).collect();
                if stage.send(path, crate::stage::message(path, "acme"), &metadata).await.is_ok() {
                    println!("answered {id}.");
                    std::io::stdout().flush().unwrap();
                }
            }
        });
        join_all(calls).await;
    }
}
