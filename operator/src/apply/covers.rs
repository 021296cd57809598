//! Whether a live object already holds what is wanted, so that nothing has to be written.

use serde_json::Value;

/// Whether `live` holds everything of `desired`. Fields that `desired` does not name may be anything: the apiserver fills in defaults, and
/// other controllers own fields of their own. Lists must match element by element, so that an added element is noticed.
pub fn covers(desired: &Value, live: &Value) -> bool {
    match (desired, live) {
        (Value::Object(desired), Value::Object(live)) => {
            desired.iter().all(|(key, wanted)| live.get(key).map_or(wanted.is_null(), |found| covers(wanted, found)))
        }
        (Value::Array(desired), Value::Array(live)) => {
            desired.len() == live.len() && desired.iter().zip(live).all(|(wanted, found)| covers(wanted, found))
        }
        _ => desired == live,
    }
}

/// The merge patch that turns `live` into exactly `desired`.
pub fn exactly(desired: &Value, live: &Value) -> Value {
    match (desired, live) {
        (Value::Object(desired), Value::Object(live)) => {
            let wanted =
                desired.iter().map(|(key, wanted)| (key.clone(), live.get(key).map_or(wanted.clone(), |live| exactly(wanted, live))));
            let unwanted = live.keys().filter(|key| !desired.contains_key(*key)).map(|key| (key.clone(), Value::Null));
            Value::Object(wanted.chain(unwanted).collect())
        }
        _ => desired.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_not_desired_is_taken_away() {
        let desired = json!({"podSelector": {}, "egress": [{"to": []}], "policyTypes": ["Egress"]});
        let live = json!({"podSelector": {"matchLabels": {"a": "b"}}, "egress": [{}], "ingress": [{}]});
        let patch = json!({"podSelector": {"matchLabels": null}, "egress": [{"to": []}], "policyTypes": ["Egress"], "ingress": null});
        assert_eq!(exactly(&desired, &live), patch);
    }

    #[test]
    fn defaults_and_foreign_fields_do_not_count() {
        let desired = json!({"spec": {"a": 1, "list": [{"name": "x"}]}});
        assert!(covers(&desired, &json!({"spec": {"a": 1, "list": [{"name": "x", "protocol": "TCP"}], "b": 2}, "status": {}})));
    }

    #[test]
    fn what_differs_shows() {
        let desired = json!({"spec": {"a": 1, "list": [{"name": "x"}]}});
        for live in [
            json!({}),
            json!({"spec": {"a": 2, "list": [{"name": "x"}]}}),
            json!({"spec": {"a": 1, "list": []}}),
            json!({"spec": {"a": 1, "list": [{"name": "x"}, {"name": "added"}]}}),
            json!({"spec": {"a": 1, "list": [{"name": "y"}]}}),
            json!({"spec": {"a": "1", "list": [{"name": "x"}]}}),
        ] {
            assert!(!covers(&desired, &live), "{live}");
        }
    }

    #[test]
    fn an_absent_field_is_null() {
        assert!(covers(&json!({"a": null}), &json!({})));
        assert!(!covers(&json!({"a": null}), &json!({"a": 1})));
    }
}
