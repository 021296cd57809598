//! Has every service make the group's keys. The first one makes the incarnation, and the others are given it.

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use tokio::sync::watch;
use tsujiban_api::Tenant;
use tsujiban_api::tenant::condition::KEYS_READY;
use tsujiban_core::id::IncarnationId;
use tsujiban_core::workload::Service;
use tsujiban_proto::lifecycle::v1::GroupState;

use super::apply;
use super::claim::Noted;
use super::context::TenantContext;
use super::status::{conditions, not_applied};
use super::validate::Identity;
use crate::condition::{State, Verdict, find};
use crate::pki::Keys;
use crate::reconcile::{StepFailed, at};
use crate::services::client::{CallError, Prepared, ServiceClient};
use crate::state::reports::Reports;

/// Why the step failed.
#[derive(Debug, thiserror::Error)]
#[error("the group could not be prepared in every service")]
struct NotPrepared(#[source] CallError);

/// Whether a service holds the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    /// It understood the call and refused it, for this reason.
    Refused(String),
    /// It did not answer.
    Away,
    /// It refused because the history cannot record the call.
    NoHistory,
    /// It was not asked: the first service has not answered the incarnation yet.
    NotAsked,
}

impl Readiness {
    fn of(error: &CallError) -> Self {
        if error.lacks_history() { Self::NoHistory } else { error.refusal().map_or(Self::Away, Self::Refused) }
    }
}

/// What the condition says when every one of these services holds the group.
fn prepared(services: &[Service]) -> Verdict {
    let names: Vec<String> = services.iter().map(|service| format!("the {service}")).collect();
    let (names, keep) = (names.join(" and "), if services.len() == 1 { "keeps" } else { "keep" });
    Verdict::holds("Prepared", format!("{names} {keep} the group's data under its incarnation, sealed with its keys"))
}

/// Decides what the condition says. A service that held the group before, and is only unreachable now, does not change the condition: an
/// alert of its own reports that. A service in which the group was never prepared does.
pub fn verdict(answers: &[(Service, Readiness)], before: Option<&Condition>) -> Verdict {
    let services: Vec<Service> = answers.iter().map(|(service, _)| *service).collect();
    let good = prepared(&services);
    let was_good = before.is_some_and(|before| before.status == State::True.as_str() && before.message == good.message);
    let refused = answers.iter().find_map(|(service, answer)| match answer {
        Readiness::Refused(why) => Some((*service, why)),
        Readiness::Ready | Readiness::Away | Readiness::NoHistory | Readiness::NotAsked => None,
    });
    if let Some((service, why)) = refused {
        return Verdict::fails("Refused", format!("the {service} refuses: {why}"));
    }
    match answers.iter().find(|(_, answer)| *answer != Readiness::Ready) {
        Some((service, answer)) if !was_good => {
            let missing = if *answer == Readiness::NoHistory { Service::Audit } else { *service };
            let message = format!("the {missing} does not answer; trying again, and the operator's log says what is wrong");
            Verdict::fails(missing.row().unavailable, message)
        }
        Some(_) | None => good,
    }
}

/// What the step found.
pub struct Preparation {
    /// What condition KeysReady says.
    pub verdict: Verdict,
    /// Under which incarnation the services keep the group's data.
    pub incarnation: Option<IncarnationId>,
    /// The namespace, if it was annotated.
    pub namespace: Option<Namespace>,
    /// What failed. The steps that follow do not depend on it.
    pub failed: Option<StepFailed>,
}

