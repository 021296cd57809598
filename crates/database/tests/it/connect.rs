//! How PostgreSQL is connected to.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tsujiban_database::testing::Postgres;
use tsujiban_database::{Database, DatabaseArgs, InvalidDatabase, is_unavailable, on};

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn args<'a>(url: &str, password: impl Into<Option<&'a Path>>, ca: impl Into<Option<&'a Path>>) -> DatabaseArgs {
    DatabaseArgs {
        database_url: url.to_owned(),
        database_password_file: password.into().map(Path::to_owned),
        database_ca_file: ca.into().map(Path::to_owned),
        database_connections: 2,
    }
}

async fn open(args: DatabaseArgs) -> Result<Database, String> {
    args.open(Path::new("")).await.map_err(|error| {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        text
    })
}

/// C22: unless the URL says otherwise, it is spoken to over TLS only, and only as the host that its certificate names.
#[tokio::test]
async fn only_the_named_host_with_a_certificate_of_the_authority_is_trusted() {
    let (server, files) = (Postgres::shared(), Files::new());
    let fresh = server.fresh().await;
    let (password, ca) = (files.file("password", &format!("{}\n", server.password())), files.file("ca.crt", server.ca_pem()));
    let database = open(args(&server.guarded_url(&fresh), &*password, &*ca)).await.unwrap();
    let text = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let encrypted: bool = on!(database.reads(), p => sqlx::query_scalar(text).fetch_one(p).await).unwrap();
    assert!(encrypted);

    let other_host = server.guarded_url(&fresh).replace("localhost", "127.0.0.1");
    let refused = open(args(&other_host, &*password, &*ca)).await.unwrap_err();
    assert!(refused.contains("certificate"), "{refused}");
    let refused = open(args(&server.guarded_url(&fresh), &*password, None)).await.unwrap_err();
    assert!(refused.contains("certificate"), "{refused}");
    // and it is possible to say otherwise
    open(args(&format!("{other_host}?sslmode=require"), &*password, None)).await.unwrap();
}

#[tokio::test]
async fn a_password_comes_from_a_file_and_is_shown_nowhere() {
    let (server, files) = (Postgres::shared(), Files::new());
    let fresh = server.fresh().await;
    let ca = files.file("ca.crt", server.ca_pem());
    let refused = open(args(&server.guarded_url(&fresh), &*files.file("password", "wrong-secret"), &*ca)).await.unwrap_err();
    assert!(refused.contains("authentication failed") && !refused.contains("wrong-secret"), "{refused}");

    let in_url = server.guarded_url(&fresh).replace("guarded@", &format!("guarded:{}@", server.password()));
    for url in [in_url, format!("{}?password={}", server.guarded_url(&fresh), server.password())] {
        let refused = open(args(&url, None, &*ca)).await.unwrap_err();
        assert!(refused.contains("--database-password-file") && !refused.contains(server.password()), "{refused}");
    }
    let password = files.file("password", server.password());
    let database = open(args(&server.guarded_url(&fresh), &*password, &*ca)).await.unwrap();
    let shown = format!("{database:?}");
    assert!(!shown.contains(server.password()) && !shown.contains("localhost"), "{shown}");
}

#[tokio::test]
async fn what_is_no_url_of_a_database_is_refused_and_not_repeated() {
    for url in ["postgres", "mysql://tom@host/db", "postgres://tom:secret-word@host", "sqlite://file"] {
        let refused = args(url, None, None).open(Path::new("")).await.unwrap_err();
        assert!(matches!(refused, InvalidDatabase::Url) && !refused.to_string().contains("secret-word"), "{refused}");
    }
    let missing = args("postgres://tom@host/db", Path::new("/nowhere/password"), None).open(Path::new("")).await.unwrap_err();
    assert!(missing.to_string().contains("/nowhere/password"), "{missing}");
}

#[tokio::test]
async fn no_url_means_a_file() {
    let dir = tempfile::tempdir().unwrap();
    args("", None, None).open(&dir.path().join("a.db")).await.unwrap();
    assert!(dir.path().join("a.db").is_file());
}

#[tokio::test]
async fn a_server_that_is_not_there_is_given_up_within_seconds() {
    let begun = Instant::now();
    let url = "postgres://tom@127.0.0.1:1/db?sslmode=disable";
    match args(url, None, None).open(Path::new("")).await {
        Err(InvalidDatabase::Open(error)) => assert!(is_unavailable(&error), "{error}"),
        other => panic!("{other:?}"),
    }
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
}

/// A connection that the server ended fails the call that uses it, as something that passes; the next one has a new one.
#[tokio::test]
async fn a_server_that_ends_connections_is_unavailable_for_a_moment() {
    let fresh = Postgres::shared().fresh().await;
    let (database, other) = (fresh.open().await, fresh.open().await);
    let mut tx = database.begin().await.unwrap();
    let pid: i32 = on!(tx.on(), c => sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(c).await).unwrap();
    let text = "SELECT pg_terminate_backend($1)";
    let ended: bool = on!(other.reads(), p => sqlx::query_scalar(text).bind(pid).fetch_one(p).await).unwrap();
    assert!(ended);
    let failed = on!(tx.on(), c => sqlx::query("SELECT CAST(1 AS BIGINT)").execute(c).await.map(drop)).unwrap_err();
    assert!(is_unavailable(&failed), "{failed:?}");
    drop(tx);
    on!(database.reads(), p => sqlx::query("SELECT CAST(1 AS BIGINT)").execute(p).await.map(drop)).unwrap();
}
