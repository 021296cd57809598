//! The apiserver's answers: TokenReview says who, SubjectAccessReview says what.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::{Api, PostParams};
use kube::core::ObjectMeta;
use kube::{Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tsujiban_core::clock::Clock;
use tsujiban_proto::error::{Kind, ServiceError};

use super::cache::Cache;
use super::{Authenticator, Identity, User};

/// How long the apiserver has for an answer.
const DEADLINE: Duration = Duration::from_secs(3);
/// How many confirmed tokens are kept: one for each group's collector and for each member of staff, with room to spare.
const CACHED_TOKENS: usize = 4096;
/// A longer token is no ServiceAccount token.
const MAX_TOKEN_BYTES: usize = 8192;

/// Asks the apiserver. Without its answer every call is refused.
pub struct KubeAuthenticator {
    client: Client,
    audience: String,
    system_namespace: String,
    clock: Arc<dyn Clock>,
    confirmed: Cache,
}

impl KubeAuthenticator {
    /// `audience` is the service's own name such as `backup.tsujiban.dev`; it is also the API group of the virtual resources.
    pub fn new(client: Client, audience: &str, system_namespace: &str, clock: impl Clock) -> Self {
        Self {
            client,
            audience: audience.to_owned(),
            system_namespace: system_namespace.to_owned(),
            clock: Arc::new(clock),
            confirmed: Cache::new(CACHED_TOKENS),
        }
    }

    async fn review(&self, token: &str) -> Result<Identity, ServiceError> {
        let review = TokenReview {
            metadata: ObjectMeta::default(),
            spec: TokenReviewSpec { token: token.to_owned(), audiences: Some(vec![self.audience.clone()]) },
            status: None,
        };
        let status = self.ask(&review).await?.status.unwrap_or_default();
        let audiences = status.audiences.unwrap_or_default();
        // an apiserver that knows no audiences answers none, and a token for its own audience could be replayed: both are refused
        if status.authenticated != Some(true) || audiences != [self.audience.clone()] {
            return Err(ServiceError::new(
                Kind::Unauthenticated,
                "BAD_TOKEN",
                format!("the token is expired, unknown or not for {}; get a new one for that audience", self.audience),
            ));
        }
        let user = status.user.unwrap_or_default();
        let user = User {
            username: user.username.unwrap_or_default(),
            uid: user.uid,
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default(),
        };
        Identity::of(user, &self.system_namespace)
    }

    async fn ask<K>(&self, question: &K) -> Result<K, ServiceError>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope> + Serialize + DeserializeOwned + Clone + std::fmt::Debug,
    {
        let kind = K::kind(&());
        let unavailable = |detail: &dyn std::fmt::Display| {
            tracing::warn!(%kind, error = %detail, "the apiserver does not answer who is calling");
            ServiceError::new(
                Kind::Unavailable,
                "NO_APISERVER",
                "who is calling cannot be checked, since the apiserver does not answer; try again, and look at its health if that lasts",
            )
        };
        match timeout(DEADLINE, Api::all(self.client.clone()).create(&PostParams::default(), question)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(unavailable(&error)),
            Err(elapsed) => Err(unavailable(&elapsed)),
        }
    }
}

#[async_trait]
impl Authenticator for KubeAuthenticator {
    async fn authenticate(&self, token: &str) -> Result<Identity, ServiceError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(ServiceError::new(Kind::Unauthenticated, "BAD_TOKEN", "the token is too long to be one of a ServiceAccount"));
        }
        // the time before the request: a slow answer must not be valid for longer
        let now = self.clock.now();
        if let Some(identity) = self.confirmed.get(token, now) {
            return Ok(identity);
        }
        let identity = self.review(token).await?;
        self.confirmed.put(token, identity.clone(), now);
        Ok(identity)
    }

    async fn allowed(&self, identity: &Identity, function: &str, verb: &str) -> Result<bool, ServiceError> {
        let User { username, uid, groups, extra } = identity.user.clone();
        let some_of = |extra: BTreeMap<String, Vec<String>>| (!extra.is_empty()).then_some(extra);
        let review = SubjectAccessReview {
            metadata: ObjectMeta::default(),
            spec: SubjectAccessReviewSpec {
                user: Some(username),
                uid,
                groups: Some(groups),
                extra: some_of(extra),
                resource_attributes: Some(ResourceAttributes {
                    group: Some(self.audience.clone()),
                    resource: Some(function.to_owned()),
                    verb: Some(verb.to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            status: None,
        };
        Ok(self.ask(&review).await?.status.is_some_and(|status| status.allowed && status.denied != Some(true)))
    }
}

#[cfg(test)]
mod tests;
