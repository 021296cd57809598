//! What was acknowledged survives an older database: callers keep it until a root list covers it, ask, and add it again.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::SignedDuration;
use prometheus::Registry;
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Code;
use tsujiban_audit::engine::Standing;
use tsujiban_database::testing::Postgres;
use tsujiban_proto::audit::v1::{
    Coverage, CoveredRequest, CoveredResponse, LogCoverage, LogEntries, NewEntry, Operation, Phase, Result as Outcome,
};
use tsujiban_proto::error::{Kind, ServiceError};
use tsujiban_sealing::{Keyring, SystemRandom};
use tsujiban_service::history::{self, ClientArgs, History, HistoryClient, Ledger};
use tsujiban_service::testing::{SERVER_NAME, with_token};

use crate::damage::forge;
use crate::rebuild::started;
use crate::stage::{BACKUP, OPERATOR, Place, STAFF, Stage, World, entry, operation, random};

crate::on_both!(
    entries_are_pending_until_a_root_list_covers_them,
    entries_of_every_group_are_found_in_every_segment,
    rows_that_are_gone_come_back_before_they_are_called_unknown,
    a_body_that_is_damaged_before_it_is_archived_comes_back_from_its_caller,
    an_erased_group_is_said,
    a_read_only_history_says_nothing,
    questions_have_bounds,
    an_intent_that_comes_behind_its_outcome_is_not_open,
    what_an_older_database_lacks_comes_back,
);

async fn ask(stage: &Stage, logs: Vec<LogEntries>) -> Result<Vec<LogCoverage>, tonic::Status> {
    Ok(stage.client().covered(with_token(OPERATOR, CoveredRequest { logs })).await?.into_inner().logs)
}

fn of(group: &str, ids: &[Vec<u8>]) -> LogEntries {
    LogEntries { group: group.to_owned(), ids: ids.to_vec() }
}

fn answer(entries: &[Coverage]) -> LogCoverage {
    LogCoverage { is_erased: false, entries: entries.iter().map(|coverage| (*coverage).into()).collect() }
}

async fn entries_are_pending_until_a_root_list_covers_them(world: World) {
    let stage = world.start().await;
    let entries: Vec<_> = (0..3).map(|n| entry(&world, "acme", &n.to_string())).collect();
    let ids: Vec<_> = entries.iter().map(|entry| entry.id.clone()).collect();
    stage.append(entries[..2].to_vec()).await.unwrap();
    let (covered, pending, unknown) = (Coverage::Covered, Coverage::Pending, Coverage::Unknown);
    let asked = || vec![of("acme", &ids), of("other", &ids[..1]), of("", &ids[..1])];
    let elsewhere = || answer(&[unknown]);
    assert_eq!(ask(&stage, asked()).await.unwrap(), [answer(&[pending, pending, unknown]), elsewhere(), elsewhere()]);
    stage.audit.follow_roots().await.unwrap();
    stage.append(entries[2..].to_vec()).await.unwrap();
    assert_eq!(ask(&stage, asked()).await.unwrap(), [answer(&[covered, covered, pending]), elsewhere(), elsewhere()]);
    stage.audit.follow_roots().await.unwrap();
    assert_eq!(ask(&stage, asked()).await.unwrap()[0], answer(&[covered; 3]));
    // the same id in two groups' histories is two entries
    stage.append(vec![NewEntry { group: "other".into(), ..entries[0].clone() }]).await.unwrap();
    assert_eq!(ask(&stage, asked()).await.unwrap(), [answer(&[covered; 3]), answer(&[pending]), elsewhere()]);
    stage.stop().await;
    let stage = world.start().await;
    assert_eq!(ask(&stage, asked()).await.unwrap(), [answer(&[covered; 3]), answer(&[pending]), elsewhere()], "after a restart");
}

