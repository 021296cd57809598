//! Whatever fails in a transaction, the next one works.

use tsujiban_database::testing::{Fault, Faults, Postgres};
use tsujiban_database::{Backend, Class, Database, on, transaction};

use crate::both::{SCHEMA, add, charge, used};

async fn change_twice(database: &Database) -> Result<i64, sqlx::Error> {
    transaction!(database, tx => {
        charge(tx, "a").await?;
        charge(tx, "b").await
    })
}

async fn every_fault(database: &Database, faults: &Faults) {
    add(database, "a", 1000).await;
    add(database, "b", 1000).await;
    for fault in Fault::ALL {
        for nth in 1.. {
            let before = used(database, "b").await;
            faults.arm(fault, nth).await;
            let changed = change_twice(database).await;
            let struck = faults.disarm().await;
            assert!(struck || changed.is_ok(), "{fault:?} {nth}: {changed:?}");
            if let Err(error) = changed {
                assert!(Class::of(&error) != Class::Other, "{error:?}");
            }
            // all or nothing, whatever was answered
            let after = used(database, "b").await;
            assert_eq!(after, used(database, "a").await, "{fault:?} {nth}");
            assert!(after == before || after == before + 1);
            change_twice(database).await.unwrap();
            assert_eq!(used(database, "b").await, after + 1, "{fault:?} {nth}");
            if !struck {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_file_after_any_fault() {
    let dir = tempfile::tempdir().unwrap();
    let database = Database::sqlite(&dir.path().join("test.db")).await.unwrap();
    database.migrate(&SCHEMA).await.unwrap();
    every_fault(&database, &Faults::sqlite(database.clone())).await;
}

#[tokio::test]
async fn postgresql_after_any_fault() {
    let fresh = Postgres::shared().fresh().await;
    let database = fresh.open().await;
    database.migrate(&SCHEMA).await.unwrap();
    every_fault(&database, &Faults::postgres(&fresh).await).await;
}

/// The trial's "begin_with at non-zero transaction depth": SQLite ends a transaction by itself when the disk is full, and the driver's ROLLBACK
/// fails.
#[tokio::test]
async fn a_full_disk_is_told_and_heals_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let database = Database::sqlite(&dir.path().join("test.db")).await.unwrap();
    database.migrate(&SCHEMA).await.unwrap();
    add(&database, "a", 1).await;
    let Backend::Sqlite(writer) = database.writes() else { panic!("it is SQLite") };
    let pages: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(writer).await.unwrap();
    let limit = format!("PRAGMA max_page_count = {}", pages + 1);
    sqlx::query(sqlx::AssertSqlSafe(limit)).execute(writer).await.unwrap();
    let large = async || {
        transaction!(database, tx => {
            for number in 0..3_i64 {
                let text = "INSERT INTO accounts (id, quota, used, closed, secret) VALUES ($1, 1, 0, FALSE, $2)";
                let secret = vec![7_u8; 20_000];
                on!(tx.on(), c => sqlx::query(text).bind(number.to_string()).bind(secret).execute(c).await.map(drop))?;
            }
            Ok::<_, sqlx::Error>(())
        })
    };
    let full = large().await.unwrap_err();
    assert_eq!(Class::of(&full), Class::Full, "{full:?}");
    // there is space again: the limit was the connection's
    sqlx::query("PRAGMA max_page_count = 1073741823").execute(writer).await.unwrap();
    large().await.unwrap();
    assert_eq!(used(&database, "a").await, 0);
}

#[tokio::test]
async fn a_write_check_writes() {
    for subject in crate::both::subjects().await {
        let database = &subject.database;
        for moment in [1, 2] {
            database.try_write(moment).await.unwrap();
        }
        let value: String =
            on!(database.reads(), p => sqlx::query_scalar("SELECT value FROM meta WHERE name = 'last write check'").fetch_one(p).await)
                .unwrap();
        assert_eq!(value, "2");
        database.close().await;
        assert!(database.try_write(3).await.is_err());
    }
}
