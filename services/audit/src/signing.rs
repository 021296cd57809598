//! The key that signs checkpoints, root lists and gaps: made once for an environment, and sealed like a day of a log that never ends.

use jiff::Timestamp;
use tsujiban_core::id::{EnvironmentName, KeyId};
use tsujiban_database::{Database, Tries, Tx, on};
use tsujiban_history::origin::environment_name;
use tsujiban_history::{SigningKey, VerifierKey};
use tsujiban_sealing::{Context, Keyring, NewDataKey, Random, WrappedKey};
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// The log and the day under which its data key is wrapped: no log has the number 0.
pub const NO_LOG: i64 = 0;
const NO_DAY: i64 = 0;
pub const SUBJECT: &str = "history signing key";
const META: &str = "signing key";
const CONTEXT: Context<'_> = Context { class: "history signing key", record: b"" };

/// Opens the key, or makes it when there is none.
pub async fn open(database: &Database, keyring: &Keyring, random: &dyn Random, now: Timestamp) -> Result<SigningKey> {
    if stored(database).await?.is_none() {
        make(database, keyring, random, now).await?;
    }
    let lost = || Error::Damaged("the signing key is gone".to_owned());
    let (sealed, key_id, wrappings) = stored(database).await?.ok_or_else(lost)?;
    let key = keyring.unwrap(&key_id, SUBJECT, &wrappings)?;
    let seed = key.open(CONTEXT, &sealed)?;
    let seed: [u8; 32] = seed.as_slice().try_into().map_err(|_| lost())?;
    SigningKey::from_seed(&seed).map_err(|_| lost())
}

/// What auditors get of it.
pub fn verifier(key: &SigningKey, environment: &EnvironmentName) -> Result<VerifierKey> {
    let name = environment_name(environment).parse();
    Ok(key.verifier(name.map_err(|_| Error::Damaged(format!("environment {environment} gives no name of a key")))?))
}

async fn stored(database: &Database) -> Result<Option<(Vec<u8>, KeyId, Vec<WrappedKey>)>> {
    const SEALED: &str = "SELECT value FROM meta WHERE name = $1";
    const KEYS: &str = "SELECT epoch, key_id, wrapped FROM day_keys WHERE day = $1 AND log = $2 ORDER BY superseded_at IS NOT NULL";
    let sealed: Option<String> = on!(database.reads(), p => sqlx::query_scalar(SEALED).bind(META).fetch_optional(p).await)?;
    let Some(sealed) = sealed else { return Ok(None) };
    let damaged = || Error::Damaged("the signing key is not what was stored".to_owned());
    let rows: Vec<(String, Vec<u8>, Vec<u8>)> =
        on!(database.reads(), p => sqlx::query_as(KEYS).bind(NO_DAY).bind(NO_LOG).fetch_all(p).await)?;
    let id = rows.first().and_then(|(_, id, _)| <[u8; 16]>::try_from(id.as_slice()).ok()).ok_or_else(damaged)?;
    let wrapping = |(epoch, _, bytes): (String, Vec<u8>, Vec<u8>)| Some(WrappedKey { epoch: epoch.parse().ok()?, bytes });
    let sealed = hex::decode(sealed).map_err(|_| damaged())?;
    Ok(Some((sealed, KeyId::from_bytes(id), rows.into_iter().filter_map(wrapping).collect())))
}

/// Makes a key. Of several processes that do so at the same time one succeeds.
async fn make(database: &Database, keyring: &Keyring, random: &dyn Random, now: Timestamp) -> Result<()> {
    let mut seed = Zeroizing::new([0; 32]);
    random.fill(&mut *seed)?;
    let new = keyring.new_data_key(SUBJECT, random, now)?;
    let sealed = hex::encode(new.key.seal(CONTEXT, &*seed, random)?);
    let mut tries = Tries::new(database);
    loop {
        let mut tx = tries.begin().await?;
        let done = put(&mut tx, &sealed, &new).await;
        if let Some(done) = tries.end(tx, done).await {
            return done;
        }
    }
}

async fn put(tx: &mut Tx, sealed: &str, new: &NewDataKey) -> Result<()> {
    const THERE: &str = "SELECT COUNT(*) FROM meta WHERE name = $1";
    const PUT: &str = "INSERT INTO meta (name, value) VALUES ($1, $2)";
    let there: i64 = on!(tx.on(), c => sqlx::query_scalar(THERE).bind(META).fetch_one(c).await)?;
    if there > 0 {
        return Ok(());
    }
    on!(tx.on(), c => sqlx::query(PUT).bind(META).bind(sealed.to_owned()).execute(c).await.map(drop))?;
    wrap(tx, new).await
}

async fn wrap(tx: &mut Tx, new: &NewDataKey) -> Result<()> {
    const PUT: &str = "INSERT INTO day_keys (day, log, epoch, key_id, first, wrapped, superseded_at) VALUES ($1, $2, $3, $4, 0, $5, $6)";
    let id = hex::decode(new.id.as_str()).map_err(|_| Error::Damaged("a key id that is none".to_owned()))?;
    for wrapping in &new.wrappings {
        on!(tx.on(), c => sqlx::query(PUT)
            .bind(NO_DAY)
            .bind(NO_LOG)
            .bind(wrapping.wrapped.epoch.to_string())
            .bind(id.clone())
            .bind(wrapping.wrapped.bytes.clone())
            .bind(wrapping.superseded_at.map(Timestamp::as_microsecond))
            .execute(c)
            .await
            .map(drop))?;
    }
    Ok(())
}
