//! Damage: stored data that is no longer what was stored. It is kept, reported by name, recorded, and never mistaken for an erasure.

mod found;

use tsujiban_core::id::{IncarnationId, KeyId, SnapshotId};

/// Something damaged, by its name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} is damaged: {detail}")]
pub struct Damaged {
    pub name: String,
    pub detail: String,
}

impl Damaged {
    pub fn object(key: &str, detail: impl Into<String>) -> Self {
        Self { name: object_name(key), detail: detail.into() }
    }

    pub fn key(id: &KeyId, subject: &IncarnationId, detail: impl Into<String>) -> Self {
        Self { name: key_name(id, subject), detail: detail.into() }
    }

    pub fn device(incarnation: &IncarnationId, detail: impl Into<String>) -> Self {
        Self { name: format!("the description of device {incarnation}"), detail: detail.into() }
    }

    pub fn key_table(detail: impl Into<String>) -> Self {
        Self { name: KEY_TABLE.to_owned(), detail: detail.into() }
    }

    pub fn database(detail: impl Into<String>) -> Self {
        Self { name: DATABASE.to_owned(), detail: detail.into() }
    }
}

/// The name of the database as a whole.
pub const DATABASE: &str = "the catalogue's database";
/// The name of the key table as a whole.
pub const KEY_TABLE: &str = "the key table";

pub fn object_name(key: &str) -> String {
    format!("object {key}")
}

pub fn key_name(id: &KeyId, subject: &IncarnationId) -> String {
    format!("data key {id} of {subject}")
}

/// The group, device and snapshot that damage belongs to. With none of them it concerns all groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DamageScope {
    pub group: Option<IncarnationId>,
    pub device: Option<IncarnationId>,
    pub snapshot: Option<SnapshotId>,
}
