//! Which version may use tables, and what a service's role may do with them.

use std::borrow::Cow;
use std::path::Path;
use std::process::{Command, Stdio};

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqlSafeStr as _};
use tsujiban_database::testing::Postgres;
use tsujiban_database::{Database, DatabaseArgs, OwnerArgs, Rights, Schema, SchemaError, on};

use crate::both::SCHEMA;

/// The tables as a release after this one has them: one more migration, and a table that it needs.
fn next(oldest: &'static str) -> Schema {
    let more = |known: &Migrator| {
        let text = AssertSqlSafe("CREATE TABLE later (id BIGINT NOT NULL PRIMARY KEY)").into_sql_str();
        let added = Migration::new(9_000, "later".into(), MigrationType::Simple, text, false);
        Migrator { migrations: Cow::Owned(known.iter().cloned().chain([added]).collect()), ..Migrator::DEFAULT }
    };
    Schema { sqlite: more(&SCHEMA.sqlite), postgres: more(&SCHEMA.postgres), additions: "", oldest, rights: Rights::AllRows }
}

async fn oldest(database: &Database) -> String {
    let text = "SELECT value FROM meta WHERE name = 'oldest version'";
    on!(database.reads(), p => sqlx::query_scalar(text).fetch_one(p).await).unwrap()
}

/// The way back by one release, with a migration between; and the way back that a release has closed.
async fn back_and_forth(owner: &Database, service: &Database) {
    owner.migrate(&next("0.2.0")).await.unwrap();
    // this version, as the one before: its tables are there, and more
    owner.migrate(&SCHEMA).await.unwrap();
    service.prepare(&SCHEMA).await.unwrap();
    assert_eq!(oldest(owner).await, "0.2.0");

    owner.migrate(&next("99.0.0")).await.unwrap_or_else(|error| panic!("it is this version that raises it: {error}"));
    let refused = owner.migrate(&SCHEMA).await.unwrap_err();
    assert!(matches!(&refused, SchemaError::TooNew { oldest, .. } if oldest == "99.0.0"), "{refused}");
    assert!(!refused.is_transient() && refused.to_string().contains(env!("CARGO_PKG_VERSION")), "{refused}");
    let refused = service.prepare(&SCHEMA).await.unwrap_err();
    assert!(matches!(refused, SchemaError::TooNew { .. }), "{refused}");
    assert_eq!(oldest(owner).await, "99.0.0", "an older version lowers nothing");
}

#[tokio::test]
async fn a_file_may_be_used_by_the_version_before() {
    let dir = tempfile::tempdir().unwrap();
    let database = Database::sqlite(&dir.path().join("test.db")).await.unwrap();
    database.prepare(&SCHEMA).await.unwrap();
    back_and_forth(&database, &database).await;
}

#[tokio::test]
async fn postgresql_may_be_used_by_the_version_before() {
    let tables = Postgres::shared().with_tables(&SCHEMA).await;
    back_and_forth(&tables.owner.open().await, &tables.service.open().await).await;
}

/// A database in which nobody has migrated, and one that was restored to a moment before the last migration.
#[tokio::test]
async fn tables_that_are_older_than_the_service_are_named_so() {
    let tables = Postgres::shared().with_tables(&SCHEMA).await;
    let service = tables.service.open().await;
    let refused = service.prepare(&next("0.2.0")).await.unwrap_err();
    assert!(matches!(refused, SchemaError::TooOld { .. }) && refused.to_string().contains("migrate"), "{refused}");
    let empty = Postgres::shared().fresh().await.open().await;
    assert!(matches!(empty.prepare(&SCHEMA).await, Err(SchemaError::TooOld { .. })));
}

/// As the pods of a service with several replicas do.
#[tokio::test]
async fn several_may_migrate_at_the_same_time() {
    let tables = Postgres::shared().with_roles().await;
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let tables = tables.clone();
        all.spawn(async move {
            let database = tables.owner.open().await;
            for _ in 0..5 {
                database.migrate(&SCHEMA).await?;
                database.grant(&SCHEMA, &tables.role).await?;
            }
            Ok::<_, SchemaError>(())
        });
    }
    while let Some(done) = all.join_next().await {
        done.unwrap().unwrap();
    }
}

/// The service's role works with rows, and with nothing else.
#[tokio::test]
async fn the_services_role_changes_rows_and_no_tables() {
    let tables = Postgres::shared().with_tables(&SCHEMA).await;
    let mut service = PgConnection::connect(&tables.service.url).await.unwrap();
    for allowed in [
        "INSERT INTO accounts (id, quota, used, closed) VALUES ('a', 1, 0, FALSE)",
        "UPDATE accounts SET used = 1",
        "DELETE FROM accounts",
        "SELECT version FROM _sqlx_migrations",
    ] {
        sqlx::query(allowed).execute(&mut service).await.unwrap_or_else(|error| panic!("{allowed}: {error}"));
    }
    for refused in [
        "CREATE TABLE own (id BIGINT)",
        "CREATE SCHEMA own",
        "ALTER TABLE accounts ADD COLUMN own BIGINT",
        "DROP TABLE accounts",
        "TRUNCATE accounts",
        "CREATE INDEX own ON accounts (quota)",
        "UPDATE _sqlx_migrations SET success = FALSE",
        "DELETE FROM _sqlx_migrations",
    ] {
        let error = sqlx::query(refused).execute(&mut service).await.expect_err(refused);
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code).unwrap_or_default().into_owned();
        assert_eq!(code, "42501", "{refused}: {error}");
    }
}

