//! The command `migrate`, as an init container runs it.

use std::process::Command;

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tsujiban_audit::service::SCHEMA;
use tsujiban_database::testing::{Postgres, Tables};

/// Whether it succeeded, and what it said.
fn migrate(tables: &Tables, owner: &str) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tsujiban-audit"));
    command.args(["migrate", "--database-url", &tables.service.url, "--database-owner", owner]);
    let done = command.output().unwrap();
    (done.status.success(), [done.stdout, done.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat())
}

#[tokio::test]
async fn tables_are_made_by_their_owner_and_used_by_the_service() {
    let tables = Postgres::shared().with_roles().await;
    let owner = format!("{}_owner", tables.superuser.name);
    let service = tables.service.open().await;
    service.prepare(&SCHEMA).await.unwrap_err();
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
    sqlx::query("UPDATE meta SET value = '0.2.0' WHERE name = 'oldest version'").execute(&mut admin).await.unwrap();

    sqlx::query(AssertSqlSafe(format!("DROP OWNED BY {}", tables.role))).execute(&mut admin).await.unwrap();
    sqlx::query(AssertSqlSafe(format!("DROP ROLE {}", tables.role))).execute(&mut admin).await.unwrap();
    let (done, said) = migrate(&tables, &owner);
    assert!(!done && said.contains(&tables.role) && said.contains("postgresql.sql"), "{said}");
}
