//! The tables of a service: how they are created, and which versions of the service may use them.
//!
//! Migrations only add, so that the version before works while and after they run. Row `oldest version` of table `meta` names the oldest version that
//! may use the tables; an older one refuses to start, and changes nothing. With SQLite the service brings its tables to its version when it starts.
//! In PostgreSQL they belong to a role of their own, with which the command `migrate` does that before the service starts; the service's role may not
//! change them.

use semver::Version;
use sqlx::AssertSqlSafe;
use sqlx::migrate::{Migrate, MigrateError, Migrator};

use crate::{Backend, Database, is_unavailable, on};

/// The row of table `meta` with the oldest version that may use the tables.
const OLDEST: &str = "oldest version";

/// The number of the advisory lock under which rights are granted: the bytes of `tsujigrt`.
const GRANT_LOCK: i64 = 0x7473_756a_6967_7274;

/// This version of all programs.
const OWN: &str = env!("CARGO_PKG_VERSION");

/// A service's tables. Table `meta` (`name`, `value`) is among them in every service.
#[derive(Debug)]
pub struct Schema {
    /// `sqlx::migrate!` of one folder for each database. A folder that works for both may be named twice.
    pub sqlite: Migrator,
    pub postgres: Migrator,
    /// Statements that make, after the migrations, what is missing. Empty: none.
    /// A later version's tables are made by migrations, which `check` knows of.
    pub additions: &'static str,
    /// The oldest version of the service that works with these tables, as in Cargo.toml. Raise it with a migration that the version before
    /// cannot work with.
    pub oldest: &'static str,
    /// PostgreSQL: what the service's role may do.
    pub rights: Rights,
}

/// What a service's role may do with the tables, which belong to another role.
#[derive(Debug, Clone, Copy)]
pub enum Rights {
    /// Read and change the rows of all tables.
    AllRows,
    /// What these statements give to the role $1.
    Granted(&'static [&'static str]),
}

/// Why tables cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    #[error("the tables need version {oldest} or later, and this is {own}; install {oldest} or a later version. Nothing was changed")]
    TooNew { oldest: String, own: String },
    #[error(
        "the tables are older than this version {own}: run `migrate`, which the pod's init container does; delete the pod so that it runs again"
    )]
    TooOld { own: String },
    #[error("the tables cannot be brought to version {own}; nothing of the migration that failed was kept")]
    Migration {
        own: String,
        #[source]
        source: MigrateError,
    },
    #[error("role {role} cannot be given its rights on the tables; make it first, by the chart's postgresql.sql")]
    Rights {
        role: String,
        #[source]
        source: sqlx::Error,
    },
    #[error("row {OLDEST:?} of table meta says {found:?}, which is no version; put the version there that the newest release notes name")]
    NoVersion { found: String },
    #[error("the tables cannot be looked at")]
    Database(#[from] sqlx::Error),
}

impl SchemaError {
    /// Whether a retry may succeed without anybody's intervention.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Migration { source: MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _), .. }
            | Self::Rights { source: error, .. }
            | Self::Database(error) => is_unavailable(error),
            _ => false,
        }
    }
}

/// Whether a version may use the tables. Pure. A release candidate has the tables of its release.
fn must_be_allowed(oldest: Option<&str>, own: &Version) -> Result<(), SchemaError> {
    let Some(oldest) = oldest else { return Ok(()) };
    if release(&version(oldest)?) > release(own) {
        return Err(SchemaError::TooNew { oldest: oldest.to_owned(), own: own.to_string() });
    }
    Ok(())
}

/// A version without its pre-release and build parts.
fn release(version: &Version) -> Version {
    Version::new(version.major, version.minor, version.patch)
}

fn version(text: &str) -> Result<Version, SchemaError> {
    Version::parse(text).map_err(|_| SchemaError::NoVersion { found: text.to_owned() })
}

