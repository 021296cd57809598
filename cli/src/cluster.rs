//! The cluster, asked with the person's own kubeconfig.

use std::time::Duration;

use kube::client::UpgradeConnectionError;
use kube::config::KubeConfigOptions;
use kube::{Client, Config};
use tokio::time::timeout;

use crate::exit::ExitCode;

/// How long the apiserver has for an answer.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);

/// The right that a request to the apiserver needs, for the message when it is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Right {
    pub verb: &'static str,
    pub resource: &'static str,
    /// Empty: of the whole cluster.
    pub namespace: String,
}

impl Right {
    pub fn new(verb: &'static str, resource: &'static str, namespace: &str) -> Self {
        Self { verb, resource, namespace: namespace.to_owned() }
    }
}

impl std::fmt::Display for Right {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if self.namespace.is_empty() { Ok(()) } else { write!(f, " in namespace {}", self.namespace) }
    }
}

/// Why a person's request to the cluster failed.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("there is no usable kubeconfig; set KUBECONFIG, or name a context of it with --context (kubectl config get-contexts)")]
    Kubeconfig(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the cluster does not know you; log in to it again, and check with: kubectl auth whoami")]
    Unauthorized,
    #[error("you may not {right}; ask an administrator of the cluster for that right")]
    Forbidden { right: Right },
    #[error("the cluster refused to {right}: {message}")]
    Refused { right: Right, message: String },
    #[error("the cluster did not answer within {} s when asked to {right}; check that it is up, and that KUBECONFIG or --context names it", DEADLINE.as_secs())]
    Slow { right: Right },
    #[error("the cluster cannot be reached to {right}; check that it is up, and that KUBECONFIG or --context names it")]
    Unreachable { right: Right, source: Box<kube::Error> },
}

impl ExitCode for ClusterError {}

/// A cluster with Tsujiban in it.
#[derive(Clone)]
pub struct Cluster {
    pub client: Client,
    /// The namespace into which Tsujiban is installed.
    pub system_namespace: String,
}

impl Cluster {
    /// The cluster of a context, or of the current one.
    pub async fn of(context: Option<&str>, system_namespace: &str) -> Result<Self, ClusterError> {
        let mut config = match context {
            Some(context) => {
                let options = KubeConfigOptions { context: Some(context.to_owned()), ..KubeConfigOptions::default() };
                Config::from_kubeconfig(&options).await.map_err(|error| ClusterError::Kubeconfig(Box::new(error)))?
            }
            None => Config::infer().await.map_err(|error| ClusterError::Kubeconfig(Box::new(error)))?,
        };
        config.connect_timeout = Some(CONNECT);
        let client = Client::try_from(config).map_err(|error| ClusterError::Kubeconfig(Box::new(error)))?;
        Ok(Self { client, system_namespace: system_namespace.to_owned() })
    }
}

/// Waits for an answer of the apiserver. An error names the right that was needed.
pub async fn ask<T>(right: Right, asking: impl Future<Output = kube::Result<T>>) -> Result<T, ClusterError> {
    match timeout(DEADLINE, asking).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(explain(right, error)),
        Err(_) => Err(ClusterError::Slow { right }),
    }
}

fn explain(right: Right, error: kube::Error) -> ClusterError {
    // an admission policy that refuses is "forbidden" too, and says why behind these words
    const DENIED: &str = "denied request: ";
    match error {
        kube::Error::Api(status) if status.code == 401 => ClusterError::Unauthorized,
        kube::Error::Api(status) => match status.message.split_once(DENIED) {
            Some((_, message)) => ClusterError::Refused { right, message: message.to_owned() },
            None if status.is_forbidden() && status.message.contains(" cannot ") => ClusterError::Forbidden { right },
            None => ClusterError::Refused { right, message: status.message },
        },
        kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(code)) if code.as_u16() == 403 => {
            ClusterError::Forbidden { right }
        }
        source => ClusterError::Unreachable { right, source: Box::new(source) },
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn explained(code: u16, reason: &str, message: &str) -> String {
        let status = Status::failure(message, reason).with_code(code);
        explain(Right::new("create", "jobs", "tn-acme"), kube::Error::Api(Box::new(status))).to_string()
    }

    #[test]
    fn a_missing_right_is_named() {
        let message =
            r#"jobs.batch is forbidden: User "hanako" cannot create resource "jobs" in API group "batch" in the namespace "tn-acme""#;
        let text = explained(403, "Forbidden", message);
        assert_eq!(text, "you may not create jobs in namespace tn-acme; ask an administrator of the cluster for that right");
        assert!(explained(401, "Unauthorized", "Unauthorized").contains("log in"));
    }

    #[test]
    fn a_policys_own_words_are_passed_on() {
        let message = r#"jobs.batch "x" is forbidden: ValidatingAdmissionPolicy 'tsujiban-jobs' with binding 'tsujiban-jobs' denied request: the group is suspended: set spec.suspended of its Tenant to false first"#;
        let text = explained(403, "Forbidden", message);
        assert_eq!(
            text,
            "the cluster refused to create jobs in namespace tn-acme: the group is suspended: set spec.suspended of its Tenant to false first"
        );
        let quota = "pods \"x\" is forbidden: exceeded quota: tenant";
        assert!(explained(403, "Forbidden", quota).ends_with(quota));
    }
}
