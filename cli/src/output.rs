//! What people and programs read.

mod table;
mod time;
pub mod view;

use clap::ValueEnum;
use serde::Serialize;
use tsujiban_core::escape::escape_json;
pub use tsujiban_core::escape::{escape_line, escape_text};

pub use self::table::{Align, Table, short_cell, shortened};
pub use self::time::{bytes, jst};

/// How an answer is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people: aligned columns, times in JST.
    #[default]
    Table,
    /// For programs: plain numbers, times as RFC 3339.
    Json,
}

/// What a command answers, and how it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub text: String,
    pub verdict: Verdict,
}

/// How a command went that came to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Good,
    /// What was started did not succeed.
    Failed,
    /// A snapshot, or an entry of a history, is not what was stored.
    Damaged,
    /// A check of a group fails.
    NotConformant,
    /// A history was tampered with.
    Tampered,
}

impl Verdict {
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Good => 0,
            Self::Failed => 1,
            Self::Damaged => 3,
            Self::NotConformant => 4,
            Self::Tampered => 5,
        }
    }
}

impl Answer {
    /// Writes `value` as JSON or as `text` writes it.
    pub fn new<T: Serialize>(format: Format, value: &T, text: impl FnOnce(&T) -> String) -> Result<Self, serde_json::Error> {
        let text = match format {
            Format::Table => text(value),
            Format::Json => format!("{}\n", escape_json(&serde_json::to_string_pretty(value)?)),
        };
        Ok(Self { text, verdict: Verdict::Good })
    }

    #[must_use]
    pub fn with(self, verdict: Verdict) -> Self {
        Self { verdict, ..self }
    }
}
