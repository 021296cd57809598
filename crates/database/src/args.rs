use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{fs, io};

use clap::Args;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use url::Url;

use crate::{Class, Database, is_unavailable};

/// The owner does one thing at a time, but needs a second connection while the first one holds the migrations' lock.
const OWNERS_CONNECTIONS: u32 = 2;

/// Where a service's data lies.
#[derive(Debug, Clone, Args)]
pub struct DatabaseArgs {
    /// PostgreSQL, as postgres://USER@HOST/DATABASE. TLS with a certificate of HOST is a must, unless the URL says sslmode=. Empty: SQLite,
    /// a file in the data directory.
    #[arg(long, env = "TSUJIBAN_DATABASE_URL", default_value = "")]
    pub database_url: String,
    /// A file with the password of PostgreSQL: the password is refused in the URL.
    #[arg(long, env = "TSUJIBAN_DATABASE_PASSWORD_FILE")]
    pub database_password_file: Option<PathBuf>,
    /// PEM certificates of PostgreSQL's authority, if it is not a public one.
    #[arg(long, env = "TSUJIBAN_DATABASE_CA_FILE")]
    pub database_ca_file: Option<PathBuf>,
    /// How many connections to PostgreSQL are opened at most.
    #[arg(long, env = "TSUJIBAN_DATABASE_CONNECTIONS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub database_connections: u32,
}

/// Why the database cannot be used. No message holds the URL or the password.
#[derive(Debug, thiserror::Error)]
pub enum InvalidDatabase {
    #[error("--database-url is not of the form postgres://USER@HOST/DATABASE")]
    Url,
    #[error("--database-url has a password in it, which others can see; put it into a file and name that with --database-password-file")]
    PasswordInUrl,
    #[error("--database-url names no PostgreSQL; an SQLite file is brought to this version by the service itself")]
    NoPostgres,
    #[error(
        "--database-owner is the service's own role {role}; the tables must belong to another one, which the chart's postgresql.sql makes"
    )]
    SameRole { role: String },
    #[error("{path} cannot be read; mount it, or name another place")]
    Read { path: PathBuf, source: io::Error },
    #[error("--database-url cannot be used")]
    Options(#[source] sqlx::Error),
    #[error("the database cannot be opened; is PostgreSQL there, or the volume mounted and writable?")]
    Open(#[source] sqlx::Error),
    #[error(
        "the database's file {path} is malformed; keep a copy of it, stop the service, and bring an intact copy back with its -wal, or delete it with its -wal and -shm if the service makes it anew from the bucket"
    )]
    Damaged { path: PathBuf, source: sqlx::Error },
}

impl InvalidDatabase {
    /// Whether a retry may succeed without anybody's intervention.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Open(error) if is_unavailable(error))
    }
}

/// The role to which the tables in PostgreSQL belong. The service's own role could else change what guards them.
#[derive(Debug, Clone, Args)]
pub struct OwnerArgs {
    /// The role that owns the database and its tables. It connects to the same database as the service, whose role the URL names.
    #[arg(long, env = "TSUJIBAN_DATABASE_OWNER")]
    pub database_owner: String,
    /// A file with the owner's password.
    #[arg(long, env = "TSUJIBAN_DATABASE_OWNER_PASSWORD_FILE")]
    pub database_owner_password_file: Option<PathBuf>,
}

impl DatabaseArgs {
    /// The role that the service connects as.
    pub fn role(&self) -> Result<String, InvalidDatabase> {
        let url = self.url()?.ok_or(InvalidDatabase::NoPostgres)?;
        if url.username().is_empty() {
            return Err(InvalidDatabase::Url); // it would default to the name of the operating system's user
        }
        let options = PgConnectOptions::from_str(&self.database_url).map_err(InvalidDatabase::Options)?;
        Ok(options.get_username().to_owned())
    }

