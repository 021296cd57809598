//! `tsujiban audit verify`: judges an export of the operation history. Contacts no service, and trusts only the given key.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;
use tsujiban_history::export::Loss;
use tsujiban_history::note::InvalidKey;
use tsujiban_history::verify::{DamagedEntry, VerifyError};
use tsujiban_history::{Origin, Report, Verdict as Found, Verifier, VerifierKey};

use crate::exit::{ExitCode, Verdict};
use crate::failure::Failure;
use crate::output::{Answer, Format};

/// Why an export could not be judged.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error("{path} cannot be read; name a file that was exported or saved before")]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is no checkpoint of a log; bring one that was saved by: tsujiban audit export --save-checkpoint FILE", .path.display())]
    NotACheckpoint { path: PathBuf },
    #[error("say of which log the export has to be: with --checkpoint, or with --log")]
    NoLog,
    #[error("the key is not one of this environment's history; copy it from where it was written down when the environment was set up")]
    Key(#[from] InvalidKey),
    #[error("{path} could not be judged")]
    Verify { path: PathBuf, source: VerifyError },
}

impl ExitCode for AuditError {}

/// The input of an auditor.
#[derive(Debug)]
pub struct Evidence<'a> {
    pub export: &'a Path,
    /// `None`: the log of the first checkpoint.
    pub log: Option<Origin>,
    pub key: VerifierKey,
    pub checkpoints: &'a [PathBuf],
    pub lists: &'a [PathBuf],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ReportView {
    /// `intact`, `expired`, `damaged` or `tampered`.
    verdict: &'static str,
    coverage: CoverageView,
    /// The first damaged entries, and how many there are.
    damaged: Vec<DamagedView>,
    damaged_count: u64,
    expired_days: Vec<String>,
    findings: Vec<String>,
    more_findings: u64,
    gaps: usize,
    entries: u64,
    bodies: u64,
    /// How many checkpoints and root lists the export was checked against.
    heads: u64,
    lists: u64,
    #[serde(skip)]
    text: String,
}

/// Which part of which log the export contains.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CoverageView {
    log: String,
    /// The first entry, and the one past the last.
    first: u64,
    end: u64,
    /// How many entries the log had when it was exported; `null` where no signature covers that.
    of: Option<u64>,
    /// Whether the log had more entries than the export has.
    is_part: bool,
    /// When the first and the last readable operation was done.
    from: Option<String>,
    to: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DamagedView {
    sequence: u64,
    /// Whether its leaf is lost, too, so that nothing is known about the entry.
    leaf_is_lost: bool,
}

impl CoverageView {
    fn of(log: String, report: &Report) -> Self {
        let of = report.head.map(|head| head.size);
        let is_part = of != Some(report.end.saturating_sub(report.first));
        let (from, to) = report.times.map(|(from, to)| (from.to_string(), to.to_string())).unzip();
        Self { log, first: report.first, end: report.end, of, is_part, from, to }
    }

    /// One line. Empty where the size of the log is unknown.
    fn line(&self) -> String {
        let Self { log, first, end, of: Some(of), is_part, from, to } = self else { return String::new() };
        let done = from.as_ref().zip(to.as_ref()).map(|(from, to)| format!(", done from {from} to {to}")).unwrap_or_default();
        let count = end.saturating_sub(*first);
        match (is_part, count) {
            (false, _) => format!("All of log {log}: {of} entries{done}\n"),
            (true, 0) => format!("PART of log {log}: none of its {of} entries\n"),
            (true, _) => format!("PART of log {log}: entries {first} to {}, {count} of {of}{done}\n", end.saturating_sub(1)),
        }
    }
}

