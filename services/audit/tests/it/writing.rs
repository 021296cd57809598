//! A database that fails: callers are told, nothing that was acknowledged is lost, and the service goes on by itself.

use futures::future::join_all;
use jiff::SignedDuration;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tonic::{Code, Status};
use tsujiban_audit::engine::Standing;
use tsujiban_database::testing::{Fault, Faults};
use tsujiban_database::{Backend, on};
use tsujiban_history::verify::Verdict;
use tsujiban_proto::audit::v1::NewEntry;
use tsujiban_proto::lifecycle::v1::lifecycle_service_client::LifecycleServiceClient;
use tsujiban_proto::lifecycle::v1::{DetachRequest, GroupState, PrepareRequest, ReportRequest, Writing};
use tsujiban_proto::time::to_wire;
use tsujiban_service::testing::with_token;

use crate::lives::{import, snapshot};
use crate::rebuild::started;
use crate::refused::assert_whole;
use crate::retention::{bodies, verify};
use crate::stage::{OPERATOR, Place, Stage, World, entry};

crate::on_both!(
    after_any_fault_the_next_batch_is_written,
    after_any_fault_the_next_list_says_all,
    after_any_fault_an_expired_day_goes,
    after_any_fault_a_group_is_kept_or_erased,
    after_any_fault_a_snapshot_comes_back,
    a_bad_entry_is_refused_alone,
    what_is_reported_follows_the_database,
);

