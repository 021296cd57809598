//! Tenant: one group, that is one customer company.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::history::Recorded;

/// A group: one customer company. The name is the immutable group ID, and the group lives in namespace `tn-<name>`.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "tsujiban.dev",
    version = "v1alpha1",
    kind = "Tenant",
    doc = "A group: one customer company.",
    status = "TenantStatus",
    derive = "PartialEq",
    shortname = "tn",
    category = "tsujiban",
    selectable = ".spec.plan",
    printcolumn(name = "Plan", type_ = "string", json_path = ".spec.plan"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Devices", type_ = "integer", json_path = ".status.devices"),
    printcolumn(name = "Fresh", type_ = "string", json_path = r#".status.conditions[?(@.type=="BackupFresh")].status"#),
    printcolumn(name = "Conformant", type_ = "string", json_path = r#".status.conditions[?(@.type=="Conformant")].status"#, priority = 1),
    printcolumn(name = "Recorded", type_ = "string", json_path = r#".status.conditions[?(@.type=="HistoryRecorded")].status"#, priority = 1),
    printcolumn(name = "Stored", type_ = "string", json_path = r#".status.conditions[?(@.type=="BackupsStored")].status"#, priority = 1),
    printcolumn(name = "Intact", type_ = "string", json_path = r#".status.conditions[?(@.type=="StorageIntact")].status"#, priority = 1),
    printcolumn(name = "Backup", type_ = "string", json_path = ".status.schedule", priority = 1),
    printcolumn(name = "Suspended", type_ = "boolean", json_path = ".spec.suspended"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.matches('^[a-z][a-z0-9-]{1,38}[a-z0-9]$')")
        .message("the name is the group ID: use 3 to 40 characters a-z, 0-9 and '-', starting with a letter and ending with a letter or digit")
)]
#[serde(rename_all = "camelCase")]
pub struct TenantSpec {
    /// The company's name as people read it, 1 to 128 characters.
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("self.trim() == self && self != ''").message("displayName must not be empty or begin or end with a space"))]
    pub display_name: String,

    /// What the company pays for. Prime carries the availability objective.
    pub plan: Plan,

    /// Whom to write to.
    pub contact: Contact,

    /// Who manages the group's Sites, Devices and credentials with kubectl.
    #[schemars(length(max = 32))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owners: Vec<Owner>,

    /// Stops backups and closes the network. Nothing is deleted.
    #[serde(default)]
    pub suspended: bool,

    /// Upper bounds of what the group's namespace may use.
    #[serde(default)]
    pub quota: Quota,

    /// Where the group's devices stand.
    pub network: Network,

    /// When the devices' configs are backed up.
    #[serde(default)]
    pub backup: Backup,

    /// What happens to the group's data when this Tenant is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// The plan of a group.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    Free,
    Prime,
}

/// The language of what the group's people read.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    #[default]
    Ja,
    En,
}

/// The administrator of a group.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Contact {
    /// The administrator's name, at most 128 characters.
    #[schemars(length(max = 128))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The administrator's mail address.
    #[schemars(length(min = 3, max = 254))]
    #[x_kube(validation = Rule::new("self.matches('^[^@[:space:]]+@[^@[:space:]]+[.][^@[:space:]]+$')").message("contact.email must be one mail address such as admin@example.co.jp"))]
    pub email: String,
    /// The language of mails to the administrator: ja (default) or en.
    #[serde(default)]
    pub language: Language,
}

/// The kind of a Kubernetes subject.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerKind {
    User,
    Group,
    ServiceAccount,
}

