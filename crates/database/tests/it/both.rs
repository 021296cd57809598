//! What holds for either database.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;
use tokio::task::JoinSet;
use tsujiban_database::testing::Postgres;
use tsujiban_database::{Backend, Columns, Database, Failure, Rights, Schema, Tx, is_conflict, on, transaction};

pub static SCHEMA: Schema = Schema {
    sqlite: sqlx::migrate!("tests/it/migrations"),
    postgres: sqlx::migrate!("tests/it/migrations"),
    additions: "",
    oldest: "0.2.0",
    rights: Rights::AllRows,
};

/// A database, and what has to live as long as it.
pub struct Subject {
    pub database: Database,
    _dir: Option<TempDir>,
}

pub async fn subjects() -> [Subject; 2] {
    let dir = tempfile::tempdir().unwrap();
    let sqlite = Database::sqlite(&dir.path().join("test.db")).await.unwrap();
    let postgres = Postgres::shared().fresh().await.open().await;
    for database in [&sqlite, &postgres] {
        database.migrate(&SCHEMA).await.unwrap();
        // again, as at every start
        database.migrate(&SCHEMA).await.unwrap();
    }
    [Subject { database: sqlite, _dir: Some(dir) }, Subject { database: postgres, _dir: None }]
}

pub async fn add(database: &Database, id: &str, quota: i64) {
    let text = "INSERT INTO accounts (id, quota, used, closed, secret, note) VALUES ($1, $2, 0, FALSE, $3, $4)";
    let secret = vec![0_u8, 255];
    on!(database.writes(), p => sqlx::query(text).bind(id).bind(quota).bind(&secret).bind(None::<String>).execute(p).await.map(drop))
        .unwrap();
}

pub async fn used(database: &Database, id: &str) -> i64 {
    on!(database.reads(), p => sqlx::query_scalar("SELECT used FROM accounts WHERE id = $1").bind(id).fetch_one(p).await).unwrap()
}

/// Reads, and then writes what follows from that.
pub async fn charge(tx: &mut Tx, id: &str) -> Result<i64, sqlx::Error> {
    let used: i64 = on!(tx.on(), c => sqlx::query_scalar("SELECT used FROM accounts WHERE id = $1").bind(id).fetch_one(c).await)?;
    let text = "UPDATE accounts SET used = $2 WHERE id = $1";
    on!(tx.on(), c => sqlx::query(text).bind(id).bind(used + 1).execute(c).await.map(drop))?;
    Ok(used + 1)
}

#[tokio::test]
async fn columns_come_back() {
    for Subject { database, .. } in &subjects().await {
        add(database, "a", 7).await;
        let (text, number, bytes, none, flag) = on!(database.reads(), p => {
            let row = sqlx::query("SELECT * FROM accounts").fetch_one(p).await.unwrap();
            let secret = row.bytes_or_none("secret").unwrap();
            (row.text("id").unwrap(), row.integer("quota").unwrap(), secret, row.text_or_none("note").unwrap(), row.flag("closed").unwrap())
        });
        assert_eq!((text.as_str(), number, bytes, none, flag), ("a", 7, Some(vec![0, 255]), None, false), "{database:?}");
    }
}

