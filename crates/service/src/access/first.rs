//! A request's first message, before its handler sees it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tsujiban_proto::error::{Kind, ServiceError};

/// The largest message that is read or written, in bytes. Larger things are streamed.
const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// The bytes before each message: a compression flag and the length of the message.
const PREFIX: usize = 5;

/// A request's first message and its body from the beginning.
pub(super) struct First {
    /// `None` when the request holds no message.
    pub message: Option<Bytes>,
    pub body: Body,
}

/// Reads up to the end of the first message. The returned body replays the bytes that were read.
pub(super) async fn first(mut body: Body) -> Result<First, ServiceError> {
    let (mut frames, mut start) = (VecDeque::new(), BytesMut::new());
    let broke = |status: Status| ServiceError::new(Kind::Unavailable, "BROKEN_REQUEST", format!("the request broke off: {status}"));
    loop {
        if let Some(length) = length(&start)? {
            let message = start.freeze().slice(PREFIX..PREFIX + length);
            return Ok(First { message: Some(message), body: Body::new(Replayed { frames, rest: body }) });
        }
        match body.frame().await.transpose().map_err(broke)? {
            None => return Ok(First { message: None, body: Body::new(Replayed { frames, rest: body }) }),
            Some(frame) => {
                if let Some(data) = frame.data_ref() {
                    start.extend_from_slice(data);
                }
                frames.push_back(frame);
            }
        }
    }
}

/// The length of the first message, once all of it was read.
fn length(bytes: &[u8]) -> Result<Option<usize>, ServiceError> {
    let Some(([compressed, length @ ..], rest)) = bytes.split_first_chunk::<PREFIX>() else { return Ok(None) };
    if *compressed != 0 {
        return Err(ServiceError::new(Kind::Invalid, "COMPRESSED", "messages are not compressed here; send them as they are"));
    }
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if length > MAX_MESSAGE_BYTES {
        let message = format!("the message has {length} bytes, and {MAX_MESSAGE_BYTES} are the most; send less at once");
        return Err(ServiceError::new(Kind::Exhausted, "MESSAGE_TOO_LARGE", message));
    }
    Ok((rest.len() >= length).then_some(length))
}

/// A body whose first frames were read already.
struct Replayed {
    frames: VecDeque<Frame<Bytes>>,
    rest: Body,
}

impl HttpBody for Replayed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.frames.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use http_body_util::StreamBody;

    use super::*;

    fn body(pieces: &[&[u8]]) -> Body {
        let frames: Vec<_> = pieces.iter().map(|piece| Ok::<_, Status>(Frame::data(Bytes::copy_from_slice(piece)))).collect();
        Body::new(StreamBody::new(stream::iter(frames)))
    }

    #[tokio::test]
    async fn the_body_is_whole_after_its_first_message_was_read() {
        for pieces in [&[&b"\0\0\0\0\x03abc\0\0\0\0\x01d"[..]][..], &[b"\0\0", b"\0\0\x03a", b"b", b"c\0\0\0\0\x01", b"d"]] {
            let First { message, body } = first(body(pieces)).await.unwrap();
            assert_eq!(message.as_deref(), Some(&b"abc"[..]));
            assert_eq!(body.collect().await.unwrap().to_bytes(), pieces.concat());
        }
        assert_eq!(first(body(&[])).await.unwrap().message, None);
        assert_eq!(first(body(&[b"\0\0\0\0\x03ab"])).await.unwrap().message, None, "broken off");
    }

    #[tokio::test]
    async fn nothing_is_kept_in_memory_that_is_too_large() {
        let reason = async |bytes: &[u8]| first(body(&[bytes])).await.err().map(|error| error.reason);
        assert_eq!(reason(b"\0\xff\xff\xff\xff").await.as_deref(), Some("MESSAGE_TOO_LARGE"));
        assert_eq!(reason(b"\x01\0\0\0\x01a").await.as_deref(), Some("COMPRESSED"));
    }
}
