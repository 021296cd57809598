//! The files of SQLite: removed, replaced, damaged, copied.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use tsujiban_database::{Backend, Class, Database, on, transaction};

use crate::both::{SCHEMA, add, charge, used};

async fn opened(file: &Path) -> Database {
    let database = Database::sqlite(file).await.unwrap();
    database.migrate(&SCHEMA).await.unwrap();
    database
}

/// Also on connections that are opened later.
#[tokio::test]
async fn every_connection_has_all_settings() {
    let dir = tempfile::tempdir().unwrap();
    let database = opened(&dir.path().join("test.db")).await;
    let (Backend::Sqlite(writer), Backend::Sqlite(readers)) = (database.writes(), database.reads()) else { panic!("it is SQLite") };
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(readers.acquire().await.unwrap());
    }
    for _ in 0..2 {
        let mut connection = writer.acquire().await.unwrap();
        for (pragma, value) in
            [("temp_store", 2_i64), ("secure_delete", 1), ("synchronous", 2), ("cache_size", -65536), ("wal_autocheckpoint", 8192)]
        {
            let text = sqlx::AssertSqlSafe(format!("PRAGMA {pragma}"));
            assert_eq!(sqlx::query_scalar::<_, i64>(text).fetch_one(&mut *connection).await.unwrap(), value, "{pragma}");
        }
        connection.close().await.unwrap();
    }
    for connection in &mut held {
        assert_eq!(sqlx::query_scalar::<_, i64>("PRAGMA temp_store").fetch_one(&mut **connection).await.unwrap(), 2);
    }
    // SQLite did not make the log anew meanwhile
    database.check_files().unwrap();
}

#[tokio::test]
async fn nothing_is_committed_to_a_file_that_is_not_there_any_more() {
    type Loss = fn(&Path);
    let losses: [Loss; 4] = [
        |file| fs::remove_file(file).unwrap(),
        |file| fs::rename(file, file.with_extension("away")).unwrap(),
        |file| {
            // an older copy is put in its place
            fs::copy(file, file.with_extension("older")).unwrap();
            fs::rename(file.with_extension("older"), file).unwrap();
        },
        |file| fs::remove_file(file.with_extension("db-wal")).unwrap(),
    ];
    for loss in losses {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("test.db");
        let database = opened(&file).await;
        add(&database, "a", 7).await;
        let mut begun = database.begin().await.unwrap();
        charge(&mut begun, "a").await.unwrap();
        loss(&file);
        // not even what was begun before
        assert_eq!(Class::of(&begun.commit().await.unwrap_err()), Class::Replaced);
        assert_eq!(Class::of(&database.check_files().unwrap_err()), Class::Replaced);
        assert_eq!(Class::of(&database.try_write(1).await.unwrap_err()), Class::Replaced);
        let text = "UPDATE accounts SET used = 5";
        assert!(on!(database.writes(), p => sqlx::query(text).execute(p).await.map(drop)).is_err());
        let later: Result<i64, sqlx::Error> = transaction!(database, tx => charge(tx, "a").await);
        assert!(later.is_err());
        // what was there can still be read
        assert_eq!(used(&database, "a").await, 0);
        database.close().await;
    }
}

#[tokio::test]
async fn after_the_end_the_file_alone_is_all() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("test.db");
    let database = opened(&file).await;
    for number in 0..50 {
        add(&database, &number.to_string(), 1).await;
    }
    let Backend::Sqlite(readers) = database.reads() else { panic!("it is SQLite") };
    // somebody holds a connection for ever
    let _held = readers.acquire().await.unwrap();
    database.close().await;
    let copy = dir.path().join("copy.db");
    fs::copy(&file, &copy).unwrap();
    let text = "SELECT COUNT(*) FROM accounts";
    let copied = opened(&copy).await;
    let rows: i64 = on!(copied.reads(), p => sqlx::query_scalar(text).fetch_one(p).await).unwrap();
    assert_eq!(rows, 50);
}

/// A page of a table, a page of an index, and the head of the file.
#[tokio::test]
async fn damage_is_found_beside_everybody_else() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("test.db");
    let database = opened(&file).await;
    for number in 0..200 {
        add(&database, &format!("{number:0>200}"), 1).await;
    }
    assert_eq!(database.damage().await.unwrap(), Vec::<String>::new());
    let text = "SELECT rootpage FROM sqlite_schema WHERE name = $1";
    let page = async |name: &'static str| {
        on!(database.reads(), p => sqlx::query_scalar::<_, i64>(text).bind(name).fetch_one(p).await).unwrap().cast_unsigned()
    };
    let (table, index) = (page("accounts").await, page("sqlite_autoindex_accounts_1").await);
    database.close().await;
    let sound = fs::read(&file).unwrap();
    for page in [table, index] {
        fs::write(&file, &sound).unwrap();
        let bytes = fs::File::options().write(true).open(&file).unwrap();
        bytes.write_all_at(&[0xa5; 4096], (page - 1) * 4096).unwrap();
        let database = opened(&file).await;
        match database.damage().await {
            Ok(found) => assert!(!found.is_empty(), "page {page}"),
            Err(error) => assert_eq!(Class::of(&error), Class::Damaged, "{error}"),
        }
        database.close().await;
    }
    fs::write(&file, &sound).unwrap();
    fs::File::options().write(true).open(&file).unwrap().write_all_at(&[0; 100], 0).unwrap();
    let args = tsujiban_database::DatabaseArgs {
        database_url: String::new(),
        database_password_file: None,
        database_ca_file: None,
        database_connections: 1,
    };
    let refused = args.open(&file).await.unwrap_err();
    assert!(matches!(refused, tsujiban_database::InvalidDatabase::Damaged { .. }), "{refused}");
}

