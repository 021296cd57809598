//! The domain that begins the names of logs, root lists and the key. The first start fixes it: a signature under one name is not valid
//! under another one. The root lists contain the domain, and so does the database, even before the first list exists.

use tsujiban_database::{Database, on};
use tsujiban_history::OriginDomain;

use crate::error::{Error, Result};

const META: &str = "origin domain";

/// Fails if the database has another domain. A database with a key and no domain is from before the domain was configurable: the default.
pub async fn check(database: &Database, own: &OriginDomain, has_key: bool) -> Result<()> {
    match stored(database).await? {
        Some(fixed) => must_equal(&fixed, own),
        None if has_key => must_equal(&OriginDomain::default(), own),
        None => Ok(()),
    }
}

/// Stores the domain. A domain under which a root list is signed replaces the stored one; otherwise the first of several processes wins.
pub async fn fix(database: &Database, own: &OriginDomain, is_listed: bool) -> Result<()> {
    const PUT: &str = "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    const REPLACE: &str = "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    let put = if is_listed { REPLACE } else { PUT };
    on!(database.writes(), p => sqlx::query(put).bind(META).bind(own.to_string()).execute(p).await.map(drop))?;
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
