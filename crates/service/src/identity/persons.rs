//! Persons: accounts that log in, as the auth service knows them.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use tsujiban_core::id::GroupId;
use tsujiban_proto::access::v1::Operation;
use tsujiban_proto::error::ServiceError;

use super::{Authenticator, Identity, Principal, User};

/// A person's account, by its id, and the groups that it is a member of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    pub account: String,
    pub groups: BTreeSet<GroupId>,
}

/// What a person wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PermissionRequest<'a> {
    pub group: &'a GroupId,
    pub function: &'a str,
    pub operation: Operation,
}

/// Answers who a session belongs to and what they may do. Every error is a refusal.
#[async_trait]
pub trait Persons: Send + Sync + 'static {
    /// Whether a token looks like a person's session. Every other token is a ServiceAccount's.
    fn is_session(&self, token: &str) -> bool;

    /// The person behind a session token.
    async fn authenticate(&self, token: &str) -> Result<Person, ServiceError>;

    /// Whether the person's roles in the group let them do it.
    async fn allowed(&self, person: &Person, permission: PermissionRequest<'_>) -> Result<bool, ServiceError>;
}

/// Authenticates workloads and staff by another authenticator, and persons besides.
pub struct WithPersons<P> {
    others: Arc<dyn Authenticator>,
    persons: P,
}

impl<P: Persons> WithPersons<P> {
    pub fn new(others: Arc<dyn Authenticator>, persons: P) -> Self {
        Self { others, persons }
    }
}

#[async_trait]
impl<P: Persons> Authenticator for WithPersons<P> {
    async fn authenticate(&self, token: &str) -> Result<Identity, ServiceError> {
        if !self.persons.is_session(token) {
            return self.others.authenticate(token).await;
        }
        let Person { account, groups } = self.persons.authenticate(token).await?;
        Ok(Identity { principal: Principal::Person { account, groups }, user: User::default() })
    }

    async fn allowed(&self, identity: &Identity, function: &str, verb: &str) -> Result<bool, ServiceError> {
        match identity.principal {
            // a person never has a right of staff
            Principal::Person { .. } => Ok(false),
            _ => self.others.allowed(identity, function, verb).await,
        }
    }

    async fn permitted(&self, identity: &Identity, permission: PermissionRequest<'_>) -> Result<bool, ServiceError> {
        match &identity.principal {
            Principal::Person { account, groups } if groups.contains(permission.group) => {
                self.persons.allowed(&Person { account: account.clone(), groups: groups.clone() }, permission).await
            }
            _ => Ok(false),
        }
    }
}
