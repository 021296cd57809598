//! The verdicts, as people and programs read them.

use serde::Serialize;
use tsujiban_conformance::{Judged, Language, OwnerAnswers, Summary, Verdict};
use tsujiban_core::id::GroupId;

use crate::output::{Align, Table, escape_line};

/// All verdicts of one group.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    tenant: String,
    namespace: String,
    /// Who was impersonated.
    owners: Vec<String>,
    conforms: bool,
    checks: Vec<Row>,
    #[serde(skip)]
    summary: Summary,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    id: &'static str,
    title: Titles,
    result: &'static str,
    /// What it holds by, why it fails, why it does not apply.
    note: Option<Note>,
    /// For a check that RBAC denies: what else would refuse.
    also: Option<String>,
}

#[derive(Debug, Serialize)]
struct Titles {
    en: &'static str,
    ja: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Note {
    Text(String),
    Both(Titles),
}

impl Report {
    pub fn new(tenant: &GroupId, namespace: &str, owners: &[OwnerAnswers], judged: &[Judged]) -> Self {
        let summary = Summary::of(judged);
        Self {
            tenant: tenant.to_string(),
            namespace: namespace.to_owned(),
            owners: owners.iter().map(|owner| owner.owner.clone()).collect(),
            conforms: summary.conforms(),
            checks: judged.iter().map(row).collect(),
            summary,
        }
    }

    /// For people.
    pub fn text(&self, language: Language) -> String {
        let headers = match language {
            Language::En => ["CHECK", "RESULT", "WHAT", "NOTE"],
            Language::Ja => ["チェック", "結果", "内容", "備考"],
        };
        let mut table = Table::new(headers.map(|header| (header, Align::Left)));
        for row in &self.checks {
            let title = match language {
                Language::En => row.title.en,
                Language::Ja => row.title.ja,
            };
            table.row([row.id.to_owned(), result(row.result, language).to_owned(), title.to_owned(), note(row, language)]);
        }
        format!("{}\n{}\n", table.render(), escape_line(&self.footer(language)))
    }

    fn footer(&self, language: Language) -> String {
        let Summary { holds, denied_by_rbac, by_rbac_alone, not_applicable, fails } = &self.summary;
        let who = if self.owners.is_empty() { "-".to_owned() } else { self.owners.join(", ") };
        let (fails, not_applicable) = (fails.len(), not_applicable.len());
        let alone = by_rbac_alone.join(", ");
        match language {
            Language::En => {
                let alone = if alone.is_empty() { String::new() } else { format!(" (by RBAC alone: {alone})") };
                format!(
                    "Tried as {who}: {holds} hold, {denied_by_rbac} denied by RBAC{alone}, {not_applicable} not applicable, {fails} fail."
                )
            }
            Language::Ja => {
                let alone = if alone.is_empty() { String::new() } else { format!("(RBAC のみ: {alone})") };
                format!("{who} として試行: 適合 {holds}、RBAC で拒否 {denied_by_rbac}{alone}、対象外 {not_applicable}、不適合 {fails}")
            }
        }
    }
}

fn row(judged: &Judged) -> Row {
    let (result, note, also) = match &judged.verdict {
        Verdict::Holds { by } => ("Holds", Some(Note::Text(by.clone())), None),
        Verdict::DeniedByRbac { also } => ("DeniedByRbac", None, also.map(|guard| guard.to_string())),
        Verdict::Fails { why } => ("Fails", Some(Note::Text(why.clone())), None),
        Verdict::NotApplicable { reason } => ("NotApplicable", Some(Note::Both(Titles { en: reason.en, ja: reason.ja })), None),
    };
    let title = Titles { en: judged.check.title.en, ja: judged.check.title.ja };
    Row { id: judged.check.id, title, result, note, also }
}

fn result(result: &'static str, language: Language) -> &'static str {
    match (result, language) {
        ("Holds", Language::En) => "holds",
        ("Holds", Language::Ja) => "適合",
        ("DeniedByRbac", Language::En) => "denied by RBAC",
        ("DeniedByRbac", Language::Ja) => "RBAC で拒否",
        ("NotApplicable", Language::En) => "not applicable",
        ("NotApplicable", Language::Ja) => "対象外",
        (_, Language::En) => "FAILS",
        (_, Language::Ja) => "不適合",
    }
}

fn note(row: &Row, language: Language) -> String {
    match (&row.note, &row.also, language) {
        (Some(Note::Text(text)), ..) => text.clone(),
        (Some(Note::Both(texts)), _, Language::En) => texts.en.to_owned(),
        (Some(Note::Both(texts)), _, Language::Ja) => texts.ja.to_owned(),
        (None, Some(guard), Language::En) => format!("{guard} would refuse it too"),
        (None, Some(guard), Language::Ja) => format!("{guard} も拒否する"),
        (None, None, Language::En) => "by RBAC alone".to_owned(),
        (None, None, Language::Ja) => "RBAC のみによる".to_owned(),
    }
}
