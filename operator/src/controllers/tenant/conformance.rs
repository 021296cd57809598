//! Condition Conformant: no owner may do more than an owner should, and the namespace is closed. Computed without the right to
//! impersonate anybody: from SubjectAccessReviews of each owner, and from the live objects that a reconcile reads anyway.

mod ask;
mod bindings;

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;
use tsujiban_api::{Tenant, names};
use tsujiban_conformance::live::owner_key;
use tsujiban_conformance::{Asked, Depth, Evidence, Live, OwnerAnswers, ScopeNames, Subject, Summary, Wanted, catalogue, judge_all};

use super::context::TenantContext;
use super::validate::ValidTenant;
use crate::cache::Cache;
use crate::condition::Verdict;
use crate::fingerprint::fingerprint;
use crate::state::conformance::Deviation;

pub use bindings::follow;

/// The condition now, or `None` when the owners' rights were never checked and it is not this group's turn yet.
pub async fn evaluate(context: &TenantContext, tenant: &ValidTenant, generation: Option<i64>, live: &Live) -> Option<Verdict> {
    let group = tenant.id.group.as_str();
    let subjects: Vec<Subject> = tenant.owners.iter().map(Subject::of).collect();
    let scopes = scopes(&context.tenants, &context.platform.system_namespace, tenant);
    let deviations = if subjects.is_empty() {
        Vec::new()
    } else {
        let key = key(&tenant.id.uid, generation, live);
        match ask::deviations(context, group, key, &subjects, &scopes).await {
            Ok(known) => known?,
            Err(error) => {
                tracing::warn!(group, error = tsujiban_core::error::chain(&error), "the rights of owners could not be asked about");
                return Some(Verdict::unknown(
                    "NotAsked",
                    "the apiserver answers no SubjectAccessReview; trying again, and the operator's log says why",
                ));
            }
        }
    };
    let owners = answers(&subjects, &deviations);
    let wanted = wanted(&context.tenants, &context.platform.system_namespace, tenant, live);
    let summary = Summary::of(&judge_all(&Evidence { scopes: &scopes, owners: &owners, live, wanted: &wanted }));
    let failing = context.access_reviews.note(group, summary.conforms());
    context.shared.metrics.not_conformant.set(i64::try_from(failing).unwrap_or(i64::MAX));
    let message = summary.message(group);
    Some(if summary.conforms() { Verdict::holds("Conformant", message) } else { Verdict::fails("NotConformant", message) })
}

/// Whether the rights of some owner may be checked now.
pub fn may_ask(context: &TenantContext) -> bool {
    ask::may_ask(context, context.shared.clock.now())
}

/// A fingerprint of what can change the answers: the UID and spec of the Tenant, and every RoleBinding of the namespace.
fn key(uid: &str, generation: Option<i64>, live: &Live) -> u64 {
    let mut bindings: Vec<_> = live.role_bindings.iter().map(|binding| (binding.uid(), binding.resource_version())).collect();
    bindings.sort();
    fingerprint((uid, generation, bindings))
}

/// The other group, on which the owners must have no rights, is the next one by name, so that every group is checked against some other
/// one.
fn scopes(tenants: &Cache<Tenant>, system_namespace: &str, tenant: &ValidTenant) -> ScopeNames {
    let own = tenant.id.group.as_str();
    let (mut next, mut first): (Option<String>, Option<String>) = (None, None);
    for other in tenants.list() {
        let name = other.name_any();
        if name.as_str() > own && next.as_ref().is_none_or(|next| name < *next) {
            next = Some(name);
        } else if name.as_str() < own && first.as_ref().is_none_or(|first| name < *first) {
            first = Some(name);
        }
    }
    let other = next.or(first).map(|name| format!("tn-{name}"));
    ScopeNames::new(own, &names::namespace(&tenant.id.group), other.as_deref(), system_namespace)
}

/// All answers: those that the catalogue expects, replaced by the deviations.
fn answers(subjects: &[Subject], deviations: &[Deviation]) -> Vec<OwnerAnswers> {
    let expected: BTreeMap<Asked, _> =
        catalogue::accesses(Depth::Core).into_iter().map(|access| (Asked::Access(access), ask::expected(&access))).collect();
    let about = |(index, subject): (usize, &Subject)| {
        let mut answers = expected.clone();
        let own = deviations.iter().filter(|deviation| deviation.owner == index);
        answers.extend(own.map(|deviation| (Asked::Access(deviation.access), deviation.answer.clone())));
        OwnerAnswers { owner: subject.label.clone(), answers, ..OwnerAnswers::default() }
    };
    subjects.iter().enumerate().map(about).collect()
}

fn wanted(tenants: &Cache<Tenant>, system_namespace: &str, tenant: &ValidTenant, live: &Live) -> Wanted {
    let has_foreign = live.role_bindings.iter().any(|binding| !names::ROLE_BINDINGS.contains(&binding.name_any().as_str()));
    // the owners of other groups matter only for foreign bindings
    let others: BTreeSet<String> = if has_foreign {
        let all = tenants.list();
        let others = all.iter().filter(|other| other.name_any() != tenant.id.group.as_str());
        others.flat_map(|other| other.spec.owners.iter().map(owner_key).collect::<Vec<_>>()).collect()
    } else {
        BTreeSet::new()
    };
    Wanted {
        namespace: names::namespace(&tenant.id.group),
        system_namespace: system_namespace.to_owned(),
        owners: tenant.owners.clone(),
        others,
        networks: tenant.networks.declared.clone(),
    }
}
