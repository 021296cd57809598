//! `tsujiban conformance`: every check of a group, tried as each of its owners.

mod breadth;
mod owner;
mod reading;
mod view;

use std::collections::BTreeSet;

use tsujiban_conformance::catalogue::Basis;
use tsujiban_conformance::{Evidence, Judged, Language, Subject, Text, Verdict as Found, catalogue, judge_all};
use tsujiban_core::id::GroupId;

use self::owner::AsOwner;
use crate::cluster::{Cluster, ClusterError};
use crate::exit::{ExitCode, Verdict};
use crate::failure::Failure;
use crate::output::{Answer, Format};
use crate::progress::Progress;

/// What was not tried, and why.
const NO_SECRET: Text = Text {
    en: "no Device of the group names a Secret that is there, so there was nothing to delete",
    ja: "グループの Device が参照する Secret がまだなく、削除を試せない",
};

/// Why a group could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum ConformanceError {
    #[error("there is no Tenant {0}; look with: kubectl get tenants")]
    NoTenant(GroupId),
    #[error("Tenant {tenant} has no namespace {namespace} yet; look with: kubectl describe tenant {tenant}")]
    NoNamespace { tenant: GroupId, namespace: String },
    #[error(
        "you may not act as {owner}, and nothing can be tried without that. You need the verb impersonate on {right}; ask an administrator of the cluster for it, or see docs/conformance.md"
    )]
    MayNotImpersonate { owner: String, right: String },
    #[error(
        "the apiserver took you for {found} when you acted as {owner}: something between here and there drops the headers Impersonate-User and Impersonate-Group; go to the apiserver directly"
    )]
    NotActingAs { owner: String, found: String },
    #[error("{owner} may not ask for their own rights, which every account may by ClusterRoleBinding system:basic-user; put that back")]
    CannotAsk { owner: String },
    #[error("the apiserver cannot be asked as {owner}: {trouble}; try again")]
    Trouble { owner: String, trouble: String },
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

impl ExitCode for ConformanceError {}

/// Checks a group.
pub async fn check(
    cluster: &Cluster,
    tenant: &GroupId,
    as_groups: &[String],
    language: Language,
    format: Format,
) -> Result<Answer, Failure> {
    let facts = reading::read(cluster, tenant).await?;
    let subjects: Vec<Subject> = facts
        .wanted
        .owners
        .iter()
        .map(|owner| {
            let is_user = owner.kind == tsujiban_api::tenant::OwnerKind::User;
            Subject::of(owner).in_groups(if is_user { as_groups } else { &[] })
        })
        .collect();
    let resources = if subjects.is_empty() { Vec::new() } else { breadth::resources(cluster).await? };
    let mut progress = Progress::on_stderr();
    let mut owners = Vec::with_capacity(subjects.len());
    for subject in &subjects {
        progress.say(&format!("trying what {} may do", subject.label));
        let acting = AsOwner { cluster, subject };
        acting.who_am_i().await?;
        let mut answers = owner::answers(&acting, &facts).await?;
        answers.breadth = breadth::ask(&acting, &resources, &facts.scopes).await?;
        owners.push(answers);
    }
    drop(progress);
    let mut judged = judge_all(&Evidence { scopes: &facts.scopes, owners: &owners, live: &facts.live, wanted: &facts.wanted });
    add_untried(&mut judged);
    let fails = judged.iter().any(|judged| judged.verdict.fails());
    let report = view::Report::new(tenant, &facts.scopes.own, &owners, &judged);
    let answer = Answer::new(format, &report, |report| report.text(language))?;
    Ok(answer.with(if fails { Verdict::NotConformant } else { Verdict::Good }))
}

/// Adds the checks that could not be tried, so that the answer lists every check.
fn add_untried(judged: &mut Vec<Judged>) {
    let there: BTreeSet<&str> = judged.iter().map(|judged| judged.check.id).collect();
    let missing = catalogue::all().filter(|check| !there.contains(check.id) && matches!(check.basis, Basis::Refused(_)));
    let untried: Vec<Judged> = missing.map(|check| Judged { check, verdict: Found::NotApplicable { reason: NO_SECRET } }).collect();
    judged.extend(untried);
    let place = |judged: &Judged| catalogue::all().position(|check| check.id == judged.check.id);
    judged.sort_by_key(place);
}

#[cfg(test)]
mod tests;
