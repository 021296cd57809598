//! `tsujiban audit list`.

use serde::Serialize;
use tsujiban_proto::audit::v1::{DamagedEntry, ListEntriesRequest, Result as AuditResult};
use tsujiban_proto::time::to_wire;

use super::HistoryOwner;
use super::entry::{EntryView, table};
use super::span::Span;
use crate::exit::Verdict;
use crate::failure::Failure;
use crate::output::{Answer, Format, escape_line, jst};
use crate::progress::Progress;
use crate::service::HistoryService;

/// How many entries are asked for at a time at most.
const PAGE: u32 = 500;
/// How many damaged entries are named in a table. All of them stand in the JSON.
const NAMED: usize = 20;

/// The filter of a search. Empty texts match everything.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    pub span: Span,
    pub actor: String,
    pub function: String,
    pub target: String,
    /// Unspecified: any result.
    pub result: AuditResult,
    /// Also intents whose outcome is shown.
    pub intents: bool,
    /// At most this many.
    pub limit: u32,
}

/// An entry that is damaged where the service stores it.
#[derive(Debug, Serialize)]
struct DamagedView {
    sequence: u64,
    wrong: String,
}

#[derive(Debug, Serialize)]
struct Found {
    entries: Vec<EntryView>,
    /// Among all entries that were searched, whether or not they match.
    damaged: Vec<DamagedView>,
    /// Whether the search ended at the limit, so that there may be more.
    more: bool,
}

/// Lists what happened, newest first.
pub async fn list(service: &HistoryService, whose: &HistoryOwner, wanted: &Wanted, format: Format) -> Result<Answer, Failure> {
    let found = search(service, whose, wanted).await?;
    let verdict = if found.damaged.is_empty() { Verdict::Good } else { Verdict::Damaged };
    let answer = Answer::new(format, &found, |found| {
        let listed = match (found.entries.as_slice(), found.more) {
            ([], _) => format!("Nothing like that is in {whose}.\n"),
            (entries, false) => table(entries),
            (entries, true) => {
                format!(
                    "{}These are the newest {}. There may be older ones: raise --limit, or set --until.\n",
                    table(entries),
                    entries.len()
                )
            }
        };
        listed + &damage(&found.damaged)
    })?;
    Ok(answer.with(verdict))
}

/// What is damaged, and what to do about it.
fn damage(damaged: &[DamagedView]) -> String {
    let entries = match damaged.len() {
        0 => return String::new(),
        1 => "1 entry is".to_owned(),
        count => format!("{count} entries are"),
    };
    let named = damaged.iter().take(NAMED).map(|entry| format!("  entry {}: {}\n", entry.sequence, escape_line(&entry.wrong)));
    let named = named.collect::<Vec<_>>().concat();
    let more = match damaged.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!("  and {more} more: -o json names all\n"),
    };
    format!(
        "DAMAGED: among those that were looked through, {entries} damaged where the audit service stores them:\n{named}{more}\
         What is not listed above may be about what was looked for. Tell the platform's staff: docs/history.md says what they can do.\n"
    )
}

async fn search(service: &HistoryService, whose: &HistoryOwner, wanted: &Wanted) -> Result<Found, Failure> {
    let mut request = ListEntriesRequest {
        group: whose.on_the_wire(),
        from: wanted.span.from.map(to_wire),
        to: wanted.span.to.map(to_wire),
        actor: wanted.actor.clone(),
        function: wanted.function.clone(),
        target: wanted.target.clone(),
        result: wanted.result.into(),
        include_intents: wanted.intents,
        page_size: 0,
        page_token: String::new(),
    };
    let mut progress = Progress::on_stderr();
    let mut entries: Vec<EntryView> = Vec::new();
    let mut damaged: Vec<DamagedView> = Vec::new();
    loop {
        let missing = wanted.limit.saturating_sub(u32::try_from(entries.len()).unwrap_or(u32::MAX));
        request.page_size = missing.min(PAGE);
        let page = service.client().list_entries(service.request(request.clone()).await?).await?.into_inner();
        entries.extend(page.entries.into_iter().map(EntryView::from));
        damaged.extend(page.damaged.into_iter().map(|DamagedEntry { sequence, wrong }| DamagedView { sequence, wrong }));
        let full = u32::try_from(entries.len()).map_or(true, |found| found >= wanted.limit);
        let more = !page.next_page_token.is_empty();
        if full || !more {
            return Ok(Found { entries, damaged, more });
        }
        request.page_token = page.next_page_token;
        let back = entries.last().map(|entry| format!(", back to {}", jst(entry.time()))).unwrap_or_default();
        progress.say(&format!("{} entries found{back}", entries.len()));
    }
}
