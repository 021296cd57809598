//! Tokens of the person's account, each valid for one of the services only.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;
use tonic::metadata::{Ascii, MetadataValue};
use tsujiban_client::bearer;
use tsujiban_core::clock::Clock;

use super::{ConnectError, StaffName};
use crate::cluster::{Cluster, ClusterError, Right, ask};

/// How long a token is good: the shortest time that Kubernetes grants.
const LIFETIME: SignedDuration = SignedDuration::from_mins(10);
/// The age at which another token is requested.
const USED: SignedDuration = SignedDuration::from_mins(7);

/// The current token, replaced when it becomes old.
pub(super) struct Tokens {
    accounts: Api<ServiceAccount>,
    namespace: String,
    staff: StaffName,
    audience: &'static str,
    clock: Arc<dyn Clock>,
    present: Mutex<Option<(Timestamp, MetadataValue<Ascii>)>>,
}

impl Tokens {
    pub(super) fn new(cluster: &Cluster, staff: StaffName, audience: &'static str, clock: impl Clock) -> Self {
        let namespace = cluster.system_namespace.clone();
        let accounts = Api::namespaced(cluster.client.clone(), &namespace);
        Self { accounts, namespace, staff, audience, clock: Arc::new(clock), present: Mutex::new(None) }
    }

    /// For tests: a given token that never gets old.
    #[cfg(test)]
    pub(super) fn known(token: &str) -> Self {
        let (service, _apiserver) = tower_test::mock::pair::<http::Request<_>, http::Response<kube::client::Body>>();
        let cluster = Cluster { client: kube::Client::new(service, "default"), system_namespace: "tsujiban-system".into() };
        let clock = tsujiban_core::clock::ManualClock::new(Timestamp::UNIX_EPOCH);
        let tokens = Self::new(&cluster, "hanako".parse().unwrap(), "audit.tsujiban.dev", Arc::new(clock));
        *tokens.present.lock().unwrap() = Some((Timestamp::UNIX_EPOCH, format!("Bearer {token}").parse().unwrap()));
        tokens
    }

