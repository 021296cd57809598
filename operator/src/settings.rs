//! The operator's settings, from arguments and environment variables.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Parser;
use ipnet::IpNet;
use tsujiban_api::names;
use tsujiban_core::address::{Forbidden, network};
use tsujiban_core::id::EnvironmentName;
use tsujiban_core::workload::{GRPC_PORT, Service};
use tsujiban_service::telemetry::TelemetryArgs;

/// Turns Tenants and Devices into isolated namespaces whose routers are backed up.
#[derive(Debug, Clone, Parser)]
#[command(version)]
pub struct Settings {
    /// The system namespace: where the operator and the services run.
    #[arg(long, env = "TSUJIBAN_SYSTEM_NAMESPACE", default_value = names::SYSTEM_NAMESPACE)]
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

    /// The services that are installed, such as backup,audit. Each answers at https://tsujiban-NAME.<namespace>.svc:8443 unless another address
    /// is given: NAME=URL. Without audit there is no operation history, and nothing of what people declare is recorded (C5 is not kept).
    #[arg(long = "services", env = "TSUJIBAN_SERVICES", value_delimiter = ',', required = true)]
    pub services: Vec<Installed>,

    /// The projected ServiceAccount tokens, one for each service: <folder>/NAME/token. Read again for each call.
    #[arg(long, env = "TSUJIBAN_TOKEN_DIR", default_value = "/var/run/secrets/tsujiban.dev")]
    pub token_dir: PathBuf,

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

/// A service that is installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    pub service: Service,
    /// Where it answers, if not at its usual address.
    pub endpoint: Option<String>,
}

impl FromStr for Installed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (name, endpoint) = text.split_once('=').map_or((text, None), |(name, endpoint)| (name, Some(endpoint.to_owned())));
        let is_secure = |url: &String| url.starts_with("https://") || url.starts_with("http://127.0.0.1:");
        if endpoint.as_ref().is_some_and(|url| !url.is_empty() && !is_secure(url)) {
            return Err(format!("{name} is called with a token, so over TLS alone (C22): use {name}=https://HOST:PORT"));
        }
        if endpoint.as_ref().is_some_and(String::is_empty) {
            return Err(format!("{name}= has no address; use {name} for the usual one, or {name}=URL"));
        }
        let service = Service::of_name(name).ok_or_else(|| {
            let known: Vec<_> = Service::ALL.iter().map(|service| service.row().name).collect();
            format!("{name:?} is no service; use NAME or NAME=URL, where NAME is one of {}", known.join(", "))
        })?;
        Ok(Self { service, endpoint })
    }
}

/// Services that no installation can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidServices {
    #[error("--services lacks {}, which every installation has; add it", .0.row().name)]
    Lacks(Service),
    #[error("--services has {} twice; name each once", .0.row().name)]
    Twice(Service),
}

impl Settings {
    /// Checks what a single value of --services does not show.
    pub fn check_services(&self) -> Result<(), InvalidServices> {
        for service in Service::ALL.iter().copied() {
            let times = self.services.iter().filter(|installed| installed.service == service).count();
            if times == 0 && service.row().absence.is_none() {
                return Err(InvalidServices::Lacks(service));
            }
            if times > 1 {
                return Err(InvalidServices::Twice(service));
            }
        }
        Ok(())
    }

    pub fn is_installed(&self, service: Service) -> bool {
        self.services.iter().any(|installed| installed.service == service)
    }

    /// Where a service answers.
    pub fn endpoint(&self, installed: &Installed) -> String {
        installed.endpoint.clone().unwrap_or_else(|| self.usual(installed.service.row().host))
    }

    /// Where a service answers, or would if it were installed.
    pub fn endpoint_of(&self, service: Service) -> String {
        let installed = self.services.iter().find(|installed| installed.service == service);
        installed.map_or_else(|| self.usual(service.row().host), |installed| self.endpoint(installed))
    }

    /// The address at which a service's pods answer whether they are ready or not, for reports. `None` if an address was given: reports use
    /// that one, where a pod that is not ready cannot say why.
    pub fn report_endpoint(&self, installed: &Installed) -> Option<String> {
        installed.endpoint.is_none().then(|| self.usual(&names::direct(installed.service.row().host)))
    }

    pub fn token_file(&self, service: Service) -> PathBuf {
        self.token_dir.join(service.row().name).join("token")
    }

    fn usual(&self, host: &str) -> String {
        format!("https://{host}.{}.svc:{GRPC_PORT}", self.namespace)
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
            "--services=backup",
        ]);
        assert_eq!(settings.forbidden_cidrs.len(), 2);
        assert!(settings.is_installed(Service::Backup) && !settings.is_installed(Service::Audit));
        assert_eq!(settings.endpoint_of(Service::Backup), "https://tsujiban-backup.tsujiban-system.svc:8443");
    }

    #[test]
    fn services_are_a_comma_list_of_names_or_addresses() {
        let parse = |services: &str| {
            Settings::try_parse_from(["operator", "--environment=trial", "--collector-image=c:1", &format!("--services={services}")])
        };
        let settings = parse("backup,audit=http://127.0.0.1:1").unwrap();
        let [backup, audit] = settings.services.as_slice() else { panic!("{:?}", settings.services) };
        assert_eq!(settings.endpoint(audit), "http://127.0.0.1:1");
        assert_eq!(settings.report_endpoint(audit), None, "it is asked where it was said to answer");
        assert_eq!(settings.report_endpoint(backup).as_deref(), Some("https://tsujiban-backup-direct.tsujiban-system.svc:8443"));
        assert_eq!(settings.token_file(Service::Audit), PathBuf::from("/var/run/secrets/tsujiban.dev/audit/token"));
        let names: Vec<_> = Service::ALL.iter().map(|service| service.row().name).collect();
        assert!(parse("backup,ledger").unwrap_err().to_string().contains(&format!("one of {}", names.join(", "))));
    }

    #[test]
    fn an_installation_has_each_service_once_and_those_that_it_must_have() {
        let check = |services: &str| {
            let words = ["operator", "--environment=trial", "--collector-image=c:1", &format!("--services={services}")];
            Settings::try_parse_from(words).map_err(|error| error.to_string())?.check_services().map_err(|error| error.to_string())
        };
        assert_eq!(check("backup,audit"), Ok(()));
        assert!(check("audit").unwrap_err().contains("lacks backup"));
        assert!(check("backup,audit,backup").unwrap_err().contains("backup twice"));
        assert!(check("backup=").unwrap_err().contains("no address"));
        assert!(check("backup=http://tsujiban-backup:8443").unwrap_err().contains("over TLS alone"));
        assert_eq!(check("backup, audit"), Ok(()));
    }

    #[test]
    fn a_range_that_is_none_is_refused() {
        let refused =
            Settings::try_parse_from(["operator", "--environment", "trial", "--collector-image", "c:1", "--forbidden-cidrs", "pods"]);
        assert!(refused.unwrap_err().to_string().contains("is not a network"));
    }
}
