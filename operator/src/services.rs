//! The services that hold customer data. The operator makes, keeps and ends a group in all of them.

use std::fmt;

use tsujiban_api::names;

use crate::service_client::ServiceClient;

/// A service that holds customer data, in the order in which they are asked: the first one mints a group's incarnation, and the history,
/// which tells of what happened in the others, ends last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    Backup,
    Audit,
}

impl Service {
    pub const ALL: [Self; 2] = [Self::Backup, Self::Audit];

    /// A word for programs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Audit => "audit",
        }
    }

    /// Whether it keeps a group's data until everything else of the group has gone: the history tells of that, too.
    pub const fn ends_last(self) -> bool {
        matches!(self, Self::Audit)
    }

    /// The name under which it is reached in the system namespace.
    pub const fn host(self) -> &'static str {
        match self {
            Self::Backup => names::BACKUP,
            Self::Audit => names::AUDIT,
        }
    }

    /// The Secret with its serving certificate.
    pub const fn tls_secret(self) -> &'static str {
        match self {
            Self::Backup => names::SECRET_BACKUP_TLS,
            Self::Audit => names::SECRET_AUDIT_TLS,
        }
    }

    /// The reason of a condition that waits for it.
    pub const fn unavailable(self) -> &'static str {
        match self {
            Self::Backup => "BackupUnavailable",
            Self::Audit => "AuditUnavailable",
        }
    }
}

/// `backup service`
impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} service", self.as_str())
    }
}

/// The services of an installation, as they are called.
#[derive(Debug)]
pub struct Services {
    pub backup: ServiceClient,
    /// `None`: there is no operation history.
    pub audit: Option<ServiceClient>,
}

impl Services {
    /// All of them, in the order in which they are asked.
    pub fn all(&self) -> impl Iterator<Item = &ServiceClient> {
        std::iter::once(&self.backup).chain(&self.audit)
    }

    pub fn names(&self) -> Vec<Service> {
        self.all().map(|client| client.service).collect()
    }
}
