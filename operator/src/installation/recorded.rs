//! What the operator must know of the installation after a restart, stored in ConfigMap `tsujiban-operator`; and the entries of the
//! operation history about policies that were not in force.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{Patch, PatchParams};
use tsujiban_api::names::{CONFIGMAP_OPERATOR, FIELD_MANAGER, LABEL_MANAGED_BY, MANAGED_BY};
use tsujiban_core::error::chain;
use tsujiban_proto::access::v1::Operation as Verb;

use super::Installation;
use super::chart::Chart;
use super::policies::{Fault, Wrong};
use super::stamps::Observation;
use crate::apply::{ApplyError, failed};
use crate::history::{PlatformEvent, PlatformLog};

const STAMPS: &str = "stamps";
const FAULTS: &str = "faults";

/// What has to survive a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// Since when the policy that stamps has been unchanged.
    pub stamps: Observation,
    /// The faults of the policies that the history has recorded last.
    faults: Vec<Fault>,
    /// Since when the observed faults have differed from the recorded ones.
    unrecorded_since: Option<Timestamp>,
}

impl Memory {
    /// Reads what was stored. If it cannot be parsed, no stamp is trusted that is older than the next check.
    pub async fn read(chart: &Chart) -> Result<Self, ApplyError> {
        let namespace = &chart.namespace;
        let api: Api<ConfigMap> = Api::namespaced(chart.client.clone(), namespace);
        let found = api.get_opt(CONFIGMAP_OPERATOR).await.map_err(failed::<ConfigMap>("read", Some(namespace), CONFIGMAP_OPERATOR))?;
        let data = found.and_then(|found| found.data).unwrap_or_default();
        let stamps = data.get(STAMPS).map_or(Observation::Nothing, |text| serde_json::from_str(text).unwrap_or(Observation::Broken));
        let faults = data.get(FAULTS).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        Ok(Self { stamps, faults, unrecorded_since: None })
    }

    async fn write(&self, chart: &Chart) -> Result<(), ApplyError> {
        let namespace = &chart.namespace;
        let encode = |source| ApplyError::Encode { what: format!("ConfigMap {CONFIGMAP_OPERATOR}"), source };
        let data = BTreeMap::from([
            (FAULTS.to_owned(), serde_json::to_string(&self.faults).map_err(encode)?),
            (STAMPS.to_owned(), serde_json::to_string(&self.stamps).map_err(encode)?),
        ]);
        let wanted = ConfigMap {
            metadata: ObjectMeta {
                name: Some(CONFIGMAP_OPERATOR.to_owned()),
                namespace: Some(namespace.clone()),
                labels: Some([(LABEL_MANAGED_BY.to_owned(), MANAGED_BY.to_owned())].into()),
                ..ObjectMeta::default()
            },
            data: Some(data),
            ..ConfigMap::default()
        };
        let api: Api<ConfigMap> = Api::namespaced(chart.client.clone(), namespace);
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let applied = api.patch(CONFIGMAP_OPERATOR, &parameters, &Patch::Apply(&wanted)).await;
        applied.map(|_| ()).map_err(failed::<ConfigMap>("apply", Some(namespace), CONFIGMAP_OPERATOR))
    }

    /// Records changed faults in the history, and stores what has to survive a restart. What fails is tried again after the next check.
    pub async fn settle(&mut self, chart: &Chart, log: &PlatformLog, stamps: Observation, seen: &Installation) {
        let mut next = Self { stamps, ..self.clone() };
        let faults = seen.policies.as_ref().map_or_else(|| next.faults.clone(), |policies| policies.faults.clone());
        if faults == next.faults {
            next.unrecorded_since = None;
        } else {
            let since = *next.unrecorded_since.get_or_insert_with(|| log.clock.now());
            self.unrecorded_since = Some(since);
            match log.record(&event(&next.faults, &faults, since)).await {
                Ok(()) => next = Self { faults, unrecorded_since: None, ..next },
                Err(error) => {
                    tracing::warn!(error = chain(&error), "that policies are not in force, or are again, could not be recorded yet");
                }
            }
        }
        if next.stamps == self.stamps && next.faults == self.faults {
            return;
        }
        match next.write(chart).await {
            Ok(()) => *self = next,
            Err(error) => tracing::warn!(error = chain(&error), "ConfigMap tsujiban-operator could not be written; trying again in 20 s"),
        }
    }
}

/// The entry for policies that are no longer in force, or are in force again.
fn event(before: &[Fault], now: &[Fault], since: Timestamp) -> PlatformEvent {
    let names =
        |wrong: Wrong| now.iter().filter(|fault| fault.wrong == wrong).map(|fault| fault.object.as_str()).collect::<Vec<_>>().join(", ");
    let again = before.iter().filter(|fault| !now.iter().any(|other| other.object == fault.object));
    let again: Vec<_> = again.map(|fault| fault.object.as_str()).collect();
    let detail = [("missing", names(Wrong::Missing)), ("changed", names(Wrong::Changed)), ("inForceAgain", again.join(", "))];
    let detail: BTreeMap<_, _> =
        detail.into_iter().filter(|(_, text)| !text.is_empty()).map(|(key, text)| (key.to_owned(), text)).collect();
    PlatformEvent {
        function: "policies",
        verb: Verb::Operate,
        kind: "ValidatingAdmissionPolicy",
        target: "admission policies".to_owned(),
        seen: since,
        user: None,
        detail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_names_what_is_not_in_force_and_what_is_again() {
        let fault = |object: &str, wrong| Fault { object: object.to_owned(), wrong };
        let before = [fault("A", Wrong::Missing), fault("B", Wrong::Changed)];
        let now = [fault("B", Wrong::Missing), fault("C", Wrong::Changed)];
        let said = event(&before, &now, Timestamp::UNIX_EPOCH).detail;
        let wanted = [("missing", "B"), ("changed", "C"), ("inForceAgain", "A")];
        assert_eq!(said, wanted.map(|(key, text)| (key.to_owned(), text.to_owned())).into());
        assert_eq!(event(&now, &[], Timestamp::UNIX_EPOCH).detail.keys().collect::<Vec<_>>(), ["inForceAgain"]);
    }
}