/// A Kubernetes subject that manages the group.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.kind != 'ServiceAccount' || has(self.namespace)").message("an owner of kind ServiceAccount needs its namespace: the same name in another namespace is somebody else"))]
#[x_kube(validation = Rule::new("self.kind == 'ServiceAccount' || !has(self.namespace)").message("only an owner of kind ServiceAccount has a namespace: remove it"))]
#[x_kube(validation = Rule::new("!self.name.startsWith('system:')").message("a system: subject cannot own a group: name a person, a group of your identity provider, or a ServiceAccount"))]
pub struct Owner {
    pub kind: OwnerKind,
    /// The subject's name, 1 to 253 characters.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The ServiceAccount's namespace.
    #[schemars(length(min = 1, max = 63))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Upper bounds of a group's namespace. The defaults carry one collector and a few hundred devices.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!isQuantity(self.cpu) || quantity(self.cpu).isGreaterThan(quantity('0'))").message("quota.cpu must be above 0"))]
#[x_kube(validation = Rule::new("!isQuantity(self.memory) || !quantity(self.memory).isLessThan(quantity('256Mi'))").message("quota.memory must be at least 256Mi, which the collector needs"))]
pub struct Quota {
    /// CPU over all pods, in cores, as a Kubernetes quantity.
    #[schemars(length(min = 1, max = 20))]
    #[x_kube(validation = Rule::new("isQuantity(self)").message("quota.cpu must be a quantity such as 500m or 2"))]
    #[serde(default = "quota_default::cpu")]
    pub cpu: String,
    /// Memory over all pods, as a Kubernetes quantity.
    #[schemars(length(min = 1, max = 20))]
    #[x_kube(validation = Rule::new("isQuantity(self)").message("quota.memory must be a quantity such as 1Gi"))]
    #[serde(default = "quota_default::memory")]
    pub memory: String,
    /// Ephemeral storage over all pods, as a Kubernetes quantity.
    #[schemars(length(min = 1, max = 20))]
    #[x_kube(validation = Rule::new("isQuantity(self)").message("quota.ephemeralStorage must be a quantity such as 1Gi"))]
    #[serde(default = "quota_default::ephemeral_storage")]
    pub ephemeral_storage: String,
    /// Pods, 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    #[serde(default = "quota_default::pods")]
    pub pods: u32,
    /// Secrets, 1 to 20,000: one per device with credentials of its own.
    #[schemars(range(min = 1, max = 20000))]
    #[serde(default = "quota_default::secrets")]
    pub secrets: u32,
    /// ConfigMaps, 2 to 1,000.
    #[schemars(range(min = 2, max = 1000))]
    #[serde(default = "quota_default::configmaps")]
    pub configmaps: u32,
}

impl Default for Quota {
    fn default() -> Self {
        use quota_default as default;
        Self {
            cpu: default::cpu(),
            memory: default::memory(),
            ephemeral_storage: default::ephemeral_storage(),
            pods: default::pods(),
            secrets: default::secrets(),
            configmaps: default::configmaps(),
        }
    }
}

mod quota_default {
    pub(super) fn cpu() -> String {
        "2".into()
    }
    pub(super) fn memory() -> String {
        "1Gi".into()
    }
    pub(super) fn ephemeral_storage() -> String {
        "2Gi".into()
    }
    pub(super) fn pods() -> u32 {
        10
    }
    pub(super) fn secrets() -> u32 {
        1000
    }
    pub(super) fn configmaps() -> u32 {
        10
    }
}

/// Where a group's devices stand.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// The networks of the devices, 1 to 64 of them. They must not touch the cluster's own ranges.
    #[schemars(length(min = 1, max = 64), inner(length(max = 43)))]
    #[x_kube(validation = Rule::new("self.all(c, isCIDR(c))").message("every entry of network.deviceCIDRs must be a network such as 192.0.2.0/24"))]
    #[x_kube(validation = Rule::new("self.all(c, !isCIDR(c) || cidr(c).masked() == cidr(c))").message("an entry of network.deviceCIDRs has bits beyond its prefix: write the network's first address, such as 192.0.2.0/24 for 192.0.2.1/24"))]
    #[x_kube(validation = Rule::new("self.all(c, !isCIDR(c) || cidr(c).prefixLength() >= (cidr(c).ip().family() == 4 ? 8 : 16))").message("an entry of network.deviceCIDRs is too wide: use a prefix of at least /8 (IPv4) or /16 (IPv6)"))]
    #[x_kube(validation = Rule::new("self.all(c, !isCIDR(c) || !(cidr('127.0.0.0/8').containsCIDR(c) || cidr('169.254.0.0/16').containsCIDR(c) || cidr('224.0.0.0/3').containsCIDR(c) || cidr('0.0.0.0/8').containsCIDR(c)))").message("network.deviceCIDRs must not be loopback, link-local, multicast or reserved addresses"))]
    #[serde(rename = "deviceCIDRs")]
    pub device_cidrs: Vec<String>,
    /// The TCP ports on which the devices are managed, at most 16; 22 unless given.
    #[schemars(length(min = 1, max = 16), inner(range(min = 1, max = 65535)))]
    #[serde(default = "ssh_only")]
    pub device_ports: Vec<u16>,
}