/// Judges an export: intact, lawfully expired, DAMAGED, or TAMPERED.
pub fn verify(evidence: Evidence<'_>, now: Timestamp, format: Format) -> Result<Answer, Failure> {
    let Evidence { export, log, key, checkpoints, lists } = evidence;
    let log = log.map_or_else(|| log_of(checkpoints), Ok)?;
    let origin = log.to_string();
    let mut verifier = Verifier::new(key, log, now).map_err(AuditError::Key)?;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| AuditError::Verify { path, source }
    };
    for path in checkpoints {
        verifier.add_checkpoint(&path.to_string_lossy(), &read(path)?).map_err(failed(path))?;
    }
    for path in lists {
        verifier.add_list(&path.to_string_lossy(), &read(path)?).map_err(failed(path))?;
    }
    let file = File::open(export).map_err(|source| AuditError::Read { path: export.to_owned(), source })?;
    let report = verifier.verify(BufReader::with_capacity(1 << 20, file)).map_err(failed(export))?;
    let (verdict, expired_days, findings, more_findings) = match &report.verdict {
        Found::Intact => ("intact", Vec::new(), Vec::new(), 0),
        Found::Expired(days) => ("expired", days.iter().map(ToString::to_string).collect(), Vec::new(), 0),
        Found::Damaged(days) => ("damaged", days.iter().map(ToString::to_string).collect(), Vec::new(), 0),
        Found::Tampered { findings, more } => ("tampered", Vec::new(), findings.iter().map(ToString::to_string).collect(), *more),
    };
    let judged = match report.verdict {
        Found::Tampered { .. } => Verdict::Tampered,
        Found::Damaged(_) => Verdict::Damaged,
        Found::Intact | Found::Expired(_) => Verdict::Good,
    };
    let damaged = |entry: &DamagedEntry| DamagedView { sequence: entry.sequence, leaf_is_lost: entry.loss == Loss::Entry };
    let view = ReportView {
        verdict,
        coverage: CoverageView::of(origin, &report),
        damaged: report.damaged.iter().map(damaged).collect(),
        damaged_count: report.damaged_count,
        expired_days,
        findings,
        more_findings,
        gaps: report.gaps.len(),
        entries: report.entries,
        bodies: report.bodies,
        heads: report.heads,
        lists: report.lists,
        text: report.to_string(),
    };
    let answer = Answer::new(format, &view, |view| {
        let ReportView { text, entries, bodies, heads, lists, coverage, .. } = view;
        let held = format!("{entries} entries, {bodies} of them readable, held to {heads} signed roots and {lists} root lists");
        format!("{text}\n{held}\n{}", coverage.line())
    })?;
    Ok(answer.with(judged))
}

/// The log that the first checkpoint names. The name is not trusted: the checkpoint is verified later, and the export has to continue it.
fn log_of(checkpoints: &[PathBuf]) -> Result<Origin, AuditError> {
    let path = checkpoints.first().ok_or(AuditError::NoLog)?;
    let text = read(path)?;
    let line = text.split(|byte| *byte == b'\n').next().and_then(|line| std::str::from_utf8(line).ok());
    line.and_then(|line| line.parse().ok()).ok_or_else(|| AuditError::NotACheckpoint { path: path.clone() })
}

