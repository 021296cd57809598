//! The commands against the audit service itself, over real TLS with a real SQLite.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::SignedDuration;
use prometheus::Registry;
use serde_json::Value;
use tempfile::TempDir;
use tsujiban_audit::metrics::Metrics;
use tsujiban_audit::rpc;
use tsujiban_audit::service::{Audit, Parts, SCHEMA};
use tsujiban_core::clock::{Clock, ManualClock};
use tsujiban_database::Database;
use tsujiban_objects::{Memory, Objects as _, list_all};
use tsujiban_proto::access::v1::Operation as Does;
use tsujiban_proto::audit::v1::{Actor, ActorKind, NewEntry, Operation, Phase, Result as AuditResult};
use tsujiban_proto::time::to_wire;
use tsujiban_sealing::{Keyring, MasterKey, SealedEpochKey, SystemRandom};
use tsujiban_service::testing::{InProcess, KnownCallers, serve_in_process};
use tsujiban_service::writing::WriteState;

use super::export::{Wanted, export};
use super::gap::{Scope, declare};
use super::reading::Form;
use super::span::Span;
use super::verify::{Evidence, verify};
use super::{HistoryOwner, list};
use crate::failure::Failure;
use crate::output::{Answer, Format};
use crate::service::HistoryService;

/// A token of staff with every right on the history, and one with none.
const STAFF: &str = "hanako";
const NO_RIGHTS: &str = "taro";

/// What outlives a process of the service.
struct World {
    clock: Arc<ManualClock>,
    store: Arc<Memory>,
    keyring: Arc<Keyring>,
    folder: TempDir,
}

/// A process of the service.
struct Process {
    audit: Arc<Audit>,
    database: Database,
    server: InProcess,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new("2026-11-26T00:00:00Z".parse().unwrap()));
        let master = MasterKey::generate(&SystemRandom::new()).unwrap();
        let epoch = SealedEpochKey::generate(&master, &SystemRandom::new(), clock.now()).unwrap();
        let keyring = Arc::new(Keyring::new(master, &[epoch]).unwrap());
        Self { store: Arc::new(Memory::new(clock.clone(), "ap-northeast-1")), clock, keyring, folder: tempfile::tempdir().unwrap() }
    }

    /// The bucket without the entries that lie there.
    async fn lose_archive(&mut self) {
        let store = Memory::new(self.clock.clone(), "ap-northeast-1");
        for object in list_all(&*self.store, "").await.unwrap().into_iter().filter(|object| !object.key.starts_with("archive/")) {
            let bytes = self.store.get(&object.key, Some(&object.version)).await.unwrap();
            store.put(&object.key, bytes, None).await.unwrap();
        }
        self.store = Arc::new(store);
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("history.db")
    }

    async fn start(&self) -> Process {
        let database = Database::sqlite(&self.file()).await.unwrap();
        database.migrate(&SCHEMA).await.unwrap();
        let parts = Parts {
            clock: self.clock.clone(),
            random: Arc::new(SystemRandom::new()),
            store: self.store.clone(),
            database: database.clone(),
            folder: Some(self.folder.path().to_owned()),
            keyring: Arc::clone(&self.keyring),
            environment: "audit.tsujiban.dev/test".parse().unwrap(),
            metrics: Metrics::new(&Registry::new()).unwrap(),
            writing: WriteState::new("tsujiban_audit", &Registry::new(), self.clock.clone()).unwrap(),
        };
        let audit = Audit::open(parts).await.unwrap();
        audit.compare_at_start().await.unwrap();
        let rights = ["list", "get", "update"].map(|verb| ("history", verb));
        let callers = KnownCallers::new().staff(STAFF, STAFF, &rights).staff(NO_RIGHTS, NO_RIGHTS, &[]);
        let server = serve_in_process(rpc::routes(&audit), Arc::new(callers)).await;
        Process { audit, database, server }
    }

    fn operation(&self, target: &str) -> Operation {
        Operation {
            phase: Phase::Outcome.into(),
            time: Some(to_wire(self.clock.now())),
            actor: Some(Actor { kind: ActorKind::Staff.into(), id: STAFF.into() }),
            service: "tsujiban.backup.v1.BackupService".into(),
            method: "GetSnapshot".into(),
            function: "snapshots".into(),
            operation: Does::View.into(),
            target: target.into(),
            result: AuditResult::Allowed.into(),
            code: "OK".into(),
            ..Operation::default()
        }
    }
}

