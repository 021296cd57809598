//! A connection that sends nothing once the fence is shut.
//!
//! The fence is checked next to the system call, below TLS and below every queue, so that a process that was paused sends nothing that it
//! had buffered when it resumes.

use std::io::{Error, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use tower::Service;

use super::Fence;

/// Connects by `inner`.
#[derive(Debug, Clone)]
pub struct Fenced<C> {
    inner: C,
    fence: Fence,
}

impl<C> Fenced<C> {
    pub fn new(inner: C, fence: Fence) -> Self {
        Self { inner, fence }
    }
}

impl<C> Service<Uri> for Fenced<C>
where
    C: Service<Uri>,
    C::Future: Send + 'static,
{
    type Response = FencedStream<C::Response>;
    type Error = C::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connecting, fence) = (self.inner.call(uri), self.fence.clone());
        Box::pin(async move { Ok(FencedStream { inner: connecting.await?, fence }) })
    }
}

/// A connection behind the fence. Reading is always possible.
#[derive(Debug)]
pub struct FencedStream<S> {
    inner: S,
    fence: Fence,
}

impl<S: Unpin> FencedStream<S> {
    fn guarded(&mut self) -> Result<Pin<&mut S>, Error> {
        if self.fence.is_open() {
            Ok(Pin::new(&mut self.inner))
        } else {
            Err(Error::other("this replica does not lead any more: nothing is sent"))
        }
    }
}

impl<S: Read + Unpin> Read for FencedStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: Write + Unpin> Write for FencedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize, Error>> {
        self.guarded()?.poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<Result<usize, Error>> {
        self.guarded()?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl<S: Connection> Connection for FencedStream<S> {
    fn connected(&self) -> Connected {
        self.inner.connected()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test]
    async fn not_a_byte_leaves_after_the_fence_is_shut() {
        let (here, mut there) = tokio::io::duplex(64);
        let fence = Fence::shut();
        fence.lead(Some(Instant::now() + Duration::from_mins(1)));
        let mut stream = TokioIo::new(FencedStream { inner: TokioIo::new(here), fence: fence.clone() });
        stream.write_all(b"before").await.unwrap();
        fence.lead(Some(Instant::now()));
        stream.write_all(b"after").await.unwrap_err();
        there.write_all(b"answer").await.unwrap();
        let mut answer = [0; 6];
        stream.read_exact(&mut answer).await.unwrap();
        drop(stream);
        let mut seen = String::new();
        there.read_to_string(&mut seen).await.unwrap();
        assert_eq!((seen.as_str(), &answer), ("before", b"answer"));
    }
}