fn read(path: &Path) -> Result<Vec<u8>, AuditError> {
    std::fs::read(path).map_err(|source| AuditError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tsujiban_history::export::{Footer, Header, Opened, entry_line};
    use tsujiban_history::leaf::Opening;
    use tsujiban_history::merkle::leaf_hash;
    use tsujiban_history::{Checkpoint, DayKeyId, Leaf, SigningKey, TreeHead};

    const LOG: &str = "audit.tsujiban.dev/trial/00112233445566778899aabbccddeeff";

    fn signer() -> SigningKey {
        SigningKey::from_seed(&[7; 32]).unwrap()
    }

    fn key() -> VerifierKey {
        signer().verifier("audit.tsujiban.dev/trial".parse().unwrap())
    }

    /// An export of one entry.
    fn export(body: &[u8]) -> Vec<u8> {
        let opening = Opening::from_bytes([3; 32]);
        let leaf = Leaf::entry(0, DayKeyId::from_bytes([1; 16]), opening.commit(b"{}"));
        let head = TreeHead { size: 1, root: leaf_hash(&leaf.encode()) };
        let origin: Origin = LOG.parse().unwrap();
        let mut text = Header::new(&origin, &key().for_origin(LOG).unwrap(), 1, 0..1, Vec::new()).line();
        entry_line(&mut text, 0, &leaf.encode(), Some(Opened { opening, body }));
        let checkpoint = Checkpoint::new(&origin, head).sign(&signer()).unwrap();
        text.extend(Footer { right: Vec::new(), checkpoint }.line());
        text
    }

    fn judged(body: &[u8], format: Format) -> Answer {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("acme.jsonl");
        std::fs::write(&path, export(body)).unwrap();
        let evidence = Evidence { export: &path, log: LOG.parse().ok(), key: key(), checkpoints: &[], lists: &[] };
        verify(evidence, "2026-11-26T00:00:00Z".parse().unwrap(), format).unwrap()
    }

    #[test]
    fn what_nobody_touched_is_intact() {
        let answer = judged(b"{}", Format::Table);
        assert!(answer.text.starts_with("intact\n1 entries, 1 of them readable"), "{}", answer.text);
        assert_eq!(answer.verdict.exit_code(), 0);
    }

    #[test]
    fn what_an_export_covers_is_said_in_words_and_for_programs() {
        let head = |size| Some(TreeHead { size, root: tsujiban_history::Hash::EMPTY });
        let report = |first, end, size| {
            let verdict = Found::Intact;
            let times = Some(("2026-11-26T09:00:00.000000+09:00".parse().unwrap(), "2026-11-27T09:00:00.000000+09:00".parse().unwrap()));
            let (entries, bodies, heads, unconnected, lists, damaged_count) = (end - first, 0, 0, 0, 0, 0);
            let (gaps, damaged) = (Vec::new(), Vec::new());
            Report {
                verdict,
                head: head(size),
                first,
                end,
                entries,
                bodies,
                heads,
                unconnected,
                lists,
                gaps,
                damaged,
                damaged_count,
                times,
            }
        };
        let line = |first, end, size| CoverageView::of("L".to_owned(), &report(first, end, size)).line();
        let done = ", done from 2026-11-26T09:00:00.000000+09:00 to 2026-11-27T09:00:00.000000+09:00\n";
        assert_eq!(line(0, 20, 429), format!("PART of log L: entries 0 to 19, 20 of 429{done}"));
        assert_eq!(line(0, 429, 429), format!("All of log L: 429 entries{done}"));
        assert_eq!(line(5, 5, 429), "PART of log L: none of its 429 entries\n");
        assert_eq!(CoverageView::of("L".to_owned(), &Report { head: None, ..report(0, 20, 429) }).line(), "");
        let json: serde_json::Value = serde_json::from_str(&judged(b"{}", Format::Json).text).unwrap();
        assert_eq!(
            json["coverage"],
            serde_json::json!({ "log": LOG, "first": 0, "end": 1, "of": 1, "isPart": false, "from": null, "to": null })
        );
    }

    #[test]
    fn another_body_is_found_and_shows_in_the_exit_code() {
        let answer = judged(b"{ }", Format::Table);
        assert_eq!(answer.verdict.exit_code(), 5);
        assert!(answer.text.starts_with("TAMPERED") && answer.text.contains("entry 0"), "{}", answer.text);
        let json: serde_json::Value = serde_json::from_str(&judged(b"{ }", Format::Json).text).unwrap();
        assert_eq!(json["verdict"], "tampered");
        assert!(json["findings"][0].as_str().unwrap().contains("body"), "{json}");
    }

    #[test]
    fn a_file_that_is_not_there_says_which() {
        let export = Path::new("/nowhere/acme.jsonl");
        let evidence = Evidence { export, log: LOG.parse().ok(), key: key(), checkpoints: &[], lists: &[] };
        let error = verify(evidence, Timestamp::UNIX_EPOCH, Format::Table).unwrap_err();
        assert!(error.to_string().contains("/nowhere/acme.jsonl"));
    }

    #[test]
    fn the_log_is_that_of_a_checkpoint_and_of_nothing_that_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let (path, checkpoint, other) = (folder.path().join("acme.jsonl"), folder.path().join("acme.checkpoint"), folder.path().join("x"));
        std::fs::write(&path, export(b"{}")).unwrap();
        let head = TreeHead { size: 0, root: tsujiban_history::Hash::EMPTY };
        std::fs::write(&checkpoint, Checkpoint::new(&LOG, head).sign(&signer()).unwrap()).unwrap();
        std::fs::write(&other, "not a checkpoint").unwrap();
        let judge = |checkpoints: &[PathBuf]| {
            verify(Evidence { export: &path, log: None, key: key(), checkpoints, lists: &[] }, Timestamp::UNIX_EPOCH, Format::Table)
        };
        assert!(judge(&[checkpoint]).unwrap().text.starts_with("intact"));
        assert!(judge(&[other]).unwrap_err().to_string().contains("is no checkpoint"));
        assert!(judge(&[]).unwrap_err().to_string().contains("--log"));
    }
}
