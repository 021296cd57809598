//! The command line.

mod audit;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tsujiban_api::names;
use tsujiban_core::id::{GroupId, IncarnationId};

pub use self::audit::Audit;
use crate::exit::exit_codes_help;
use crate::output::Format;
use crate::service::StaffName;
use crate::snapshots::Choice;

/// Look after the groups whose devices Tsujiban backs up.
#[derive(Debug, Parser)]
#[command(
    name = "tsujiban",
    version,
    after_help = exit_codes_help()
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(flatten)]
    pub output: Output,
    #[command(subcommand)]
    pub command: Command,
}

/// Where the cluster is and who is asking.
#[derive(Debug, Args)]
pub struct Global {
    /// Who you are: the name of your entry in the chart value `staff`.
    #[arg(long, global = true, env = "TSUJIBAN_STAFF", value_name = "NAME")]
    pub staff: Option<StaffName>,
    /// The namespace into which Tsujiban is installed.
    #[arg(long, global = true, env = "TSUJIBAN_SYSTEM_NAMESPACE", default_value = names::SYSTEM_NAMESPACE, value_name = "NAMESPACE")]
    pub system_namespace: String,
    /// The context of the kubeconfig to use, instead of the current one.
    #[arg(long, global = true, value_name = "CONTEXT")]
    pub context: Option<String>,
}

/// How the answer is written. Not an option of `restore`, whose `--output` is a file.
#[derive(Debug, Clone, Copy, Args)]
pub struct Output {
    /// How the answer is written.
    #[arg(short = 'o', long = "output", value_enum, value_name = "FORMAT")]
    format: Option<Format>,
}

impl Output {
    /// This option if it is given, else the one before the command, else a table.
    pub fn or(self, outer: Self) -> Format {
        self.format.or(outer.format).unwrap_or_default()
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Stored configs of devices.
    #[command(subcommand)]
    Snapshots(Snapshots),
    /// Taking backups.
    #[command(subcommand)]
    Backup(Backup),
    /// What is kept of each group.
    #[command(subcommand)]
    Groups(Groups),
    /// The host keys by which devices are known.
    #[command(subcommand)]
    Hostkeys(Hostkeys),
    /// Try, as each owner of a group, what no owner may do, and look whether the group's namespace is closed. Needs the right to impersonate
    /// the owners. Everything is tried dry: nothing is left behind. Exit code 4: a check fails.
    Conformance {
        /// The group's id, which is its Tenant's name.
        tenant: GroupId,
        /// A group in which your identity provider puts the owners of kind User. May be given several times.
        #[arg(long, value_name = "GROUP")]
        as_group: Vec<String>,
        /// The language of titles and results.
        #[arg(long, visible_alias = "lang", value_enum, default_value_t, value_name = "LANGUAGE")]
        language: Language,
        #[command(flatten)]
        output: Output,
    },
    /// The operation history.
    #[command(subcommand)]
    Audit(Audit),
    /// List the functions: what can be done, by which right, and how it comes into the operation history.
    Functions {
        /// The language of titles.
        #[arg(long, visible_alias = "lang", value_enum, default_value_t, value_name = "LANGUAGE")]
        language: Language,
        #[command(flatten)]
        output: Output,
    },
    /// Print the version.
    Version,
}

/// A language of people.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Language {
    #[default]
    En,
    Ja,
}

impl From<Language> for tsujiban_conformance::Language {
    fn from(language: Language) -> Self {
        match language {
            Language::En => Self::En,
            Language::Ja => Self::Ja,
        }
    }
}

