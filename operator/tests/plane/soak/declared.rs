//! What people declare of one group, with stand-ins for what names the group, so that two groups can be declared alike.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};
use tsujiban_api::names::CREDENTIALS_TYPE;
use tsujiban_core::schedule::Plan;

/// Stands for the beginning of the group's serial numbers, which are unique in the cluster.
pub const SERIAL: &str = "<serial>";

/// All of a group, by name.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Declared {
    pub tenant: Value,
    pub sites: BTreeMap<String, Value>,
    /// Which of the two keys a Secret with credentials holds besides the login name.
    pub secrets: BTreeMap<String, &'static str>,
    pub devices: BTreeMap<String, Value>,
}

/// A group under which something is declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    pub serial: String,
}

impl Group {
    /// The group that is made fresh to compare others with.
    pub fn fresh(end: u64) -> Self {
        Self { name: format!("fresh{end:06}"), serial: format!("F{end:06}") }
    }

    /// The group of a sequence. Of all names it has one that is given the same minute of its own, in the end, as the fresh one.
    pub fn of_sequence(number: u64, fresh: &Self, end: &Declared) -> Self {
        let plan = plan(&end.tenant).expect("the last Tenant has a plan");
        let names = (0..).map(|attempt: u64| format!("soak{number:06}-{attempt}"));
        let name = names.take(100_000).find(|name| plan.own(name) == plan.own(&fresh.name)).expect("a name with that minute");
        Self { name, serial: format!("S{number:06}") }
    }

    pub fn namespace(&self) -> String {
        format!("tn-{}", self.name)
    }

    /// Puts this group's own into a spec.
    pub fn own(&self, spec: &Value) -> Value {
        serde_json::from_str(&spec.to_string().replace(SERIAL, &self.serial)).expect("JSON stays JSON")
    }

    pub fn tenant(&self, spec: &Value) -> Value {
        json!({"apiVersion": "tsujiban.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": self.name}, "spec": self.own(spec)})
    }

    pub fn member(&self, kind: &str, name: &str, spec: &Value) -> Value {
        json!({"apiVersion": "tsujiban.dev/v1alpha1", "kind": kind, "metadata": {"name": name, "namespace": self.namespace()}, "spec": self.own(spec)})
    }

    pub fn secret(&self, name: &str, key: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": self.namespace()}, "type": CREDENTIALS_TYPE,
            "data": {"username": "bmV0", key: "bm90IGEgc2VjcmV0"},
        })
    }
}

fn plan(tenant: &Value) -> Option<Plan> {
    let backup = &tenant["backup"];
    let text = |key: &str, default: &'static str| backup[key].as_str().unwrap_or(default).to_owned();
    let window = backup["windowMinutes"].as_u64().unwrap_or(30);
    Plan::new(&text("schedule", "0 2 * * *"), &text("timeZone", "Asia/Tokyo"), u32::try_from(window).ok()?).ok()
}
