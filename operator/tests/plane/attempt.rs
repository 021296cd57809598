//! Requests that must be refused, for the reason that is meant, and that somebody else would be granted.

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use http::{Method, Request};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use serde_json::{Map, Value, json};
use tokio::task::JoinHandle;

pub const JSON: &str = "application/json";
pub const JSON_PATCH: &str = "application/json-patch+json";
pub const MERGE_PATCH: &str = "application/merge-patch+json";
pub const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";
pub const APPLY: &str = "application/apply-patch+yaml";

/// Who must stop it. A refusal by another one would hide that the first is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// No role grants it.
    Rights,
    /// A ValidatingAdmissionPolicy of ours.
    Policy(&'static str),
    /// One of two of them: which one answers is not said.
    EitherPolicy(&'static str, &'static str),
    /// Kubernetes, where somebody grants what they do not hold.
    Escalation,
    /// Kubernetes itself, or our CRD, with these words. There is no control: nobody may.
    Words(&'static str),
}

/// What the control, who may do everything and whom no policy judges, must get for the same request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Control {
    Success,
    /// An answer that is no refusal: the request cannot come to anything here.
    Answer,
    /// Nothing: another guard stops everybody but who attempts it.
    Nothing,
}

/// One request.
#[derive(Debug, Clone)]
pub struct Attempt {
    what: String,
    method: Method,
    path: String,
    content: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Value,
    stop: Stop,
    control: Control,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    pub code: u16,
    pub body: Value,
    pub text: String,
}

impl Attempt {
    pub fn new(method: Method, path: &str, body: Value, stop: Stop) -> Self {
        let what = format!("{method} {path}");
        Self { what, method, path: path.to_owned(), content: JSON, headers: Vec::new(), body, stop, control: Control::Success }
    }

    pub fn get(path: &str, stop: Stop) -> Self {
        Self::new(Method::GET, path, Value::Null, stop)
    }

    pub fn create(path: &str, body: Value, stop: Stop) -> Self {
        Self::new(Method::POST, path, body, stop)
    }

    pub fn delete(path: &str, body: Value, stop: Stop) -> Self {
        Self::new(Method::DELETE, path, body, stop)
    }

    pub fn patch(content: &'static str, path: &str, body: Value, stop: Stop) -> Self {
        let mut attempt = Self::new(Method::PATCH, path, body, stop);
        attempt.content = content;
        attempt.what = format!("{content} {path}");
        attempt
    }