impl From<Language> for tsujiban_proto::functions::Language {
    fn from(language: Language) -> Self {
        match language {
            Language::En => Self::English,
            Language::Ja => Self::Japanese,
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum Snapshots {
    /// List the snapshots of a group, newest first.
    List {
        group: GroupId,
        /// Only of this device: its name or serial number.
        #[arg(long)]
        device: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Print a config. Its secrets are hidden.
    Show {
        group: GroupId,
        /// Its id or the first digits of it; a device's name or serial number for the newest of that device; or latest.
        snapshot: Choice,
        /// Show the secrets too. Needs the right to reveal, and an operation history that records it.
        #[arg(long)]
        reveal: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Compare two configs. Their secrets are hidden.
    #[command(override_usage = "tsujiban snapshots diff [OPTIONS] <GROUP> (<OLD> <NEW> | --device <DEVICE>)")]
    Diff {
        group: GroupId,
        /// The older snapshot: its id or the first digits of it.
        #[arg(requires = "new", required_unless_present = "device", conflicts_with = "device")]
        old: Option<Choice>,
        /// The newer snapshot, in the same way, or latest.
        new: Option<Choice>,
        /// Compare the two newest snapshots of this device: its name or serial number.
        #[arg(long)]
        device: Option<String>,
        /// Show the secrets too. Needs the right to reveal, and an operation history that records it.
        #[arg(long)]
        reveal: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Read snapshots back from the storage and check them. Exit code 3: one is damaged.
    #[command(override_usage = "tsujiban snapshots verify [OPTIONS] <GROUP> (<SNAPSHOT> | --all)")]
    Verify {
        group: GroupId,
        /// Its id or the first digits of it; a device's name or serial number for the newest of that device; or latest.
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        snapshot: Option<Choice>,
        /// All snapshots of the group.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Write a whole config to a file that only you can read. Needs the right to reveal, and an operation history that records it.
    Restore {
        group: GroupId,
        /// Its id or the first digits of it; a device's name or serial number for the newest of that device; or latest.
        snapshot: Choice,
        /// The file to write; - for standard output.
        #[arg(long, value_name = "FILE")]
        output: PathBuf,
        /// Replace the file if it exists.
        #[arg(long)]
        force: bool,
    },
    /// Confirm that a snapshot flagged as shrunk is what the device should have.
    Acknowledge {
        group: GroupId,
        /// Its id or the first digits of it.
        snapshot: Choice,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Subcommand)]
pub enum Backup {
    /// Back up a group's devices at once, with a Job from its CronJob. Exit code 6: the config of a device was not stored.
    Now {
        group: GroupId,
        /// Do not wait until it ends.
        #[arg(long)]
        no_wait: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Rebuild the catalogue of snapshots from the storage.
    Rebuild {
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Subcommand)]
pub enum Groups {
    /// List the groups of which something is kept. Exit code 3: the storage does not keep its locks.
    List {
        /// Only groups whose Tenant has gone and whose data is kept.
        #[arg(long)]
        retained: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Erase all data of a retained group, for ever. Its Tenant has to be gone.
    Erase {
        group: GroupId,
        /// Which life of the group to erase, as `groups list --retained` shows it.
        #[arg(long, value_name = "ID")]
        incarnation: IncarnationId,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Subcommand)]
pub enum Hostkeys {
    /// Show the pinned host key of a device and the one it showed last.
    Show {
        group: GroupId,
        /// The device's name or serial number.
        device: String,
        #[command(flatten)]
        output: Output,
    },
    /// Replace the pinned host key, after the device was exchanged or its key renewed.
    Replace {
        group: GroupId,
        /// The device's name or serial number.
        device: String,
        /// The key that is pinned now.
        #[arg(long, value_name = "KEY")]
        expected: String,
        /// The new key, such as "ssh-ed25519 AAAA..."; empty to pin the next one that the device shows.
        #[arg(long, value_name = "KEY")]
        new: String,
        #[command(flatten)]
        output: Output,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    const ID: &str = "00112233445566778899aabbccddeeff";

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_format_stands_before_or_behind_the_command() {
        for (line, wanted) in [
            ("tsujiban snapshots list acme", Format::Table),
            ("tsujiban --output json snapshots list acme", Format::Json),
            ("tsujiban snapshots list acme --output json", Format::Json),
            ("tsujiban snapshots list acme -o json", Format::Json),
            ("tsujiban --output json snapshots list acme --output table", Format::Table),
        ] {
            let cli = parse(line).unwrap();
            let Command::Snapshots(Snapshots::List { output, .. }) = cli.command else { panic!("{line}") };
            assert_eq!(output.or(cli.output), wanted, "{line}");
        }
    }

    #[test]
    fn languages_have_one_option() {
        for (line, wanted) in
            [("functions --lang ja", Language::Ja), ("functions --language ja", Language::Ja), ("functions", Language::En)]
        {
            let cli = parse(&format!("tsujiban {line}")).unwrap();
            let Command::Functions { language, .. } = cli.command else { panic!("{line}") };
            assert_eq!(language, wanted, "{line}");
        }
        parse("tsujiban conformance acme --lang ja").unwrap();
    }

    #[test]
    fn what_is_missing_is_said_with_its_alternative() {
        for (line, alternative) in [("verify acme", "(<SNAPSHOT> | --all)"), ("diff acme", "(<OLD> <NEW> | --device <DEVICE>)")] {
            let error = parse(&format!("tsujiban snapshots {line}")).unwrap_err().to_string();
            assert!(error.contains(alternative), "{error}");
        }
    }

    #[test]
    fn restore_writes_to_a_file() {
        let cli = parse(&format!("tsujiban --output json snapshots restore acme {ID} --output core.conf")).unwrap();
        let Command::Snapshots(Snapshots::Restore { output, force, .. }) = cli.command else { panic!("not restore") };
        assert_eq!((output, force), (PathBuf::from("core.conf"), false));
    }

    #[test]
    fn global_options_stand_anywhere() {
        let cli = parse("tsujiban groups list --staff hanako --system-namespace guard --context tokyo").unwrap();
        assert_eq!(cli.global.staff.map(|name| name.to_string()).as_deref(), Some("hanako"));
        assert_eq!((cli.global.system_namespace.as_str(), cli.global.context.as_deref()), ("guard", Some("tokyo")));
    }

    #[test]
    fn what_is_missing_or_contradicts_itself_is_wrong_usage() {
        for line in [
            "tsujiban".to_owned(),
            "tsujiban snapshots list".to_owned(),
            "tsujiban snapshots list ACME".to_owned(),
            "tsujiban snapshots show acme ../etc".to_owned(),
            "tsujiban snapshots diff acme".to_owned(),
            format!("tsujiban snapshots diff acme {ID}"),
            format!("tsujiban snapshots diff acme {ID} {ID} --device core-1"),
            "tsujiban snapshots verify acme".to_owned(),
            format!("tsujiban snapshots verify acme {ID} --all"),
            format!("tsujiban snapshots restore acme {ID}"),
            "tsujiban groups erase acme --yes".to_owned(),
            "tsujiban groups list --staff not/a/name".to_owned(),
        ] {
            assert_eq!(parse(&line).err().map(|error| error.exit_code()), Some(2), "{line}");
        }
        for line in [
            "tsujiban snapshots diff acme --device core-1".to_owned(),
            format!("tsujiban snapshots diff acme {ID} {ID}"),
            "tsujiban snapshots verify acme --all".to_owned(),
        ] {
            assert!(parse(&line).is_ok(), "{line}");
        }
    }
}