    /// A token that is good for three minutes at least, as metadata carries it.
    pub(super) async fn current(&self) -> Result<MetadataValue<Ascii>, ConnectError> {
        let now = self.clock.now();
        if let Some((made, token)) = &*self.present.lock().unwrap_or_else(PoisonError::into_inner)
            && now.duration_since(*made) < USED
        {
            return Ok(token.clone());
        }
        let token = self.request().await?;
        let bearer = bearer(&token).map_err(|_| ConnectError::NoToken(self.staff.clone()))?;
        *self.present.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, bearer.clone()));
        Ok(bearer)
    }

    async fn request(&self) -> Result<String, ConnectError> {
        let spec = TokenRequestSpec {
            audiences: Some(vec![self.audience.to_owned()]),
            expiration_seconds: Some(LIFETIME.as_secs()),
            ..TokenRequestSpec::default()
        };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let right = Right::new("create", "serviceaccounts/token", &self.namespace);
        let account = self.staff.account();
        let asked = async {
            match self.accounts.create_token_request(&account, &PostParams::default(), &request).await {
                Ok(answer) => Ok(Some(answer)),
                Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
                Err(error) => Err(error),
            }
        };
        let answer = ask(right, asked).await.map_err(|error| self.named(error))?;
        let unknown = || ConnectError::UnknownStaff { name: self.staff.clone(), namespace: self.namespace.clone() };
        let token = answer.ok_or_else(unknown)?.status.unwrap_or_default().token;
        token.filter(|token| !token.is_empty()).ok_or_else(|| ConnectError::NoToken(self.staff.clone()))
    }

    /// A refusal names the account, since the right is given account by account.
    fn named(&self, error: ClusterError) -> ConnectError {
        match error {
            ClusterError::Forbidden { right } => ConnectError::NotYourAccount { name: self.staff.clone(), right },
            other => other.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use http::{Request, Response};
    use http_body_util::BodyExt;
    use kube::Client;
    use kube::client::Body;
    use serde_json::{Value, json};
    use tower_test::mock::{self, Handle};
    use tsujiban_core::clock::ManualClock;

    use super::*;

    type Apiserver = Handle<Request<Body>, Response<Body>>;

    fn tokens() -> (Tokens, Apiserver, Arc<ManualClock>) {
        let (service, apiserver) = mock::pair();
        let clock = Arc::new(ManualClock::new("2026-11-23T00:00:00Z".parse().unwrap()));
        let cluster = Cluster { client: Client::new(service, "default"), system_namespace: "tsujiban-system".into() };
        (Tokens::new(&cluster, "hanako".parse().unwrap(), "backup.tsujiban.dev", Arc::clone(&clock)), apiserver, clock)
    }

    async fn answer(apiserver: &mut Apiserver, code: u16, body: Value) -> (String, Value) {
        let (request, send) = pin!(apiserver.next_request()).await.unwrap();
        let path = request.uri().path().to_owned();
        let asked: Value = serde_json::from_slice(&request.into_body().collect().await.unwrap().to_bytes()).unwrap();
        send.send_response(Response::builder().status(code).body(Body::from(body.to_string().into_bytes())).unwrap());
        (path, asked)
    }

    fn token(text: &str) -> Value {
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {}, "spec": {"audiences": []},
            "status": {"token": text, "expirationTimestamp": "2026-11-23T00:10:00Z"}})
    }

    fn failure(code: u16, reason: &str, message: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message})
    }

    #[tokio::test]
    async fn a_token_is_for_one_account_one_audience_and_ten_minutes() {
        let (tokens, mut apiserver, _) = tokens();
        let (bearer, (path, asked)) = tokio::join!(tokens.current(), answer(&mut apiserver, 201, token("abc")));
        assert_eq!(bearer.unwrap(), "Bearer abc");
        assert_eq!(path, "/api/v1/namespaces/tsujiban-system/serviceaccounts/staff-hanako/token");
        assert_eq!(asked["spec"], json!({"audiences": ["backup.tsujiban.dev"], "expirationSeconds": 600}));
    }

    #[tokio::test]
    async fn a_token_is_used_for_seven_minutes() {
        let (tokens, mut apiserver, clock) = tokens();
        tokio::join!(tokens.current(), answer(&mut apiserver, 201, token("one"))).0.unwrap();
        clock.advance(SignedDuration::from_secs(419));
        assert_eq!(tokens.current().await.unwrap(), "Bearer one");
        clock.advance(SignedDuration::from_secs(1));
        let (bearer, _) = tokio::join!(tokens.current(), answer(&mut apiserver, 201, token("two")));
        assert_eq!(bearer.unwrap(), "Bearer two");
    }

    #[tokio::test]
    async fn an_unknown_name_says_where_names_come_from() {
        let (tokens, mut apiserver, _) = tokens();
        let missing = failure(404, "NotFound", "serviceaccounts \"staff-hanako\" not found");
        let error = tokio::join!(tokens.current(), answer(&mut apiserver, 404, missing)).0.unwrap_err();
        assert!(matches!(error, ConnectError::UnknownStaff { .. }) && error.to_string().contains("chart value staff"), "{error}");
    }

    #[tokio::test]
    async fn somebody_elses_name_is_refused_with_the_right_that_is_missing() {
        let (tokens, mut apiserver, _) = tokens();
        let denied = failure(403, "Forbidden", "User \"taro\" cannot create resource \"serviceaccounts/token\"");
        let error = tokio::join!(tokens.current(), answer(&mut apiserver, 403, denied)).0.unwrap_err();
        assert!(matches!(error, ConnectError::NotYourAccount { .. }) && error.to_string().contains("staff-hanako"), "{error}");
    }
}