/// Asks the services to prepare the group, and annotates the namespace with where they keep the group's data.
pub async fn prepare(context: &TenantContext, tenant: &Tenant, id: &Identity, noted: Noted, namespace: &Namespace) -> Preparation {
    let keys = context.keys.borrow().clone();
    if let Keys::Missing(loss) = keys {
        let verdict = Verdict::fails(loss.layer.reason(), loss.advice);
        return Preparation { verdict, incarnation: noted.incarnation, namespace: None, failed: None };
    }
    let in_status = tenant.status.as_ref().and_then(|status| status.incarnation.as_ref()).and_then(|text| text.parse().ok());
    // a report may be older than this Tenant: until the Tenant's status names the incarnation, the services are called in any case
    let is_known = in_status.is_some() && in_status == noted.incarnation;
    let mut expected = Noted { incarnation: noted.incarnation.clone().or(in_status), log: noted.log };
    let mut standing = noted.clone();
    let mut answers: Vec<(Service, Readiness)> = Vec::new();
    let (mut failure, mut written) = (None, None);
    for client in context.services.all() {
        let service = client.service;
        // a restored history may not know which group the log belongs to; only this call tells the audit service
        let waits_for_history =
            |first: &Readiness| *first == Readiness::NoHistory && expected.incarnation.is_some() && expected.log.is_some();
        let is_held_up = |first: &Readiness| *first != Readiness::Ready && !waits_for_history(first);
        if failure.is_some() && service != Service::FIRST && answers.first().is_some_and(|(_, first)| is_held_up(first)) {
            answers.push((service, Readiness::NotAsked));
            continue;
        }
        match hold(&context.reports, client, id, &expected, is_known).await {
            Ok(held) => {
                expected = Noted { incarnation: Some(held.incarnation), log: held.log.or(expected.log) };
                if standing != expected {
                    match apply::annotate(&context.shared.client, id, written.as_ref().unwrap_or(namespace), &expected).await {
                        Ok(namespace) => written = Some(namespace),
                        Err(error) => {
                            let verdict = not_applied(&error);
                            let failed = Some(at("annotate")(error));
                            return Preparation { verdict, incarnation: expected.incarnation, namespace: None, failed };
                        }
                    }
                    standing = expected.clone();
                }
                answers.push((service, Readiness::Ready));
            }
            Err(error) => {
                answers.push((service, Readiness::of(&error)));
                failure.get_or_insert(error);
            }
        }
    }
    let is_minted = answers.first().is_some_and(|(_, first)| *first == Readiness::Ready);
    let incarnation = if is_minted { expected.incarnation } else { noted.incarnation };
    let before = find(conditions(tenant), KEYS_READY).filter(|_| incarnation.is_some());
    let failed = failure.map(NotPrepared).map(at("keys"));
    let namespace = written.filter(|_| failed.is_none());
    Preparation { verdict: verdict(&answers, before), incarnation, namespace, failed }
}

/// Makes sure that one service holds the group. Calls it only when its report does not say so, or when it has to answer the log of the
/// group's history.
async fn hold(
    reports: &watch::Receiver<Reports>,
    client: &ServiceClient,
    id: &Identity,
    expected: &Noted,
    is_known: bool,
) -> Result<Prepared, CallError> {
    let is_told = client.service != Service::Audit || expected.log.is_some();
    if let Some(incarnation) = expected.incarnation.as_ref().filter(|_| is_known && is_told)
        && reports.borrow().state(client.service, &id.group, incarnation) == Some(GroupState::Living)
    {
        return Ok(Prepared { incarnation: incarnation.clone(), log: None });
    }
    client.prepare(&id.group, expected.incarnation.as_ref(), expected.log.as_ref()).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::condition::Conditions;
    use jiff::Timestamp;

    fn answers(backup: Readiness, audit: Readiness) -> [(Service, Readiness); 2] {
        [(Service::Backup, backup), (Service::Audit, audit)]
    }

    fn condition(verdict: &Verdict) -> Condition {
        let mut conditions = Conditions::from_previous(&[], Some(1), Timestamp::UNIX_EPOCH);
        conditions.set(KEYS_READY, verdict);
        conditions.into_list().remove(0)
    }

    #[test]
    fn the_condition_names_the_service_that_is_missing() {
        use Readiness::{Away, NoHistory, NotAsked, Ready, Refused};
        let prepared = |backup, audit| {
            let verdict = verdict(&answers(backup, audit), None);
            (verdict.reason, verdict.message.contains("audit service"))
        };
        assert_eq!(prepared(Ready, Ready), ("Prepared".into(), true));
        assert_eq!(prepared(Ready, Away), ("AuditUnavailable".into(), true));
        assert_eq!(prepared(Away, NotAsked), ("BackupUnavailable".into(), false));
        assert_eq!(prepared(NoHistory, NotAsked), ("AuditUnavailable".into(), true), "the backup service waits for it");
        assert_eq!(prepared(Ready, Refused("no".into())), ("Refused".into(), true));
        assert_eq!(prepared(Refused("no".into()), NotAsked), ("Refused".into(), false));
    }

    /// A service that is away for a while makes no Tenant unready; one that never prepared the group does.
    #[test]
    fn what_was_prepared_stays_prepared() {
        use Readiness::{Away, Ready, Refused};
        let both = condition(&verdict(&answers(Ready, Ready), None));
        assert!(verdict(&answers(Ready, Away), Some(&both)).is_true());
        assert!(verdict(&answers(Away, Readiness::NotAsked), Some(&both)).is_true());
        assert!(!verdict(&answers(Ready, Refused("no".into())), Some(&both)).is_true());
        let without_history = condition(&verdict(&[(Service::Backup, Ready)], None));
        assert_eq!(verdict(&answers(Ready, Away), Some(&without_history)).reason, "AuditUnavailable");
        assert!(verdict(&answers(Ready, Ready), Some(&without_history)).is_true());
    }
}