impl Process {
    fn service(&self, token: &str) -> HistoryService {
        HistoryService::over(self.server.channel(), token)
    }

    async fn append(&self, operations: impl IntoIterator<Item = Operation>) {
        let additions: Vec<_> = operations
            .into_iter()
            .map(|operation| {
                let id = uuid::Uuid::now_v7().as_bytes().to_vec();
                let operation = Operation { id: id.clone(), ..operation };
                rpc::addition(NewEntry { group: "acme".into(), id, operation: Some(operation) }).unwrap()
            })
            .collect();
        self.audit.engine.append(additions).await.unwrap();
    }

    async fn list(&self, wanted: list::Wanted, format: Format) -> Answer {
        list::list(&self.service(STAFF), &acme(), &wanted, format).await.unwrap()
    }

    /// The targets that are found, and whether there may be more.
    async fn targets(&self, wanted: list::Wanted) -> (Vec<String>, bool) {
        let found: Value = serde_json::from_str(&self.list(wanted, Format::Json).await.text).unwrap();
        let target = |entry: &Value| entry["target"].as_str().unwrap().to_owned();
        (found["entries"].as_array().unwrap().iter().map(target).collect(), found["more"].as_bool().unwrap())
    }

    async fn export(&self, wanted: &Wanted) -> Result<Answer, Failure> {
        export(&self.service(STAFF), &acme(), wanted, std::future::pending()).await
    }

    async fn stop(self) {
        drop((self.server, self.audit));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        self.database.close().await;
    }
}

fn acme() -> HistoryOwner {
    HistoryOwner::Group("acme".parse().unwrap())
}

fn everything(limit: u32) -> list::Wanted {
    list::Wanted { limit, ..list::Wanted::default() }
}

/// What `tsujiban audit verify` says, with nothing but the key, an export and a checkpoint.
fn judged(process: &Process, world: &World, export: &Path, checkpoint: &Path) -> Answer {
    let checkpoints = [checkpoint.to_owned()];
    let evidence = Evidence { export, log: None, key: process.audit.verifier().clone(), checkpoints: &checkpoints, lists: &[] };
    verify(evidence, world.clock.now(), Format::Table).unwrap()
}