/// Longer than anybody adds an entry again: what is there is not said to be unknown.
async fn entries_of_every_group_are_found_in_every_segment(world: World) {
    let stage = world.start().await;
    let mut asked = Vec::new();
    for day in 0..8 {
        let group = format!("group-{}", day % 3);
        let new = entry(&world, &group, "a");
        asked.push(of(&group, std::slice::from_ref(&new.id)));
        stage.append(vec![new]).await.unwrap();
        world.advance(jiff::SignedDuration::from_hours(24));
    }
    assert_eq!(ask(&stage, asked).await.unwrap(), vec![answer(&[Coverage::Pending]); 8]);
}

/// Rows that are gone from the middle refuse no log: asked for by those who keep them, they come back instead of being there twice later.
async fn rows_that_are_gone_come_back_before_they_are_called_unknown(world: World) {
    let stage = world.start().await;
    let entries: Vec<_> = (0..3).map(|n| entry(&world, "acme", &n.to_string())).collect();
    let ids: Vec<_> = entries.iter().map(|entry| entry.id.clone()).collect();
    stage.append(entries.clone()).await.unwrap();
    stage.audit.follow_roots().await.unwrap();
    stage.stop().await;
    world.by_hand(&["DELETE FROM entries WHERE sequence = 1"]).await;
    let stage = world.start().await;
    assert_eq!(ask(&stage, vec![of("acme", &ids)]).await.unwrap()[0], answer(&[Coverage::Covered; 3]));
    assert_eq!(stage.append(entries).await.unwrap().iter().map(|added| added.sequence).collect::<Vec<_>>(), [0, 1, 2]);
}

async fn a_body_that_is_damaged_before_it_is_archived_comes_back_from_its_caller(mut world: World) {
    let stage = world.start().await;
    let (incarnation, log) = stage.prepare_with_log("acme", "", "").await.unwrap();
    let entries: Vec<_> = (0..4).map(|n| entry(&world, "acme", &n.to_string())).collect();
    let ids: Vec<_> = entries.iter().map(|entry| entry.id.clone()).collect();
    stage.append(entries.clone()).await.unwrap();
    let damage = |at: u64| format!("UPDATE entries SET sealed = leaf WHERE sequence = {at} AND log = (SELECT MAX(number) FROM logs)");
    forge(&world, &stage, &damage(1)).await;
    forge(&world, &stage, &damage(3)).await;
    let (covered, pending, unknown) = (Coverage::Covered, Coverage::Pending, Coverage::Unknown);
    let asked = async || ask(&stage, vec![of("acme", &ids)]).await.unwrap().remove(0);
    stage.audit.follow_roots().await.unwrap();
    assert_eq!(asked().await, answer(&[covered, unknown, pending, unknown]), "the archive waits for what a caller has");
    let lists = world.bucket.names("roots/").await.len();
    stage.audit.follow_roots().await.unwrap();
    assert_eq!(world.bucket.names("roots/").await.len(), lists, "nothing is put meanwhile");

    let other = NewEntry { id: ids[1].clone(), ..entries[0].clone() };
    stage.append(vec![other]).await.unwrap();
    assert_eq!(asked().await, answer(&[covered, unknown, pending, unknown]), "another entry under the same id brings nothing");
    assert_eq!(stage.append(vec![entries[1].clone()]).await.unwrap()[0].sequence, 1);
    stage.audit.follow_roots().await.unwrap();
    assert_eq!(asked().await, answer(&[covered, covered, covered, unknown]));

    world.advance(SignedDuration::from_mins(5));
    stage.audit.follow_roots().await.unwrap();
    assert_eq!(asked().await, answer(&[covered; 4]), "what nobody brings back is archived as it is");
    stage.stop().await;
    world.lose_database().await;
    let stage = started(&world).await;
    stage.audit.follow_roots().await.unwrap();
    stage.prepare_with_log("acme", &incarnation, &log).await.unwrap();
    let targets = stage.targets("acme").await;
    for n in ["0", "1", "2"] {
        assert!(targets.contains(&n.to_owned()), "{targets:?}");
    }
}

