//! Device: a managed router or similar.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::history::Recorded;

/// A managed router or similar. What it is, is its serial number; its name may be used again for another device.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "tsujiban.dev",
    version = "v1alpha1",
    kind = "Device",
    doc = "A managed router or similar.",
    namespaced,
    status = "DeviceStatus",
    derive = "PartialEq",
    shortname = "dev",
    category = "tsujiban",
    selectable = ".spec.serialNumber",
    printcolumn(name = "Site", type_ = "string", json_path = ".spec.siteRef.name"),
    printcolumn(name = "Host", type_ = "string", json_path = ".spec.connection.host"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Last backup", type_ = "date", json_path = ".status.lastBackup.time"),
    printcolumn(name = "Last attempt", type_ = "string", json_path = ".status.lastAttempt.result"),
    printcolumn(name = "Fresh", type_ = "string", json_path = r#".status.conditions[?(@.type=="BackupFresh")].status"#),
    printcolumn(name = "Serial", type_ = "string", json_path = ".spec.serialNumber", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([a-z0-9-]{0,50}[a-z0-9])?$')")
        .message("the name of a Device must be 1 to 52 characters a-z, 0-9 and '-', starting and ending with a letter or digit")
)]
#[serde(rename_all = "camelCase")]
pub struct DeviceSpec {
    /// The Site where the device stands.
    pub site_ref: SiteRef,
    /// The serial number printed on the device: 1 to 64 characters, unique in the cluster, never changed.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9._:-]+$')").message("serialNumber must consist of A-Z, a-z, 0-9, '.', '_', ':' and '-'"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("serialNumber cannot be changed: a device with another serial number is another device; create a new Device and delete this one"))]
    pub serial_number: String,
    /// The family of the device: Frr.
    pub driver: Driver,
    /// How the device is reached.
    pub connection: Connection,
    /// Whether its config is backed up.
    #[serde(default)]
    pub backup: DeviceBackup,
    /// Active (default), Maintenance (expected to be away: not backed up, not reported late) or Retired (not backed up any more).
    #[serde(default)]
    pub lifecycle: Lifecycle,
}

/// A reference to a Site of the same namespace.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
pub struct SiteRef {
    #[schemars(length(min = 1, max = 52))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')").message("siteRef.name must be the name of a Site: a-z, 0-9 and '-', starting and ending with a letter or digit"))]
    pub name: String,
}

/// A reference to a Secret of the same namespace.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
pub struct SecretRef {
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$')").message("credentialsSecretRef.name must be the name of a Secret: a-z, 0-9, '-' and '.', starting and ending with a letter or digit"))]
    pub name: String,
}

/// The family of a device.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    Frr,
}

impl From<Driver> for tsujiban_core::driver::Driver {
    fn from(driver: Driver) -> Self {
        match driver {
            Driver::Frr => Self::Frr,
        }
    }
}

/// The protocol by which a device is managed.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    #[default]
    #[serde(rename = "SSH")]
    Ssh,
}

/// Which algorithms may be spoken.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithms {
    #[default]
    Modern,
    /// Also what old devices need, such as SHA-1 signatures and CBC ciphers. Anybody on the path may then break the session.
    Legacy,
}

