//! A key of 32 bytes, and the operations that all kinds of keys share.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{Random, SealingError};

pub(crate) const LEN: usize = 32;
/// How many bytes longer a sealed text is than the plain one: nonce and tag.
pub const OVERHEAD: u64 = 28;

/// What a sealed text is (`class`) and to which record it belongs. Opening it as anything else fails.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// A name such as `device name`.
    pub class: &'a str,
    /// The record's id, or whatever else must not be exchanged.
    pub record: &'a [u8],
}

impl Context<'_> {
    /// Unambiguous: no class and record give the bytes of another class and record.
    fn bytes(&self) -> Vec<u8> {
        let class = self.class.as_bytes();
        let length = u32::try_from(class.len()).unwrap_or(u32::MAX).to_be_bytes();
        [&length, class, self.record].concat()
    }
}

#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Secret([u8; LEN]);

impl Secret {
    pub(crate) fn generate(random: &dyn Random) -> Result<Self, SealingError> {
        let mut secret = Self([0; LEN]);
        random.fill(&mut secret.0)?;
        Ok(secret)
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, SealingError> {
        bytes.try_into().map(Self).map_err(|_| SealingError::KeyLength(bytes.len()))
    }

    pub(crate) fn expose(&self) -> &[u8; LEN] {
        &self.0
    }

    /// HMAC-SHA256 over the concatenated parts.
    pub(crate) fn mac<'a>(&self, parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; LEN] {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &self.0));
        parts.into_iter().for_each(|part| context.update(part));
        let mut mac = [0; LEN];
        mac.iter_mut().zip(context.sign().as_ref()).for_each(|(to, from)| *to = *from);
        mac
    }

    /// A key for one purpose, so that no key does two things.
    pub(crate) fn derive(&self, purpose: &str) -> Self {
        Self(self.mac([purpose.as_bytes()]))
    }

    /// Nonce, ciphertext, tag.
    pub(crate) fn seal(&self, context: Context<'_>, plaintext: &[u8], random: &dyn Random) -> Result<Vec<u8>, SealingError> {
        let mut nonce = [0; NONCE_LEN];
        random.fill(&mut nonce)?;
        let mut sealed = Vec::with_capacity(NONCE_LEN + plaintext.len() + AES_256_GCM.tag_len());
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plaintext);
        let body = sealed.get_mut(NONCE_LEN..).ok_or(SealingError::TooLong)?;
        let tag = self
            .cipher()?
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context.bytes()), body)
            .map_err(|_| SealingError::TooLong)?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    pub(crate) fn open(&self, context: Context<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealingError> {
        let (nonce, body) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(SealingError::NotOpened)?;
        let mut opened = Zeroizing::new(body.to_vec());
        let length = self
            .cipher()?
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(context.bytes()), &mut opened)
            .map_err(|_| SealingError::NotOpened)?
            .len();
        opened.truncate(length);
        Ok(opened)
    }

    fn cipher(&self) -> Result<LessSafeKey, SealingError> {
        UnboundKey::new(&AES_256_GCM, &self.0).map(LessSafeKey::new).map_err(|_| SealingError::KeyLength(LEN))
    }
}