    /// Adds words by which a person who reads a failure knows which one it is.
    pub fn called(mut self, what: &str) -> Self {
        self.what = format!("{what}: {}", self.what);
        self
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// It cannot come to anything here, since no node runs; but whoever may is not refused.
    pub fn without_effect(mut self) -> Self {
        self.control = Control::Answer;
        self
    }

    /// Everybody but who attempts it is stopped by another guard, so that no control can show that it would work.
    pub fn stopped_for_all_others(mut self) -> Self {
        self.control = Control::Nothing;
        self
    }

    pub async fn send(&self, client: &Client, is_dry: bool) -> Result<Answer> {
        let is_write = self.method != Method::GET;
        let separator = if self.path.contains('?') { '&' } else { '?' };
        let (mut path, mut body) = (self.path.clone(), self.body.clone());
        if is_dry && self.method == Method::DELETE && body.is_object() {
            body["dryRun"] = json!(["All"]); // beside a body, the query does not count
        } else if is_dry && is_write {
            path = format!("{path}{separator}dryRun=All");
        }
        let mut request = Request::builder().method(&self.method).uri(path).header("content-type", self.content);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let response = client.send(request.body(Body::from(body))?).await.with_context(|| self.what.clone())?;
        let code = response.status().as_u16();
        let text = String::from_utf8_lossy(&response.into_body().collect().await?.to_bytes()).into_owned();
        Ok(Answer { code, body: serde_json::from_str(&text).unwrap_or_default(), text })
    }

    fn judge(&self, answer: &Answer) -> Result<()> {
        let Answer { code, text, .. } = answer;
        let denied_by = |name: &str| *code == 403 && text.contains(&format!("ValidatingAdmissionPolicy '{name}'"));
        let is_right = match self.stop {
            Stop::Rights => *code == 403 && text.contains("cannot") && !text.contains("ValidatingAdmissionPolicy"),
            Stop::Policy(name) => denied_by(name),
            Stop::EitherPolicy(one, other) => denied_by(one) || denied_by(other),
            Stop::Escalation => *code == 403 && text.contains("attempting to grant RBAC permissions not currently held"),
            Stop::Words(words) => (400..500).contains(code) && text.contains(words),
        };
        ensure!(is_right, "{}: expected {:?}, answered {code} {text}", self.what, self.stop);
        Ok(())
    }
}

/// Every attempt is refused to `who`, dry and in earnest, while `control` could do it.
pub async fn refused(who: &Client, control: &Client, attempts: &[Attempt]) -> Result<()> {
    ensure!(!attempts.is_empty(), "nothing is attempted");
    let mut wrong = Vec::new();
    for attempt in attempts {
        if !matches!(attempt.stop, Stop::Words(_)) && attempt.control != Control::Nothing {
            let answer = attempt.send(control, true).await?;
            let is_granted = match attempt.control {
                Control::Success => (200..300).contains(&answer.code),
                Control::Answer => ![401, 403].contains(&answer.code),
                Control::Nothing => true,
            };
            if !is_granted {
                wrong.push(format!("{}: the control got {} {}", attempt.what, answer.code, answer.text));
            }
        }
        for is_dry in [true, false] {
            let answer = attempt.send(who, is_dry).await?;
            if let Err(error) = attempt.judge(&answer) {
                wrong.push(format!("{}{error:#}", if is_dry { "(dry run) " } else { "" }));
            }
        }
    }
    ensure!(wrong.is_empty(), "{} of {} attempts: {}", wrong.len(), attempts.len(), wrong.join("\n  "));
    Ok(())
}

/// Whoever may do this does it, as a control.
pub async fn granted(who: &Client, attempt: &Attempt) -> Result<Answer> {
    let answer = attempt.send(who, false).await?;
    ensure!((200..300).contains(&answer.code), "{}: answered {} {}", attempt.what, answer.code, answer.text);
    Ok(answer)
}

pub async fn read(client: &Client, path: &str) -> Result<Value> {
    Ok(granted(client, &Attempt::get(path, Stop::Rights)).await?.body)
}

/// Every way there is of making a change to what is at `path`: replacing it, the kinds of patches, and an apply that pretends to be the
/// operator's. `at` is where it is written to, such as a subresource.
pub fn ways(what: &str, live: &Value, at: &str, change: impl Fn(&mut Value), stop: Stop) -> Result<Vec<Attempt>> {
    let mut wanted = live.clone();
    change(&mut wanted);
    let (merge, operations) = difference(live, &wanted, "");
    ensure!(!operations.is_empty(), "{what} changes nothing");
    let mut applied = without_nulls(&merge);
    // an apply takes away what its manager applied before, and nothing else
    let is_held = live["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|it| it["manager"] == tsujiban_api::names::FIELD_MANAGER && it["operation"] == "Apply" && it["subresource"].is_null());
    let can_apply = !is_empty(&applied) || (is_held && !at.ends_with("/status"));
    for key in ["apiVersion", "kind"] {
        applied[key] = live[key].clone();
    }
    applied["metadata"]["name"] = live["metadata"]["name"].clone();
    let manager = tsujiban_api::names::FIELD_MANAGER;
    let mut attempts = vec![
        Attempt::new(Method::PUT, at, wanted, stop),
        Attempt::patch(JSON_PATCH, at, Value::Array(operations), stop),
        Attempt::patch(MERGE_PATCH, at, merge.clone(), stop),
    ];
    if can_apply {
        attempts.push(Attempt::patch(APPLY, &format!("{at}?fieldManager={manager}&force=true"), applied, stop));
    }
    // our own kinds know no strategic patch, and in one an empty list changes nothing
    if !live["apiVersion"].as_str().context("no apiVersion")?.contains("tsujiban.dev") && !merge.to_string().contains("[]") {
        attempts.push(Attempt::patch(STRATEGIC_PATCH, at, merge, stop));
    }
    Ok(attempts.into_iter().map(|attempt| attempt.called(what)).collect())
}

/// What leads from one object to another: as a merge patch, and as the operations of a JSON patch.
fn difference(from: &Value, to: &Value, at: &str) -> (Value, Vec<Value>) {
    let (mut merge, mut operations) = (Map::new(), Vec::new());
    let (Value::Object(old), Value::Object(new)) = (from, to) else { return (to.clone(), Vec::new()) };
    for (key, value) in new {
        let path = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
        match old.get(key) {
            Some(before) if before == value => {}
            Some(before) if before.is_object() && value.is_object() => {
                let (inner, more) = difference(before, value, &path);
                merge.insert(key.clone(), inner);
                operations.extend(more);
            }
            _ => {
                merge.insert(key.clone(), value.clone());
                operations.push(json!({"op": "add", "path": path, "value": value}));
            }
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        merge.insert(key.clone(), Value::Null);
        operations.push(json!({"op": "remove", "path": format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"))}));
    }
    (Value::Object(merge), operations)
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            fields.iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.clone(), without_nulls(value))).collect()
        }
        other => other.clone(),
    }
}

/// Whether there is nothing in it but empty objects and lists.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// Says of each named attack how it ended, and fails when one came through.
pub struct Attacks {
    failed: Vec<String>,
    count: usize,
}

/// An attack that runs.
pub struct Running(&'static str, JoinHandle<(Result<()>, Duration)>);

/// Starts an attack as a task of its own, so that a panic of one hides no other.
pub fn start(name: &'static str, attack: impl Future<Output = Result<()>> + Send + 'static) -> Running {
    let begun = Instant::now();
    Running(name, tokio::spawn(async move { (attack.await, begun.elapsed()) }))
}

impl Attacks {
    pub fn new() -> Self {
        Self { failed: Vec::new(), count: 0 }
    }

    /// Waits for an attack to end.
    pub async fn note(&mut self, Running(name, task): Running) {
        let (result, took) = task.await.unwrap_or_else(|panic| (Err(anyhow!("panicked: {panic}")), Duration::ZERO));
        self.count += 1;
        let (word, why) = match &result {
            Ok(()) => ("held off", String::new()),
            Err(error) => ("CAME THROUGH", format!(": {error:#}")),
        };
        let line = format!("attack {name} ... {word} in {:.1} s{why}", took.as_secs_f64());
        say(&line);
        if result.is_err() {
            self.failed.push(line);
        }
    }

    pub fn end(self) {
        assert!(self.failed.is_empty(), "{} of {} attacks came through:\n{}", self.failed.len(), self.count, self.failed.join("\n"));
    }
}

/// Past the test harness, which shows what a test prints only when it fails.
fn say(line: &str) {
    let _closed = writeln!(std::io::stderr(), "{line}");
}
