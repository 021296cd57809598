//! A database that fails: callers are told, nothing that was acknowledged is lost, and the service goes on by itself.

use futures::future::join_all;
use jiff::SignedDuration;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tonic::{Code, Status};
use tsujiban_database::testing::{Fault, Faults};
use tsujiban_database::{Backend, on};
use tsujiban_proto::audit::v1::NewEntry;
use tsujiban_proto::lifecycle::v1::lifecycle_service_client::LifecycleServiceClient;
use tsujiban_proto::lifecycle::v1::{PrepareRequest, ReportRequest, Writing};
use tsujiban_proto::time::to_wire;
use tsujiban_service::testing::with_token;

use crate::stage::{OPERATOR, Place, Stage, World, entry};

crate::on_both!(after_any_fault_the_next_batch_is_written, a_bad_entry_is_refused_alone, what_is_reported_follows_the_database);

async fn faults(world: &World, stage: &Stage) -> Faults {
    match &world.place {
        Place::Sqlite(_) => Faults::sqlite(stage.database.clone()),
        Place::Postgres { owner, .. } => Faults::postgres(owner).await,
    }
}

async fn prepare(stage: &Stage, group: &str) -> Result<(), Status> {
    let request = PrepareRequest { group: group.into(), ..Default::default() };
    LifecycleServiceClient::new(stage.server.channel()).prepare(with_token(OPERATOR, request)).await.map(drop)
}

async fn report(stage: &Stage) -> Writing {
    let request = with_token(OPERATOR, ReportRequest::default());
    LifecycleServiceClient::new(stage.server.channel()).report(request).await.unwrap().into_inner().writing.unwrap()
}

/// The trial's "begin_with at non-zero transaction depth", for every statement and every COMMIT: of appending, preparing and rotating.
async fn after_any_fault_the_next_batch_is_written(world: World) {
    let stage = world.start().await;
    let faults = faults(&world, &stage).await;
    let (mut acknowledged, mut steps) = (Vec::new(), 0..);
    for fault in Fault::ALL {
        let mut nth = 1;
        loop {
            let step = steps.next().unwrap();
            let (one, fresh) = (entry(&world, "acme", &format!("one {step}")), format!("group-{step}"));
            faults.arm(fault, nth).await;
            let appended = stage.append(vec![one.clone()]).await;
            let struck = faults.disarm().await;
            if let Err(error) = &appended {
                assert!(struck && [Code::Unavailable, Code::Internal].contains(&error.code()), "{fault:?} {nth}: {error}");
            }
            // whoever was refused sends it again: it is there once, whether the fault came before or after the end
            stage.append(vec![one]).await.unwrap_or_else(|error| panic!("{fault:?} {nth}: {error}"));
            acknowledged.push(format!("one {step}"));

            faults.arm(fault, nth).await;
            let _ = prepare(&stage, &fresh).await;
            let also = faults.disarm().await;
            prepare(&stage, &fresh).await.unwrap_or_else(|error| panic!("{fault:?} {nth}: {error}"));
            if !struck && !also {
                break;
            }
            nth += 1 + nth / 6;
        }
        world.advance(SignedDuration::from_hours(25));
        world.add_epoch();
        faults.arm(fault, 2).await;
        let _ = stage.audit.rotate_keys(&world.epochs()).await;
        faults.disarm().await;
        stage.audit.rotate_keys(&world.epochs()).await.unwrap();
    }
    assert_eq!(stage.targets("acme").await, acknowledged);
    stage.stop().await;
    let stage = world.start().await;
    assert_eq!(stage.targets("acme").await, acknowledged);
}

/// Of many that wait together, the one that the database refuses.
async fn a_bad_entry_is_refused_alone(world: World) {
    let stage = world.start().await;
    stage.say(&world, "acme", "first").await;
    let bad = world.now() - SignedDuration::from_secs(7);
    let us = bad.as_microsecond();
    match &world.place {
        Place::Sqlite(_) => {
            let text = format!("CREATE TRIGGER bad BEFORE INSERT ON entries WHEN NEW.time_us = {us} BEGIN SELECT RAISE(ABORT, 'bad'); END");
            let Backend::Sqlite(writer) = stage.database.writes() else { panic!("it is SQLite") };
            sqlx::query(AssertSqlSafe(text)).execute(writer).await.unwrap();
        }
        Place::Postgres { owner, .. } => {
            let text = format!(
                "CREATE FUNCTION bad() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'bad'; END $$;
                 CREATE TRIGGER bad BEFORE INSERT ON entries FOR EACH ROW WHEN (NEW.time_us = {us}) EXECUTE FUNCTION bad()"
            );
            let mut admin = PgConnection::connect(&owner.url).await.unwrap();
            sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut admin).await.unwrap();
        }
    }
    let new = |n: usize| {
        let mut new = entry(&world, &format!("group-{}", n % 5), &n.to_string());
        if n == 23 {
            new.operation.as_mut().unwrap().time = Some(to_wire(bad));
        }
        new
    };
    let news: Vec<NewEntry> = (0..60).map(new).collect();
    let answers = join_all(news.iter().map(|new| stage.append(vec![new.clone()]))).await;
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(answer.is_err(), n == 23, "{n}: {answer:?}");
    }
    assert!(report(&stage).await.able, "a bad entry says nothing of the database");
    let listed = stage.targets("group-3").await;
    assert_eq!(listed.len(), 11, "{listed:?}");
}

