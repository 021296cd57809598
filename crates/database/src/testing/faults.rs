//! Faults for tests: lets a statement, a COMMIT or a connection of a service fail at a chosen point.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::Fresh;
use crate::{Backend, Database};

/// What fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SQLite: the nth step of its virtual machine, of which each statement has several. PostgreSQL: the nth statement that changes a
    /// table, as on a full disk.
    Statement,
    /// The nth COMMIT, of which nothing is kept.
    Commit,
    /// PostgreSQL: the server ends the connection at the nth statement that changes a table. SQLite: as [`Statement`](Self::Statement).
    Connection,
}

impl Fault {
    pub const ALL: [Self; 3] = [Self::Statement, Self::Commit, Self::Connection];
}

/// Faults of one database.
#[derive(Debug)]
pub enum Faults {
    Sqlite { database: Database, struck: Arc<AtomicBool> },
    Postgres { url: String },
}

const INSTALL: &str = "
    CREATE SCHEMA faults;
    CREATE SEQUENCE faults.steps;
    CREATE TABLE faults.armed (kind TEXT NOT NULL, at BIGINT NOT NULL);
    CREATE FUNCTION faults.strike() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    DECLARE
        armed record;
    BEGIN
        SELECT * INTO armed FROM faults.armed;
        IF NOT FOUND OR (armed.kind = 'commit') <> (TG_ARGV[0] = 'commit') THEN
            RETURN NULL;
        END IF;
        IF nextval('faults.steps') = armed.at THEN
            IF armed.kind = 'connection' THEN
                PERFORM pg_terminate_backend(pg_backend_pid());
                PERFORM pg_sleep(1);
            END IF;
            RAISE EXCEPTION 'a fault of the test' USING ERRCODE = '53100';
        END IF;
        RETURN NULL;
    END $$;
    DO $$
    DECLARE
        name text;
    BEGIN
        FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> '_sqlx_migrations' LOOP
            EXECUTE format('CREATE TRIGGER fault_statement AFTER INSERT OR UPDATE OR DELETE ON public.%I
                FOR EACH STATEMENT EXECUTE FUNCTION faults.strike(''statement'')', name);
            EXECUTE format('CREATE CONSTRAINT TRIGGER fault_commit AFTER INSERT OR UPDATE OR DELETE ON public.%I
                DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION faults.strike(''commit'')', name);
        END LOOP;
    END $$;";

impl Faults {
    pub fn sqlite(database: Database) -> Self {
        Self::Sqlite { database, struck: Arc::default() }
    }

    /// The tables have to exist.
    pub async fn postgres(fresh: &Fresh) -> Self {
        let faults = Self::Postgres { url: fresh.url.clone() };
        faults.run(INSTALL).await;
        faults
    }

    /// From now on the nth step fails, and none after it.
    pub async fn arm(&self, fault: Fault, nth: u32) {
        match self {
            Self::Sqlite { database, struck } => {
                struck.store(false, Ordering::SeqCst);
                let (seen, struck) = (AtomicU32::new(0), Arc::clone(struck));
                let goes_on = move || {
                    let strikes = seen.fetch_add(1, Ordering::SeqCst) + 1 == nth;
                    struck.fetch_or(strikes, Ordering::SeqCst);
                    !strikes
                };
                let Backend::Sqlite(writer) = database.writes() else { return };
                let mut connection = writer.acquire().await.expect("the connection that writes");
                let mut handle = connection.lock_handle().await.expect("its handle");
                match fault {
                    Fault::Commit => handle.set_commit_hook(goes_on),
                    Fault::Statement | Fault::Connection => handle.set_progress_handler(1, goes_on),
                }
            }
            Self::Postgres { .. } => {
                let kind = match fault {
                    Fault::Statement => "statement",
                    Fault::Commit => "commit",
                    Fault::Connection => "connection",
                };
                self.run(&format!(
                    "DELETE FROM faults.armed; ALTER SEQUENCE faults.steps RESTART; INSERT INTO faults.armed VALUES ('{kind}', {nth})"
                ))
                .await;
            }
        }
    }

    /// Nothing fails any more. Answers whether something has.
    pub async fn disarm(&self) -> bool {
        match self {
            Self::Sqlite { database, struck } => {
                let Backend::Sqlite(writer) = database.writes() else { return false };
                let mut connection = writer.acquire().await.expect("the connection that writes");
                let mut handle = connection.lock_handle().await.expect("its handle");
                handle.remove_progress_handler();
                handle.remove_commit_hook();
                struck.load(Ordering::SeqCst)
            }
            Self::Postgres { url } => {
                let mut admin = PgConnection::connect(url).await.expect("PostgreSQL answers");
                let text = "SELECT last_value >= at AND is_called FROM faults.steps, faults.armed";
                let struck = sqlx::query_scalar(text).fetch_optional(&mut admin).await.expect("the steps");
                admin.close().await.expect("PostgreSQL says goodbye");
                self.run("DELETE FROM faults.armed").await;
                struck.unwrap_or(false)
            }
        }
    }

    async fn run(&self, text: &str) {
        let Self::Postgres { url } = self else { return };
        let mut admin = PgConnection::connect(url).await.expect("PostgreSQL answers");
        sqlx::raw_sql(AssertSqlSafe(text.to_owned())).execute(&mut admin).await.expect("what a test needs of PostgreSQL");
        admin.close().await.expect("PostgreSQL says goodbye");
    }
}
