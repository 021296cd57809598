//! The layer in front of every method: authenticates the caller, authorizes the call and records its outcome. No call reaches a handler
//! without it.

mod bearer;
mod decision;
mod first;
mod methods;
mod metrics;
mod observed;
mod origin;
mod subject;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::request::Parts;
use http::{HeaderMap, Request, Response};
use ipnet::IpNet;
use prometheus::Registry;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};
use tracing::Instrument;
use tsujiban_core::id::GroupId;
use tsujiban_proto::error::{Kind, ServiceError};
use tsujiban_proto::rules::InvalidContract;

use self::first::First;
use self::methods::{Method, Methods};
use self::metrics::Metrics;
use self::observed::Call;
use self::subject::Subject;
use crate::caller::{Caller, Revealing};
use crate::history::History;
use crate::identity::{Authenticator, Identity};
use crate::plan::{Plans, Unplanned};

/// How many calls run at the same time. Further calls are refused at once: a queue would delay all of them.
const CONCURRENT_CALLS: usize = 512;
/// How long a unary call may take, unless its caller asks for less. Streams take as long as their data.
const UNARY_TIMEOUT: Duration = Duration::from_mins(1);
/// The gRPC reflection service, by which clients request the contracts. It is no contract of ours, and served only where reflection is
/// enabled.
const REFLECTION: &str = "/grpc.reflection.";

/// Why the access layer cannot be made. The server does not start.
#[derive(Debug, thiserror::Error)]
pub enum InvalidAccess {
    #[error("the access rules of the contracts cannot be read")]
    Contract(#[from] InvalidContract),
    #[error("the metrics of the calls cannot be registered")]
    Metrics(#[from] prometheus::Error),
}

/// What the access layer is made of.
pub struct Guard {
    pub authenticator: Arc<dyn Authenticator>,
    pub registry: Registry,
    /// The full names of the services that are served, such as `tsujiban.backup.v1.BackupService`. Empty: all services.
    pub services: Vec<&'static str>,
    /// Records the outcome of each call. `None`: outcomes are not recorded.
    pub history: Option<History>,
    pub plans: Arc<dyn Plans>,
    /// The proxies whose `x-forwarded-for` header is trusted.
    pub proxies: Vec<IpNet>,
    /// Whether clients may request the contracts by reflection: never in production.
    pub reflection: bool,
    /// How many calls run at the same time.
    pub concurrent_calls: usize,
    /// How long a unary call may take.
    pub unary_timeout: Duration,
}

impl Guard {
    /// Leaves every optional setting at its default.
    pub fn new(authenticator: Arc<dyn Authenticator>, registry: Registry) -> Self {
        Self {
            authenticator,
            registry,
            services: Vec::new(),
            history: None,
            plans: Arc::new(Unplanned),
            proxies: Vec::new(),
            reflection: false,
            concurrent_calls: CONCURRENT_CALLS,
            unary_timeout: UNARY_TIMEOUT,
        }
    }
}

/// The access layer. It lets a call through when its method's rule does, and puts the [`Caller`] into the request.
#[derive(Clone)]
pub struct Access(Arc<Shared>);

struct Shared {
    methods: Methods,
    authenticator: Arc<dyn Authenticator>,
    metrics: Metrics,
    history: Option<History>,
    plans: Arc<dyn Plans>,
    proxies: Vec<IpNet>,
    reflection: bool,
    places: Arc<Semaphore>,
    unary_timeout: Duration,
}

impl Access {
    /// Reads the rules of all methods and registers the metrics.
    pub fn new(guard: Guard) -> Result<Self, InvalidAccess> {
        let Guard { authenticator, registry, services, history, plans, proxies, reflection, concurrent_calls, unary_timeout } = guard;
        let methods = Methods::load(&services)?;
        let metrics = Metrics::register(&registry, &methods)?;
        let places = Arc::new(Semaphore::new(concurrent_calls));
        let shared = Shared { methods, authenticator, metrics, history, plans, proxies, reflection, places, unary_timeout };
        Ok(Self(Arc::new(shared)))
    }
}

/// A refused call, and the group in whose history the refusal is recorded: the caller's own, unless the call was about another group.
struct Refused {
    status: Status,
    group: Option<GroupId>,
}

impl From<ServiceError> for Refused {
    /// Records the refusal in the platform's own history.
    fn from(error: ServiceError) -> Self {
        Self { status: error.into(), group: None }
    }
}

impl Shared {
    /// The caller, if they may call the method.
    async fn admit(&self, method: &Method, metadata: &HeaderMap, call: &mut Call) -> Result<(Identity, Caller), Refused> {
        let token = bearer::token(metadata)?;
        let identity = self.authenticator.authenticate(token).await?;
        let caller = Caller::new(identity.clone(), Arc::clone(&self.authenticator));
        call.made_by(&caller);
        let at_home = |error: ServiceError| Refused { status: error.into(), group: caller.home().cloned() };
        decision::decide(method, &identity, &*self.authenticator).await.map_err(at_home)?;
        Ok((identity, caller))
    }

    /// Checks that the caller may touch what the first message names, and returns the whole request body.
    async fn authorize_subject(
        &self,
        method: &Method,
        (identity, caller): (&Identity, &Caller),
        body: Body,
        call: &mut Call,
    ) -> Result<Body, Refused> {
        let First { message, body } = match timeout(self.unary_timeout, first::first(body)).await {
            Ok(first) => first?,
            Err(_) => return Err(too_slow(self.unary_timeout).into()),
        };
        let subject = Subject::read(&method.fields, message.as_deref().unwrap_or_default()).map_err(|_| unreadable())?;
        call.asks_for(method, &subject);
        self.enter(method, (identity, caller), &subject, call).await?;
        Ok(body)
    }

    /// The group comes from the identity: a request that names another group is refused (C7).
    async fn enter(
        &self,
        method: &Method,
        (identity, caller): (&Identity, &Caller),
        subject: &Subject,
        call: &mut Call,
    ) -> Result<(), Refused> {
        for group in &subject.groups {
            // a decoder keeps the last of several groups, and an empty group may name a resource that belongs to no group
            if group.is_empty() && caller.is_bound() {
                return Err(no_group(caller).into());
            }
            caller.enter(group)?;
        }
        // the handler refuses a name that is not a valid group
        let named = subject.groups.last().map(String::as_str).unwrap_or_default();
        let group: Option<GroupId> = named.parse().ok();
        match &group {
            Some(group) => {
                let at_home = |error: ServiceError| Refused { status: error.into(), group: Some(group.clone()) };
                decision::decide_in(group, method, identity, &*self.authenticator).await.map_err(at_home)?;
                call.touches(group);
            }
            None if caller.is_bound() && method.fields.name_a_group() => return Err(no_group(caller).into()),
            None => {}
        }
        let in_group = |error: ServiceError| Refused { status: error.into(), group };
        decision::decide_revealing(method, subject, caller).await.map_err(in_group)
    }

    fn place(&self) -> Result<OwnedSemaphorePermit, ServiceError> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            ServiceError::new(
                Kind::Exhausted,
                "OVERLOADED",
                "the service is working on as many calls as it can; try again in a few seconds",
            )
        })
    }

    /// Lets every authenticated caller request the contracts, where reflection is enabled. Such a request touches no data and is not
    /// recorded.
    async fn may_reflect(&self, head: &Parts) -> bool {
        let token = bearer::token(&head.headers).ok().filter(|_| self.reflection && head.uri.path().starts_with(REFLECTION));
        match token {
            Some(token) => self.authenticator.authenticate(token).await.is_ok(),
            None => false,
        }
    }
}

