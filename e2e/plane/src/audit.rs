//! The apiserver's audit log of writes: who wrote what, when, and with which result.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde_json::Value;

/// Every write, and nothing else. SubjectAccessReviews and token requests are questions, not writes.
pub(crate) const POLICY: &str = r#"apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
- level: None
  resources:
  - {group: authorization.k8s.io}
  - {group: authentication.k8s.io}
- level: None
  resources:
  - {group: "", resources: [serviceaccounts/token]}
- level: Metadata
  verbs: [create, update, patch, delete, deletecollection]
- level: None
"#;

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// When the apiserver had answered.
    pub at: Timestamp,
    pub user: String,
    /// The client's user agent, which distinguishes two processes of the same user.
    pub agent: String,
    pub verb: String,
    /// As in `/apis/batch/v1/namespaces/tn-acme/cronjobs/backup?fieldManager=x`.
    pub uri: String,
    pub resource: String,
    pub code: i64,
}

/// The audit log of one control plane.
#[derive(Debug, Clone)]
pub struct Audit {
    file: PathBuf,
}

impl Audit {
    pub(crate) fn new(file: &Path) -> Self {
        Self { file: file.to_owned() }
    }

    /// All writes so far, dry runs left out, in the order in which they were answered.
    pub fn writes(&self) -> Result<Vec<Write>> {
        let text = std::fs::read_to_string(&self.file).with_context(|| format!("no audit log in {}", self.file.display()))?;
        let whole = text.rsplit_once('\n').map_or("", |(lines, _)| lines); // the last line may be half written
        let mut writes = Vec::new();
        for line in whole.lines() {
            let event: Value = serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))?;
            let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
            let uri = text("/requestURI");
            if !uri.contains("dryRun=All") {
                writes.push(Write {
                    at: text("/stageTimestamp").parse().with_context(|| format!("no time: {line}"))?,
                    user: text("/user/username"),
                    agent: text("/userAgent"),
                    verb: text("/verb"),
                    resource: text("/objectRef/resource"),
                    code: event.pointer("/responseStatus/code").and_then(Value::as_i64).unwrap_or_default(),
                    uri,
                });
            }
        }
        Ok(writes)
    }

    /// The writes of one user that succeeded.
    pub fn writes_of(&self, user: &str) -> Result<Vec<Write>> {
        Ok(self.writes()?.into_iter().filter(|write| write.user == user && (200..300).contains(&write.code)).collect())
    }
}
