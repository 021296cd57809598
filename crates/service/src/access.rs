//! The layer in front of every method: who is calling, may they, what came of it. No handler can be reached around it.

mod bearer;
mod decision;
mod methods;
mod metrics;
mod observed;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};
use tracing::Instrument;
use tsujiban_proto::error::{Kind, ServiceError};
use tsujiban_proto::rules::InvalidContract;

use self::methods::{Method, Methods};
use self::metrics::Metrics;
use self::observed::Call;
use crate::caller::Caller;
use crate::identity::Authenticator;

/// How many calls are worked on at the same time. What comes on top is refused at once, rather than queued until all are late.
const CONCURRENT_CALLS: usize = 512;
/// How long a unary call may take, unless its caller asks for less. Streams take as long as their data.
const UNARY_TIMEOUT: Duration = Duration::from_mins(1);

/// A layer that cannot be made. The server does not start.
#[derive(Debug, thiserror::Error)]
pub enum InvalidAccess {
    #[error("the contracts do not say who may call what")]
    Contract(#[from] InvalidContract),
    #[error("the metrics of the calls cannot be registered")]
    Metrics(#[from] prometheus::Error),
}

/// The access layer. It lets a call through when its method's rule does, and puts the [`Caller`] into the request.
#[derive(Clone)]
pub struct Access(Arc<Shared>);

struct Shared {
    methods: Methods,
    authenticator: Arc<dyn Authenticator>,
    metrics: Metrics,
    places: Arc<Semaphore>,
    unary_timeout: Duration,
}

impl Access {
    /// Reads the rules of all methods and registers the metrics.
    pub fn new(authenticator: Arc<dyn Authenticator>, registry: &prometheus::Registry) -> Result<Self, InvalidAccess> {
        Self::with_limits(authenticator, registry, CONCURRENT_CALLS, UNARY_TIMEOUT)
    }

    fn with_limits(
        authenticator: Arc<dyn Authenticator>,
        registry: &prometheus::Registry,
        concurrent_calls: usize,
        unary_timeout: Duration,
    ) -> Result<Self, InvalidAccess> {
        let methods = Methods::load()?;
        let metrics = Metrics::register(registry, &methods)?;
        let places = Arc::new(Semaphore::new(concurrent_calls));
        Ok(Self(Arc::new(Shared { methods, authenticator, metrics, places, unary_timeout })))
    }
}

impl Shared {
    /// The caller, if they may call the method.
    async fn admit(&self, method: &Method, metadata: &HeaderMap, call: &mut Call) -> Result<Caller, ServiceError> {
        let token = bearer::token(metadata)?;
        let identity = self.authenticator.authenticate(token).await?;
        let caller = Caller::new(identity.clone(), Arc::clone(&self.authenticator));
        call.made_by(&caller);
        decision::decide(&method.rule, &identity, &*self.authenticator).await?;
        Ok(caller)
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

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // the service that was polled ready is the one to call; its clone waits for the next call
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let shared = Arc::clone(&self.access.0);
        Box::pin(async move {
            let Some(method) = shared.methods.of(request.uri().path()) else {
                let call = Call::unknown(&shared.metrics, &request);
                return Ok(call.answer(&Status::unimplemented("there is no such method; client and server may differ in version")));
            };
            let mut call = Call::of(&shared.metrics, method, &request);
            let place = match shared.place() {
                Ok(place) => place,
                Err(error) => return Ok(call.answer(&error.into())),
            };
            match shared.admit(method, request.headers(), &mut call).await {
                Ok(caller) => request.extensions_mut().insert(caller),
                Err(error) => return Ok(call.answer(&error.into())),
            };
            let work = inner.call(request).instrument(call.span());
            let response = if method.streams {
                work.await?
            } else {
                match timeout(shared.unary_timeout, work).await {
                    Ok(response) => response?,
                    Err(_) => return Ok(call.answer(&too_slow(shared.unary_timeout).into())),
                }
            };
            Ok(call.observe(response, place))
        })
    }
}

fn too_slow(limit: Duration) -> ServiceError {
    let message =
        format!("the call took longer than {} s and was given up; try again, with fewer items if there are many", limit.as_secs());
    ServiceError::new(Kind::Timeout, "TOO_SLOW", message)
}
