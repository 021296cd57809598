//! The events of a watch, on their way through the faults.

use std::collections::VecDeque;
use std::future::pending;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tower::BoxError;

use super::given::{Given, broken, status};
use super::{Call, EventFault, Faults};

/// A watch whose events, one a line, meet the faults of the moment in which they arrive.
pub(super) fn through(faults: Faults, call: Call, body: Given) -> Given {
    let chunks = body.into_data_stream().boxed();
    let watch = Watch { faults, call, chunks, rest: BytesMut::new(), ready: VecDeque::new(), is_over: false };
    let frames = stream::unfold(watch, |mut watch| async {
        let next = watch.next().await?;
        Some((next.map(Frame::data), watch))
    });
    StreamBody::new(frames).boxed_unsync()
}

struct Watch {
    faults: Faults,
    call: Call,
    chunks: BoxStream<'static, Result<Bytes, BoxError>>,
    /// A line that has not come to its end.
    rest: BytesMut,
    /// Lines that may go to the client.
    ready: VecDeque<Bytes>,
    is_over: bool,
}

impl Watch {
    async fn next(&mut self) -> Option<Result<Bytes, BoxError>> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(Ok(line));
            }
            if self.is_over {
                return None;
            }
            let Some(line) = self.line() else {
                match self.chunks.next().await? {
                    Ok(chunk) => self.rest.extend_from_slice(&chunk),
                    Err(error) => return Some(Err(error)),
                }
                continue;
            };
            let event: Value = serde_json::from_slice(&line).unwrap_or(Value::Null);
            match self.faults.on_event(&self.call, &event) {
                EventFault::None => self.ready.push_back(line),
                EventFault::Dropped => {}
                EventFault::Late(wait) => {
                    tokio::time::sleep(wait).await;
                    self.ready.push_back(line);
                }
                EventFault::Twice => self.ready.extend([line.clone(), line]),
                EventFault::Expired => {
                    self.is_over = true;
                    let expired = json!({"type": "ERROR", "object": status(410, "Expired")});
                    self.ready.push_back(format!("{expired}\n").into());
                }
                EventFault::Cut => {
                    self.is_over = true;
                    return Some(Err(broken()));
                }
                EventFault::Silent => pending().await,
            }
        }
    }

    fn line(&mut self) -> Option<Bytes> {
        let end = self.rest.iter().position(|byte| *byte == b'\n')?;
        Some(self.rest.split_to(end + 1).freeze())
    }
}
