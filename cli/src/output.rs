//! The output for people and for programs.

mod table;
mod time;
pub mod view;

use clap::ValueEnum;
use serde::Serialize;
use tsujiban_core::escape::escape_json;
pub use tsujiban_core::escape::{escape_line, escape_text};

pub use self::table::{Align, Table, short_cell, shortened};
pub use self::time::{bytes, jst};
use crate::exit::{ExitCode, Verdict};

/// How an answer is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people: aligned columns, times in JST.
    #[default]
    Table,
    /// For programs: plain numbers, times as RFC 3339.
    Json,
}

/// The output of a command, and its verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub text: String,
    pub verdict: Verdict,
}

/// Why an answer did not reach its reader.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    #[error("the answer cannot be written as JSON; this is a fault of tsujiban")]
    Json(#[from] serde_json::Error),
    #[error("the answer cannot be written")]
    Output(#[from] std::io::Error),
}

impl ExitCode for AnswerError {}

impl Answer {
    /// Writes `value` as JSON or as `text` writes it.
    pub fn new<T: Serialize>(format: Format, value: &T, text: impl FnOnce(&T) -> String) -> Result<Self, AnswerError> {
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
