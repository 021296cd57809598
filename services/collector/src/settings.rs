//! What the operator writes into the CronJob, read from flags and environment.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use clap::builder::{StringValueParser, TypedValueParser};
use ipnet::IpNet;
use tsujiban_core::address::{DeviceNetworks, Forbidden, Refused, network};
use tsujiban_core::id::GroupId;

use crate::plan::Limits;

/// Fetches the configs of a group's devices over SSH and hands them to the backup service.
#[derive(Debug, Clone, Parser)]
#[command(name = "tsujiban-collector", version)]
pub struct Settings {
    /// The group whose devices are backed up.
    #[arg(long, env = "TSUJIBAN_GROUP")]
    pub group: GroupId,
    /// The group's namespace.
    #[arg(long, env = "TSUJIBAN_NAMESPACE")]
    pub namespace: String,
    /// The backup service, such as https://tsujiban-backup.tsujiban-system.svc:8443.
    #[arg(long, env = "TSUJIBAN_BACKUP_ENDPOINT", value_parser = secure)]
    pub backup_endpoint: String,
    /// The certificates of the internal CA.
    #[arg(long, env = "TSUJIBAN_CA_FILE", default_value = "/etc/tsujiban/ca/ca.crt")]
    pub ca_file: PathBuf,
    /// The token for the backup service; read again for each call, since it is rotated.
    #[arg(long, env = "TSUJIBAN_TOKEN_FILE", default_value = "/var/run/secrets/tsujiban.dev/backup/token")]
    pub token_file: PathBuf,
    /// How many devices are talked to at the same time.
    #[arg(long, env = "TSUJIBAN_MAX_CONCURRENT", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub max_concurrent: u16,
    /// What remains of the backup window, in seconds. The Job is stopped at its end.
    #[arg(long, env = "TSUJIBAN_WINDOW_SECONDS", value_parser = clap::value_parser!(u64).range(30..))]
    pub window_seconds: u64,
    /// Ranges of the cluster in which no device stands, separated by commas.
    #[arg(long, env = "TSUJIBAN_FORBIDDEN_CIDRS", default_value = "", value_parser = Networks::parse)]
    pub forbidden_cidrs: Networks,
    /// The group's device networks, separated by commas.
    #[arg(long, env = "TSUJIBAN_DEVICE_CIDRS", value_parser = Networks::parse)]
    pub device_cidrs: Networks,
    /// The ports on which the group's devices are managed, separated by commas.
    #[arg(long, env = "TSUJIBAN_DEVICE_PORTS", value_delimiter = ',', default_value = "22")]
    pub device_ports: Vec<u16>,
    /// "true": do not wait for a place in the window. Anything else, such as a missing annotation, waits.
    #[arg(long, env = "TSUJIBAN_IMMEDIATE", default_value = "", action = clap::ArgAction::Set, value_parser = StringValueParser::new().map(|text| text == "true"))]
    pub immediate: bool,
    /// How long one device may take, in seconds.
    #[arg(long, env = "TSUJIBAN_DEVICE_TIMEOUT_SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub device_timeout_seconds: u64,
    /// How long a device may be silent, in seconds.
    #[arg(long, env = "TSUJIBAN_IDLE_TIMEOUT_SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub idle_timeout_seconds: u64,
    /// Where Kubernetes picks up the summary.
    #[arg(long, env = "TSUJIBAN_TERMINATION_LOG", default_value = "/dev/termination-log")]
    pub termination_log: PathBuf,
    /// error, warn, info, debug or trace; of this program alone, never of the libraries that carry tokens and keys.
    #[arg(long, env = "TSUJIBAN_LOG_LEVEL", default_value = "info")]
    pub log_level: tracing::Level,
}

impl Settings {
    /// Where the group's devices may be reached.
    pub fn networks(&self) -> DeviceNetworks {
        DeviceNetworks {
            forbidden: Forbidden::new(self.forbidden_cidrs.0.iter().copied()),
            declared: self.device_cidrs.0.clone(),
            ports: self.device_ports.clone(),
        }
    }

    pub fn limits(&self) -> Limits {
        Limits {
            window: Duration::from_secs(self.window_seconds),
            immediate: self.immediate,
            max_concurrent: usize::from(self.max_concurrent),
            device: Duration::from_secs(self.device_timeout_seconds),
            idle: Duration::from_secs(self.idle_timeout_seconds),
        }
    }
}

/// Networks separated by commas; none for an empty text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    fn parse(text: &str) -> Result<Self, Refused> {
        text.split(',').map(str::trim).filter(|net| !net.is_empty()).map(network).collect::<Result<_, _>>().map(Self)
    }
}

/// The token is a bearer token: it is never sent unencrypted.
fn secure(endpoint: &str) -> Result<String, &'static str> {
    if endpoint.starts_with("https://") {
        Ok(endpoint.to_owned())
    } else {
        Err("the endpoint must start with https://, since a token is sent to it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(more: &[&str]) -> Result<Settings, clap::Error> {
        let given = [
            "collector",
            "--group",
            "acme",
            "--namespace",
            "tn-acme",
            "--window-seconds",
            "1800",
            "--device-cidrs",
            "172.20.1.0/24, 2001:db8::/64",
        ];
        Settings::try_parse_from(given.iter().chain(more))
    }

    #[test]
    fn lists_and_words() {
        let settings =
            read(&["--backup-endpoint", "https://backup:8443", "--forbidden-cidrs", "", "--immediate", "", "--device-ports", "22,2222"])
                .unwrap();
        let networks = settings.networks();
        assert_eq!((networks.declared.len(), networks.ports.as_slice()), (2, &[22, 2222][..]));
        assert!(!settings.immediate);
        assert!(read(&["--backup-endpoint", "https://backup:8443", "--immediate", "true"]).unwrap().immediate);
    }

    /// C22: what is sent is encrypted.
    #[test]
    fn an_endpoint_without_tls_is_refused() {
        assert!(read(&["--backup-endpoint", "http://backup:8443"]).unwrap_err().to_string().contains("https://"));
    }
}