    /// The same database, with the owner's role and password.
    pub fn of_owner(&self, owner: &OwnerArgs) -> Result<Self, InvalidDatabase> {
        let mut url = self.url()?.ok_or(InvalidDatabase::NoPostgres)?;
        if self.role()? == owner.database_owner {
            return Err(InvalidDatabase::SameRole { role: owner.database_owner.clone() });
        }
        url.set_username(&owner.database_owner).map_err(|()| InvalidDatabase::Url)?;
        Ok(Self {
            database_url: url.into(),
            database_password_file: owner.database_owner_password_file.clone(),
            database_ca_file: self.database_ca_file.clone(),
            database_connections: OWNERS_CONNECTIONS,
        })
    }

    /// Opens PostgreSQL if a URL is given, else this SQLite file.
    pub async fn open(&self, file: &Path) -> Result<Database, InvalidDatabase> {
        let opened = match self.options()? {
            Some(options) => Database::postgres(options, self.database_connections).await,
            None => Database::sqlite(file).await,
        };
        opened.map_err(|source| match Class::of(&source) {
            Class::Damaged if self.database_url.is_empty() => InvalidDatabase::Damaged { path: file.to_owned(), source },
            _ => InvalidDatabase::Open(source),
        })
    }

    /// The URL, if one is named: of PostgreSQL, with a database and without a password.
    fn url(&self) -> Result<Option<Url>, InvalidDatabase> {
        if self.database_url.is_empty() {
            return Ok(None);
        }
        let url = Url::parse(&self.database_url).map_err(|_| InvalidDatabase::Url)?;
        if !["postgres", "postgresql"].contains(&url.scheme()) || url.path().trim_matches('/').is_empty() {
            return Err(InvalidDatabase::Url);
        }
        if url.password().is_some() || says(&url, &["password"]) {
            return Err(InvalidDatabase::PasswordInUrl);
        }
        // these would override the parts of the URL that other code compares
        if says(&url, &["user", "dbname", "host"]) {
            return Err(InvalidDatabase::Url);
        }
        Ok(Some(url))
    }

    /// How to connect to PostgreSQL; `None`: it is SQLite.
    fn options(&self) -> Result<Option<PgConnectOptions>, InvalidDatabase> {
        let Some(url) = self.url()? else { return Ok(None) };
        let mut options = PgConnectOptions::from_str(&self.database_url).map_err(InvalidDatabase::Options)?;
        if !says(&url, &["sslmode", "ssl-mode"]) {
            options = options.ssl_mode(PgSslMode::VerifyFull);
        }
        if let Some(pem) = read(self.database_ca_file.as_deref())? {
            options = options.ssl_root_cert_from_pem(pem);
        }
        if let Some(password) = read(self.database_password_file.as_deref())? {
            options = options.password(String::from_utf8_lossy(&password).trim());
        }
        Ok(Some(options))
    }
}

/// Whether the URL has one of these parameters.
fn says(url: &Url, names: &[&str]) -> bool {
    url.query_pairs().any(|(name, _)| names.contains(&&*name))
}

/// The content of a file; `None` if the name is missing or empty.
fn read(file: Option<&Path>) -> Result<Option<Vec<u8>>, InvalidDatabase> {
    let Some(path) = file.filter(|file| !file.as_os_str().is_empty()) else { return Ok(None) };
    fs::read(path).map(Some).map_err(|source| InvalidDatabase::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A password in its URL is for ever.
    #[tokio::test]
    async fn a_database_that_is_down_is_worth_waiting_for() {
        let open = async |url: &str| {
            let (database_password_file, database_ca_file) = (None, None);
            let args = DatabaseArgs { database_url: url.to_owned(), database_password_file, database_ca_file, database_connections: 1 };
            args.open(Path::new("")).await.unwrap_err()
        };
        assert!(open("postgres://tom@127.0.0.1:1/backup?sslmode=disable").await.is_transient());
        assert!(!open("postgres://tom:secret@127.0.0.1:1/backup").await.is_transient());
    }
}
