//! What came of each row, and the table that people read.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::row::Row;

/// What came of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub id: &'static str,
    pub input: &'static str,
    /// After how many seconds everything was seen; what was not.
    pub seen: Result<u64, String>,
    /// After how many seconds everything was healed; what was not. `None`: it was not looked at.
    pub healed: Option<Result<u64, String>>,
}

impl Outcome {
    pub fn of(row: &'static Row, seen: Result<u64, String>, healed: Option<Result<u64, String>>) -> Self {
        Self { id: row.id, input: row.input, seen, healed }
    }

    pub fn is_green(&self) -> bool {
        self.seen.is_ok() && matches!(self.healed, Some(Ok(_)))
    }
}

/// The document that says what came of all rows.
pub fn document(outcomes: &[Outcome]) -> String {
    let green = outcomes.iter().filter(|outcome| outcome.is_green()).count();
    let mut text = format!(
        "# Losses, tried on a running cluster\n\nWritten by `make test-losses`. {green} of {} rows are as they must be. Times are seconds since the input was made, and since the\n\
        remedy. The rows, with what has to be seen and healed, are data: `e2e/tests/losses/rows`.\n\n| row | input | seen after | healed after |\n|---|---|---|---|\n",
        outcomes.len()
    );
    for outcome in outcomes {
        let healed = outcome.healed.as_ref().map_or_else(|| "not looked at".to_owned(), cell);
        // writing to a text does not fail
        let _ = writeln!(text, "| `{}` | {} | {} | {healed} |", outcome.id, outcome.input, cell(&outcome.seen));
    }
    text
}

fn cell(result: &Result<u64, String>) -> String {
    match result {
        Ok(seconds) => format!("{seconds} s"),
        Err(why) => format!("**not**: {}", why.replace('|', "\\|").replace('\n', " ").chars().take(240).collect::<String>()),
    }
}

/// Writes the document where it is wanted.
pub fn write(path: &Path, outcomes: &[Outcome]) -> Result<()> {
    fs::write(path, document(outcomes)).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_red_row_is_plain_to_see() {
        let good = Outcome { id: "a", input: "one bit flipped", seen: Ok(3), healed: Some(Ok(12)) };
        let bad = Outcome { id: "b", input: "a volume lost", seen: Err("tsujiban-audit | is ready\n".into()), healed: None };
        assert!(good.is_green() && !bad.is_green());
        let text = document(&[good, bad]);
        assert!(text.contains("1 of 2 rows"), "{text}");
        assert!(text.contains("| `a` | one bit flipped | 3 s | 12 s |\n"), "{text}");
        assert!(text.contains("| `b` | a volume lost | **not**: tsujiban-audit \\| is ready  | not looked at |\n"), "{text}");
    }
}
