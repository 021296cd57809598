//! Who calls, as handlers see it. A handler that touches a group's data asks for a [`GroupScope`], which only a caller gives.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use tonic::Request;
use tsujiban_core::id::GroupId;
use tsujiban_core::workload::Service;
use tsujiban_proto::error::{Kind, ServiceError};

use crate::identity::{Authenticator, Identity, Principal};

pub(crate) use tsujiban_proto::chart::REVEAL;

/// Whoever made a call. The access layer puts it into the request, after the method's rule has let the call pass.
#[derive(Debug, Clone)]
pub enum Caller {
    /// The operator, for all groups.
    Operator,
    /// A group's collector, for its own group.
    Collector { group: GroupId },
    /// A service of ours, for all groups.
    Service(Service),
    /// A person of the platform's staff, for all groups, as far as their rights go.
    Staff(Staff),
    /// An account, for the groups that it is a member of.
    Person { account: String, groups: BTreeSet<GroupId> },
}

/// A person of the platform's staff.
#[derive(Clone)]
pub struct Staff {
    name: String,
    identity: Identity,
    authenticator: Arc<dyn Authenticator>,
}

/// The one group that a call may touch. Only [`Caller::scope`] makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupScope(GroupId);

/// Permission to answer with secrets. The access layer grants it to a call whose caller may see them and whose intent is in the history; a
/// handler cannot make one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revealing(());

impl Revealing {
    /// Call it only after every check that could refuse the call.
    pub(crate) const fn granted() -> Self {
        Self(())
    }

    /// The permission that the access layer put into the request. Fails with [`Kind::Internal`] when there is none.
    pub fn of<T>(request: &Request<T>) -> Result<Self, ServiceError> {
        request.extensions().get::<Self>().copied().ok_or_else(|| {
            let message = "nothing was revealed, since the access layer has not recorded the wish; this is a fault of the server";
            ServiceError::new(Kind::Internal, "NOT_RECORDED", message)
        })
    }
}

impl GroupScope {
    pub fn group(&self) -> &GroupId {
        &self.0
    }
}

impl Caller {
    pub(crate) fn new(identity: Identity, authenticator: Arc<dyn Authenticator>) -> Self {
        match &identity.principal {
            Principal::Operator => Self::Operator,
            Principal::Collector { group } => Self::Collector { group: group.clone() },
            Principal::Service(service) => Self::Service(*service),
            Principal::Staff { name } => Self::Staff(Staff { name: name.clone(), identity, authenticator }),
            Principal::Person { account, groups } => Self::Person { account: account.clone(), groups: groups.clone() },
        }
    }

    /// The caller of a request. Fails with [`Kind::Internal`] when the request did not come through the access layer.
    pub fn of<T>(request: &Request<T>) -> Result<&Self, ServiceError> {
        request.extensions().get::<Self>().ok_or_else(|| {
            ServiceError::new(Kind::Internal, "NO_CALLER", "the request did not pass the access layer; this is a fault of the server")
        })
    }

    /// The scope of a call that names a group: a collector gets its own and no other, a person gets one of theirs; all other callers get
    /// the group that they name.
    pub fn scope(&self, requested: &str) -> Result<GroupScope, ServiceError> {
        let group: GroupId = requested
            .parse()
            .map_err(|error| ServiceError::new(Kind::Invalid, "INVALID_GROUP", format!("{error}; name an existing group")))?;
        self.enter(group.as_str())?;
        Ok(GroupScope(group))
    }

    /// Passes when the caller may name this group. A caller who is bound to groups is refused every other name, also an invalid one.
    pub(crate) fn enter(&self, requested: &str) -> Result<(), ServiceError> {
        let (own, hint) = match self {
            Self::Operator | Self::Service(_) | Self::Staff(_) => return Ok(()),
            Self::Collector { group } if group.as_str() == requested => return Ok(()),
            Self::Collector { group } => (format!("the collector of group {group}"), "call with a token from that group's namespace"),
            Self::Person { groups, .. } if groups.iter().any(|group| group.as_str() == requested) => return Ok(()),
            Self::Person { .. } => ("this account".to_owned(), "ask an administrator of the group for an invitation"),
        };
        let requested: String = requested.chars().take(80).collect();
        Err(ServiceError::new(Kind::Denied, "OTHER_GROUP", format!("{own} may not touch group {requested:?}; {hint}")))
    }

    /// Whether the caller may only touch groups of its own, and has to name one wherever a request has a field for it.
    pub(crate) const fn is_bound(&self) -> bool {
        matches!(self, Self::Collector { .. } | Self::Person { .. })
    }