impl Database {
    /// SQLite: brings the tables to this version. PostgreSQL: checks that `migrate` has done so.
    pub async fn prepare(&self, schema: &Schema) -> Result<(), SchemaError> {
        match self.writes() {
            Backend::Sqlite(_) => {
                self.make_room().await?;
                self.migrate(schema).await
            }
            Backend::Postgres(_) => self.check(schema).await,
        }
    }

    /// Whether this version may use the tables, by their row `oldest version`, which new tables lack. Changes nothing.
    pub async fn may_use(&self) -> Result<(), SchemaError> {
        must_be_allowed(self.oldest().await?.as_deref(), &own_version()?)
    }

    /// Brings the tables to this version. Several processes may do so at the same time.
    pub async fn migrate(&self, schema: &Schema) -> Result<(), SchemaError> {
        let own = own_version()?;
        self.may_use().await?;
        let failed = |source| SchemaError::Migration { own: own.to_string(), source };
        match self.writes() {
            Backend::Sqlite(pool) => known(&schema.sqlite).run(pool).await.map_err(failed)?,
            Backend::Postgres(pool) => known(&schema.postgres).run(pool).await.map_err(failed)?,
        }
        // another process may have migrated while this one waited for the lock
        self.may_use().await?;
        if !schema.additions.is_empty() {
            on!(self.writes(), p => sqlx::raw_sql(schema.additions).execute(p).await.map(drop))?;
        }
        self.raise_oldest(schema.oldest).await
    }

    /// PostgreSQL: lets the service's role use the tables. To be called as their owner; earlier grants stay.
    pub async fn grant(&self, schema: &Schema, role: &str) -> Result<(), SchemaError> {
        let Backend::Postgres(pool) = self.writes() else { return Ok(()) };
        let failed = |source| SchemaError::Rights { role: role.to_owned(), source };
        let mut tx = pool.begin().await.map_err(failed)?;
        // of two transactions that grant rights on the same tables at the same time, one would fail
        sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(GRANT_LOCK).execute(&mut *tx).await.map_err(failed)?;
        match schema.rights {
            Rights::AllRows => {
                let quoted: String = sqlx::query_scalar("SELECT quote_ident($1)").bind(role).fetch_one(&mut *tx).await.map_err(failed)?;
                let schema: String =
                    sqlx::query_scalar("SELECT quote_ident(current_schema())").fetch_one(&mut *tx).await.map_err(failed)?;
                for text in [
                    format!("GRANT USAGE ON SCHEMA {schema} TO {quoted}"),
                    format!("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {quoted}"),
                    format!("REVOKE INSERT, UPDATE, DELETE ON _sqlx_migrations FROM {quoted}"),
                ] {
                    sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut *tx).await.map_err(failed)?;
                }
            }
            Rights::Granted(statements) => {
                for statement in statements {
                    sqlx::query(*statement).bind(role).execute(&mut *tx).await.map_err(failed)?;
                }
            }
        }
        let migrations = "SELECT format('GRANT SELECT ON _sqlx_migrations TO %I', $1::text)";
        let grant: String = sqlx::query_scalar(migrations).bind(role).fetch_one(&mut *tx).await.map_err(failed)?;
        sqlx::raw_sql(AssertSqlSafe(grant)).execute(&mut *tx).await.map_err(failed)?;
        tx.commit().await.map_err(failed)
    }

    /// Whether this version may use the tables, and they have all that it needs.
    async fn check(&self, schema: &Schema) -> Result<(), SchemaError> {
        let own = own_version()?;
        self.may_use().await?;
        let Backend::Postgres(pool) = self.reads() else { return Ok(()) };
        let too_old = || SchemaError::TooOld { own: own.to_string() };
        if !self.has_table("_sqlx_migrations").await? {
            return Err(too_old());
        }
        let mut connection = pool.acquire().await?;
        let applied = connection.list_applied_migrations(&schema.postgres.table_name).await;
        let applied = applied.map_err(|source| SchemaError::Migration { own: own.to_string(), source })?;
        let is_applied = |version| applied.iter().any(|migration| migration.version == version);
        if !schema.postgres.iter().all(|migration| is_applied(migration.version)) {
            return Err(too_old());
        }
        for table in made_by(schema.additions) {
            if !self.has_table(table).await? {
                return Err(too_old());
            }
        }
        Ok(())
    }

    /// The oldest version that may use the tables; `None`: nothing says so, as in a new database, and in one of version 0.1.0.
    async fn oldest(&self) -> Result<Option<String>, SchemaError> {
        if !self.has_table("meta").await? {
            return Ok(None);
        }
        Ok(on!(self.reads(), p => sqlx::query_scalar("SELECT value FROM meta WHERE name = $1").bind(OLDEST).fetch_optional(p).await)?)
    }

    async fn has_table(&self, name: &str) -> Result<bool, sqlx::Error> {
        let text = match self.reads() {
            Backend::Sqlite(_) => "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = $1",
            Backend::Postgres(_) => "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema() AND tablename = $1",
        };
        let count: i64 = on!(self.reads(), p => sqlx::query_scalar(text).bind(name.to_owned()).fetch_one(p).await)?;
        Ok(count > 0)
    }

    /// Raises the oldest version, and never lowers it: a newer version may have set it. Writes nothing where nothing changes, so that a
    /// start needs no space for it.
    async fn raise_oldest(&self, to: &str) -> Result<(), SchemaError> {
        const ADD: &str = "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
        const RAISE: &str = "UPDATE meta SET value = $2 WHERE name = $1 AND value = $3";
        let wanted = version(to)?;
        loop {
            let Some(found) = self.oldest().await? else {
                on!(self.writes(), p => sqlx::query(ADD).bind(OLDEST).bind(to.to_owned()).execute(p).await.map(drop))?;
                continue;
            };
            if version(&found)? >= wanted {
                return Ok(());
            }
            // another process may have raised it since it was read
            on!(self.writes(), p => sqlx::query(RAISE).bind(OLDEST).bind(to.to_owned()).bind(found.clone()).execute(p).await.map(drop))?;
        }
    }
}

