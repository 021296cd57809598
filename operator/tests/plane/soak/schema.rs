//! Makes specs from the openAPI schema of a CRD: each property, enum and bound. What the schema says in CEL alone comes from
//! [`sources`](super::sources), and a rule without a source is an error, so that a new field cannot go untested.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::rng::Rng;
use super::sources::Source;

/// Keywords that are understood here. Any other one, such as `pattern` or a list that is a set, needs work in this file first.
const KNOWN: [&str; 15] = [
    "description",
    "properties",
    "required",
    "type",
    "default",
    "enum",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "items",
    "nullable",
    "x-kubernetes-validations",
];
/// What free text is made of. Neither begins nor ends with a space.
const LETTERS: [&str; 8] = ["a", "Z", "7", "-", "本", "é", "😀", "_"];

/// The spec of one kind.
pub struct Schema {
    pub kind: &'static str,
    root: Value,
    sources: &'static [Source],
}

/// A value that the apiserver must refuse at a path.
pub struct Broken {
    pub path: String,
    /// `None`: the field is missing.
    pub value: Option<Value>,
}

impl Schema {
    pub fn new(kind: &'static str, crd: &Value, sources: &'static [Source]) -> Self {
        let root = crd.pointer("/spec/versions/0/schema/openAPIV3Schema").expect("a schema").clone();
        Self { kind, root, sources }
    }

    fn spec(&self) -> &Value {
        &self.root["properties"]["spec"]
    }

    /// What of the schema cannot be made, and which sources belong to nothing.
    pub fn gaps(&self) -> Vec<String> {
        let (mut gaps, mut paths) = (Vec::new(), BTreeSet::new());
        self.look(self.spec(), "", &mut gaps, &mut paths);
        let stale = self.sources.iter().filter(|source| !paths.contains(source.path));
        gaps.extend(stale.map(|source| format!("{}: a source for {:?}, which the CRD does not have", self.kind, source.path)));
        gaps
    }

    fn look(&self, node: &Value, path: &str, gaps: &mut Vec<String>, paths: &mut BTreeSet<String>) {
        paths.insert(path.to_owned());
        let fields = node.as_object().expect("a schema is an object");
        for key in fields.keys().filter(|key| !KNOWN.contains(&key.as_str())) {
            gaps.push(format!("{} {path}: keyword {key} is not understood", self.kind));
        }
        let rules = fields.get("x-kubernetes-validations").and_then(Value::as_array).map_or(0, Vec::len);
        let known = self.source(path).map_or(0, |source| source.rules);
        if rules != known {
            gaps.push(format!("{} {path}: {rules} rules in CEL, and the sources know {known}", self.kind));
        }
        for (name, child) in properties(node) {
            self.look(child, &join(path, name), gaps, paths);
        }
        if let Some(items) = fields.get("items") {
            self.look(items, &format!("{path}[]"), gaps, paths);
        }
    }