async fn an_erased_group_is_said(world: World) {
    let stage = world.start().await;
    let group = "acme".parse().unwrap();
    let new = entry(&world, "acme", "a");
    stage.append(vec![new.clone()]).await.unwrap();
    let number = stage.audit.groups(Some(&group)).await.unwrap()[0].number;
    let asked = || vec![of("acme", &[new.id.clone(), random().to_vec()]), of("other", &[random().to_vec()])];
    assert!(ask(&stage, asked()).await.unwrap().iter().all(|log| !log.is_erased));
    let sql = "UPDATE logs SET state = 'erased', ended_at = 1 WHERE number = $1";
    tsujiban_database::on!(stage.database.writes(), p => sqlx::query(sql).bind(number).execute(p).await.map(drop)).unwrap();
    let erased: Vec<_> = ask(&stage, asked()).await.unwrap().iter().map(|log| log.is_erased).collect();
    assert_eq!(erased, [true, false]);
}

async fn a_read_only_history_says_nothing(world: World) {
    let stage = world.start().await;
    stage.say(&world, "acme", "a").await;
    stage.audit.engine.set_standing(Standing::Forked("by the test".into()));
    let refused = ask(&stage, vec![of("acme", &[random().to_vec()])]).await.unwrap_err();
    assert_eq!((refused.code(), ServiceError::from(&refused).reason.as_str()), (Code::FailedPrecondition, "HISTORY_FORKED"));
}

async fn questions_have_bounds(world: World) {
    let stage = world.start().await;
    let many = vec![random().to_vec(); 1000];
    assert_eq!(ask(&stage, vec![of("acme", &many)]).await.unwrap()[0].entries.len(), 1000);
    for wrong in [vec![], vec![of("acme", &[])], vec![of("acme", &many), of("", &many[..1])], vec![of("acme", &[vec![1]])]] {
        assert_eq!(ask(&stage, wrong).await.unwrap_err().code(), Code::InvalidArgument);
    }
    let denied = stage.client().covered(with_token(STAFF, CoveredRequest { logs: vec![of("acme", &many)] })).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
}

/// An intent that was lost and is added again when its outcome is there already is no call that was cut off.
async fn an_intent_that_comes_behind_its_outcome_is_not_open(world: World) {
    let stage = world.start().await;
    let of =
        |phase: Phase, id: [u8; 16]| history::entry("acme", Operation { id: id.to_vec(), phase: phase.into(), ..operation(&world, "t") });
    let (apart, together, open) = (random(), random(), random());
    stage.append(vec![of(Phase::Outcome, apart)]).await.unwrap();
    stage.append(vec![of(Phase::Intent, apart)]).await.unwrap();
    stage.append(vec![of(Phase::Outcome, together), of(Phase::Intent, together), of(Phase::Intent, open)]).await.unwrap();
    let listed = stage.list("acme").await;
    let unknown: Vec<_> = listed.iter().filter_map(|entry| entry.operation.as_ref()).filter(|op| op.result() == Outcome::Unknown).collect();
    assert_eq!((listed.len(), unknown.len()), (3, 1));
    assert_eq!(unknown[0].id, open);
}

/// Whichever service runs now, as the backup service calls it.
#[derive(Default)]
struct Now(Mutex<Option<Arc<HistoryClient>>>);

impl Now {
    fn set(&self, stage: Option<&Stage>, folder: &Path) {
        let client = stage.map(|stage| {
            std::fs::write(folder.join("ca.crt"), &stage.server.ca_pem).unwrap();
            std::fs::write(folder.join("token"), BACKUP).unwrap();
            let endpoint = format!("https://{SERVER_NAME}:{}", stage.server.address.port());
            let args = ClientArgs { endpoint, ca_file: folder.join("ca.crt"), token_file: folder.join("token") };
            Arc::new(HistoryClient::new(&args).unwrap())
        });
        *self.0.lock().unwrap() = client;
    }

    fn get(&self) -> Result<Arc<HistoryClient>, ServiceError> {
        self.0.lock().unwrap().clone().ok_or_else(|| ServiceError::new(Kind::Unavailable, "AWAY", "it is away"))
    }
}

