//! The database of a service: one SQLite file with one connection that writes and several that read, or PostgreSQL.
//!
//! Each has a typed pool of its own. The macro [`on!`] expands an expression once for each of them, so that the same text of SQL goes to
//! either. So no abstraction over both hides their types, and each query is written once:
//!
//! ```text
//! let used = on!(db.reads(), p => sqlx::query_scalar::<_, i64>("SELECT used FROM accounts WHERE id = $1").bind(id).fetch_one(p).await)?;
//! let left: Result<i64, sqlx::Error> = transaction!(db, tx => {
//!     on!(tx.on(), c => sqlx::query("UPDATE accounts SET used = used + $2 WHERE id = $1").bind(id).bind(n).execute(c).await.map(drop))?;
//!     on!(tx.on(), c => sqlx::query_scalar("SELECT quota - used FROM accounts WHERE id = $1").bind(id).fetch_one(c).await)
//! });
//! ```
//!
//! What the common text of SQL cannot use: `?`, `INTEGER` (`BIGINT` everywhere), `BLOB` (`BYTEA`), `SUM` without a cast to `BIGINT`, `MAX` of
//! two values, `FOR UPDATE`, `= ANY`, a subquery in `FROM` without a name. Numbers are bound as `i64`.

mod args;
mod class;
mod columns;
mod database;
mod error;
mod files;
mod reserve;
mod schema;
mod sqlite;
#[cfg(feature = "testing")]
pub mod testing;
mod transaction;

pub use args::{DatabaseArgs, InvalidDatabase, OwnerArgs};
pub use class::{Class, why_unwritable};
pub use columns::Columns;
pub use database::{Backend, Database};
pub use error::{Failure, is_conflict, is_unavailable};
pub use schema::{Rights, Schema, SchemaError};
pub use transaction::{Tries, Tx};