#[tokio::test]
async fn what_reads_and_then_writes_loses_nothing() {
    for Subject { database, .. } in subjects().await {
        add(&database, "a", 1000).await;
        let mut tasks = JoinSet::new();
        for _ in 0..40 {
            let database = database.clone();
            // spawned: the future is one that a server may move between threads
            tasks.spawn(async move {
                let id = String::from("a");
                for _ in 0..5 {
                    transaction!(database, tx => charge(tx, &id).await).unwrap();
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        assert_eq!(used(&database, "a").await, 200, "{database:?}");
    }
}

/// The same where all of a process want the same row, all the time: with turns none is in the way of another one, and so none is ever tried
/// again.
#[tokio::test]
async fn those_who_take_turns_are_never_in_the_way() {
    for Subject { database, .. } in subjects().await {
        let database = database.taking_turns();
        add(&database, "a", 1000).await;
        let (mut tasks, begun) = (JoinSet::new(), Arc::new(AtomicU32::new(0)));
        for _ in 0..100 {
            let (database, begun) = (database.clone(), begun.clone());
            tasks.spawn(async move {
                transaction!(database, tx => {
                    begun.fetch_add(1, Ordering::SeqCst);
                    charge(tx, "a").await
                })
                .unwrap();
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        assert_eq!((used(&database, "a").await, begun.load(Ordering::SeqCst)), (100, 100), "{database:?}");
    }
}

/// The control: PostgreSQL does fail transactions that were in each other's way, so that there was something to try again.
#[tokio::test]
async fn without_another_try_a_conflict_is_seen() {
    let [_, Subject { database, .. }] = subjects().await;
    add(&database, "a", 1000).await;
    let (mut one, mut two) = (database.begin().await.unwrap(), database.begin().await.unwrap());
    let id = "a";
    let read = |tx: Backend<_, _>| async {
        on!(tx, c => sqlx::query_scalar::<_, i64>("SELECT used FROM accounts WHERE id = $1").bind(id).fetch_one(c).await)
    };
    read(one.on()).await.unwrap();
    read(two.on()).await.unwrap();
    charge(&mut one, id).await.unwrap();
    one.commit().await.unwrap();
    let failed = charge(&mut two, id).await.unwrap_err();
    assert!(is_conflict(&failed), "{failed}");
}

/// Two that read what the other writes: neither alone changes a row that the other changes.
#[tokio::test]
async fn transactions_are_as_if_one_came_after_the_other() {
    for Subject { database, .. } in subjects().await {
        add(&database, "a", 1).await;
        let mut tasks = JoinSet::new();
        for number in 0..20_i64 {
            let database = database.clone();
            tasks.spawn(async move {
                let done: Result<(), sqlx::Error> = transaction!(database, tx => {
                    let there: i64 = on!(tx.on(), c => sqlx::query_scalar("SELECT COUNT(*) FROM entries").fetch_one(c).await)?;
                    if there == 0 {
                        let text = "INSERT INTO entries (number, account) VALUES ($1, 'a')";
                        on!(tx.on(), c => sqlx::query(text).bind(number).execute(c).await.map(drop))?;
                    }
                    Ok(())
                });
                done.unwrap();
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        let entries: i64 = on!(database.reads(), p => sqlx::query_scalar("SELECT COUNT(*) FROM entries").fetch_one(p).await).unwrap();
        assert_eq!(entries, 1, "{database:?}");
    }
}

#[derive(Debug, thiserror::Error)]
enum WorkError {
    #[error("no")]
    No,
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

impl Failure for WorkError {
    fn database(&self) -> Option<&sqlx::Error> {
        match self {
            Self::No => None,
            Self::Database(error) => Some(error),
        }
    }
}

#[tokio::test]
async fn nothing_is_kept_of_work_that_fails() {
    for Subject { database, .. } in &subjects().await {
        add(database, "a", 1).await;
        let mut begun = 0;
        let failed = transaction!(database, tx => {
            begun += 1;
            charge(tx, "a").await?;
            Err::<(), _>(WorkError::No)
        });
        assert!(matches!(failed, Err(WorkError::No)));
        assert_eq!((begun, used(database, "a").await), (1, 0), "{database:?}");
    }
}

#[tokio::test]
async fn references_are_kept() {
    for Subject { database, .. } in &subjects().await {
        let text = "INSERT INTO entries (number, account) VALUES (1, 'nobody')";
        let refused = on!(database.writes(), p => sqlx::query(text).execute(p).await.map(drop)).unwrap_err();
        assert!(refused.as_database_error().unwrap().is_foreign_key_violation(), "{database:?}: {refused}");
    }
}

/// SQLite as it has to be: what is acknowledged is on the disk, and what is deleted is overwritten.
#[tokio::test]
async fn a_file_is_durable_and_forgets() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("test.db");
    let database = Database::sqlite(&file).await.unwrap();
    database.migrate(&SCHEMA).await.unwrap();
    let Backend::Sqlite(writer) = database.writes() else { panic!("it is SQLite") };
    let pragma = async |text: &'static str| sqlx::query_scalar::<_, i64>(text).fetch_one(writer).await.unwrap();
    assert_eq!(pragma("PRAGMA synchronous").await, 2);
    assert_eq!(pragma("PRAGMA secure_delete").await, 1);
    assert_eq!(pragma("PRAGMA foreign_keys").await, 1);

    add(&database, "forget-me", 1).await;
    let holds = |file: &Path| std::fs::read(file).unwrap().windows(9).any(|bytes| bytes == b"forget-me");
    database.flush_log().await.unwrap();
    assert!(holds(&file));
    on!(database.writes(), p => sqlx::query("DELETE FROM accounts").execute(p).await.map(drop)).unwrap();
    database.flush_log().await.unwrap();
    assert!(!holds(&file) && !holds(&dir.path().join("test.db-wal")));
    let text = "DELETE FROM accounts";
    assert!(on!(database.reads(), p => sqlx::query(text).execute(p).await.map(drop)).is_err(), "readers do not write");
}
