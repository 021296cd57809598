//! The commands of `tsujiban audit`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use tsujiban_core::id::GroupId;
use tsujiban_history::{Origin, VerifierKey};
use tsujiban_proto::audit::v1::Result as Outcome;

use super::Output;
use crate::audit::gap::{Reason, Scope};
use crate::audit::reading::Form;
use crate::audit::span::{EmptySpan, Since, Span, Until};
use crate::audit::{HistoryOwner, export, list};

#[derive(Debug, Subcommand)]
pub enum Audit {
    /// List what was done, newest first.
    List {
        #[command(flatten)]
        whose: HistoryOwnerArgs,
        #[command(flatten)]
        wanted: Box<ListArgs>,
        #[command(flatten)]
        output: Output,
    },
    /// Write a history to a file or to standard output, oldest first: all of it, or what was recorded in a span of time.
    Export {
        #[command(flatten)]
        whose: HistoryOwnerArgs,
        #[command(flatten)]
        wanted: ExportArgs,
    },
    /// Judge an export offline: intact, lawfully expired (which days), or TAMPERED (where). Nothing in the export is trusted that the key has
    /// not signed. Exit code 5: TAMPERED.
    Verify {
        /// The export, as JSON Lines.
        export: PathBuf,
        /// The log that it has to be of: DOMAIN/ENVIRONMENT/LOG-ID. Not given: that of the first checkpoint.
        #[arg(long, value_name = "ORIGIN", required_unless_present = "checkpoints")]
        log: Option<Origin>,
        /// The environment's public key, as it was written down when the environment was set up.
        #[arg(long, value_name = "KEY")]
        key: VerifierKey,
        /// A checkpoint from earlier, which the history has to continue. May be given several times.
        #[arg(long = "checkpoint", value_name = "FILE")]
        checkpoints: Vec<PathBuf>,
        /// A signed list of roots. May be given several times, in the order of their numbers.
        #[arg(long = "roots", value_name = "FILE")]
        lists: Vec<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
    /// Let a history that lost entries go on behind a signed gap, once it is sure that they do not come back. Needs the right to update.
    DeclareGap {
        #[command(flatten)]
        scope: ScopeArgs,
        /// What happened, for whoever reads the history later: 1 to 1,000 characters.
        #[arg(long, value_name = "TEXT")]
        reason: Reason,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        output: Output,
    },
}

/// Whose history.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct HistoryOwnerArgs {
    /// The group's id.
    group: Option<GroupId>,
    /// The platform's own history: what belongs to no group.
    #[arg(long)]
    platform: bool,
}

impl From<HistoryOwnerArgs> for HistoryOwner {
    fn from(args: HistoryOwnerArgs) -> Self {
        args.group.map_or(Self::Platform, Self::Group)
    }
}

/// Whose histories go on.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct ScopeArgs {
    /// The group's id.
    group: Option<GroupId>,
    /// The platform's own history.
    #[arg(long)]
    platform: bool,
    /// All histories that lack something.
    #[arg(long)]
    all: bool,
}

impl From<ScopeArgs> for Scope {
    fn from(args: ScopeArgs) -> Self {
        if args.all { Self::All } else { Self::One(args.group.map_or(HistoryOwner::Platform, HistoryOwner::Group)) }
    }
}

/// A span of time.
#[derive(Debug, Clone, Copy, Args)]
struct SpanArgs {
    /// From this time on: RFC 3339, or a day in Japan such as 2026-11-26, from its beginning.
    #[arg(long, value_name = "TIME")]
    since: Option<Since>,
    /// Before this time: RFC 3339, or a day in Japan such as 2026-11-26, to its end.
    #[arg(long, value_name = "TIME")]
    until: Option<Until>,
}

/// What came of something.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum OutcomeArg {
    /// It was done.
    Allowed,
    /// It was refused.
    Denied,
    /// It could not be done.
    Failed,
    /// The service went away before it could say.
    Unknown,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    span: SpanArgs,
    /// Only of this actor: the name of a member of staff or a workload, the id of an account, a Kubernetes user.
    #[arg(long, value_name = "ID")]
    actor: Option<String>,
    /// Only of this function, such as snapshots; all: tsujiban functions.
    #[arg(long, value_name = "FUNCTION")]
    function: Option<String>,
    /// Only what was done to this, such as the name of a device.
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    /// Only what ended like this.
    #[arg(long, value_enum, value_name = "RESULT")]
    result: Option<OutcomeArg>,
    /// Also what was recorded before a call did anything, where it is known what came of it.
    #[arg(long)]
    intents: bool,
    /// At most this many.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "NUMBER")]
    limit: u32,
}