/// The file that the chart brings makes database and roles as they have to be, also a second time.
#[tokio::test]
async fn the_charts_file_makes_databases_and_roles() {
    let server = Postgres::shared();
    let service = format!("test{}", &server.fresh().await.name[1..9]);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/tsujiban/postgresql.sql");
    // as a managed server has them: no superuser
    let admin = format!("admin_{service}");
    let mut superuser = PgConnection::connect(&server.fresh().await.url).await.unwrap();
    let make = format!("CREATE ROLE {admin} LOGIN CREATEROLE CREATEDB");
    sqlx::query(AssertSqlSafe(make)).execute(&mut superuser).await.unwrap();
    let run = |variables: &[(&str, &str)]| {
        let url = format!("postgres://{admin}@127.0.0.1:{}/postgres?sslmode=disable", server.port());
        let mut psql = Command::new(server.program("psql"));
        psql.arg(url).args(["--no-psqlrc", "--quiet", "--variable", &format!("service={service}"), "--file"]).arg(&file);
        psql.env_remove("OWNER_PASSWORD").env_remove("SERVICE_PASSWORD").envs(variables.iter().copied()).stdin(Stdio::null());
        let done = psql.output().unwrap();
        (done.status.success(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    let (done, said) = run(&[("OWNER_PASSWORD", "one")]);
    assert!(!done && said.contains("SERVICE_PASSWORD"), "{said}");
    for passwords in [("one", "two"), ("o'n\"e", "t\\wo")] {
        let (done, said) = run(&[("OWNER_PASSWORD", passwords.0), ("SERVICE_PASSWORD", passwords.1)]);
        assert!(done, "{said}");
    }
    let role = format!("tsujiban_{service}");
    let url = format!("postgres://{role}@127.0.0.1:{}/{role}?sslmode=disable", server.port());
    let args = DatabaseArgs { database_url: url, ..server.fresh().await.args() };
    assert_eq!(args.role().unwrap(), role);
    let owner = OwnerArgs { database_owner: format!("{role}_owner"), database_owner_password_file: None };
    let owners = args.of_owner(&owner).unwrap().open(Path::new("")).await.unwrap();
    owners.migrate(&SCHEMA).await.unwrap();
    owners.grant(&SCHEMA, &role).await.unwrap();
    args.open(Path::new("")).await.unwrap().prepare(&SCHEMA).await.unwrap();
    // also where the database was there before, of whomever: the owner's afterwards, who may connect
    for text in [format!("ALTER DATABASE {role} OWNER TO {admin}"), format!("REVOKE CONNECT ON DATABASE {role} FROM {role}_owner")] {
        sqlx::query(AssertSqlSafe(text)).execute(&mut superuser).await.unwrap();
    }
    let (done, said) = run(&[("OWNER_PASSWORD", "one"), ("SERVICE_PASSWORD", "two")]);
    assert!(done, "{said}");
    args.of_owner(&owner).unwrap().open(Path::new("")).await.unwrap().migrate(&SCHEMA).await.unwrap();
    let members = "SELECT count(*) FROM pg_auth_members WHERE roleid = $1::regrole AND member = $2::regrole";
    let members: i64 = sqlx::query_scalar(members).bind(format!("{role}_owner")).bind(&admin).fetch_one(&mut superuser).await.unwrap();
    assert_eq!(members, 0, "the administrator is no member of the owner's role afterwards");
    // nobody else's
    let mut other = PgConnection::connect(&server.with_tables(&SCHEMA).await.service.url).await.unwrap();
    let may: bool = sqlx::query_scalar("SELECT has_database_privilege($1, 'CONNECT')").bind(&role).fetch_one(&mut other).await.unwrap();
    assert!(!may, "any role of the server may connect to the database");
}

#[test]
fn the_owner_is_another_role_of_the_same_database() {
    let args = |url: &str| DatabaseArgs {
        database_url: url.to_owned(),
        database_password_file: Some("/service".into()),
        database_ca_file: Some("/ca".into()),
        database_connections: 9,
    };
    let owner = |name: &str| OwnerArgs { database_owner: name.to_owned(), database_owner_password_file: Some("/owner".into()) };
    let owners = args("postgres://tsujiban_audit@db/x?sslmode=require").of_owner(&owner("tsujiban_audit_owner")).unwrap();
    assert_eq!(owners.database_url, "postgres://tsujiban_audit_owner@db/x?sslmode=require");
    assert_eq!(owners.database_password_file.as_deref(), Some(Path::new("/owner")), "never the service's password");
    let same = args("postgres://a@db/x").of_owner(&owner("a")).unwrap_err();
    assert!(same.to_string().contains("own role a"), "{same}");
    for nothing in ["", "postgres://db/x", "postgres://a@db/x?user=b"] {
        args(nothing).role().unwrap_err();
    }
    assert_eq!(args("postgres://a%40corp@db/x").role().unwrap(), "a@corp");
}
