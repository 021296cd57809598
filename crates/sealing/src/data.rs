use std::fmt;

use zeroize::Zeroizing;

use crate::secret::{Context, Secret};
use crate::{Random, SealingError};

/// Seals the data of one subject that is erased on its own, such as a device. Erasing is destroying its wrapping.
#[derive(Clone)]
pub struct DataKey(Secret);

impl DataKey {
    pub fn generate(random: &dyn Random) -> Result<Self, SealingError> {
        Secret::generate(random).map(Self)
    }

    pub(crate) fn new(secret: Secret) -> Self {
        Self(secret)
    }

    pub(crate) fn secret(&self) -> &Secret {
        &self.0
    }

    /// Nonce, ciphertext, tag: [`OVERHEAD`](crate::OVERHEAD) bytes longer than the plaintext.
    pub fn seal(&self, context: Context<'_>, plaintext: &[u8], random: &dyn Random) -> Result<Vec<u8>, SealingError> {
        self.0.derive("tsujiban.dev data key seals").seal(context, plaintext, random)
    }

    /// Fails with [`SealingError::NotOpened`] unless key, class, record and every byte are those of the seal.
    pub fn open(&self, context: Context<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealingError> {
        self.0.derive("tsujiban.dev data key seals").open(context, sealed)
    }

    /// A keyed digest: equal for equal data under the same key and label, and says nothing to those without the key.
    pub fn mac(&self, label: &str, data: &[u8]) -> [u8; 32] {
        self.mac_parts(label, [data])
    }

    /// The same of data that comes in parts, as if they were one.
    pub fn mac_parts<'a>(&self, label: &str, parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
        self.0.derive("tsujiban.dev data key mac").derive(label).mac(parts)
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataKey").finish_non_exhaustive()
    }
}
