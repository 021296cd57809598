//! The services of an installation, one row each, and who calls them. Code that lists services, or treats one differently, reads these rows.
//! The chart and the scripts read charts/tsujiban/services.yaml, which `make generate` writes from them.

use std::fmt;

/// The port on which services answer gRPC over TLS.
pub const GRPC_PORT: u16 = 8443;

/// A program of ours that calls services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Workload {
    /// For all groups.
    Operator,
    /// A group's collector, for its own group.
    Collector,
    /// A service that calls another one, for all groups.
    Service(Service),
}

/// What the rest of the system has to know of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// One word in small letters. It names the chart's values, the label `app.kubernetes.io/component`, the image and the metrics.
    pub name: &'static str,
    /// The name of its Service, StatefulSet and ServiceAccount in the system namespace.
    pub host: &'static str,
    /// The audience of tokens for it, and the API group of its virtual resources.
    pub audience: &'static str,
    /// The Secret with its serving certificate, which the operator makes.
    pub tls_secret: &'static str,
    /// The reason of a condition while the service is unavailable.
    pub unavailable: &'static str,
    /// The workloads that may reach it, besides those that record their operations in it if it holds the history. The contracts say what
    /// each may call.
    callers: &'static [Workload],
    /// What conditions say in an installation without it; `None`: every installation has it.
    pub absence: Option<Absence>,
    /// When it erases a group's data: with the other services, or after them.
    pub ends: Ends,
    /// The file of its SQLite database on its volume.
    pub database: &'static str,
    pub history: History,
    /// The port to which the chart's edge may lead from outside the cluster.
    pub public_port: Option<u16>,
    /// The condition of Tenants that says whether it can write.
    pub can_write: CanWrite,
    /// The groups of its methods: custom roles grant functions, and the operation history names them.
    pub functions: &'static [Function],
}

/// A function of a service, and what people call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Function {
    /// As the contracts name it.
    pub name: &'static str,
    pub english: &'static str,
    pub japanese: &'static str,
}

const fn function(name: &'static str, english: &'static str, japanese: &'static str) -> Function {
    Function { name, english, japanese }
}

/// An installation without a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Absence {
    /// The reason of the service's condition, and its message.
    pub reason: &'static str,
    pub message: &'static str,
    /// The chart's value that leaves it out.
    pub value: &'static str,
}

/// When a service erases a group's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    WithTheGroup,
    /// After the other services, since it records their erasures.
    Last,
}

/// Where a service records the operations on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    /// In itself: it holds the operation history.
    Holds,
    /// In the service that holds the history, through a spool on its own volume.
    Spools,
}

/// The condition of Tenants by which a service says that it can write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CanWrite {
    pub condition: &'static str,
    /// While it can.
    pub reason: &'static str,
    pub message: &'static str,
}

/// Makes the enum from the rows. The names follow from the variant and its word.
macro_rules! services {
    ($($(#[$doc:meta])* $variant:ident $name:literal { $($field:ident: $value:expr),+ $(,)? })+) => {
        /// A service of ours that holds groups' data, in the order in which they are called: the first one creates a group's incarnation.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Service {
            $($(#[$doc])* $variant,)+
        }

        impl Service {
            /// All of them, in the order in which they are called.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            pub const fn row(self) -> &'static Row {
                match self {
                    $(Self::$variant => const { &Row {
                        name: $name,
                        host: concat!("tsujiban-", $name),
                        audience: concat!($name, ".tsujiban.dev"),
                        tls_secret: concat!("tsujiban-", $name, "-tls"),
                        unavailable: concat!(stringify!($variant), "Unavailable"),
                        $($field: $value),+
                    } },)+
                }
            }
        }
    };
}

services! {
    /// Snapshots of devices' configs (C23).
    Backup "backup" {
        callers: &[Workload::Operator, Workload::Collector],
        absence: None,
        ends: Ends::WithTheGroup,
        database: "catalogue.db",
        history: History::Spools,
        public_port: Some(GRPC_PORT),
        can_write: CanWrite { condition: "BackupsStored", reason: "Stored", message: "the backup service stores what is sent to it" },
        functions: &[
            function("attempts", "Outcomes of backups", "バックアップの結果"),
            function("catalogue", "Catalogue of snapshots", "スナップショットの目録"),
            function("groups", "Groups", "グループ"),
            function("hostkeys", "Host keys of devices", "装置のホスト鍵"),
            function("snapshots", "Snapshots of device configs", "装置コンフィグのスナップショット"),
        ],
    }
    /// The operation history (C5).
    Audit "audit" {
        callers: &[Workload::Operator],
        absence: Some(Absence { reason: "NoHistory", message: "there is no operation history", value: "audit.enabled" }),
        ends: Ends::Last,
        database: "history.db",
        history: History::Holds,
        public_port: None,
        can_write: CanWrite {
            condition: "HistoryRecorded",
            reason: "Recorded",
            message: "the audit service takes what is done into the operation history",
        },
        functions: &[function("history", "Operation history", "操作履歴")],
    }
}

impl Service {
    /// The service that is called first. It creates the incarnations of groups, and staff erase groups there.
    pub const FIRST: Self = Self::Backup;

    pub const fn has_spool(self) -> bool {
        matches!(self.row().history, History::Spools)
    }

    /// The workloads that may reach it.
    pub fn callers(self) -> Vec<Workload> {
        let spools = Self::ALL.iter().copied().filter(|other| self.row().history == History::Holds && other.has_spool());
        self.row().callers.iter().copied().chain(spools.map(Workload::Service)).collect()
    }

    /// The service of a name, such as `backup`.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|service| service.row().name == name)
    }

    /// The service of a ServiceAccount in the system namespace, such as `tsujiban-backup`.
    pub fn of_host(host: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|service| service.row().host == host)
    }
}

