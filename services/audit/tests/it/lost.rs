//! Whatever was acknowledged is there: after kill -9 under load, and a database that has lost its tail says so.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use prometheus::Registry;
use tsujiban_audit::engine::{Addition, Engine, EngineParts, Phase, Standing};
use tsujiban_audit::owner::Owner;
use tsujiban_core::clock::SystemClock;
use tsujiban_database::{Database, DatabaseArgs, on};
use tsujiban_history::Leaf;
use tsujiban_history::merkle::{Range, leaf_hash};
use tsujiban_sealing::{Keyring, MasterKey, SealedEpochKey, SystemRandom};
use tsujiban_service::writing::WriteState;

use crate::stage::{Place, World, entry, random};

/// How often the process is killed.
const KILLS: usize = 200;
const KILLS_OF_POSTGRES_CLIENTS: usize = 20;
/// What the child is told.
const TOLD: &str = "TSUJIBAN_AUDIT_LOAD";

#[derive(serde::Serialize, serde::Deserialize)]
struct Told {
    /// The folder of an SQLite database, or the URL of PostgreSQL.
    place: Result<std::path::PathBuf, String>,
    master: String,
    epochs: Vec<SealedEpochKey>,
}

/// Not a test of its own: the process that is killed. It does nothing unless it is told to.
#[test]
fn load() {
    let Ok(told) = std::env::var(TOLD) else { return };
    let told: Told = serde_json::from_str(&told).unwrap();
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(async move {
        let (database, folder) = match &told.place {
            Ok(folder) => (Database::sqlite(&folder.join("history.db")).await.unwrap(), Some(folder.clone())),
            Err(url) => (postgres(url).await, None),
        };
        let master = MasterKey::from_bytes(&hex::decode(told.master).unwrap()).unwrap();
        let keyring = Arc::new(Keyring::new(master, &told.epochs).unwrap());
        let (clock, random_source) = (Arc::new(SystemClock), Arc::new(SystemRandom::new()));
        let writing = WriteState::new("tsujiban_audit", &Registry::new(), clock.clone()).unwrap();
        let engine = Engine::start(EngineParts { database, keyring, clock, random: random_source, folder, writing }).await.unwrap();
        for worker in 0..16_u8 {
            let engine = engine.clone();
            tokio::spawn(async move {
                for n in 0_u64.. {
                    let owners = [format!("group-{}", worker % 3), format!("group-{}", n % 5)];
                    let additions: Vec<Addition> = owners.iter().map(|owner| addition(owner)).collect();
                    let ids: Vec<_> = additions.iter().map(|addition| hex::encode(addition.id)).collect();
                    let added = engine.append(additions).await.unwrap();
                    let mut line = String::new();
                    for ((owner, id), added) in owners.iter().zip(ids).zip(added) {
                        writeln!(line, "ack {owner} {} {id}", added.sequence).unwrap();
                    }
                    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
                }
            });
        }
        std::future::pending::<()>().await;
    });
}

fn addition(owner: &str) -> Addition {
    let id = random();
    let time = tsujiban_core::clock::Clock::now(&SystemClock);
    Addition { owner: Owner::parse(owner).unwrap(), id, operation: id, phase: Phase::Outcome, time, body: vec![b'x'; 300] }
}

async fn postgres(url: &str) -> Database {
    let args = DatabaseArgs { database_url: url.to_owned(), database_password_file: None, database_ca_file: None, database_connections: 4 };
    args.open(std::path::Path::new("")).await.unwrap()
}

/// Lets a process append for a moment, kills it, and answers what it had acknowledged.
fn run_and_kill(told: &Told, millis: u64) -> Vec<(String, u64, String)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "lost::load", "--nocapture"])
        .env(TOLD, serde_json::to_string(told).unwrap())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = Vec::new();
    let mut deadline = None;
    while let Some(Ok(line)) = out.next() {
        let Some(ack) = line.strip_prefix("ack ") else { continue };
        let parts: Vec<&str> = ack.split(' ').collect();
        // the last line may be cut
        if let [owner, sequence, id] = parts[..]
            && id.len() == 32
        {
            acknowledged.push((owner.to_owned(), sequence.parse().unwrap(), id.to_owned()));
        }
        let until = *deadline.get_or_insert_with(|| std::time::Instant::now() + Duration::from_millis(millis));
        if std::time::Instant::now() >= until {
            child.kill().unwrap(); // SIGKILL
            deadline = Some(std::time::Instant::now() + Duration::from_hours(1));
        }
    }
    child.wait().unwrap();
    acknowledged
}

