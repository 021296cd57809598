//! The key that signs checkpoints, root lists and gaps: made once for an environment. It is in the database, sealed with a data key that is
//! wrapped like a day key but never expires, and in the bucket, sealed under the master key. No other key replaces it while lists that it
//! signed exist.

mod bucket;
mod choice;

use std::sync::Arc;

use jiff::Timestamp;
use tsujiban_core::id::KeyId;
use tsujiban_database::{Database, Tries, Tx, on};
use tsujiban_history::{EnvironmentOrigin, SigningKey, VerifierKey};
use tsujiban_objects::Objects;
use tsujiban_sealing::{Context, Keyring, NewDataKey, Random, WrappedKey};
use zeroize::Zeroizing;

use self::bucket::Copies;
use self::choice::{Choice, Signer, choose};
use crate::domain;
use crate::error::{Error, Result};

/// The log and the day under which its data key is wrapped: no log has the number 0.
pub const NO_LOG: i64 = 0;
const NO_DAY: i64 = 0;
pub const SUBJECT: &str = "history signing key";
const META: &str = "signing key";
const CONTEXT: Context<'_> = Context { class: "history signing key", record: b"" };

/// The secret bytes of the key.
type Seed = Zeroizing<[u8; 32]>;

/// Where the key may be stored, and what opens it.
#[derive(Clone, Copy)]
pub struct KeySources<'a> {
    pub database: &'a Database,
    pub store: &'a Arc<dyn Objects>,
    pub keyring: &'a Keyring,
    pub random: &'a dyn Random,
    pub environment: &'a EnvironmentOrigin,
}

/// Opens the key that signed the newest root list, or makes one if there is neither a key nor a list. Afterwards it is in both the database
/// and the bucket, and the domain of its names is fixed.
pub async fn open(sources: KeySources<'_>, now: Timestamp) -> Result<SigningKey> {
    let own = &sources.environment.domain;
    let stored_here = stored(sources.database).await?;
    let here = match &stored_here {
        Some(stored) => match unsealed(sources.keyring, stored) {
            Ok(seed) => Some(seed),
            Err(error) => {
                let error = tsujiban_core::error::chain(&error);
                tracing::error!(error, "the signing key in the database does not open; the bucket is asked for it");
                None
            }
        },
        None => None,
    };
    let copies = Copies::read(sources).await?;
    let signer = copies.signer(sources, here.as_ref()).await?;
    let is_listed = matches!(signer, Signer::Database | Signer::Bucket(_));
    if !is_listed {
        domain::check(sources.database, own, stored_here.is_some()).await?;
    }
    let seed = match choose(here.is_some(), copies.newest().is_some(), signer) {
        Choice::Database => here,
        Choice::Bucket(at) => copies.seed(at),
        Choice::New => Some(copies.make(sources, now).await?),
        Choice::Refuse => return Err(Error::NoSigningKey { master: sources.keyring.master_id() }),
    };
    let seed = seed.ok_or_else(|| Error::Damaged("the signing key is gone".to_owned()))?;
    // before the key: a key without a domain would mean that it is from before the domain was configurable
    domain::fix(sources.database, own, is_listed).await?;
    if stored_here.is_none() {
        keep_here(sources, &seed, now).await?;
    }
    copies.keep(sources, &seed, now).await?;
    key_of(&seed)
}

/// Puts the key into the bucket again before the lock of its copy ends.
pub async fn keep_in_bucket(sources: KeySources<'_>, now: Timestamp) -> Result<()> {
    let Some(stored) = stored(sources.database).await? else { return Ok(()) };
    // a key in the database that does not open must not replace the one in the bucket
    let Ok(seed) = unsealed(sources.keyring, &stored) else { return Ok(()) };
    Copies::read(sources).await?.keep(sources, &seed, now).await
}

/// The public key, which auditors get.
pub fn verifier(key: &SigningKey, environment: &EnvironmentOrigin) -> Result<VerifierKey> {
    let name = environment.to_string().parse();
    Ok(key.verifier(name.map_err(|_| Error::Damaged(format!("environment {environment} gives no name of a key")))?))
}

fn key_of(seed: &Seed) -> Result<SigningKey> {
    SigningKey::from_seed(seed).map_err(|_| Error::Damaged("the signing key is none".to_owned()))
}

/// The sealed key, and the id and wrappings of the data key that seals it.
type Stored = (Vec<u8>, KeyId, Vec<WrappedKey>);

fn unsealed(keyring: &Keyring, (sealed, key_id, wrappings): &Stored) -> Result<Seed> {
    let key = keyring.unwrap(key_id, SUBJECT, wrappings)?;
    let seed = key.open(CONTEXT, sealed)?;
    let seed: [u8; 32] = seed.as_slice().try_into().map_err(|_| Error::Damaged("the signing key is cut".to_owned()))?;
    Ok(Zeroizing::new(seed))
}

async fn stored(database: &Database) -> Result<Option<Stored>> {
    const SEALED: &str = "SELECT value FROM meta WHERE name = $1";
    const KEYS: &str = "SELECT epoch, key_id, wrapped FROM day_keys WHERE day = $1 AND log = $2 ORDER BY superseded_at IS NOT NULL";
    let sealed: Option<String> = on!(database.reads(), p => sqlx::query_scalar(SEALED).bind(META).fetch_optional(p).await)?;
    let Some(sealed) = sealed else { return Ok(None) };
    let rows: Vec<(String, Vec<u8>, Vec<u8>)> =
        on!(database.reads(), p => sqlx::query_as(KEYS).bind(NO_DAY).bind(NO_LOG).fetch_all(p).await)?;
    // a damaged id or key does not open
    let id = rows.first().and_then(|(_, id, _)| <[u8; 16]>::try_from(id.as_slice()).ok()).unwrap_or_default();
    let wrapping = |(epoch, _, bytes): (String, Vec<u8>, Vec<u8>)| Some(WrappedKey { epoch: epoch.parse().ok()?, bytes });
    let sealed = hex::decode(sealed).unwrap_or_default();
    Ok(Some((sealed, KeyId::from_bytes(id), rows.into_iter().filter_map(wrapping).collect())))
}

/// Stores the key in the database. Of several processes that do so at the same time one succeeds, with the same key.
async fn keep_here(sources: KeySources<'_>, seed: &Seed, now: Timestamp) -> Result<()> {
    let new = sources.keyring.new_data_key(SUBJECT, sources.random, now)?;
    let sealed = hex::encode(new.key.seal(CONTEXT, &**seed, sources.random)?);
    let mut tries = Tries::new(sources.database);
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