async fn faults(world: &World, stage: &Stage) -> Faults {
    match &world.place {
        Place::Sqlite(_) => Faults::sqlite(stage.database.clone()),
        Place::Postgres(tables) => Faults::postgres(&tables.superuser).await,
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

/// Does something under each fault at growing statements, and then once more, until a fault comes too late to strike. The second
/// attempt has to succeed.
async fn under_faults(faults: &Faults, mut attempt: impl AsyncFnMut(usize, bool)) {
    let mut step = 0;
    for fault in Fault::ALL {
        let mut nth = 1;
        loop {
            faults.arm(fault, nth).await;
            attempt(step, false).await;
            let struck = faults.disarm().await;
            attempt(step, true).await;
            step += 1;
            if !struck {
                break;
            }
            nth += 1 + nth / 6;
        }
    }
}

/// Part, list, and the notes of both.
async fn after_any_fault_the_next_list_says_all(mut world: World) {
    let stage = world.start().await;
    let (incarnation, log) = stage.prepare_with_log("acme", "", "").await.unwrap();
    let faults = faults(&world, &stage).await;
    under_faults(&faults, async |step, is_second| {
        if is_second {
            stage.audit.follow_roots().await.unwrap_or_else(|error| panic!("{step}: {error}"));
            assert_eq!(stage.audit.engine.standing(), Standing::Sound, "{step}");
            return;
        }
        // under a fault it may be refused, and is there all the same
        let new = entry(&world, "acme", &step.to_string());
        if stage.append(vec![new.clone()]).await.is_err() {
            let _ = stage.append(vec![new]).await;
        }
        let _ = stage.audit.follow_roots().await;
    })
    .await;
    assert!(matches!(verify(&stage, &world, "acme").await.verdict, Verdict::Intact));
    let before = stage.targets("acme").await;
    stage.stop().await;
    assert_whole(&started(&world).await);
    world.lose_database().await;
    let stage = started(&world).await;
    assert_whole(&stage);
    stage.prepare_with_log("acme", &incarnation, &log).await.unwrap();
    assert_eq!(stage.targets("acme").await, before, "the archive has all of it");
}

async fn after_any_fault_an_expired_day_goes(world: World) {
    const DAYS: u32 = 240;
    let stage = world.start().await;
    for day in 0..DAYS {
        stage.say(&world, "acme", &day.to_string()).await;
        world.advance(SignedDuration::from_hours(24));
    }
    world.advance(SignedDuration::from_hours(24 * (366 - i64::from(DAYS))));
    let faults = faults(&world, &stage).await;
    let mut gone = 0;
    under_faults(&faults, async |step, is_second| {
        if !is_second {
            let _ = stage.audit.expire().await;
            return;
        }
        stage.audit.expire().await.unwrap_or_else(|error| panic!("{step}: {error}"));
        gone = u32::try_from(step).unwrap() + 1;
        assert!(gone < DAYS, "there are more steps than days");
        assert_eq!(bodies(&stage).await, i64::from(DAYS - gone), "{step}");
        world.advance(SignedDuration::from_hours(24));
    })
    .await;
    stage.audit.expire().await.unwrap();
    stage.audit.follow_roots().await.unwrap();
    let report = verify(&stage, &world, "acme").await;
    let Verdict::Expired(days) = &report.verdict else { panic!("{report}") };
    assert_eq!(u32::try_from(days.len()).unwrap(), gone + 1, "each once");
}

async fn after_any_fault_a_group_is_kept_or_erased(world: World) {
    let stage = world.start().await;
    let faults = faults(&world, &stage).await;
    let mut life = String::new();
    under_faults(&faults, async |step, is_second| {
        let group = format!("group-{step}");
        let detach = |life: &str| with_token(OPERATOR, DetachRequest { group: group.clone(), incarnation: life.to_owned() });
        if is_second {
            // a fault may have struck the preparation
            life = stage.prepare(&group, "").await.unwrap_or_else(|error| panic!("{step}: {error}")).0;
            stage.lifecycle().detach(detach(&life)).await.unwrap_or_else(|error| panic!("{step}: {error}"));
            assert_eq!(stage.state(&group).await, [GroupState::Retained], "{step}");
            stage.erase(OPERATOR, &group, &life).await.unwrap_or_else(|error| panic!("{step}: {error}"));
            assert_eq!(stage.state(&group).await, [GroupState::Erased], "{step}");
            return;
        }
        let Ok((life, _)) = stage.prepare(&group, "").await else { return };
        let _ = stage.lifecycle().detach(detach(&life)).await;
    })
    .await;
}

/// Each time into an older database, of which nothing else comes back.
async fn after_any_fault_a_snapshot_comes_back(mut world: World) {
    let stage = world.start().await;
    let (incarnation, _) = stage.prepare("acme", "").await.unwrap();
    stage.say(&world, "acme", "0").await;
    stage.audit.follow_roots().await.unwrap();
    stage.stop().await;
    let older = world.copy_database().await;
    let stage = world.start().await;
    for n in 1..4 {
        stage.say(&world, "acme", &n.to_string()).await;
    }
    stage.audit.follow_roots().await.unwrap();
    let chunks = snapshot(&stage, "acme", &incarnation).await;
    stage.stop().await;
    world.bucket.remove_all("archive/").await;
    for fault in Fault::ALL {
        let mut nth = 1;
        loop {
            world.place = world.copy_of(&older).await;
            let stage = world.start().await;
            stage.audit.compare_at_start().await.unwrap();
            let faults = faults(&world, &stage).await;
            faults.arm(fault, nth).await;
            let _ = import(&stage, "acme", &incarnation, chunks.clone()).await;
            let struck = faults.disarm().await;
            import(&stage, "acme", &incarnation, chunks.clone()).await.unwrap_or_else(|error| panic!("{fault:?} {nth}: {error}"));
            stage.audit.follow_roots().await.unwrap();
            assert_eq!(stage.audit.engine.standing(), Standing::Sound, "{fault:?} {nth}");
            assert_eq!(stage.targets("acme").await, ["0", "1", "2", "3"], "{fault:?} {nth}");
            stage.stop().await;
            if !struck {
                break;
            }
            nth += 1 + nth / 3;
        }
    }
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
        Place::Postgres(tables) => {
            let text = format!(
                "CREATE FUNCTION bad() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'bad'; END $$;
                 CREATE TRIGGER bad BEFORE INSERT ON entries FOR EACH ROW WHEN (NEW.time_us = {us}) EXECUTE FUNCTION bad()"
            );
            let mut admin = PgConnection::connect(&tables.superuser.url).await.unwrap();
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
    stage.audit.writing.works(tsujiban_service::writing::Resource::Database);
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
