//! The contracts: requests are checked, and what the service says is turned into answers.

use std::sync::Arc;

use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tsujiban_proto::lifecycle::v1::lifecycle_service_server::LifecycleServiceServer;
use tsujiban_proto::scratch::v1::scratch_service_server::{ScratchService, ScratchServiceServer};
use tsujiban_proto::scratch::v1::{GetValueRequest, GetValueResponse, IncrementRequest, IncrementResponse};
use tsujiban_service::caller::Caller;
use tsujiban_service::lifecycle::{self, Adapter};

use crate::service::Scratch;

/// The services that are served.
pub const SERVICES: [&str; 2] = [ScratchServiceServer::<Api>::NAME, LifecycleServiceServer::<Adapter<Scratch>>::NAME];

/// Both services over the same state.
pub fn routes(scratch: &Arc<Scratch>) -> Routes {
    Routes::new(ScratchServiceServer::new(Api(Arc::clone(scratch)))).add_service(lifecycle::server(scratch))
}

pub struct Api(Arc<Scratch>);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl ScratchService for Api {
    async fn increment(&self, request: Request<IncrementRequest>) -> Answer<IncrementResponse> {
        let scope = Caller::of(&request)?.scope(&request.get_ref().group)?;
        Ok(Response::new(IncrementResponse { value: self.0.increment(&scope).await? }))
    }

    async fn get_value(&self, request: Request<GetValueRequest>) -> Answer<GetValueResponse> {
        let scope = Caller::of(&request)?.scope(&request.get_ref().group)?;
        Ok(Response::new(GetValueResponse { value: self.0.value(&scope).await? }))
    }
}
