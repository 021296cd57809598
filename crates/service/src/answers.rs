//! Answers that are streams.

use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// The largest piece of a stream, in bytes.
pub const CHUNK: usize = 64 * 1024;
/// How many pieces of a stream wait for a slow reader.
const WAITING: usize = 4;

pub type Answers<T> = ReceiverStream<Result<T, Status>>;
pub type Answering<T> = mpsc::Sender<Result<T, Status>>;

/// A streamed answer, whose pieces are made while the client reads.
pub fn answers<T>() -> (Answering<T>, Answers<T>) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (sender, ReceiverStream::new(receiver))
}

/// Cuts pieces of any size into messages of one chunk each. The first error ends the answer. When the reader has gone, no more pieces are
/// made.
pub fn in_chunks<T, E>(
    pieces: impl Stream<Item = Result<Vec<u8>, E>> + Send + 'static,
    message: impl Fn(Vec<u8>) -> T + Send + 'static,
) -> Answers<T>
where
    T: Send + 'static,
    E: Into<Status> + Send,
{
    let (sender, stream) = answers();
    tokio::spawn(async move {
        let mut pieces = std::pin::pin!(pieces);
        while let Some(piece) = pieces.next().await {
            let piece = match piece {
                Ok(piece) => piece,
                Err(error) => {
                    let _ = sender.send(Err(error.into())).await;
                    return;
                }
            };
            for chunk in piece.chunks(CHUNK) {
                if sender.send(Ok(message(chunk.to_vec()))).await.is_err() {
                    return;
                }
            }
        }
    });
    stream
}