/// Whoever asks while somebody looks, or soon after, does not have all of the file read again.
#[tokio::test]
async fn one_look_at_the_file_serves_all_who_ask() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("test.db");
    let database = opened(&file).await;
    for number in 0..200 {
        add(&database, &format!("{number:0>200}"), 1).await;
    }
    database.flush_log().await.unwrap();
    let (one, other) = tokio::join!(database.damage(), database.damage());
    assert!(one.unwrap().is_empty() && other.unwrap().is_empty());
    let text = "SELECT rootpage FROM sqlite_schema WHERE name = 'accounts'";
    let page: i64 = on!(database.reads(), p => sqlx::query_scalar(text).fetch_one(p).await).unwrap();
    fs::File::options().write(true).open(&file).unwrap().write_all_at(&[0xa5; 4096], (page.cast_unsigned() - 1) * 4096).unwrap();
    assert!(database.damage().await.unwrap().is_empty(), "it was looked a moment ago");
    database.close().await;
    assert!(!opened(&file).await.damage().await.unwrap().is_empty(), "whoever opens it looks");
}

/// The trial's error 6410: a read-only root has no folder for temporary files, so none may be needed, however much a statement changes.
#[tokio::test]
async fn no_statement_spills_into_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let database = opened(&dir.path().join("test.db")).await;
    let rows = (0..2500).map(|n| format!("('{n:0>300}', 1, 0, FALSE, x'00')")).collect::<Vec<_>>().join(", ");
    let insert = format!("INSERT INTO accounts (id, quota, used, closed, secret) VALUES {rows}");
    for spills in [true, false] {
        if spills {
            // the control: what SQLite does unless it is told otherwise
            let Backend::Sqlite(writer) = database.writes() else { panic!("it is SQLite") };
            sqlx::query("PRAGMA temp_store = FILE").execute(writer).await.unwrap();
        }
        let mut tx = database.begin().await.unwrap();
        let run = async |tx: &mut tsujiban_database::Tx, text: String| {
            on!(tx.on(), c => sqlx::query(sqlx::AssertSqlSafe(text)).execute(c).await.map(drop)).unwrap();
        };
        run(&mut tx, insert.clone()).await;
        run(&mut tx, "UPDATE accounts SET id = id || 'x', used = used + 1".to_owned()).await;
        assert_eq!(temporary_files() > 0, spills);
        drop(tx);
        let Backend::Sqlite(writer) = database.writes() else { panic!("it is SQLite") };
        // the next one has the settings of every connection
        writer.acquire().await.unwrap().close().await.unwrap();
    }
}

/// SQLite's temporary files of this process. They have no name any more.
fn temporary_files() -> usize {
    let open = fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    open.filter(|path| path.to_string_lossy().contains("etilqs_")).count()
}

/// A file system of its own, so that it can be really full. Needs root, as the tests as a whole do.
struct Volume(TempDir);

impl Volume {
    fn of(mebibytes: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"]).arg(dir.path()).status();
        assert!(mounted.unwrap().success(), "a file system could not be mounted: run the tests as root");
        Self(dir)
    }

    fn fill(&self) {
        let mut filler = fs::File::create(self.0.path().join("filler")).unwrap();
        while filler.write_all(&[0x55; 4096]).is_ok() {}
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn on_a_full_volume_a_file_is_opened_in_the_room_that_was_kept() {
    let volume = Volume::of(8);
    let (file, filler) = (volume.0.path().join("test.db"), volume.0.path().join("filler"));
    let database = opened(&file).await;
    add(&database, "a", 10).await;
    database.try_write(1).await.unwrap();
    database.close().await;
    volume.fill();

    // a start, and another one
    for now in 2..4 {
        let database = opened(&file).await;
        assert_eq!(used(&database, "a").await, 0);
        assert_eq!(Class::of(&database.try_write(now).await.unwrap_err()), Class::Full);
        database.close().await;
    }

    fs::remove_file(&filler).unwrap();
    let database = opened(&file).await;
    database.try_write(4).await.unwrap();
    database.close().await;
    volume.fill();
    opened(&file).await.close().await;
}