    fn source(&self, path: &str) -> Option<&'static Source> {
        self.sources.iter().find(|source| source.path == path)
    }

    /// A spec that the apiserver and the operator take.
    pub fn value(&self, rng: &mut Rng) -> Value {
        self.make(rng, self.spec(), "")
    }

    /// Another value for one of the first-level properties of a spec.
    pub fn change(&self, rng: &mut Rng, spec: &mut Value) {
        let names: Vec<&String> = properties(self.spec()).map(|(name, _)| name).collect();
        let name = *rng.pick(&names);
        if self.is_required(name) || rng.percent(80) {
            spec[name] = self.make(rng, &self.spec()["properties"][name], name);
        } else {
            spec.as_object_mut().unwrap().remove(name);
        }
    }

    fn is_required(&self, name: &str) -> bool {
        self.spec()["required"].as_array().into_iter().flatten().any(|required| required == name)
    }

    fn make(&self, rng: &mut Rng, node: &Value, path: &str) -> Value {
        if let Some(valid) = self.source(path).and_then(|source| source.valid) {
            return valid(rng);
        }
        if let Some(choices) = node["enum"].as_array() {
            return rng.pick(choices).clone();
        }
        match node["type"].as_str() {
            Some("object") => self.object(rng, node, path),
            Some("array") => {
                let mut count = bound(rng, node, "minItems", "maxItems");
                if rng.percent(75) {
                    count = count.min(3); // long lists say little more, and take long to read
                }
                (0..count).map(|_| self.make(rng, &node["items"], &format!("{path}[]"))).collect()
            }
            Some("string") => json!(text(bound(rng, node, "minLength", "maxLength"), rng)),
            Some("integer") => json!(bound(rng, node, "minimum", "maximum")),
            Some("boolean") => json!(rng.percent(50)),
            other => panic!("{} {path}: type {other:?} is not understood", self.kind),
        }
    }

    fn object(&self, rng: &mut Rng, node: &Value, path: &str) -> Value {
        let mut fields = Map::new();
        for (name, child) in properties(node) {
            let is_required = node["required"].as_array().into_iter().flatten().any(|required| required == name);
            if !is_required && rng.percent(40) {
                continue;
            }
            let is_null = child["nullable"] == true && rng.percent(10);
            fields.insert(name.clone(), if is_null { Value::Null } else { self.make(rng, child, &join(path, name)) });
        }
        Value::Object(fields)
    }

    /// Everything that the apiserver must refuse: each bound crossed, each type and enum missed, each required field left out, and
    /// what the sources know of rules in CEL and of policies.
    pub fn broken(&self) -> Vec<Broken> {
        let mut found = Vec::new();
        self.break_all(self.spec(), "", &mut found);
        for source in self.sources {
            found.extend((source.refused)().into_iter().map(|value| Broken { path: source.path.to_owned(), value: Some(value) }));
        }
        found
    }

    fn break_all(&self, node: &Value, path: &str, found: &mut Vec<Broken>) {
        let mut say = |value: Value| found.push(Broken { path: path.to_owned(), value: Some(value) });
        let at = |key: &str| limit(node, key);
        match node["type"].as_str() {
            Some("object") => say(json!("no object")),
            Some("array") => {
                say(json!({"no": "list"}));
                let item = json!(self.make(&mut Rng::new(0, "item", 0), &node["items"], &format!("{path}[]")));
                if let Some(most) = at("maxItems") {
                    say(json!(vec![&item; most + 1]));
                }
                if at("minItems").is_some_and(|least| least > 0) {
                    say(json!([]));
                }
            }
            Some("string") => {
                say(json!(7));
                if let Some(most) = at("maxLength") {
                    say(json!("x".repeat(most + 1)));
                }
                if let Some(less) = at("minLength").and_then(|least| least.checked_sub(1)) {
                    say(json!("x".repeat(less)));
                }
                if node.get("enum").is_some() {
                    say(json!("Nonsense"));
                }
            }
            Some("integer") => {
                say(json!("7"));
                if let Some(most) = at("maximum") {
                    say(json!(most + 1));
                }
                if let Some(less) = at("minimum").and_then(|least| least.checked_sub(1)) {
                    say(json!(less));
                }
                say(json!(1.5));
            }
            _ => say(json!("no truth")),
        }
        for name in node["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            found.push(Broken { path: join(path, name), value: None });
        }
        for (name, child) in properties(node) {
            self.break_all(child, &join(path, name), found);
        }
        if let Some(items) = node.get("items") {
            self.break_all(items, &format!("{path}[]"), found);
        }
    }

    /// The messages of all rules in CEL below the spec.
    pub fn messages(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        messages(self.spec(), &mut found);
        found
    }

    /// A spec in which everything is right, save for one thing.
    pub fn spoil(&self, spec: &Value, broken: &Broken) -> Value {
        let mut spoilt = spec.clone();
        let steps: Vec<&str> = broken.path.split('.').filter(|step| !step.is_empty()).collect();
        self.set(&mut spoilt, self.spec(), "", &steps, broken.value.as_ref());
        spoilt
    }

    /// Whether a field would be missing where nothing else is and null is allowed: the apiserver takes that for null.
    pub fn is_void(&self, spec: &Value, broken: &Broken) -> bool {
        let Some((parent, _)) = broken.path.rsplit_once('.').filter(|_| broken.value.is_none()) else { return false };
        let mut steps = parent.split('.');
        let found = steps.try_fold((self.spec(), spec), |(node, value), step| Some((node["properties"].get(step)?, value.get(step)?)));
        found.is_some_and(|(node, value)| node["nullable"] == true && value.as_object().is_none_or(|fields| fields.len() < 2))
    }

    fn set(&self, into: &mut Value, node: &Value, path: &str, steps: &[&str], value: Option<&Value>) {
        let Some((step, rest)) = steps.split_first() else {
            into.clone_from(value.expect("only a field can be missing"));
            return;
        };
        let (name, is_item) = step.strip_suffix("[]").map_or((*step, false), |name| (name, true));
        let (path, child) = (join(path, name), &node["properties"][name]);
        let fields = into.as_object_mut().expect("an object");
        if rest.is_empty() && !is_item && value.is_none() {
            fields.remove(name);
            return;
        }
        let mut rng = Rng::new(0, "parents", 0);
        if fields.get(name).is_none_or(Value::is_null) {
            fields.insert(name.to_owned(), self.make(&mut rng, child, &path));
        }
        let field = fields.get_mut(name).unwrap();
        if is_item {
            let item = format!("{path}[]");
            *field = json!([self.make(&mut rng, &child["items"], &item)]);
            self.set(&mut field[0], &child["items"], &item, rest, value);
        } else {
            self.set(field, child, &path, rest, value);
        }
    }
}

fn properties(node: &Value) -> impl Iterator<Item = (&String, &Value)> {
    node.get("properties").and_then(Value::as_object).into_iter().flatten()
}

fn messages(node: &Value, found: &mut BTreeSet<String>) {
    let rules = node["x-kubernetes-validations"].as_array().into_iter().flatten();
    found.extend(rules.filter_map(|rule| rule["message"].as_str()).map(str::to_owned));
    properties(node).for_each(|(_, child)| messages(child, found));
    node.get("items").into_iter().for_each(|items| messages(items, found));
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn limit(node: &Value, key: &str) -> Option<usize> {
    let number = node.get(key)?;
    let whole = number.as_u64().or_else(|| number.as_f64().map(|float| format!("{float:.0}").parse().unwrap()))?;
    usize::try_from(whole).ok()
}

/// One of: the least, the most, their neighbours, the default, anything between.
fn bound(rng: &mut Rng, node: &Value, least: &str, most: &str) -> usize {
    let least = limit(node, least).unwrap_or(0);
    let most = limit(node, most).unwrap_or(least + 40);
    match rng.between(0, 5) {
        0 => least,
        1 => most,
        2 => (least + 1).min(most),
        3 => limit(node, "default").unwrap_or(least).clamp(least, most),
        _ => rng.between(least, most.min(least + 1000)),
    }
}

/// Text of so many characters. The apiserver counts characters, not bytes. What is long is of one letter, so that it can be read.
pub fn text(length: usize, rng: &mut Rng) -> String {
    if length > 12 {
        return rng.pick(&LETTERS).repeat(length);
    }
    (0..length).map(|at| if at > 0 && at + 1 < length && rng.percent(10) { " " } else { *rng.pick(&LETTERS) }).collect()
}
