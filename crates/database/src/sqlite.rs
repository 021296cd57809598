//! An open SQLite file: one connection that writes, several that read, and one that only keeps the file open.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{fs, io};

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tokio::sync::Mutex;

use crate::class::Class;
use crate::files::OpenedFiles;
use crate::reserve::Reserve;

const READERS: u32 = 4;
/// How much space there has to be for the database to count as one that can be written, in bytes.
const SPACE: usize = 256 * 1024;
const BUSY: Duration = Duration::from_secs(5);
/// How long `close` waits for connections that are still in use.
const HELD: Duration = Duration::from_secs(1);

/// Settings that hold for every connection, whenever it is opened.
const EVERY: [(&str, &str); 2] = [
    // what is deleted is overwritten: a destroyed key must not be found in a free page
    ("secure_delete", "ON"),
    // temporary files stay in memory: a read-only root has no folder for them, and they leave nothing on a disk
    ("temp_store", "MEMORY"),
];
/// Those of the connection that writes: 64 MiB of pages at most, so that a batch seldom spills, and a log of 32 MiB.
const WRITER: [(&str, &str); 2] = [("cache_size", "-65536"), ("wal_autocheckpoint", "8192")];

/// An open file.
#[derive(Clone)]
pub(crate) struct Sqlite {
    pub writer: SqlitePool,
    pub readers: SqlitePool,
    file: PathBuf,
    opened: Arc<OpenedFiles>,
    /// Keeps the file open when another connection is thrown away: SQLite removes the log with the last connection, and a log that is
    /// made anew looks like one that was replaced.
    keeper: Arc<Mutex<Option<SqliteConnection>>>,
    closing: Arc<AtomicBool>,
    checked: Arc<Mutex<Option<Checked>>>,
}

/// The result of a check of the whole file.
struct Checked {
    at: Instant,
    took: Duration,
    found: Vec<String>,
}

impl Checked {
    /// Whether a call gets this result and makes no check of its own: a check takes long, and several parts of a service ask for it.
    fn is_fresh(&self) -> bool {
        self.at.elapsed() < FRESH.max(self.took.saturating_mul(50))
    }
}

impl Sqlite {
    /// Opens a file, or creates it. If that fails for a reason such as a full volume, deletes the reserve file and tries once more.
    pub async fn open(file: &Path) -> Result<Self, sqlx::Error> {
        match Self::open_once(file).await {
            Err(error) if Class::of(&error).may_pass() && Reserve::beside(file).give_up() => {
                tracing::warn!(file = %file.display(), %error, "the database was not opened; the room that is kept for this is used");
                Self::open_once(file).await
            }
            opened => opened,
        }
    }

    async fn open_once(file: &Path) -> Result<Self, sqlx::Error> {
        let mut keeper = options(file).create_if_missing(true).connect().await?;
        // opens the log
        sqlx::query("SELECT COUNT(*) FROM sqlite_schema").execute(&mut keeper).await?;
        let opened = Arc::new(OpenedFiles::of(file)?);
        let pool = |connections| {
            let opened = Arc::clone(&opened);
            let pool = SqlitePoolOptions::new().max_connections(connections).min_connections(connections);
            // a connection that is opened later must not open a file that replaced the first
            pool.idle_timeout(None).max_lifetime(None).after_connect(move |_, _| {
                let opened = Arc::clone(&opened);
                Box::pin(async move { opened.check() })
            })
        };
        let writing = WRITER.into_iter().fold(options(file), |options, (name, value)| options.pragma(name, value));
        let writer = pool(1).after_release(|connection, _| Box::pin(async move { Ok(is_between_transactions(connection).await) }));
        let writer = writer.connect_with(writing).await?;
        let readers = pool(READERS).connect_with(options(file).read_only(true)).await?;
        let (keeper, closing) = (Arc::new(Mutex::new(Some(keeper))), Arc::default());
        Ok(Self { writer, readers, file: file.to_owned(), opened, keeper, closing, checked: Arc::default() })
    }

    /// Fails when a file of the database was removed or replaced. From then on nothing is written until the database is opened anew; what
    /// was read before can still be read.
    pub fn check_files(&self) -> Result<(), sqlx::Error> {
        let checked = self.opened.check();
        if checked.as_ref().is_err_and(|error| Class::of(error) == Class::Replaced) && !self.writer.is_closed() {
            tracing::error!(file = %self.file.display(), "the database's file was removed or replaced; nothing is written any more");
            // `close` marks the pool as closed at once; its future need not be awaited
            drop(self.writer.close());
        }
        checked
    }

    /// Fails when the volume has no space, including the reserve for the next start. A database that reuses its own pages takes small
    /// writes on a full volume for a long time.
    pub async fn check_space(&self) -> Result<(), sqlx::Error> {
        let (file, reserve) = (self.file.clone(), Reserve::beside(&self.file));
        let checked = tokio::task::spawn_blocking(move || write_beside(&file).and_then(|()| reserve.keep()));
        checked.await.map_err(io::Error::other)?.map_err(sqlx::Error::Io)
    }

