//! The layer itself.

use std::future::pending;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use kube::client::Body;
use serde_json::Value;
use tokio::sync::Mutex;
use tower::{BoxError, Layer, Service, ServiceExt as _};

use super::given::{Given, broken, status};
use super::{Answer, Call, Fault, Faults, Sent, events};

/// Puts faults between a client and what is below it.
pub struct FaultLayer(Faults);

impl FaultLayer {
    pub const fn new(faults: Faults) -> Self {
        Self(faults)
    }
}

impl<S> Layer<S> for FaultLayer {
    type Service = FaultService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        FaultService { faults: self.0.clone(), inner: Arc::new(Mutex::new(inner)) }
    }
}

pub struct FaultService<S> {
    faults: Faults,
    inner: Arc<Mutex<S>>,
}

impl<S, B> Service<Request<Body>> for FaultService<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Given>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (faults, inner) = (self.faults.clone(), Arc::clone(&self.inner));
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let content: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
            let call = Call::new(&parts.method, &parts.uri, &content);
            let send = async {
                let request = Request::from_parts(parts.clone(), Body::from(body));
                let answer = {
                    let mut inner = inner.lock().await;
                    inner.ready().await.map_err(Into::into)?.call(request)
                };
                let answer = answer.await.map_err(Into::into)?;
                Ok::<_, BoxError>(answer.map(|body| body.map_err(Into::into).boxed_unsync()))
            };
            let done = Done { faults: &faults, call: &call, content: &content, headers: &parts.headers };
            match faults.crash() {
                Some(crash) => match call.group().map(str::to_owned) {
                    Some(group) if crash.is_dead(&group) => pending().await,
                    Some(group) => {
                        let answer = done.plainly(send).await?;
                        let counts = call.is_write() && answer.status().is_success();
                        if counts && !crash.may_answer(&group, &call.to_string()) {
                            pending::<()>().await;
                        }
                        Ok(answer)
                    }
                    None => done.plainly(send).await,
                },
                None => done.with(faults.on_request(&call), send).await,
            }
        }
        .boxed()
    }
}

/// One request on its way.
struct Done<'a> {
    faults: &'a Faults,
    call: &'a Call,
    content: &'a Value,
    headers: &'a HeaderMap,
}

impl Done<'_> {
    async fn with(&self, fault: Fault, send: impl Future<Output = Result<Response<Given>, BoxError>>) -> Result<Response<Given>, BoxError> {
        match fault {
            Fault::None => self.plainly(send).await,
            Fault::Late(wait) => {
                tokio::time::sleep(wait).await;
                self.plainly(send).await
            }
            Fault::Refused(code) => {
                self.note(None);
                Ok(refusal(code))
            }
            Fault::Lost => {
                self.note(None);
                Err(broken())
            }
            Fault::AnswerLost => {
                drop(self.plainly(send).await?);
                Err(broken())
            }
            Fault::Hangs => {
                self.note(None);
                pending().await
            }
            Fault::Stale(pick) => match self.faults.old_answer(&self.key(), pick) {
                Some(old) => Ok(response(&old)),
                None => self.plainly(send).await,
            },
        }
    }

    /// Sends the request, notes a write, remembers the answer to a read, and passes the events of a watch through the faults.
    async fn plainly(&self, send: impl Future<Output = Result<Response<Given>, BoxError>>) -> Result<Response<Given>, BoxError> {
        let answer = match send.await {
            Ok(answer) => answer,
            Err(error) => {
                self.note(None);
                return Err(error);
            }
        };
        self.note(Some(answer.status()));
        if self.call.is_watch() && answer.status().is_success() {
            let (faults, call) = (self.faults.clone(), self.call.clone());
            return Ok(answer.map(|body| events::through(faults, call, body)));
        }
        if !self.call.is_read() || !matches!(answer.status(), StatusCode::OK | StatusCode::NOT_FOUND) {
            return Ok(answer);
        }
        let (parts, body) = answer.into_parts();
        let body = body.collect().await?.to_bytes();
        let media = parts.headers.get(header::CONTENT_TYPE).cloned();
        self.faults.remember(&self.key(), Answer { status: parts.status, media, body: body.clone() });
        Ok(Response::from_parts(parts, whole(body)))
    }

    fn note(&self, status: Option<StatusCode>) {
        if self.call.method != http::Method::GET {
            let code = status.map(|status| status.as_u16());
            self.faults.note(Sent { call: self.call.clone(), body: self.content.clone(), code });
        }
    }

    /// Two reads with the same key may get each other's answers.
    fn key(&self) -> String {
        let accept = self.headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
        format!("{}?{} {accept}", self.call.path, self.call.query)
    }
}

fn response(answer: &Answer) -> Response<Given> {
    let mut response = Response::new(whole(answer.body.clone()));
    *response.status_mut() = answer.status;
    if let Some(media) = &answer.media {
        response.headers_mut().insert(header::CONTENT_TYPE, media.clone());
    }
    response
}

fn refusal(code: u16) -> Response<Given> {
    let reason = match code {
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        _ => "InternalError",
    };
    let status = status(code, reason).to_string();
    let media = Some(HeaderValue::from_static("application/json"));
    let status_code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response(&Answer { status: status_code, media, body: status.into() })
}

fn whole(bytes: Bytes) -> Given {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

#[cfg(test)]
mod tests;
