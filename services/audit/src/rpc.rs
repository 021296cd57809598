//! The contracts: requests are checked and turned into what the service understands, and what it says into answers.

mod audit;
mod lifecycle;
mod operation;
mod parse;

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::server::NamedService;
use tonic::service::Routes;
use tsujiban_proto::audit::v1::audit_service_server::AuditServiceServer;
use tsujiban_proto::lifecycle::v1::lifecycle_service_server::LifecycleServiceServer;

use crate::service::Audit;

pub use self::audit::addition;
pub use self::operation::from_wire;

/// The largest piece of a stream, in bytes.
const CHUNK: usize = 64 * 1024;
/// How many pieces of a stream wait for a slow reader.
const WAITING: usize = 4;

/// The full names of the services that are served.
pub const SERVICES: [&str; 2] = [AuditServiceServer::<audit::Api>::NAME, LifecycleServiceServer::<lifecycle::Api>::NAME];

/// Both services over the same state.
pub fn routes(audit: &Arc<Audit>) -> Routes {
    Routes::new(AuditServiceServer::new(audit::Api(Arc::clone(audit))))
        .add_service(LifecycleServiceServer::new(lifecycle::Api(Arc::clone(audit))))
}

type Answers<T> = ReceiverStream<Result<T, Status>>;
type Answering<T> = mpsc::Sender<Result<T, Status>>;

/// An answer in pieces that are made while they are read.
fn answers<T>() -> (Answering<T>, Answers<T>) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (sender, ReceiverStream::new(receiver))
}
