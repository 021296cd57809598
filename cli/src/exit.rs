//! The exit codes of the program, and which of them an error ends it with.

use std::error::Error;

/// The result of a command that ran to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Good,
    /// What was started did not succeed.
    Failed,
    /// Stored data is damaged, a snapshot or an entry of a history, or the storage does not retain it as promised.
    Damaged,
    /// A check of a group fails.
    NotConformant,
    /// A history was tampered with.
    Tampered,
    /// A config that was to be stored was not.
    NotStored,
}

/// The exit code of a command line that is wrong. The parser of the command line ends the program with it.
const WRONG_USAGE: u8 = 2;

impl Verdict {
    const ALL: [Self; 6] = [Self::Good, Self::Failed, Self::Damaged, Self::NotConformant, Self::Tampered, Self::NotStored];

    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Good => 0,
            Self::Failed => 1,
            Self::Damaged => 3,
            Self::NotConformant => 4,
            Self::Tampered => 5,
            Self::NotStored => 6,
        }
    }

    const fn meaning(self) -> &'static str {
        match self {
            Self::Good => "done",
            Self::Failed => "error",
            Self::Damaged => "something stored is damaged or not kept",
            Self::NotConformant => "a group does not conform",
            Self::Tampered => "a history was tampered with",
            Self::NotStored => "a device's config was not stored",
        }
    }
}

/// All exit codes with what they mean, in the order of the codes.
fn exit_codes() -> Vec<(u8, &'static str)> {
    let verdicts = Verdict::ALL.map(|verdict| (verdict.exit_code(), verdict.meaning()));
    let mut codes: Vec<_> = verdicts.into_iter().chain([(WRONG_USAGE, "wrong usage")]).collect();
    codes.sort_unstable();
    codes
}

/// The exit codes as the help of the command shows them.
pub fn exit_codes_help() -> String {
    let lines = exit_codes().into_iter().map(|(code, meaning)| format!("\n  {code}  {meaning}"));
    format!("Exit codes:{}", lines.collect::<String>())
}

/// An error that ends a command. Each error type defines its exit code beside its definition.
pub trait ExitCode: Error + Send + Sync + 'static {
    /// The verdict of a command that ends with this error. By default, the command has failed.
    fn verdict(&self) -> Verdict {
        Verdict::Failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// People write scripts by the document, and the program goes by this file.
    #[test]
    fn the_document_has_every_exit_code() {
        let document = include_str!("../../docs/exit-codes.md");
        let rows: Vec<_> = document.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | ")).collect();
        let documented: Vec<_> =
            rows.iter().filter_map(|(code, rest)| Some((code.parse::<u8>().ok()?, rest.split(" |").next()?))).collect();
        assert_eq!(documented, exit_codes());
        let mut codes: Vec<_> = exit_codes().into_iter().map(|(code, _)| code).collect();
        codes.dedup();
        assert_eq!(codes.len(), exit_codes().len(), "each means one thing");
    }
}
