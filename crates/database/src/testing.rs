//! A PostgreSQL for tests: Debian's, in a temporary folder, one for each test binary. It is removed when the binary ends, also after a crash.

#![allow(clippy::expect_used, clippy::panic, clippy::missing_panics_doc)] // compiled for tests only, where a set-up that fails is a failed test

mod faults;

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use ring::rand::{SecureRandom, SystemRandom};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

pub use self::faults::{Fault, Faults};
use crate::{Database, DatabaseArgs, Schema};

/// The user who needs a password, and TLS.
pub const GUARDED: &str = "guarded";
const CONNECTIONS: u32 = 10;
/// Another process may take the port that was free a moment ago.
const TRIES: u32 = 3;
const SCRIPT: &str = include_str!("testing/postgres.sh");

/// The server. Its certificate is for `localhost`.
pub struct Postgres {
    port: u16,
    ca: String,
    password: String,
    /// As long as it is open the server runs. The operating system closes it when this process ends.
    _life: ChildStdin,
}

/// A database of its own in the server, with nothing in it.
#[derive(Debug, Clone)]
pub struct Fresh {
    pub name: String,
    /// For `--database-url`.
    pub url: String,
}

impl Postgres {
    /// The server of this process, started by the first call.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    fn start() -> Self {
        let programs = programs();
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key pair")).expect("an authority");
        let key = KeyPair::generate().expect("a key pair");
        let certificate = CertificateParams::new(["localhost".to_owned()]).expect("a name").signed_by(&key, &authority);
        let (certificate, password) = (certificate.expect("a certificate").pem(), some_name());
        let mut said = String::new();
        for _ in 0..TRIES {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr()).expect("a free port").port();
            let mut command = unprivileged();
            command.args(["bash", "-c", SCRIPT, "postgres.sh"]).arg(&programs).arg(port.to_string());
            command.env("CERTIFICATE", &certificate).env("KEY", key.serialize_pem()).env("PASSWORD", &password).env_remove("TMPDIR");
            // a signal of the terminal to the tests must not reach the server, which would end without removing its folder
            command.current_dir("/").process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().expect("bash");
            match ready(&mut child) {
                Ok(life) => return Self { port, ca: authority.pem(), password, _life: life },
                Err(reason) => said = reason,
            }
        }
        panic!("PostgreSQL in {} does not start:\n{said}", programs.display())
    }

    /// A new database.
    pub async fn fresh(&self) -> Fresh {
        let name = format!("t{}", some_name());
        let mut admin = PgConnection::connect(&self.url("postgres")).await.expect("PostgreSQL answers");
        for text in [format!("CREATE DATABASE {name}"), format!("ALTER DATABASE {name} OWNER TO {GUARDED}")] {
            sqlx::query(AssertSqlSafe(text)).execute(&mut admin).await.expect("a database");
        }
        admin.close().await.expect("PostgreSQL says goodbye");
        Fresh { url: self.url(&name), name }
    }

    /// A database with tables, which belong to one plain role and are used by another one, as in an installation.
    pub async fn with_tables(&self, schema: &Schema) -> Tables {
        let tables = self.with_roles().await;
        let owners = tables.owner.open().await;
        owners.migrate(schema).await.expect("the tables are made");
        owners.grant(schema, &tables.role).await.expect("the service's role gets its rights");
        owners.close().await;
        tables
    }

    /// The same without tables.
    pub async fn with_roles(&self) -> Tables {
        let superuser = self.fresh().await;
        let name = &superuser.name;
        let (owner, service) = (format!("{name}_owner"), format!("{name}_service"));
        let mut admin = PgConnection::connect(&superuser.url).await.expect("PostgreSQL answers");
        for text in [
            format!("CREATE ROLE {owner} LOGIN"),
            format!("CREATE ROLE {service} LOGIN"),
            format!("ALTER DATABASE {name} OWNER TO {owner}"),
            format!("ALTER SCHEMA public OWNER TO {owner}"),
        ] {
            sqlx::query(AssertSqlSafe(text)).execute(&mut admin).await.expect("roles");
        }
        admin.close().await.expect("PostgreSQL says goodbye");
        let as_role = |role: &str| Fresh { url: superuser.url.replace("//postgres@", &format!("//{role}@")), name: name.clone() };
        Tables { owner: as_role(&owner), service: as_role(&service), role: service, superuser }
    }

    /// A copy of a database, which must have no connections: such as somebody with earlier access may have.
    pub async fn copy(&self, of: &Fresh) -> Fresh {
        let name = format!("t{}", some_name());
        let mut admin = PgConnection::connect(&self.url("postgres")).await.expect("PostgreSQL answers");
        let text = format!("CREATE DATABASE {name} TEMPLATE {}", of.name);
        sqlx::query(AssertSqlSafe(text)).execute(&mut admin).await.expect("a copy of a database");
        admin.close().await.expect("PostgreSQL says goodbye");
        Fresh { url: self.url(&name), name }
    }

    /// What lies in the files of a database's tables and indexes: name and bytes.
    pub async fn files(&self, of: &Fresh) -> Vec<(String, Vec<u8>)> {
        let mut admin = PgConnection::connect(&of.url).await.expect("PostgreSQL answers");
        sqlx::query("CHECKPOINT").execute(&mut admin).await.expect("a checkpoint");
        let text = "WITH own AS (SELECT oid, reltoastrelid FROM pg_class WHERE relnamespace = 'public'::regnamespace),
                 files AS (SELECT pg_relation_filepath(oid) AS file FROM own
                     UNION SELECT pg_relation_filepath(reltoastrelid) FROM own WHERE reltoastrelid <> 0)
             SELECT file, pg_read_binary_file(file) FROM files WHERE file IS NOT NULL";
        let files = sqlx::query_as(text).fetch_all(&mut admin).await.expect("the server's files");
        admin.close().await.expect("PostgreSQL says goodbye");
        files
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// The URL of a database for the user [`GUARDED`], which does not say how much TLS is wanted.
    pub fn guarded_url(&self, database: &Fresh) -> String {
        format!("postgres://{GUARDED}@localhost:{}/{}", self.port, database.name)
    }

    /// A program of the server's version, such as psql.
    pub fn program(&self, name: &str) -> PathBuf {
        programs().join(name)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The password of [`GUARDED`].
    pub fn password(&self) -> &str {
        &self.password
    }

    /// The certificate of the authority that the server's comes from.
    pub fn ca_pem(&self) -> &str {
        &self.ca
    }
}

/// A database with its roles, as each of them and the superuser see it.
#[derive(Debug, Clone)]
pub struct Tables {
    pub superuser: Fresh,
    pub owner: Fresh,
    pub service: Fresh,
    /// The name of the service's role.
    pub role: String,
}

impl Tables {
    /// The same roles on a copy of the database, which must have no connections.
    pub async fn copy(&self, server: &Postgres) -> Self {
        let copy = server.copy(&self.superuser).await;
        let there = |fresh: &Fresh| Fresh {
            url: fresh.url.replace(&format!("/{}?", fresh.name), &format!("/{}?", copy.name)),
            name: copy.name.clone(),
        };
        Self { owner: there(&self.owner), service: there(&self.service), role: self.role.clone(), superuser: copy }
    }
}

impl Fresh {
    /// The arguments of a program that uses this database.
    pub fn args(&self) -> DatabaseArgs {
        DatabaseArgs {
            database_url: self.url.clone(),
            database_password_file: None,
            database_ca_file: None,
            database_connections: CONNECTIONS,
        }
    }

    pub async fn open(&self) -> Database {
        self.args().open(Path::new("")).await.expect("a database that was just made")
    }
}

/// Waits until the server is ready; else answers its error output.
fn ready(child: &mut Child) -> Result<ChildStdin, String> {
    let (life, out) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
    let mut errors = child.stderr.take().expect("piped");
    let mut answer = String::new();
    BufReader::new(out).read_line(&mut answer).expect("a pipe");
    if answer.trim() == "ready" {
        return Ok(life);
    }
    drop(life);
    let said = std::io::read_to_string(&mut errors).unwrap_or_default();
    let _ = child.wait();
    Err(said)
}

/// Neither initdb nor postgres runs as root.
fn unprivileged() -> Command {
    if !is_root() {
        return Command::new("env");
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "env"]);
    command
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
    uids.split_whitespace().nth(1) == Some("0")
}

/// The folder of initdb, postgres and pg_ctl.
fn programs() -> PathBuf {
    if let Some(path) = std::env::var_os("TSUJIBAN_POSTGRES") {
        return PathBuf::from(path);
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = versions.map(|version| version.path().join("bin")).filter(|bin| bin.join("initdb").is_file()).max();
    found.expect(
        "PostgreSQL is missing; install it with: e2e/cluster/install build (or name the folder of its programs in TSUJIBAN_POSTGRES)",
    )
}

fn some_name() -> String {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).expect("random bytes");
    hex::encode(bytes)
}