/// How a device is reached.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    #[serde(default)]
    pub protocol: Protocol,
    /// The device's address or DNS name, inside the group's network.deviceCIDRs.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("isIP(self) || self.matches('^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?([.][A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$')").message("connection.host must be an IP address or a DNS name, without a port, a user or a scheme"))]
    #[x_kube(validation = Rule::new("!self.matches('^[0-9.]+$') || isIP(self)").message("connection.host looks like an IPv4 address but is none: write four numbers from 0 to 255"))]
    #[x_kube(validation = Rule::new("!isIP(self) || !(ip(self).isLoopback() || ip(self).isLinkLocalUnicast() || ip(self).isUnspecified() || ip(self).isLinkLocalMulticast())").message("connection.host must not be a loopback, link-local, multicast or unspecified address"))]
    pub host: String,
    /// The TCP port, one of the group's network.devicePorts; 22 unless given.
    #[schemars(range(min = 1, max = 65535))]
    #[serde(default = "ssh_port")]
    pub port: u16,
    /// The login name that goes with a generated key pair; `tsujiban` unless given. A referenced Secret brings its own.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9._-]+$')").message("connection.username must consist of A-Z, a-z, 0-9, '.', '_' and '-'"))]
    #[serde(default = "username")]
    pub username: String,
    /// A Secret of type tsujiban.dev/device-credentials in the same namespace. Without it a key pair is generated, and its public half shown in status.publicKey.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<SecretRef>,
    /// The device's SSH host key, as in a known_hosts file without the host: type and base64. A password is only offered to a device whose key is given here; with key authentication the key of the first contact is pinned when none is given.
    #[schemars(length(min = 20, max = 2048))]
    #[x_kube(validation = Rule::new("self.matches('^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)) [A-Za-z0-9+/]+={0,3}$')").message("connection.hostKey must be a key type and base64, such as \"ssh-ed25519 AAAAC3...\", without host name and comment"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_key: Option<String>,
    /// Modern (default) or Legacy.
    #[serde(default)]
    pub algorithms: Algorithms,
}

fn ssh_port() -> u16 {
    22
}

fn username() -> String {
    "tsujiban".into()
}

/// Whether a device's config is backed up.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
pub struct DeviceBackup {
    #[serde(default = "enabled")]
    pub enabled: bool,
}

fn enabled() -> bool {
    true
}

impl Default for DeviceBackup {
    fn default() -> Self {
        Self { enabled: enabled() }
    }
}

/// The phase of a device's life.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lifecycle {
    #[default]
    Active,
    Maintenance,
    Retired,
}

/// What is known about a device.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DeviceStatus {
    /// The generation of the spec that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, CredentialsReady, HostKeyVerified, BackupFresh.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The public half of the generated key pair, to be installed on the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// The model that the device reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The firmware version that the device reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<String>,
    /// The host key that the device showed last, whether trusted or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_host_key: Option<String>,
    /// The newest stored snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_backup: Option<LastBackup>,
    /// How the last attempt ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_attempt: Option<LastAttempt>,
    /// The newest spec that is in the operation history; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<Recorded>,
}

/// The newest stored snapshot of a device.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LastBackup {
    pub snapshot_id: String,
    /// When the config was seen last.
    pub time: Time,
    /// The size of the config in bytes.
    pub bytes: i64,
    /// Whether the last sighting brought a new config.
    pub changed: bool,
    pub complete: bool,
    /// Whether the config is under half as long as the one before, and nobody has confirmed it.
    #[serde(default)]
    pub shrunk: bool,
}

/// The last attempt to back up a device.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LastAttempt {
    pub time: Time,
    /// Changed, Unchanged, or the reason of a failure.
    pub result: String,
    /// What happened, and what to do.
    #[schemars(length(max = 512))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl LastAttempt {
    /// Whether the device's config is stored since: anew, or seen again.
    pub fn has_stored(&self) -> bool {
        matches!(self.result.as_str(), "Changed" | "Unchanged")
    }
}

/// The types of a Device's conditions.
pub mod condition {
    pub const READY: &str = "Ready";
    pub const CREDENTIALS_READY: &str = "CredentialsReady";
    pub const HOST_KEY_VERIFIED: &str = "HostKeyVerified";
    pub const BACKUP_FRESH: &str = "BackupFresh";
}

/// Reasons of conditions that others act upon.
pub mod reason {
    /// Another Device has the serial number already. The collector leaves out Devices that are not ready for this reason.
    pub const SERIAL_CONFLICT: &str = "SerialNumberConflict";
    /// The newest snapshot of the Device is damaged in the storage.
    pub const DAMAGED: &str = "Damaged";
}
