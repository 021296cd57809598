//! The contracts: requests are checked and turned into what the service understands, and what it says into answers.

mod backup;
mod lifecycle;
mod parse;
mod upload;
mod wire;

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::server::NamedService;
use tonic::service::Routes;
use tsujiban_proto::backup::v1::backup_service_server::BackupServiceServer;
use tsujiban_proto::lifecycle::v1::lifecycle_service_server::LifecycleServiceServer;

use crate::service::Backup;

/// The largest piece of a stream, in bytes.
const CHUNK: usize = 64 * 1024;
/// How many pieces of a stream wait for a slow reader.
const WAITING: usize = 4;

/// The services that are served.
pub const SERVICES: [&str; 2] = [BackupServiceServer::<backup::Api>::NAME, LifecycleServiceServer::<lifecycle::Api>::NAME];

/// Both services over the same state.
pub fn routes(backup: &Arc<Backup>) -> Routes {
    Routes::new(BackupServiceServer::new(backup::Api(Arc::clone(backup))))
        .add_service(LifecycleServiceServer::new(lifecycle::Api(Arc::clone(backup))))
}

type Answers<T> = ReceiverStream<Result<T, Status>>;
type Answering<T> = mpsc::Sender<Result<T, Status>>;

/// An answer in pieces that are made while they are read.
fn answers<T>() -> (Answering<T>, Answers<T>) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (sender, ReceiverStream::new(receiver))
}
