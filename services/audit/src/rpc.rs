//! The gRPC contracts: checks requests and converts them to the service's types, and converts its results to responses.

mod audit;
mod operation;
mod parse;

use std::sync::Arc;

use tonic::server::NamedService;
use tonic::service::Routes;
use tsujiban_proto::audit::v1::audit_service_server::AuditServiceServer;
use tsujiban_proto::lifecycle::v1::lifecycle_service_server::LifecycleServiceServer;
use tsujiban_service::lifecycle::{self, Adapter};

use crate::service::Audit;

pub use self::audit::{addition, asked, coverage};
pub use self::operation::from_wire;

/// The full names of the services that are served.
pub const SERVICES: [&str; 2] = [AuditServiceServer::<audit::Api>::NAME, LifecycleServiceServer::<Adapter<Audit>>::NAME];

/// Both services over the same state.
pub fn routes(audit: &Arc<Audit>) -> Routes {
    Routes::new(AuditServiceServer::new(audit::Api(Arc::clone(audit)))).add_service(lifecycle::server(audit))
}
