//! The status of a Site. Pure, save for the one write.

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use tsujiban_api::site::condition::READY;
use tsujiban_api::{Recorded, Site, SiteStatus, names};

use super::HistoryScope;
use crate::apply::{ApplyError, failed};
use crate::condition::{Conditions, Verdict};

/// The status that follows from the one before and from what is recorded.
pub fn status(site: &Site, scope: &HistoryScope, recorded: Option<Recorded>, now: Timestamp) -> SiteStatus {
    let previous = site.status.clone().unwrap_or_default();
    let generation = site.metadata.generation;
    let mut conditions = Conditions::from_previous(&previous.conditions, generation, now);
    conditions.set(READY, &ready(site, scope, recorded.as_ref()));
    SiteStatus { observed_generation: generation, conditions: conditions.into_list(), recorded }
}

fn ready(site: &Site, scope: &HistoryScope, recorded: Option<&Recorded>) -> Verdict {
    match scope {
        HistoryScope::Outside => Verdict::fails(
            "NamespaceOfNoGroup",
            format!(
                "namespace {} belongs to no group: declare the Site in the namespace tn-<group> of its Tenant",
                site.namespace().unwrap_or_default()
            ),
        ),
        HistoryScope::Unrecorded => Verdict::holds("Declared", "the site is declared; there is no operation history to record it in"),
        HistoryScope::Recorded(_) if site.metadata.deletion_timestamp.is_some() => Verdict::fails(
            "NotRecorded",
            "the deletion is not in the operation history yet: the site goes as soon as the audit service has taken it",
        ),
        HistoryScope::Recorded(_) if recorded.map(|recorded| recorded.generation) == site.metadata.generation => {
            Verdict::holds("Recorded", "the newest spec is in the operation history")
        }
        HistoryScope::Recorded(_) => Verdict::fails(
            "NotRecorded",
            "the newest spec is not in the operation history yet: it is recorded as soon as the audit service takes it",
        ),
    }
}

/// Writes the status when it differs from the cached one. The uid makes the write fail if the Site was recreated under its name.
pub async fn write(api: &Api<Site>, site: &Site, status: &SiteStatus) -> Result<bool, ApplyError> {
    if site.status.as_ref() == Some(status) {
        return Ok(false);
    }
    let name = site.name_any();
    let patch = json!({ "apiVersion": Site::api_version(&()), "kind": Site::kind(&()), "metadata": { "name": name, "uid": site.uid() }, "status": status });
    let parameters = PatchParams::apply(names::FIELD_MANAGER).force();
    let patched = api.patch_status(&name, &parameters, &Patch::Apply(patch)).await;
    patched.map_err(failed::<Site>("write the status of", site.namespace().as_deref(), &name))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(generation: i64, is_deleted: bool) -> Site {
        let deleted = is_deleted.then_some("2026-01-02T00:00:00Z");
        serde_json::from_value(json!({
            "apiVersion": "tsujiban.dev/v1alpha1", "kind": "Site", "spec": {"displayName": "a"},
            "metadata": {"name": "hq", "namespace": "tn-acme", "generation": generation, "deletionTimestamp": deleted},
        }))
        .unwrap()
    }

    #[test]
    fn what_ready_says() {
        let here = HistoryScope::Recorded("acme".parse().unwrap());
        let recorded = |generation| Some(Recorded { generation, digest: "d".into() });
        let table = [
            (here.clone(), site(2, false), recorded(2), "True Recorded"),
            (here.clone(), site(2, false), recorded(1), "False NotRecorded"),
            (here.clone(), site(1, false), None, "False NotRecorded"),
            (here, site(3, true), recorded(2), "False NotRecorded"),
            (HistoryScope::Unrecorded, site(2, false), recorded(1), "True Declared"),
            (HistoryScope::Outside, site(1, false), None, "False NamespaceOfNoGroup"),
        ];
        for (scope, site, recorded, wanted) in table {
            let status = status(&site, &scope, recorded.clone(), Timestamp::UNIX_EPOCH);
            let found: Vec<String> = status.conditions.iter().map(|it| format!("{} {}", it.status, it.reason)).collect();
            assert_eq!((found, status.observed_generation), (vec![wanted.to_owned()], site.metadata.generation));
            assert_eq!(status.recorded, recorded, "{scope:?}");
        }
    }

    #[test]
    fn the_same_again_is_the_same_status() {
        let scope = HistoryScope::Recorded("acme".parse().unwrap());
        let recorded = Some(Recorded { generation: 2, digest: "d".into() });
        let first = status(&site(2, false), &scope, recorded.clone(), Timestamp::UNIX_EPOCH);
        let again = Site { status: Some(first.clone()), ..site(2, false) };
        assert_eq!(status(&again, &scope, recorded, Timestamp::from_second(60).unwrap()), first);
    }
}