    /// Deletes the reserve file, which is kept for a start, when there is no other space.
    pub async fn make_room(&self) -> Result<(), sqlx::Error> {
        let (file, reserve) = (self.file.clone(), Reserve::beside(&self.file));
        let made = tokio::task::spawn_blocking(move || {
            if write_beside(&file).is_err() && reserve.give_up() {
                tracing::warn!(file = %file.display(), "the volume is full; the room that is kept for a start is used");
            }
        });
        made.await.map_err(|error| sqlx::Error::Io(io::Error::other(error)))
    }

    /// Moves everything from the log into the database and empties the log.
    pub async fn flush_log(&self) -> Result<(), sqlx::Error> {
        self.check_files()?;
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&self.writer).await?;
        Ok(())
    }

    /// Moves everything into the one file and ends all connections.
    pub async fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        if !self.writer.is_closed()
            && let Err(error) = self.flush_log().await
        {
            tracing::warn!(%error, "the database's log could not be emptied; it belongs to the file until the next start");
        }
        let closed = async {
            self.readers.close().await;
            if let Some(keeper) = self.keeper.lock().await.take()
                && let Err(error) = keeper.close().await
            {
                tracing::warn!(%error, "a connection to the database did not end well");
            }
            self.writer.close().await;
        };
        // a connection that is in use until the process ends must not delay this: the log is empty
        if tokio::time::timeout(HELD, closed).await.is_err() {
            tracing::debug!("a connection to the database is still held");
        }
    }

    /// What SQLite finds when it reads every page of every table and compares every index with its table. Calls during a check, or soon
    /// after it, share its result.
    pub async fn damage(&self) -> Result<Vec<String>, sqlx::Error> {
        self.check_files()?;
        let mut checked = self.checked.lock().await;
        if let Some(checked) = checked.as_ref().filter(|checked| checked.is_fresh()) {
            return Ok(checked.found.clone());
        }
        let begun = Instant::now();
        let found = match self.look().await {
            Err(error) if Class::of(&error) == Class::Damaged => vec![error.to_string()],
            found => found?,
        };
        *checked = Some(Checked { at: Instant::now(), took: begun.elapsed(), found: found.clone() });
        Ok(found)
    }

    /// Checks on a connection of its own, beside all others, and stops when the database is closed.
    async fn look(&self) -> Result<Vec<String>, sqlx::Error> {
        let mut connection = options(&self.file).read_only(true).connect().await?;
        let closing = Arc::clone(&self.closing);
        connection.lock_handle().await?.set_progress_handler(OPERATIONS, move || !closing.load(Ordering::Relaxed));
        let damage = check_tables(&mut connection).await;
        connection.close().await?;
        damage
    }
}

/// Tries to write a file beside the database, and deletes it at once.
fn write_beside(file: &Path) -> io::Result<()> {
    let mut path = file.as_os_str().to_owned();
    path.push(".space");
    let written = fs::File::create(&path).and_then(|mut file| {
        file.write_all(&vec![0x55; SPACE])?;
        file.sync_data()
    });
    written.and(fs::remove_file(&path))
}

/// Whether the next transaction can be begun on this connection; else the pool replaces it.
///
/// SQLite ends a transaction by itself after some errors; then the driver's ROLLBACK fails and the driver still counts the transaction as
/// open. A BEGIN that fails may have begun one that the driver does not count. So SQLite is asked, by a ROLLBACK that has to be refused.
async fn is_between_transactions(connection: &mut SqliteConnection) -> bool {
    /// "cannot rollback - no transaction is active"
    const NONE: &str = "1";
    let is_none = match sqlx::query("ROLLBACK").execute(&mut *connection).await {
        Err(sqlx::Error::Database(error)) => error.code().is_some_and(|code| code == NONE),
        _ => false,
    };
    is_none && !connection.is_in_transaction()
}

/// After how many operations SQLite checks whether it shall stop.
const OPERATIONS: i32 = 10_000;
/// For how long the result of a check is shared at least.
const FRESH: Duration = Duration::from_secs(30);
/// How many findings are reported of one table.
const NAMED: usize = 10;

/// Table by table, so that the log can be emptied between two of them.
async fn check_tables(connection: &mut SqliteConnection) -> Result<Vec<String>, sqlx::Error> {
    const TABLES: &str = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name";
    let tables: Vec<String> = sqlx::query_scalar(TABLES).fetch_all(&mut *connection).await?;
    let mut damage = Vec::new();
    for table in tables {
        let text = format!("PRAGMA integrity_check(\"{}\")", table.replace('"', "\"\""));
        let found: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(text)).persistent(false).fetch_all(&mut *connection).await?;
        damage.extend(found.into_iter().filter(|line| line != "ok").take(NAMED).map(|line| format!("{table}: {line}")));
    }
    Ok(damage)
}

fn options(file: &Path) -> SqliteConnectOptions {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY)
        .foreign_keys(true);
    EVERY.into_iter().fold(options, |options, (name, value)| options.pragma(name, value))
}