#[async_trait]
impl Ledger for Now {
    async fn append(&self, entries: Vec<NewEntry>) -> Result<(), ServiceError> {
        self.get()?.append(entries).await
    }

    async fn covered(&self, request: CoveredRequest) -> Result<CoveredResponse, ServiceError> {
        self.get()?.covered(request).await
    }
}

/// A caller of the service, with a spool of its own.
struct Caller {
    history: History,
    now: Arc<Now>,
    folder: TempDir,
    _stop: DropGuard,
}

impl Caller {
    fn of(world: &World) -> Self {
        let (folder, now) = (tempfile::tempdir().unwrap(), Arc::new(Now::default()));
        let parts = history::Parts {
            service: "tsujiban-backup",
            dir: folder.path().join("spool"),
            bytes: 0,
            keyring: Arc::new(Keyring::new(world.master.clone(), &world.epochs()).unwrap()),
            ledger: now.clone(),
            clock: world.clock.clone(),
            random: Arc::new(SystemRandom::new()),
        };
        let (history, delivery) = History::open(parts, &Registry::new()).unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(delivery.asking(Duration::from_millis(50)).run(stop.clone()));
        Self { history, now, folder, _stop: stop.drop_guard() }
    }

    async fn says(&self, world: &World, group: &str, targets: std::ops::Range<u32>) {
        for target in targets {
            self.history.observe(group, operation(world, &target.to_string())).await.unwrap();
        }
        until(|| self.history.depth() == 0).await;
    }
}

async fn until(mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(3), waiting).await.unwrap();
}

/// A copy of the database of a service that does not run.
async fn copy(world: &World) -> Place {
    match &world.place {
        Place::Sqlite(folder) => {
            let copy = tempfile::tempdir().unwrap();
            for file in std::fs::read_dir(folder.path()).unwrap() {
                let file = file.unwrap();
                std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
            }
            Place::Sqlite(copy)
        }
        Place::Postgres(tables) => Place::Postgres(tables.copy(Postgres::shared()).await),
    }
}

/// The database is replaced by a copy from before entries that no root list covers: neither the service nor a verifier can notice that, and
/// everything is there again as soon as the caller has asked, once each and in its order.
async fn what_an_older_database_lacks_comes_back(mut world: World) {
    let stage = world.start().await;
    let caller = Caller::of(&world);
    caller.now.set(Some(&stage), caller.folder.path());
    caller.says(&world, "acme", 0..4).await;
    caller.says(&world, "", 0..2).await;
    stage.audit.follow_roots().await.unwrap();
    until(|| caller.history.kept() == 0).await;
    caller.now.set(None, caller.folder.path());
    stage.stop().await;
    let older = copy(&world).await;

    let stage = world.start().await;
    caller.now.set(Some(&stage), caller.folder.path());
    caller.says(&world, "acme", 4..20).await;
    caller.says(&world, "other", 0..5).await;
    caller.says(&world, "acme", 20..30).await;
    caller.says(&world, "", 2..4).await;
    let (mut before, groups) = (Vec::new(), ["acme", "other", ""]);
    for group in groups {
        before.push(stage.targets(group).await);
    }
    assert_eq!((before[0].len(), caller.history.kept()), (30, 33));
    caller.now.set(None, caller.folder.path());
    stage.stop().await;
    world.place = older;

    let stage = world.start().await;
    assert_eq!(stage.targets("acme").await.len(), 4, "they are gone");
    stage.audit.follow_roots().await.unwrap();
    assert_eq!(stage.audit.engine.standing(), Standing::Sound, "and nothing tells of it");
    caller.now.set(Some(&stage), caller.folder.path());
    for (group, before) in groups.iter().zip(&before) {
        while stage.targets(group).await.len() < before.len() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(stage.targets(group).await, *before);
    }
    stage.audit.follow_roots().await.unwrap();
    until(|| caller.history.kept() == 0).await;
    assert_eq!(stage.audit.engine.standing(), Standing::Sound);
}