async fn nothing_is_lost(world: &World, kills: usize) {
    let stage = world.start().await;
    stage.stop().await;
    let place = match &world.place {
        Place::Sqlite(folder) => Ok(folder.path().to_owned()),
        Place::Postgres(tables) => Err(tables.service.url.clone()),
    };
    let told = Told { place, master: hex::encode(world.master.expose()), epochs: world.epochs() };
    let mut acknowledged: BTreeMap<(String, u64), String> = BTreeMap::new();
    for kill in 0..kills {
        let acks = run_and_kill(&told, 5 + (kill as u64 * 7) % 40);
        assert!(!acks.is_empty(), "the process did nothing");
        for (owner, sequence, id) in acks {
            if let Some(before) = acknowledged.insert((owner.clone(), sequence), id.clone()) {
                panic!("{owner} {sequence} was given to {before} and to {id}");
            }
        }
    }
    let stage = world.start().await;
    assert_eq!(stage.audit.engine.standing(), Standing::Sound);
    let owners: BTreeSet<String> = acknowledged.keys().map(|(owner, _)| owner.clone()).collect();
    for owner in owners {
        let log = stage.audit.some_log_of(&Owner::parse(&owner).unwrap()).await.unwrap();
        let rows: Vec<(i64, Vec<u8>, Vec<u8>)> = on!(stage.database.reads(), p => sqlx::query_as(
            "SELECT sequence, id, leaf FROM entries WHERE log = $1 ORDER BY sequence").bind(log.number).fetch_all(p).await)
        .unwrap();
        let mut edge = Range::empty(0);
        for (n, (sequence, id, leaf)) in rows.iter().enumerate() {
            assert_eq!(sequence.cast_unsigned(), n as u64, "a gap in {owner}");
            assert_eq!(Leaf::parse(leaf).unwrap().sequence, n as u64);
            edge.append_hash(leaf_hash(leaf), |_, _| ()).unwrap();
            if let Some(wanted) = acknowledged.remove(&(owner.clone(), n as u64)) {
                assert_eq!(hex::encode(id), wanted, "{owner} {n}");
            }
        }
        assert_eq!(edge, log.edge, "the tree is that of the leaves");
    }
    assert!(acknowledged.is_empty(), "{} acknowledged entries are lost", acknowledged.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_under_load_loses_nothing_with_sqlite() {
    nothing_is_lost(&World::sqlite(), KILLS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_under_load_loses_nothing_with_postgresql() {
    nothing_is_lost(&World::postgres().await, KILLS_OF_POSTGRES_CLIENTS).await;
}

/// The log of the database is cut behind the first half: SQLite opens it without a word, and has forgotten what was acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_tail_is_noticed() {
    let world = World::sqlite();
    let stage = world.start().await;
    for n in 0..40 {
        stage.say(&world, "acme", &n.to_string()).await;
    }
    let folder = world.folder().unwrap();
    let crashed = tempfile::tempdir().unwrap();
    for file in ["history.db", "history.db-wal", "history.mark"] {
        std::fs::copy(folder.join(file), crashed.path().join(file)).unwrap();
    }
    let standing = async |parts: tsujiban_audit::service::Parts| {
        let mut parts = parts;
        parts.database = Database::sqlite(&crashed.path().join("history.db")).await.unwrap();
        parts.folder = Some(crashed.path().to_owned());
        let audit = tsujiban_audit::service::Audit::open(parts).await.unwrap();
        audit.engine.standing()
    };
    assert_eq!(standing(world.parts().await).await, Standing::Sound, "a crash alone loses nothing");
    tokio::time::sleep(Duration::from_millis(100)).await;
    for file in ["history.db", "history.db-wal", "history.mark"] {
        std::fs::copy(folder.join(file), crashed.path().join(file)).unwrap();
    }
    let _ = std::fs::remove_file(crashed.path().join("history.db-shm"));
    let wal = std::fs::OpenOptions::new().write(true).open(crashed.path().join("history.db-wal")).unwrap();
    wal.set_len(wal.metadata().unwrap().len() / 2).unwrap();
    let Standing::Forked(why) = standing(world.parts().await).await else { panic!("the loss was not noticed") };
    assert!(why.contains("40 entries were acknowledged"), "{why}");
}

/// Nobody opens a database that somebody else writes.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_is_refused_the_file() {
    let world = World::sqlite();
    let stage = world.start().await;
    stage.say(&world, "acme", "a").await;
    let Err(refused) = world.try_start().await else { panic!("there are two writers") };
    assert!(tsujiban_core::error::chain(&refused).contains("another process"), "{refused}");
}

/// Two replicas on one PostgreSQL make one history.
#[tokio::test(flavor = "multi_thread")]
async fn two_writers_make_one_history() {
    let world = World::postgres().await;
    let (a, b) = (world.start().await, world.start().await);
    assert_eq!(a.audit.verifier(), b.audit.verifier());
    let shared: Vec<_> = (0..40).map(|n| entry(&world, &format!("group-{}", n % 4), "shared")).collect();
    let calls = (0..40).flat_map(|n: usize| {
        let own = |who: &str| (0..5).map(|k| entry(&world, &format!("group-{}", (n + k) % 4), who)).collect::<Vec<_>>();
        let with = |who| [own(who), vec![shared[n].clone()]].concat();
        [a.append(with("a")), b.append(with("b"))]
    });
    let answers = futures::future::join_all(calls).await;
    let duplicates = answers.iter().flat_map(|answer| answer.as_ref().unwrap()).filter(|added| added.is_duplicate).count();
    assert_eq!(duplicates, 40, "each shared entry is there once");
    for group in 0..4 {
        let log = a.audit.some_log_of(&Owner::parse(&format!("group-{group}")).unwrap()).await.unwrap();
        assert_eq!(log.size(), 110);
        let mut edge = Range::empty(0);
        for entry in a.audit.entries(log.number, 0, 1000).await.unwrap() {
            assert_eq!(entry.sequence, edge.end());
            edge.append_hash(leaf_hash(&entry.leaf), |_, _| ()).unwrap();
        }
        assert_eq!(edge, log.edge);
    }
    for stage in [&a, &b] {
        stage.audit.follow_roots().await.unwrap();
        assert_eq!(stage.audit.engine.standing(), Standing::Sound);
    }
    assert_eq!(world.lists().await.len(), 1);
}

/// Fewer entries than were acknowledged, and all that the root lists name: it is checked as a whole, said in the history, and goes on. Whoever
/// was told that the others are recorded sends them again.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_tail_is_checked_and_said_in_the_history() {
    let world = World::sqlite();
    let stage = world.start().await;
    stage.say(&world, "acme", "kept").await;
    stage.audit.follow_roots().await.unwrap();
    stage.stop().await;
    let count = 7_u64.to_be_bytes();
    let mark = [count.as_slice(), tsujiban_history::merkle::sha256(&count).as_bytes()].concat();
    std::fs::write(world.folder().unwrap().join("history.mark"), mark).unwrap();
    let stage = world.start().await;
    stage.audit.compare_at_start().await.unwrap();
    assert!(matches!(stage.audit.engine.standing(), Standing::Forked(_)));
    stage.audit.follow_roots().await.unwrap();
    assert_eq!(stage.audit.engine.standing(), Standing::Sound);
    let said = stage.list("").await.remove(0).operation.unwrap();
    assert_eq!(said.method, "Start");
    assert!(said.detail["found"].contains("7 entries were acknowledged and the database has 1"), "{said:?}");
    stage.say(&world, "acme", "sent again").await;
    assert_eq!(stage.targets("acme").await, ["kept", "sent again"]);
}
