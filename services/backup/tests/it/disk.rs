//! The file of the catalogue: a full disk, a file that is removed, a page that is overwritten.

use tonic::Code;
use tsujiban_database::{Backend, on};
use tsujiban_objects::list_all;
use tsujiban_service::writing::Resource;

use crate::stage::{Disk, FILE, Stage, config};

/// The trial's row 4b: it goes on by itself, and no try leaves an object.
#[tokio::test]
async fn a_full_disk_heals_without_a_restart_or_an_orphan() {
    let stage = Stage::prepared().await;
    stage.put("acme", "SN0", &config("zero")).await.unwrap();
    let Backend::Sqlite(writer) = stage.catalogue.database().writes() else { panic!("it is SQLite") };
    let limit = async |pages: i64| {
        sqlx::query(sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"))).execute(writer).await.unwrap();
    };
    for round in 0..3 {
        let pages: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(writer).await.unwrap();
        limit(pages).await;
        let before = list_all(&*stage.world.memory, "v1/").await.unwrap().len();
        let mut stored = 0;
        let refused = loop {
            match stage.put("acme", &format!("SN{round}-{stored}"), &config("full")).await {
                Ok(_) => stored += 1,
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        assert!(!stage.backup.writing.is_ready());
        for _ in 0..3 {
            stage.put("acme", "SN0", &config("another")).await.unwrap_err();
        }
        let orphans = list_all(&*stage.world.memory, "v1/").await.unwrap().len() - before - stored;
        assert!(orphans <= 1, "{orphans} objects are in no catalogue");
        assert!(!stage.list("acme", "").await.unwrap().is_empty(), "reading goes on");
        // there is space again, and the job of the service tries
        limit(1_073_741_823).await;
        stage.backup.try_write().await.unwrap();
        stage.backup.writing.works(Resource::Database);
        assert!(stage.put("acme", "SN0", &config(&round.to_string())).await.unwrap().changed);
    }
}

#[tokio::test]
async fn nothing_is_stored_for_a_catalogue_whose_file_is_gone() {
    let stage = Stage::prepared().await;
    stage.put("acme", "SN1", &config("one")).await.unwrap();
    let Disk::Sqlite(folder) = &stage.world.disk else { panic!("it is SQLite") };
    std::fs::remove_file(folder.path().join(FILE)).unwrap();
    stage.put("acme", "SN1", &config("two")).await.unwrap_err();
    let why = stage.backup.try_write().await.unwrap_err();
    assert!(why.contains("removed or replaced while the service ran"), "{why}");
    let refused = stage.put("acme", "SN1", &config("three")).await.unwrap_err();
    assert!(refused.message().contains("removed or replaced"), "{refused}");
    assert_eq!(list_all(&*stage.world.memory, "v1/").await.unwrap().len(), 1);
    assert_eq!(stage.list("acme", "SN1").await.unwrap().len(), 1, "reading goes on");
}

/// The trial's row 2g.
#[tokio::test]
async fn an_index_that_is_overwritten_makes_it_not_ready_with_the_way_out() {
    let stage = Stage::prepared().await;
    for n in 0..40 {
        stage.put("acme", &format!("SN{n}"), &config("one")).await.unwrap();
    }
    stage.backup.check_database().await.unwrap();
    assert!(stage.report().await.writing.unwrap().able);
    let text = "SELECT rootpage FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'snapshots' AND name LIKE 'sqlite_autoindex%'";
    let page: i64 = on!(stage.catalogue.database().reads(), p => sqlx::query_scalar(text).fetch_one(p).await).unwrap();
    let (world, epochs) = stage.stop().await;
    let Disk::Sqlite(folder) = &world.disk else { panic!("it is SQLite") };
    let file = folder.path().join(FILE);
    let mut bytes = std::fs::read(&file).unwrap();
    let at = (usize::try_from(page).unwrap() - 1) * 4096;
    bytes[at + 2000..at + 4096].fill(0xa5);
    std::fs::write(&file, bytes).unwrap();
    let store = world.memory.clone();
    let stage = world.try_start(epochs, store).await.unwrap();
    stage.backup.check_database().await.unwrap();
    let told = stage.backup.writing.report();
    assert!(!told.able && !stage.backup.writing.is_ready());
    assert!(told.reason.contains("malformed") && told.reason.contains("comes back from the bucket"), "{}", told.reason);
    let refused = stage.put("acme", "SN1", &config("two")).await.unwrap_err();
    assert!(refused.message().contains("delete the three"), "{refused}");
}
