//! What the operator is told when it starts.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use ipnet::IpNet;
use tsujiban_api::names;
use tsujiban_core::address::{Forbidden, network};
use tsujiban_core::id::EnvironmentName;
use tsujiban_service::telemetry::TelemetryArgs;

/// Turns Tenants and Devices into isolated namespaces whose routers are backed up.
#[derive(Debug, Clone, Parser)]
#[command(version)]
pub struct Settings {
    /// The system namespace: where the operator and the services run.
    #[arg(long, env = "TSUJIBAN_NAMESPACE", default_value = names::SYSTEM_NAMESPACE)]
    pub namespace: String,

    /// The environment, such as production or staging.
    #[arg(long, env = "TSUJIBAN_ENVIRONMENT")]
    pub environment: EnvironmentName,

    /// The image of the collector.
    #[arg(long, env = "TSUJIBAN_COLLECTOR_IMAGE")]
    pub collector_image: String,

    /// The cluster's own ranges (pods, services, nodes), which no group may declare as a device network.
    #[arg(long, env = "TSUJIBAN_FORBIDDEN_CIDRS", value_delimiter = ',', value_parser = range)]
    pub forbidden_cidrs: Vec<IpNet>,

    /// Where the backup service answers; https://tsujiban-backup.<namespace>.svc:8443 unless given.
    #[arg(long, env = "TSUJIBAN_BACKUP_ENDPOINT")]
    pub backup_endpoint: Option<String>,

    /// Where the backup service's pods answer whether they are ready or not, such as https://tsujiban-backup-direct.<namespace>.svc:8443: there
    /// they are asked for reports. Unless given, at the other endpoint, where one that is not ready cannot say why.
    #[arg(long, env = "TSUJIBAN_BACKUP_REPORT_ENDPOINT")]
    pub backup_report_endpoint: Option<String>,

    /// The projected ServiceAccount token for the backup service. Read again for each call.
    #[arg(long, env = "TSUJIBAN_BACKUP_TOKEN_FILE", default_value = "/var/run/secrets/tsujiban.dev/backup/token")]
    pub backup_token_file: PathBuf,

    /// Where the audit service answers, such as https://tsujiban-audit.tsujiban-system.svc:8443. Empty: there is no operation history, and
    /// nothing of what people declare is recorded (C5 is not kept).
    #[arg(long, env = "TSUJIBAN_AUDIT_ENDPOINT", default_value = "")]
    pub audit_endpoint: String,

    /// The same as --backup-report-endpoint, of the audit service.
    #[arg(long, env = "TSUJIBAN_AUDIT_REPORT_ENDPOINT")]
    pub audit_report_endpoint: Option<String>,

    /// The projected ServiceAccount token for the audit service. Read again for each call.
    #[arg(long, env = "TSUJIBAN_AUDIT_TOKEN_FILE", default_value = "/var/run/secrets/tsujiban.dev/audit/token")]
    pub audit_token_file: PathBuf,

    /// The apiserver writes down who changed a Tenant, Site or Device (MutatingAdmissionPolicy tsujiban-changed-by). Without it that annotation
    /// may be anybody's, and nobody is believed who stands there.
    #[arg(long, env = "TSUJIBAN_CHANGES_ARE_STAMPED")]
    pub changes_are_stamped: bool,

    /// Where /metrics, /livez and /readyz are served.
    #[arg(long, env = "TSUJIBAN_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,

    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

impl Settings {
    pub fn backup_endpoint(&self) -> String {
        self.backup_endpoint.clone().unwrap_or_else(|| format!("https://{}.{}.svc:{}", names::BACKUP, self.namespace, names::GRPC_PORT))
    }

    /// Where the history is, if there is one.
    pub fn audit_endpoint(&self) -> Option<String> {
        Some(self.audit_endpoint.clone()).filter(|endpoint| !endpoint.is_empty())
    }

    /// The ranges that no group may declare.
    pub fn forbidden(&self) -> Forbidden {
        Forbidden::new(self.forbidden_cidrs.iter().copied())
    }
}

fn range(text: &str) -> Result<IpNet, String> {
    network(text).map_err(|refused| refused.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_a_comma_list() {
        let settings = Settings::parse_from([
            "operator",
            "--environment",
            "trial",
            "--collector-image",
            "c:1",
            "--forbidden-cidrs",
            "10.1.0.0/16,10.2.0.0/16",
        ]);
        assert_eq!(settings.forbidden_cidrs.len(), 2);
        assert_eq!(settings.audit_endpoint(), None);
        assert_eq!(settings.backup_endpoint(), "https://tsujiban-backup.tsujiban-system.svc:8443");
    }

    #[test]
    fn a_range_that_is_none_is_refused() {
        let refused =
            Settings::try_parse_from(["operator", "--environment", "trial", "--collector-image", "c:1", "--forbidden-cidrs", "pods"]);
        assert!(refused.unwrap_err().to_string().contains("is not a network"));
    }
}
