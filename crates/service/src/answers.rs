//! Answers that are streams.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// The largest piece of a stream, in bytes.
pub const CHUNK: usize = 64 * 1024;
/// How many pieces of a stream wait for a slow reader.
const WAITING: usize = 4;

pub type Answers<T> = ReceiverStream<Result<T, Status>>;
pub type Answering<T> = mpsc::Sender<Result<T, Status>>;

/// An answer in pieces that are made while they are read.
pub fn answers<T>() -> (Answering<T>, Answers<T>) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (sender, ReceiverStream::new(receiver))
}