async fn what_is_reported_follows_the_database(world: World) {
    let stage = world.start().await;
    stage.audit.try_write().await.unwrap();
    assert!(report(&stage).await.able);
    let faults = faults(&world, &stage).await;
    // with SQLite the first steps are those of the connection that is prepared
    for nth in 1.. {
        faults.arm(Fault::Statement, nth).await;
        let appended = stage.append(vec![entry(&world, "acme", "one")]).await;
        faults.disarm().await;
        if appended.is_err() {
            break;
        }
    }
    let told = report(&stage).await;
    assert!(!told.able && told.reason.contains("the database cannot be written") && told.since.is_some(), "{told:?}");
    assert!(!stage.audit.writing.is_ready());
    // the next write that succeeds is the end of it; the job of the service makes it
    stage.audit.try_write().await.unwrap();
    stage.audit.writing.works(tsujiban_service::writing::Place::Database);
    assert!(report(&stage).await.able);
    stage.say(&world, "acme", "two").await;
}

/// The disk is full, and then has space: no restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_heals_by_itself() {
    let world = World::sqlite();
    let stage = world.start().await;
    for n in 0..20 {
        stage.say(&world, "acme", &format!("before {n}")).await;
    }
    let Backend::Sqlite(writer) = stage.database.writes() else { panic!("it is SQLite") };
    let pages: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(writer).await.unwrap();
    let limit = async |pages: i64| {
        sqlx::query(AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"))).execute(writer).await.unwrap();
    };
    let long = |n: usize| {
        let mut new = entry(&world, "acme", &format!("long {n}"));
        new.operation.as_mut().unwrap().reason = "x".repeat(30_000);
        new
    };
    for round in 0..3 {
        limit(pages).await;
        let refused = join_all((0..8).map(|n| stage.append(vec![long(round * 8 + n)]))).await;
        let refused = refused.into_iter().find_map(Result::err).expect("there is no space for all");
        assert_eq!(refused.code(), Code::Unavailable);
        assert!(refused.message().contains("its disk is full"), "{refused}");
        assert!(!stage.audit.writing.is_ready());
        // what is there can be read
        assert!(stage.targets("acme").await.len() >= 20);
        // a connection that was thrown away took its limit with it
        limit(1_073_741_823).await;
        stage.say(&world, "acme", "after").await;
    }
}

/// Nothing is acknowledged that goes into a file that nobody will read again.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_gone_or_replaced_ends_the_writing() {
    for replaced in [false, true] {
        let world = World::sqlite();
        let stage = world.start().await;
        stage.say(&world, "acme", "one").await;
        let file = world.file();
        if replaced {
            let older = file.with_extension("older");
            std::fs::copy(&file, &older).unwrap();
            std::fs::rename(&older, &file).unwrap();
        } else {
            std::fs::remove_file(&file).unwrap();
        }
        for _ in 0..8 {
            let refused = stage.append(vec![entry(&world, "acme", "two")]).await.unwrap_err();
            assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        }
        let why = stage.audit.try_write().await.unwrap_err();
        assert!(why.contains("removed or replaced while the service ran"), "{why}");
        let told = report(&stage).await;
        assert!(!told.able && told.reason.contains("removed or replaced"), "{told:?}");
        assert_eq!(stage.targets("acme").await, ["one"], "reading goes on");
    }
}

/// One page of an index: the service says so and what to do, and goes on reading.
#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_database_is_told_with_the_way_out() {
    let world = World::sqlite();
    let stage = world.start().await;
    for n in 0..200 {
        stage.say(&world, "acme", &n.to_string()).await;
    }
    stage.audit.check_database().await.unwrap();
    assert!(report(&stage).await.able);
    let text = "SELECT rootpage FROM sqlite_schema WHERE name = 'entries_of_log'";
    let page: i64 = on!(stage.database.reads(), p => sqlx::query_scalar(text).fetch_one(p).await).unwrap();
    stage.stop().await;
    let mut bytes = std::fs::read(world.file()).unwrap();
    let at = (usize::try_from(page).unwrap() - 1) * 4096;
    bytes[at + 2000..at + 4096].fill(0xa5);
    std::fs::write(world.file(), bytes).unwrap();
    // a start does not depend on the size of the database, and so not on a check of it
    let stage = world.start().await;
    stage.audit.check_database().await.unwrap();
    let told = report(&stage).await;
    assert!(!told.able && !stage.audit.writing.is_ready());
    assert!(told.reason.contains("malformed") && told.reason.contains("delete the three"), "{}", told.reason);
}