fn ssh_only() -> Vec<u16> {
    vec![22]
}

/// When the devices' configs are backed up.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Backup {
    /// The start of the window as five cron fields, such as "0 2 * * *". The group gets a minute of its own inside the window.
    #[schemars(length(min = 9, max = 100))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9*/,-]+( [0-9A-Za-z*/,-]+){4}$')").message("backup.schedule must be five cron fields such as \"0 2 * * *\" (minute, hour, day of month, month, day of week); @daily and time zones inside it are not understood"))]
    #[serde(default = "backup_default::schedule")]
    pub schedule: String,
    /// The IANA time zone of the schedule; Asia/Tokyo unless given.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}$') && self != 'Local'").message("backup.timeZone must be an IANA name such as Asia/Tokyo or UTC"))]
    #[serde(default = "backup_default::time_zone")]
    pub time_zone: String,
    /// How long the window is, 1 to 720 minutes. The backup starts in its first half and is stopped at its end.
    #[schemars(range(min = 1, max = 720))]
    #[serde(default = "backup_default::window_minutes")]
    pub window_minutes: u32,
    /// How many devices are talked to at the same time, 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    #[serde(default = "backup_default::max_concurrent")]
    pub max_concurrent: u32,
}

impl Default for Backup {
    fn default() -> Self {
        use backup_default as default;
        Self {
            schedule: default::schedule(),
            time_zone: default::time_zone(),
            window_minutes: default::window_minutes(),
            max_concurrent: default::max_concurrent(),
        }
    }
}

mod backup_default {
    pub(super) fn schedule() -> String {
        "0 2 * * *".into()
    }
    pub(super) fn time_zone() -> String {
        "Asia/Tokyo".into()
    }
    pub(super) fn window_minutes() -> u32 {
        30
    }
    pub(super) fn max_concurrent() -> u32 {
        20
    }
}

/// What happens to a group's data when its Tenant is deleted.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeletionPolicy {
    /// Namespace, keys and backups stay; a Tenant of the same name finds them again.
    #[default]
    Retain,
    /// Everything of the group is erased.
    Erase,
}

/// What is known about a group.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TenantStatus {
    /// The generation of the spec that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, NamespaceReady, IsolationReady, KeysReady, BackupScheduled, BackupFresh, Conformant, ClockSynchronised, HistoryRecorded,
    /// BackupsStored, StorageIntact, PoliciesInForce.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The group's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The incarnation under which the services keep the group's data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<String>,
    /// The group's own schedule: the plan moved to a minute of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// How many Devices the group has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<i64>,
    /// The newest spec that is in the operation history; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<Recorded>,
}

/// The types of a Tenant's conditions. Besides these, each service has one: `can_write` in its row of [`tsujiban_core::workload::Service`].
pub mod condition {
    pub const READY: &str = "Ready";
    pub const NAMESPACE_READY: &str = "NamespaceReady";
    pub const ISOLATION_READY: &str = "IsolationReady";
    pub const KEYS_READY: &str = "KeysReady";
    pub const BACKUP_SCHEDULED: &str = "BackupScheduled";
    pub const BACKUP_FRESH: &str = "BackupFresh";
    /// No owner may do more than an owner should, and the namespace is closed.
    pub const CONFORMANT: &str = "Conformant";
    /// The clock by which the operation history is written follows a precise source.
    pub const CLOCK_SYNCHRONISED: &str = "ClockSynchronised";
    /// What is stored of the group was read again, and is as it was written.
    pub const STORAGE_INTACT: &str = "StorageIntact";
    /// The chart's admission policies stand as the chart has them.
    pub const POLICIES_IN_FORCE: &str = "PoliciesInForce";
}