/// The names of the tables that statements make.
fn made_by(statements: &str) -> impl Iterator<Item = &str> {
    statements.split("CREATE TABLE IF NOT EXISTS ").skip(1).filter_map(|rest| rest.split_whitespace().next())
}

fn own_version() -> Result<Version, SchemaError> {
    version(OWN)
}

/// The migrations that this version knows; those that a newer one has applied are left alone.
fn known(migrations: &Migrator) -> Migrator {
    let mut known = Migrator { migrations: migrations.migrations.clone(), ..Migrator::DEFAULT };
    known.set_ignore_missing(true);
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_found_in_their_statements() {
        let text = "-- kept\nCREATE TABLE IF NOT EXISTS a (\n id TEXT);\nCREATE INDEX IF NOT EXISTS b ON a (id);\nCREATE TABLE IF NOT EXISTS c (id TEXT);";
        assert_eq!(made_by(text).collect::<Vec<_>>(), ["a", "c"]);
    }

    #[test]
    fn an_older_version_is_refused_by_name_and_one_that_is_not_is_taken() {
        let own = Version::parse("0.3.0").unwrap();
        let candidate = Version::parse("0.3.0-rc.1+build.7").unwrap();
        for allowed in [None, Some("0.2.0"), Some("0.3.0"), Some("0.3.0-rc.1")] {
            must_be_allowed(allowed, &own).unwrap();
            must_be_allowed(allowed, &candidate).unwrap();
        }
        for refused in ["0.3.1", "0.10.0", "1.0.0"] {
            let said = must_be_allowed(Some(refused), &own).unwrap_err().to_string();
            assert!(said.contains(refused) && said.contains("0.3.0"), "{said}");
        }
        assert!(matches!(must_be_allowed(Some("three"), &own), Err(SchemaError::NoVersion { .. })));
    }
}
