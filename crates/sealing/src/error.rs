use tsujiban_core::id::KeyId;

/// Why something could not be sealed or opened. Never says anything about the contents.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealingError {
    #[error("the machine gave no random bytes")]
    NoRandomness,
    #[error("a key must have 32 bytes, and this one has {0}; restore the Secret from its escrow copy")]
    KeyLength(usize),
    #[error("what is sealed is too long for one seal")]
    TooLong,
    #[error("what is sealed is cut, changed, belongs to another record, or was sealed with another key")]
    NotOpened,
    #[error(
        "epoch key {epoch} was wrapped by master key {wrapped_by}, but master key {given} is here; mount the Secret that belongs to this data"
    )]
    OtherMaster { epoch: KeyId, wrapped_by: KeyId, given: KeyId },
    #[error("data key {key} was wrapped by epoch key {wrapped_by}, not by epoch key {given}")]
    OtherEpoch { key: KeyId, wrapped_by: KeyId, given: KeyId },
}
