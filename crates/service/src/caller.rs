//! Who calls, as handlers see it. A handler that touches a group's data asks for a [`GroupScope`], which only a caller gives.

use std::fmt;
use std::sync::Arc;

use tonic::Request;
use tsujiban_core::id::GroupId;
use tsujiban_proto::error::{Kind, ServiceError};

use crate::identity::{Authenticator, Identity, Principal};

/// Whoever made a call. The access layer puts it into the request, after the method's rule has let the call pass.
#[derive(Debug, Clone)]
pub enum Caller {
    /// The operator, for all groups.
    Operator,
    /// A group's collector, for its own group.
    Collector { group: GroupId },
    /// A person of the platform's staff, for all groups, as far as their rights go.
    Staff(Staff),
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
            Principal::Staff { name } => Self::Staff(Staff { name: name.clone(), identity, authenticator }),
        }
    }

    /// The caller of a request. Fails with [`Kind::Internal`] when the request did not come through the access layer.
    pub fn of<T>(request: &Request<T>) -> Result<&Self, ServiceError> {
        request.extensions().get::<Self>().ok_or_else(|| {
            ServiceError::new(Kind::Internal, "NO_CALLER", "the request did not pass the access layer; this is a fault of the server")
        })
    }

    /// The scope of a call that names a group: a collector gets its own and no other; operator and staff get what they ask for.
    pub fn scope(&self, requested: &str) -> Result<GroupScope, ServiceError> {
        let group: GroupId = requested
            .parse()
            .map_err(|error| ServiceError::new(Kind::Invalid, "INVALID_GROUP", format!("{error}; name an existing group")))?;
        match self {
            Self::Collector { group: own } if *own != group => Err(ServiceError::new(
                Kind::Denied,
                "OTHER_GROUP",
                format!("the collector of group {own} may not touch group {group}; call with a token from namespace tn-{group}"),
            )),
            Self::Operator | Self::Collector { .. } | Self::Staff(_) => Ok(GroupScope(group)),
        }
    }

    /// Asks for one right more than the method's rule did, such as `reveal` on `snapshots`. Only staff can have such rights.
    pub async fn require(&self, function: &str, verb: &str) -> Result<(), ServiceError> {
        match self {
            Self::Staff(staff) => require(&*staff.authenticator, &staff.identity, function, verb).await,
            Self::Operator | Self::Collector { .. } => Err(ServiceError::new(
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
            Self::Staff(_) => "staff",
        }
    }

    /// Which one of its kind, for logs: the collector's group or the person's name.
    pub fn id(&self) -> &str {
        match self {
            Self::Operator => "",
            Self::Collector { group } => group.as_str(),
            Self::Staff(staff) => staff.name(),
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator => f.write_str("the operator"),
            Self::Collector { group } => write!(f, "the collector of group {group}"),
            Self::Staff(staff) => write!(f, "staff {}", staff.name),
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
        Principal::Operator | Principal::Collector { .. } => identity.user.username.as_str(),
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
    }

    #[tokio::test]
    async fn workloads_have_no_rights_of_staff() {
        for caller in [Caller::Operator, collector("acme")] {
            assert_eq!(caller.require("snapshots", "reveal").await.unwrap_err().kind, Kind::Denied);
        }
    }
}