impl TryFrom<ListArgs> for list::Wanted {
    type Error = EmptySpan;

    fn try_from(args: ListArgs) -> Result<Self, EmptySpan> {
        Ok(Self {
            span: Span::new(args.span.since, args.span.until)?,
            actor: args.actor.unwrap_or_default(),
            function: args.function.unwrap_or_default(),
            target: args.target.unwrap_or_default(),
            result: match args.result {
                None => Outcome::Unspecified,
                Some(OutcomeArg::Allowed) => Outcome::Allowed,
                Some(OutcomeArg::Denied) => Outcome::Denied,
                Some(OutcomeArg::Failed) => Outcome::Failed,
                Some(OutcomeArg::Unknown) => Outcome::Unknown,
            },
            intents: args.intents,
            limit: args.limit,
        })
    }
}

/// The form of an export.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum FormArg {
    /// For the verifier: a line of JSON for each entry, with what proves it.
    Jsonl,
    /// For a spreadsheet.
    Csv,
}

#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    span: SpanArgs,
    /// The form of the export.
    #[arg(long, value_enum, default_value_t = FormArg::Jsonl, value_name = "FORM")]
    format: FormArg,
    /// The file to write. Not given: standard output.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write the signed checkpoint with which the export ends to this file, too: for tsujiban audit verify, now and later.
    #[arg(long, value_name = "FILE")]
    save_checkpoint: Option<PathBuf>,
    /// Replace files that exist.
    #[arg(long)]
    force: bool,
}

impl TryFrom<ExportArgs> for export::Wanted {
    type Error = EmptySpan;

    fn try_from(args: ExportArgs) -> Result<Self, EmptySpan> {
        Ok(Self {
            span: Span::new(args.span.since, args.span.until)?,
            form: match args.format {
                FormArg::Jsonl => Form::JsonLines,
                FormArg::Csv => Form::Csv,
            },
            output: args.output,
            checkpoint: args.save_checkpoint,
            force: args.force,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn parse(line: &str) -> Result<Audit, clap::Error> {
        let Command::Audit(command) = Cli::try_parse_from(["tsujiban", "audit"].into_iter().chain(line.split_whitespace()))?.command else {
            panic!("{line}")
        };
        Ok(command)
    }

    #[test]
    fn whose_history_is_always_said() {
        for (line, wanted) in [("list acme", HistoryOwner::Group("acme".parse().unwrap())), ("list --platform", HistoryOwner::Platform)] {
            let Ok(Audit::List { whose, .. }) = parse(line) else { panic!("{line}") };
            assert_eq!(HistoryOwner::from(whose), wanted);
        }
        let Ok(Audit::DeclareGap { scope, .. }) = parse("declare-gap --all --reason fire") else { panic!("not a gap") };
        assert_eq!(Scope::from(scope), Scope::All);
        let key = "audit.tsujiban.dev/trial+00000000+AAAA";
        for line in [
            "list",
            "list acme --platform",
            "list acme --since yesterday",
            "list acme --limit 0",
            "list acme --result perhaps",
            "export --output x",
            "declare-gap --reason fire",
            "declare-gap acme --all --reason fire",
            "declare-gap acme",
            "declare-gap acme --reason=",
            &format!("verify acme.jsonl --key {key}"),
            "verify acme.jsonl --checkpoint acme.checkpoint",
        ] {
            assert_eq!(parse(line).err().map(|error| error.exit_code()), Some(2), "{line}");
        }
    }

    #[test]
    fn what_is_looked_for_is_passed_on() {
        let Ok(Audit::List { wanted, .. }) = parse("list acme --since 2026-11-26 --until 2026-11-26 --actor hanako --result denied") else {
            panic!("not a list")
        };
        let wanted = list::Wanted::try_from(*wanted).unwrap();
        assert_eq!((wanted.actor.as_str(), wanted.result, wanted.limit, wanted.intents), ("hanako", Outcome::Denied, 100, false));
        assert!(wanted.span.from < wanted.span.to);
        let Ok(Audit::Export { wanted, .. }) = parse("export acme --since 2026-11-27 --until 2026-11-26") else { panic!("not an export") };
        assert!(export::Wanted::try_from(wanted).is_err());
    }
}