/// Everything between a request's arrival and its answer.
async fn guarded<S>(shared: Arc<Shared>, mut inner: S, request: Request<Body>) -> Result<Response<Body>, S::Error>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    let (mut head, body) = request.into_parts();
    let Some(method) = shared.methods.of(head.uri.path()) else {
        if shared.may_reflect(&head).await {
            return inner.call(Request::from_parts(head, body)).await;
        }
        let status = Status::unimplemented("there is no such method; client and server may differ in version");
        return Ok(Call::unknown(&shared, &head).refuse(&status, None));
    };
    let mut call = Call::of(&shared, method, &head);
    let place = match shared.place() {
        Ok(place) => place,
        Err(error) => return Ok(call.refuse(&error.into(), None)),
    };
    let (identity, caller) = match shared.admit(method, &head.headers, &mut call).await {
        Ok(admitted) => admitted,
        Err(Refused { status, group }) => return Ok(call.refuse(&status, group.as_ref())),
    };
    let body = match shared.authorize_subject(method, (&identity, &caller), body, &mut call).await {
        Ok(body) => body,
        Err(Refused { status, group }) => return Ok(call.refuse(&status, group.as_ref())),
    };
    let span = call.span();
    if let Err(error) = call.begin().instrument(span.clone()).await {
        return Ok(call.answer(&error.into()).await);
    }
    head.extensions.insert(caller);
    if call.reveals() {
        head.extensions.insert(Revealing::granted());
    }
    let work = inner.call(Request::from_parts(head, body)).instrument(span);
    let response = if method.streams {
        work.await?
    } else {
        let Ok(response) = timeout(shared.unary_timeout, work).await else {
            return Ok(call.answer(&too_slow(shared.unary_timeout).into()).await);
        };
        response?
    };
    Ok(call.observe(response, place).await)
}

impl<S> Layer<S> for Access {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { access: self.clone(), inner }
    }
}

/// A service behind the access layer.
#[derive(Clone)]
pub struct Guarded<S> {
    access: Access,
    inner: S,
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // the service that was polled ready is the one to call; its clone waits for the next call
        let next = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, next);
        Box::pin(guarded(Arc::clone(&self.access.0), inner, request))
    }
}

fn too_slow(limit: Duration) -> ServiceError {
    let message =
        format!("the call took longer than {} s and was given up; try again, with fewer items if there are many", limit.as_secs());
    ServiceError::new(Kind::Timeout, "TOO_SLOW", message)
}

fn unreadable() -> ServiceError {
    ServiceError::new(Kind::Invalid, "UNREADABLE", "the request is no message of this method; client and server may differ in version")
}

/// Invalid for a collector, whose request is incomplete. Denied for a person: a request without a group may name a resource that is not
/// theirs.
fn no_group(caller: &Caller) -> ServiceError {
    let kind = if matches!(caller, Caller::Person { .. }) { Kind::Denied } else { Kind::Invalid };
    ServiceError::new(kind, "NO_GROUP", "the request names no group; name your own, in its header if it has one")
}
