use std::fmt;

use tsujiban_core::id::KeyId;

use zeroize::Zeroizing;

use crate::secret::{Context, Secret};
use crate::{Random, SealingError};

/// The key of keys. Made once for an installation, never replaced, exported once for escrow.
#[derive(Clone)]
pub struct MasterKey {
    secret: Secret,
    id: KeyId,
}

impl MasterKey {
    pub fn generate(random: &dyn Random) -> Result<Self, SealingError> {
        Secret::generate(random).map(Self::new)
    }

    /// From the 32 bytes that [`expose`](Self::expose) gave.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SealingError> {
        Secret::from_bytes(bytes).map(Self::new)
    }

    fn new(secret: Secret) -> Self {
        let mut id = [0; 16];
        id.iter_mut().zip(secret.mac([&b"tsujiban.dev master key id"[..]])).for_each(|(to, from)| *to = from);
        Self { secret, id: KeyId::from_bytes(id) }
    }

    /// The key itself, for the Secret and for escrow. Goes nowhere else.
    pub fn expose(&self) -> &[u8] {
        self.secret.expose()
    }

    /// Is derived from the key and reveals nothing about it, so that bucket and database can name the master key they need.
    pub fn id(&self) -> KeyId {
        self.id.clone()
    }

    /// Seals what has to outlive every epoch key, such as the key that signs the history.
    pub fn seal(&self, context: Context<'_>, plaintext: &[u8], random: &dyn Random) -> Result<Vec<u8>, SealingError> {
        self.sealing().seal(context, plaintext, random)
    }

    pub fn open(&self, context: Context<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealingError> {
        self.sealing().open(context, sealed)
    }

    fn sealing(&self) -> Secret {
        self.secret.derive("tsujiban.dev master key seals")
    }

    pub(crate) fn mac(&self, label: &str, data: &[u8]) -> [u8; 32] {
        self.secret.derive("tsujiban.dev master key mac").derive(label).mac([data])
    }

    pub(crate) fn wrapping(&self) -> Secret {
        self.secret.derive("tsujiban.dev master key wraps epoch keys")
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MasterKey").field("id", &self.id).finish_non_exhaustive()
    }
}