fn into_files(folder: &TempDir, name: &str) -> Wanted {
    Wanted {
        span: Span::default(),
        form: Form::JsonLines,
        output: Some(folder.path().join(format!("{name}.jsonl"))),
        checkpoint: Some(folder.path().join(format!("{name}.checkpoint"))),
        force: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_goes_on_through_pages_up_to_its_limit() {
    let world = World::new();
    let process = world.start().await;
    for begin in [0, 200, 400] {
        process.append((begin..begin + 200).map(|number| world.operation(&format!("r{number}")))).await;
    }
    let (found, more) = process.targets(everything(550)).await;
    let newest: Vec<String> = (50..600).rev().map(|number| format!("r{number}")).collect();
    assert_eq!((found, more), (newest, true));
    let (found, more) = process.targets(everything(1000)).await;
    assert_eq!((found.len(), more), (600, false));
    let text = process.list(everything(2), Format::Table).await.text;
    assert!(text.ends_with("These are the newest 2. There may be older ones: raise --limit, or set --until.\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_holds_what_is_looked_for_and_nothing_else() {
    let world = World::new();
    let process = world.start().await;
    process.append([world.operation("morning")]).await;
    world.clock.advance(SignedDuration::from_hours(24));
    let by_taro = Operation { actor: Some(Actor { kind: ActorKind::Staff.into(), id: "taro".into() }), ..world.operation("his") };
    let keys = Operation { function: "hostkeys".into(), ..world.operation("key") };
    let denied = Operation { result: AuditResult::Denied.into(), code: "PERMISSION_DENIED".into(), ..world.operation("no") };
    process.append([by_taro, keys, denied]).await;

    let all = || everything(100);
    let span = |since: Option<&str>, until: Option<&str>| {
        Span::new(since.map(|since| since.parse().unwrap()), until.map(|until| until.parse().unwrap())).unwrap()
    };
    let cases = [
        (list::Wanted { actor: "taro".into(), ..all() }, vec!["his"]),
        (list::Wanted { function: "hostkeys".into(), ..all() }, vec!["key"]),
        (list::Wanted { target: "morning".into(), ..all() }, vec!["morning"]),
        (list::Wanted { result: AuditResult::Denied, ..all() }, vec!["no"]),
        (list::Wanted { span: span(None, Some("2026-11-26")), ..all() }, vec!["morning"]),
        (list::Wanted { span: span(Some("2026-11-27"), None), ..all() }, vec!["no", "key", "his"]),
        (list::Wanted { span: span(Some("2026-11-26T09:00:01+09:00"), None), ..all() }, vec!["no", "key", "his"]),
    ];
    for (wanted, found) in cases {
        let shown = format!("{wanted:?}");
        assert_eq!(process.targets(wanted).await, (found.into_iter().map(str::to_owned).collect(), false), "{shown}");
    }
    let none = process.list(list::Wanted { actor: "nobody".into(), ..all() }, Format::Table).await;
    assert_eq!(none.text, "Nothing like that is in the history of group acme.\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_no_right_is_told_which_one_is_missing() {
    let world = World::new();
    let process = world.start().await;
    let refused = list::list(&process.service(NO_RIGHTS), &acme(), &everything(1), Format::Table).await.unwrap_err();
    assert!(refused.to_string().contains("list"), "{refused}");
    // the platform's own history is asked for by no name
    let own = list::list(&process.service(STAFF), &HistoryOwner::Platform, &everything(1), Format::Table).await.unwrap();
    assert_eq!(own.text, "Nothing like that is in the platform's own history.\n");
}

/// `export --output --save-checkpoint`, then `verify --checkpoint --key`.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_exported_can_be_verified_and_later_exports_have_to_continue_it() {
    let world = World::new();
    let process = world.start().await;
    process.append((0..300).map(|number| world.operation(&format!("r{number}")))).await;
    let folder = tempfile::tempdir().unwrap();
    let first = into_files(&folder, "first");
    let (file, checkpoint) = (first.output.clone().unwrap(), first.checkpoint.clone().unwrap());
    let answer = process.export(&first).await.unwrap();
    assert!(answer.text.starts_with("Wrote 300 entries ("), "{}", answer.text);
    let command = format!("tsujiban audit verify {} --checkpoint {} --key KEY\n", file.display(), checkpoint.display());
    assert!(answer.text.ends_with(&command), "{}", answer.text);
    let verdict = judged(&process, &world, &file, &checkpoint);
    assert!(verdict.text.starts_with("intact\n300 entries, 300 of them readable, held to 1 signed roots"), "{}", verdict.text);

    process.append([world.operation("later")]).await;
    let second = Wanted { checkpoint: None, ..into_files(&folder, "second") };
    let answer = process.export(&second).await.unwrap();
    assert!(answer.text.contains(" --log audit.tsujiban.dev/test/"), "{}", answer.text);
    let later = second.output.unwrap();
    assert_eq!(judged(&process, &world, &later, &checkpoint).verdict.exit_code(), 0);

    let forged = std::fs::read_to_string(&later).unwrap().replacen("\"target\":\"r7\"", "\"target\":\"r8\"", 1);
    std::fs::write(&later, forged).unwrap();
    assert_eq!(judged(&process, &world, &later, &checkpoint).verdict.exit_code(), 5);
}

/// One body is changed behind the service's back, and one row is removed.
#[tokio::test(flavor = "multi_thread")]
async fn damage_is_named_by_every_command_and_shows_in_the_exit_code() {
    let world = World::new();
    let process = world.start().await;
    process.append((0..300).map(|number| world.operation(&format!("r{number}")))).await;
    // an export has a root list cover them
    process.export(&into_files(&tempfile::tempdir().unwrap(), "acme")).await.unwrap();
    for statement in [
        "DROP TRIGGER entries_never_change",
        "DROP TRIGGER entries_stay",
        "UPDATE entries SET sealed = leaf WHERE sequence = 7",
        "DELETE FROM entries WHERE sequence = 290",
    ] {
        tsujiban_database::on!(process.database.writes(), p => sqlx::query(statement).execute(p).await.map(drop)).unwrap();
    }
    let listed = process.list(everything(1000), Format::Table).await;
    assert_eq!(listed.verdict.exit_code(), 3);
    let said = "DAMAGED: among those that were looked through, 2 entries are damaged where the audit service stores them:\n  \
                entry 290: its row is missing\n  entry 7: its body is damaged or missing\n";
    assert!(listed.text.contains(said), "{}", listed.text);
    let found: Value = serde_json::from_str(&process.list(everything(1000), Format::Json).await.text).unwrap();
    assert_eq!((found["entries"].as_array().unwrap().len(), found["damaged"][0]["sequence"].as_u64()), (298, Some(290)));

    let folder = tempfile::tempdir().unwrap();
    let wanted = into_files(&folder, "acme");
    let exported = process.export(&wanted).await.unwrap();
    assert!(exported.text.starts_with("Wrote 299 entries (") && exported.text.contains("DAMAGED: 2 entries"), "{}", exported.text);
    assert_eq!(exported.verdict.exit_code(), 3);
    let verified = judged(&process, &world, wanted.output.as_ref().unwrap(), wanted.checkpoint.as_ref().unwrap());
    let said = "DAMAGED\n  entry 7: its body is damaged where it was stored; its leaf is there\n  \
                entry 290: nothing of it is left where it was stored\n299 entries, 298 of them readable";
    assert!(verified.text.starts_with(said) && verified.text.contains("\nAll of log audit.tsujiban.dev/test/"), "{}", verified.text);
    assert_eq!(verified.verdict.exit_code(), 3);
    // whoever takes the statement out of the file takes it for nothing
    let text = std::fs::read_to_string(wanted.output.as_ref().unwrap()).unwrap();
    let without: String = text.split_inclusive('\n').filter(|line| !line.starts_with("{\"damaged\":")).collect();
    std::fs::write(wanted.output.as_ref().unwrap(), without).unwrap();
    let verified = judged(&process, &world, wanted.output.as_ref().unwrap(), wanted.checkpoint.as_ref().unwrap());
    assert_eq!(verified.verdict.exit_code(), 5, "{}", verified.text);
    let wanted = Wanted { form: Form::Csv, checkpoint: None, ..into_files(&folder, "table") };
    let exported = process.export(&wanted).await.unwrap();
    assert_eq!((exported.verdict.exit_code(), exported.text.contains("DAMAGED: 2 entries")), (3, true), "{}", exported.text);
}

/// No root list can be put: what is newer than the newest one is not in the export, and that is said.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_says_how_much_is_newer_than_it() {
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    let process = world.start().await;
    process.append((0..3).map(|n| world.operation(&n.to_string()))).await;
    let whole = process.export(&into_files(&folder, "whole")).await.unwrap();
    assert!(!whole.text.contains("NOT IN IT"), "{}", whole.text);
    process.append((3..5).map(|n| world.operation(&n.to_string()))).await;
    world.store.set_outage(Some("nothing answers"));
    let short = process.export(&into_files(&folder, "short")).await.unwrap();
    assert!(short.text.starts_with("Wrote 3 entries (") && short.text.contains("NOT IN IT: 2 newer entries"), "{}", short.text);
    let until = Span { to: Some("2026-11-25T00:00:00Z".parse().unwrap()), ..Span::default() };
    let earlier = process.export(&Wanted { span: until, ..into_files(&folder, "earlier") }).await.unwrap();
    assert!(!earlier.text.contains("NOT IN IT"), "{}", earlier.text);
    world.store.set_outage(None);
    assert!(process.export(&into_files(&folder, "later")).await.unwrap().text.starts_with("Wrote 5 entries ("));
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_is_exported_as_a_spreadsheet() {
    let world = World::new();
    let process = world.start().await;
    process.append([world.operation("before")]).await;
    world.clock.advance(SignedDuration::from_hours(24));
    process.append([world.operation("=1+1"), world.operation("東京")]).await;
    let folder = tempfile::tempdir().unwrap();
    let span = Span::new(Some("2026-11-27".parse().unwrap()), Some("2026-11-27".parse().unwrap())).unwrap();
    let wanted = Wanted { span, form: Form::Csv, ..into_files(&folder, "acme") };
    let refused = process.export(&wanted).await.unwrap_err();
    assert!(refused.to_string().contains("--save-checkpoint"), "{refused}");
    let wanted = Wanted { checkpoint: None, ..wanted };
    assert!(process.export(&wanted).await.unwrap().text.starts_with("Wrote 2 entries ("));
    let csv = std::fs::read_to_string(wanted.output.unwrap()).unwrap();
    assert!(csv.contains("'=1+1") && csv.contains("東京") && !csv.contains("before"), "{csv}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_interrupted_or_refused_leaves_no_file() {
    let world = World::new();
    let process = world.start().await;
    let folder = tempfile::tempdir().unwrap();
    let wanted = into_files(&folder, "acme");
    let one = process.export(&Wanted { checkpoint: wanted.output.clone(), force: true, ..into_files(&folder, "acme") }).await.unwrap_err();
    assert!(one.to_string().contains("two files"), "{one}");
    let none = process.export(&wanted).await.unwrap_err();
    assert!(none.to_string().contains("has no history yet"), "{none}");
    process.append([world.operation("one")]).await;
    let early = export(&process.service(STAFF), &acme(), &wanted, std::future::ready(())).await.unwrap_err();
    assert!(early.to_string().starts_with("interrupted"), "{early}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    process.export(&wanted).await.unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    let again = process.export(&wanted).await.unwrap_err();
    assert!(again.to_string().contains("--force"), "{again}");
}

/// A database file from an hour ago: read, refused, and let go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_declared_after_a_loss_and_not_without_one() {
    let mut world = World::new();
    let process = world.start().await;
    process.append([world.operation("kept")]).await;
    process.audit.follow_roots().await.unwrap();
    let gap = async |process: &Process| {
        declare(&process.service(STAFF), &Scope::All, &"the disk died".parse().unwrap(), true, Format::Table).await
    };
    let refused = gap(&process).await.unwrap_err();
    assert!(refused.to_string().contains("no gap to declare"), "{refused}");
    process.stop().await;
    let copy = std::fs::read(world.file()).unwrap();
    let process = world.start().await;
    world.clock.advance(SignedDuration::from_hours(1));
    process.append([world.operation("lost")]).await;
    process.audit.follow_roots().await.unwrap();
    process.stop().await;
    for file in ["history.db-wal", "history.db-shm", "history.mark"] {
        let _ = std::fs::remove_file(world.folder.path().join(file));
    }
    std::fs::write(world.file(), copy).unwrap();
    world.lose_archive().await;

    let process = world.start().await;
    assert_eq!(process.targets(everything(10)).await.0, ["kept"], "it is read all the same");
    assert_eq!(gap(&process).await.unwrap().text, "1 history goes on behind a signed gap.\n");
    process.append([world.operation("after")]).await;
    assert_eq!(process.targets(everything(10)).await.0, ["after", "acme", "kept"]);
    let json = process.list(everything(10), Format::Json).await.text;
    assert!(json.contains("\"reason\": \"the disk died\""), "{json}");
}
