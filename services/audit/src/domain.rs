//! The domain that begins the names of logs, root lists and the key. The first start fixes it: what was signed under one name is not found
//! under another. The database has it, and so have the root lists, for a database that is lost.

use tsujiban_database::{Database, on};
use tsujiban_history::OriginDomain;

use crate::error::{Error, Result};

const META: &str = "origin domain";

/// Whether it is the one that this database has. One from before the domain was a value, which has a key and no domain, has the default.
pub async fn check(database: &Database, own: &OriginDomain, has_key: bool) -> Result<()> {
    match stored(database).await? {
        Some(fixed) => must_equal(&fixed, own),
        None if has_key => must_equal(&OriginDomain::default(), own),
        None => Ok(()),
    }
}

/// Fixes it, unless another process was first.
pub async fn fix(database: &Database, own: &OriginDomain) -> Result<()> {
    const PUT: &str = "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    on!(database.writes(), p => sqlx::query(PUT).bind(META).bind(own.to_string()).execute(p).await.map(drop))?;
    check(database, own, false).await
}

pub fn must_equal(fixed: &OriginDomain, own: &OriginDomain) -> Result<()> {
    if fixed == own { Ok(()) } else { Err(Error::OtherDomain { fixed: fixed.clone(), own: own.clone() }) }
}

async fn stored(database: &Database) -> Result<Option<OriginDomain>> {
    const GET: &str = "SELECT value FROM meta WHERE name = $1";
    let fixed: Option<String> = on!(database.reads(), p => sqlx::query_scalar(GET).bind(META).fetch_optional(p).await)?;
    fixed.map(|fixed| fixed.parse().map_err(|_| Error::Damaged("the origin domain in table meta is none".to_owned()))).transpose()
}
