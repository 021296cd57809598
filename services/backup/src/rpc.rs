//! The gRPC contracts: checks requests, converts them to the service's types, and converts its results to responses.

mod backup;
mod parse;
mod upload;

use std::sync::Arc;

use tonic::server::NamedService;
use tonic::service::Routes;
use tsujiban_proto::backup::v1::backup_service_server::BackupServiceServer;
use tsujiban_proto::lifecycle::v1::lifecycle_service_server::LifecycleServiceServer;
use tsujiban_service::lifecycle::{self, Adapter};

use crate::service::Backup;

/// The services that are served.
pub const SERVICES: [&str; 2] = [BackupServiceServer::<backup::Api>::NAME, LifecycleServiceServer::<Adapter<Backup>>::NAME];

/// Both services over the same state.
pub fn routes(backup: &Arc<Backup>) -> Routes {
    Routes::new(BackupServiceServer::new(backup::Api(Arc::clone(backup)))).add_service(lifecycle::server(backup))
}
