//! Who a token belongs to, and what they may do. The apiserver answers this for workloads and staff, and a [`Persons`] for persons.

mod apiserver;
mod cache;
mod persons;

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use tsujiban_api::names;
use tsujiban_core::id::GroupId;
use tsujiban_core::workload::{Service, Workload};
use tsujiban_proto::error::{Kind, ServiceError};

pub use self::apiserver::KubeAuthenticator;
pub use self::persons::{PermissionRequest, Person, Persons, WithPersons};

/// Answers who a token belongs to and what they may do. Every error is a refusal.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// The identity behind a bearer token.
    async fn authenticate(&self, token: &str) -> Result<Identity, ServiceError>;

    /// Whether the identity, which is one of staff, has the verb on the virtual resource `function`.
    async fn allowed(&self, identity: &Identity, function: &str, verb: &str) -> Result<bool, ServiceError>;

    /// Whether the identity, which is a person, may do what they wish in a group. By default, for authenticators without persons: never.
    async fn permitted(&self, _identity: &Identity, _permission: PermissionRequest<'_>) -> Result<bool, ServiceError> {
        Ok(false)
    }
}

/// The owner of a token: their role in Tsujiban, and the user as the apiserver knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub principal: Principal,
    pub user: User,
}

/// A user as the apiserver knows them. All fields go into the SubjectAccessReview of their rights.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    pub username: String,
    pub uid: Option<String>,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

/// The role of a caller in Tsujiban.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    Operator,
    Collector {
        group: GroupId,
    },
    Service(Service),
    Staff {
        name: String,
    },
    /// An account, by its id, and the groups that it is a member of.
    Person {
        account: String,
        groups: BTreeSet<GroupId>,
    },
}

impl Principal {
    /// Reads a user name `system:serviceaccount:<namespace>:<name>`. `None` for a user that is neither a workload of ours nor staff.
    ///
    /// The group in a namespace's name `tn-<group>` is trusted: a policy in the cluster lets only the operator create such namespaces.
    pub fn of(username: &str, system_namespace: &str) -> Option<Self> {
        let mut parts = username.strip_prefix("system:serviceaccount:")?.split(':');
        let (namespace, name) = (parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        if namespace == system_namespace {
            if name == names::OPERATOR {
                return Some(Self::Operator);
            }
            if let Some(service) = Service::of_host(name) {
                return Some(Self::Service(service));
            }
            let name = name.strip_prefix(names::STAFF_PREFIX).filter(|name| !name.is_empty())?;
            return Some(Self::Staff { name: name.to_owned() });
        }
        let group = names::group_of_namespace(namespace).filter(|_| name == names::COLLECTOR)?;
        Some(Self::Collector { group })
    }

    /// Which program of ours it is; `None`: a human being.
    pub const fn workload(&self) -> Option<Workload> {
        match self {
            Self::Operator => Some(Workload::Operator),
            Self::Collector { .. } => Some(Workload::Collector),
            Self::Service(service) => Some(Workload::Service(*service)),
            Self::Staff { .. } | Self::Person { .. } => None,
        }
    }
}

impl Identity {
    /// Classifies a user. Fails with [`Kind::Denied`] for everybody else.
    pub fn of(user: User, system_namespace: &str) -> Result<Self, ServiceError> {
        match Principal::of(&user.username, system_namespace) {
            Some(principal) => Ok(Self { principal, user }),
            None => Err(ServiceError::new(
                Kind::Denied,
                "UNKNOWN_CALLER",
                format!(
                    "{:?} may not call this service; call as a ServiceAccount staff-<name> of namespace {system_namespace}",
                    user.username.chars().take(200).collect::<String>()
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(username: &str) -> Option<Principal> {
        Principal::of(username, "tsujiban-system")
    }

    #[test]
    fn those_who_call() {
        assert_eq!(of("system:serviceaccount:tsujiban-system:tsujiban-operator"), Some(Principal::Operator));
        assert_eq!(of("system:serviceaccount:tsujiban-system:tsujiban-backup"), Some(Principal::Service(Service::Backup)));
        assert_eq!(of("system:serviceaccount:tsujiban-system:tsujiban-audit"), Some(Principal::Service(Service::Audit)));
        assert_eq!(of("system:serviceaccount:tn-acme:collector"), Some(Principal::Collector { group: "acme".parse().unwrap() }));
        assert_eq!(of("system:serviceaccount:tsujiban-system:staff-hanako"), Some(Principal::Staff { name: "hanako".into() }));
    }

    /// C7: nobody becomes a workload of ours or staff by a name that merely looks like one.
    #[test]
    fn nobody_else() {
        for username in [
            "",
            "admin",
            "tsujiban-operator",
            "system:serviceaccount:default:tsujiban-operator",
            "system:serviceaccount:tn-acme:tsujiban-operator",
            "system:serviceaccount:default:tsujiban-backup",
            "system:serviceaccount:tn-acme:tsujiban-audit",
            "system:serviceaccount:tn-acme:staff-hanako",
            "system:serviceaccount:tn-acme:default",
            "system:serviceaccount:tn-acme:collector:x",
            "system:serviceaccount:tn-acme",
            "system:serviceaccount:tn-:collector",
            "system:serviceaccount:tn-A:collector",
            "system:serviceaccount:acme:collector",
            "system:serviceaccount:tsujiban-system:collector",
            "system:serviceaccount:tsujiban-system:staff-",
            "system:serviceaccount:tsujiban-system:default",
            "xsystem:serviceaccount:tsujiban-system:tsujiban-operator",
        ] {
            assert_eq!(of(username), None, "{username}");
        }
        let user = User { username: "admin".into(), ..User::default() };
        assert_eq!(Identity::of(user, "tsujiban-system").unwrap_err().kind, Kind::Denied);
    }
}
