//! The admission policies and their bindings: as the chart has them, and as they are live. Pure.

use kube::core::{ApiResource, GroupVersionKind};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A policy or a binding as the chart has it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wanted {
    api_version: String,
    kind: String,
    pub name: String,
    pub spec: Value,
}

impl Wanted {
    /// From the chart's ConfigMap.
    pub fn parse(text: &str) -> Result<Vec<Self>, serde_json::Error> {
        serde_json::from_str(text)
    }

    pub fn is(&self, kind: &str, name: &str) -> bool {
        self.kind == kind && self.name == name
    }

    pub fn resource(&self) -> ApiResource {
        let (group, version) = self.api_version.split_once('/').unwrap_or(("", &self.api_version));
        ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &self.kind))
    }

    /// What is wrong with the live one, if anything.
    pub fn fault(&self, live: Option<&Value>) -> Option<Fault> {
        let wrong = match live {
            None => Wrong::Missing,
            Some(live) if !is_same(&self.spec, live) => Wrong::Changed,
            Some(_) => return None,
        };
        Some(Fault { object: format!("{} {}", self.kind, self.name), wrong })
    }
}

/// A policy or a binding that is not as the chart has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fault {
    /// Kind and name.
    pub object: String,
    pub wrong: Wrong,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Wrong {
    Missing,
    Changed,
}

/// The apiserver's defaults for fields that the chart does not set.
const DEFAULTS: [(&str, &str); 4] =
    [("matchPolicy", "Equivalent"), ("scope", "*"), ("failurePolicy", "Fail"), ("reinvocationPolicy", "Never")];

/// Whether a live spec is the wanted one. It may have the apiserver's defaults in addition, and nothing else: one more match condition can
/// switch a policy off.
fn is_same(wanted: &Value, live: &Value) -> bool {
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => {
            let has_all = wanted.iter().all(|(key, value)| live.get(key).map_or(is_empty(value), |found| is_same(value, found)));
            let is_default =
                |key: &str, value: &Value| is_empty(value) || DEFAULTS.iter().any(|(name, text)| key == *name && value == text);
            has_all && live.iter().all(|(key, value)| wanted.contains_key(key) || is_default(key, value))
        }
        (Value::Array(wanted), Value::Array(live)) => {
            wanted.len() == live.len() && wanted.iter().zip(live).all(|(wanted, live)| is_same(wanted, live))
        }
        _ => wanted == live,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wanted() -> Wanted {
        let text = json!([{"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "name": "tsujiban-keys", "spec": {
            "failurePolicy": "Fail", "matchConstraints": {"resourceRules": [{"apiGroups": [""], "resources": ["secrets"]}]},
            "validations": [{"expression": "false"}],
        }}]);
        Wanted::parse(&text.to_string()).unwrap().remove(0)
    }

    fn live() -> Value {
        json!({
            "failurePolicy": "Fail", "validations": [{"expression": "false"}],
            "matchConstraints": {"matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {},
                "resourceRules": [{"apiGroups": [""], "resources": ["secrets"], "scope": "*"}]},
        })
    }

    #[test]
    fn a_policy_with_the_apiservers_defaults_is_as_the_chart_has_it() {
        assert_eq!(wanted().fault(Some(&live())), None);
        assert_eq!(wanted().resource().plural, "validatingadmissionpolicies");
    }

    #[test]
    fn what_is_gone_or_weaker_shows() {
        let wrong = |live: Option<&Value>| wanted().fault(live).map(|fault| (fault.object, fault.wrong));
        assert_eq!(wrong(None), Some(("ValidatingAdmissionPolicy tsujiban-keys".to_owned(), Wrong::Missing)));
        let weaker: [fn(&mut Value); 6] = [
            |spec| spec["failurePolicy"] = json!("Ignore"),
            |spec| spec["validations"][0]["expression"] = json!("true"),
            |spec| spec["validations"] = json!([]),
            |spec| spec["matchConditions"] = json!([{"name": "never", "expression": "false"}]),
            |spec| spec["matchConstraints"]["namespaceSelector"] = json!({"matchLabels": {"a": "b"}}),
            |spec| spec["matchConstraints"]["resourceRules"][0]["scope"] = json!("Cluster"),
        ];
        for change in weaker {
            let mut changed = live();
            change(&mut changed);
            assert_eq!(wrong(Some(&changed)).map(|(_, wrong)| wrong), Some(Wrong::Changed), "{changed}");
        }
    }
}
