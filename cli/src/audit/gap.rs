//! `tsujiban audit declare-gap`: resumes a history after entries were really lost.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use tsujiban_core::id::GroupId;
use tsujiban_proto::audit::v1::DeclareGapRequest;
use tsujiban_proto::audit::v1::declare_gap_request::Scope as Wire;

use super::HistoryOwner;
use crate::confirm::confirm;
use crate::failure::Failure;
use crate::output::{Answer, Format};
use crate::service::HistoryService;

/// The longest reason that the service accepts, in characters.
const LONGEST: usize = 1000;

/// The histories that are resumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    One(HistoryOwner),
    /// All histories with missing entries.
    All,
}

/// What happened, for whoever reads the history later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason(String);

impl FromStr for Reason {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim().chars().count() {
            1..=LONGEST => Ok(Self(text.trim().to_owned())),
            _ => Err("say in 1 to 1,000 characters what happened; whoever reads the history later will want to know".to_owned()),
        }
    }
}

impl Scope {
    fn on_the_wire(&self) -> Wire {
        match self {
            Self::All => Wire::All(true),
            Self::One(whose) => Wire::Group(whose.on_the_wire()),
        }
    }

    /// The word that has to be typed to confirm it.
    fn word(&self) -> &str {
        match self {
            Self::All => "all",
            Self::One(HistoryOwner::Platform) => "platform",
            Self::One(HistoryOwner::Group(group)) => GroupId::as_str(group),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(whose) => whose.fmt(f),
            Self::All => f.write_str("every history that lacks entries"),
        }
    }
}

/// Declares the missing entries lost.
pub async fn declare(service: &HistoryService, scope: &Scope, reason: &Reason, yes: bool, format: Format) -> Result<Answer, Failure> {
    #[derive(Serialize)]
    struct Declared {
        logs: u64,
    }
    confirm(&announcement(scope), "declare the gap", scope.word(), yes)?;
    let request = DeclareGapRequest { scope: Some(scope.on_the_wire()), reason: reason.0.clone() };
    let declared = service.client().declare_gap(service.request(request).await?).await?.into_inner();
    Ok(Answer::new(format, &Declared { logs: declared.logs }, |declared| text(scope, declared.logs))?)
}

fn announcement(scope: &Scope) -> String {
    format!(
        "This declares the entries lost, for ever, that {scope} is known to have had and does not have, and rows and root lists that are\n\
         damaged or gone. What lies in the bucket comes back first. If a newer copy of the database can still be found, bring that back\n\
         instead. The gap, your name and the reason stay in the history, and every verification names them."
    )
}

fn text(scope: &Scope, logs: u64) -> String {
    let others = match scope {
        Scope::All => "",
        Scope::One(_) => " While others lack entries, nothing is recorded; for those: tsujiban audit declare-gap --all --reason ...",
    };
    match logs {
        0 => format!(
            "No gap was added: no history lacks entries. Root lists that are gone or somebody else's are skipped from now on.{others}\n"
        ),
        1 => format!("1 history goes on behind a signed gap.{others}\n"),
        logs => format!("{logs} histories go on behind signed gaps.{others}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_given() {
        assert_eq!(" the disk died \n".parse(), Ok(Reason("the disk died".to_owned())));
        assert!(" ".parse::<Reason>().is_err());
        assert!("災".repeat(1000).parse::<Reason>().is_ok());
        assert!("災".repeat(1001).parse::<Reason>().is_err());
    }

    #[test]
    fn what_is_given_up_is_said_before() {
        let acme = Scope::One(HistoryOwner::Group("acme".parse().unwrap()));
        assert!(announcement(&acme).contains("that the history of group acme is known to have had"), "{}", announcement(&acme));
        assert_eq!((acme.word(), Scope::One(HistoryOwner::Platform).word(), Scope::All.word()), ("acme", "platform", "all"));
        assert!(text(&acme, 1).contains("--all") && !text(&Scope::All, 2).contains("--all"));
    }
}