    /// The caller's group, if the caller belongs to exactly one.
    pub(crate) fn home(&self) -> Option<&GroupId> {
        match self {
            Self::Collector { group } => Some(group),
            Self::Person { groups, .. } if groups.len() == 1 => groups.first(),
            _ => None,
        }
    }

    /// Requires a right beyond the method's rule, such as `reveal` on `snapshots`. Only staff can have such rights.
    pub(crate) async fn require(&self, function: &str, verb: &str) -> Result<(), ServiceError> {
        match self {
            Self::Staff(staff) => require(&*staff.authenticator, &staff.identity, function, verb).await,
            _ => Err(ServiceError::new(
                Kind::Denied,
                "STAFF_ONLY",
                format!("{self} may not {verb} {function}; only staff with that right may"),
            )),
        }
    }

    /// The kind of caller, for logs.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Collector { .. } => "collector",
            Self::Service(service) => service.row().name,
            Self::Staff(_) => "staff",
            Self::Person { .. } => "person",
        }
    }

    /// Which one of its kind, for logs: the collector's group, the name of staff or the account's id.
    pub fn id(&self) -> &str {
        match self {
            Self::Operator | Self::Service(_) => "",
            Self::Collector { group } => group.as_str(),
            Self::Staff(staff) => staff.name(),
            Self::Person { account, .. } => account,
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator => f.write_str("the operator"),
            Self::Collector { group } => write!(f, "the collector of group {group}"),
            Self::Service(service) => write!(f, "the {service}"),
            Self::Staff(staff) => write!(f, "staff {}", staff.name),
            Self::Person { account, .. } => write!(f, "account {account}"),
        }
    }
}

impl Staff {
    /// The person's name: the ServiceAccount is `staff-<name>`.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for Staff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Staff").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Passes when the identity has the right.
pub(crate) async fn require(
    authenticator: &dyn Authenticator,
    identity: &Identity,
    function: &str,
    verb: &str,
) -> Result<(), ServiceError> {
    if authenticator.allowed(identity, function, verb).await? {
        return Ok(());
    }
    let name = match &identity.principal {
        Principal::Staff { name } => name.as_str(),
        _ => identity.user.username.as_str(),
    };
    Err(ServiceError::new(
        Kind::Denied,
        "MISSING_RIGHT",
        format!("{name} has no right to {verb} {function}; an administrator gives it with verb {verb} in the chart value staff"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collector(group: &str) -> Caller {
        Caller::Collector { group: group.parse().unwrap() }
    }

    /// C7: a collector gets a scope of its own group and of no other.
    #[test]
    fn a_collector_stays_in_its_group() {
        assert_eq!(collector("acme").scope("acme").unwrap().group().as_str(), "acme");
        let error = collector("acme").scope("other").unwrap_err();
        assert_eq!((error.kind, error.reason.as_str()), (Kind::Denied, "OTHER_GROUP"));
    }

    /// C7: a person gets a scope of each group that the account is a member of, and of no other.
    #[test]
    fn a_person_stays_in_their_groups() {
        let groups = ["acme", "beta"].map(|group| group.parse().unwrap()).into();
        let person = Caller::Person { account: "a1".into(), groups };
        assert_eq!(person.scope("beta").unwrap().group().as_str(), "beta");
        assert_eq!(person.scope("other").unwrap_err().reason, "OTHER_GROUP");
        assert_eq!(person.enter("").unwrap_err().reason, "OTHER_GROUP", "the platform's own is nobody's");
    }

    #[test]
    fn the_operator_names_the_group_and_the_name_is_checked() {
        assert_eq!(Caller::Operator.scope("acme").unwrap().group().as_str(), "acme");
        for bad in ["", "../acme", "ACME"] {
            assert_eq!(Caller::Operator.scope(bad).unwrap_err().kind, Kind::Invalid, "{bad}");
        }
    }

    #[test]
    fn a_request_that_passed_no_layer_has_no_caller() {
        assert_eq!(Caller::of(&Request::new(())).unwrap_err().kind, Kind::Internal);
        assert_eq!(Revealing::of(&Request::new(())).unwrap_err().kind, Kind::Internal, "nor leave to reveal");
    }

    #[tokio::test]
    async fn workloads_have_no_rights_of_staff() {
        let person = Caller::Person { account: "a1".into(), groups: ["acme".parse().unwrap()].into() };
        for caller in [Caller::Operator, Caller::Service(Service::Backup), collector("acme"), person] {
            assert_eq!(caller.require("snapshots", REVEAL).await.unwrap_err().kind, Kind::Denied);
        }
    }
}
