//! The command `migrate`, as an init container runs it.

use std::process::Command;

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tsujiban_audit::service::SCHEMA;
use tsujiban_database::testing::{Postgres, Tables};

/// Whether it succeeded, and what it said.
fn migrate(tables: &Tables, owner: &str) -> (bool, String) {
    run(&["migrate", "--database-url", &tables.service.url, "--database-owner", owner])
}

fn check_tables(url: &str) -> (bool, String) {
    run(&["check-tables", "--database-url", url])
}

fn run(arguments: &[&str]) -> (bool, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_tsujiban-audit")).args(arguments).output().unwrap();
    (done.status.success(), [done.stdout, done.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat())
}

#[tokio::test]
async fn tables_are_made_by_their_owner_and_used_by_the_service() {
    let tables = Postgres::shared().with_roles().await;
    let owner = format!("{}_owner", tables.superuser.name);
    let service = tables.service.open().await;
    service.prepare(&SCHEMA).await.unwrap_err();
    assert!(check_tables(&tables.service.url).0, "new tables refuse nobody");
    for _ in 0..2 {
        let (done, said) = migrate(&tables, &owner);
        assert!(done && said.contains(&tables.role), "{said}");
        service.prepare(&SCHEMA).await.unwrap();
    }
}

#[tokio::test]
async fn what_cannot_be_done_is_said_and_changes_nothing() {
    let tables = Postgres::shared().with_tables(&SCHEMA).await;
    let owner = format!("{}_owner", tables.superuser.name);
    let (done, said) = migrate(&tables, &tables.role);
    assert!(!done && said.contains("service's own role"), "{said}");

    let mut admin = PgConnection::connect(&tables.superuser.url).await.unwrap();
    sqlx::query("UPDATE meta SET value = '99.0.0' WHERE name = 'oldest version'").execute(&mut admin).await.unwrap();
    let (done, said) = migrate(&tables, &owner);
    assert!(!done && said.contains("version 99.0.0 or later") && said.contains("Nothing was changed"), "{said}");
    let (done, said) = check_tables(&tables.service.url);
    assert!(!done && said.contains("version 99.0.0 or later") && said.contains("cannot be installed"), "{said}");
    sqlx::query("UPDATE meta SET value = '0.2.0' WHERE name = 'oldest version'").execute(&mut admin).await.unwrap();
    assert!(check_tables(&tables.service.url).0);

    sqlx::query(AssertSqlSafe(format!("DROP OWNED BY {}", tables.role))).execute(&mut admin).await.unwrap();
    sqlx::query(AssertSqlSafe(format!("DROP ROLE {}", tables.role))).execute(&mut admin).await.unwrap();
    let (done, said) = migrate(&tables, &owner);
    assert!(!done && said.contains(&tables.role) && said.contains("postgresql.sql"), "{said}");
}

/// What is away may be what the upgrade mends.
#[tokio::test]
async fn a_database_that_cannot_be_reached_holds_up_no_upgrade() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (done, said) = check_tables(&format!("postgres://tsujiban_audit@{closed}/tsujiban_audit?sslmode=disable"));
    assert!(done && said.contains("could not be looked at"), "{said}");
}