/// `backup service`
impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} service", self.row().name)
    }
}

impl Workload {
    /// One word: `operator`, `collector`, or the service's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Collector => "collector",
            Self::Service(service) => service.row().name,
        }
    }

    /// The workload of a name, such as `operator` or `backup`.
    pub fn of_name(name: &str) -> Option<Self> {
        [Self::Operator, Self::Collector].into_iter().find(|workload| workload.name() == name).or(Service::of_name(name).map(Self::Service))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_from_the_word() {
        let row = Service::Backup.row();
        assert_eq!((row.host, row.audience, row.tls_secret), ("tsujiban-backup", "backup.tsujiban.dev", "tsujiban-backup-tls"));
        assert_eq!((row.unavailable, Service::Audit.to_string().as_str()), ("BackupUnavailable", "audit service"));
        let row = Service::Audit.row();
        assert_eq!((row.host, row.audience, row.tls_secret), ("tsujiban-audit", "audit.tsujiban.dev", "tsujiban-audit-tls"));
        assert_eq!(row.unavailable, "AuditUnavailable");
    }

    #[test]
    fn names_are_found_again_and_are_words() {
        for service in Service::ALL.iter().copied() {
            let row = service.row();
            assert_eq!((Service::of_name(row.name), Service::of_host(row.host)), (Some(service), Some(service)));
            assert_eq!(Workload::of_name(row.name), Some(Workload::Service(service)));
            assert!(!row.name.is_empty() && row.name.bytes().all(|byte| byte.is_ascii_lowercase()), "{}", row.name);
            assert!(!["operator", "collector"].contains(&row.name), "{} is no service", row.name);
            assert!(!service.callers().contains(&Workload::Service(service)), "{service} calls itself");
        }
        assert_eq!(Workload::of_name("operator"), Some(Workload::Operator));
        assert_eq!((Service::of_name("x"), Service::of_host("backup"), Workload::of_name("")), (None, None, None));
    }

    /// Each other service writes its operations to the one that holds the history.
    #[test]
    fn one_service_holds_the_history_and_all_others_reach_it() {
        let (holders, others): (Vec<_>, Vec<_>) = Service::ALL.iter().copied().partition(|service| !service.has_spool());
        let [holder] = holders.as_slice() else { panic!("{holders:?}") };
        assert!(others.into_iter().all(|service| holder.callers().contains(&Workload::Service(service))));
    }

    /// Whoever mints incarnations has to be there, and whoever tells of the end of the others is asked after them.
    #[test]
    fn the_first_is_always_there_and_the_last_ends_last() {
        assert_eq!((Service::FIRST, Service::FIRST.row().absence), (Service::ALL[0], None));
        let last = Service::ALL.iter().skip_while(|service| service.row().ends == Ends::WithTheGroup);
        assert!(last.copied().all(|service| service.row().ends == Ends::Last));
    }
}
