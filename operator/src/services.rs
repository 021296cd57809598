//! The services of this installation, as the operator calls them. It prepares, retains and erases a group in all of them.

pub mod client;

use tsujiban_core::workload::Service;

use self::client::{CallError, ServiceClient};

/// The services that are installed, in the order in which they are asked.
#[derive(Debug)]
pub struct Services(Vec<ServiceClient>);

impl Services {
    pub fn new(mut clients: Vec<ServiceClient>) -> Self {
        clients.sort_by_key(|client| client.service);
        Self(clients)
    }

    pub fn all(&self) -> impl Iterator<Item = &ServiceClient> {
        self.0.iter()
    }

    pub fn names(&self) -> Vec<Service> {
        self.all().map(|client| client.service).collect()
    }

    /// `None`: the service is not installed.
    pub fn find(&self, service: Service) -> Option<&ServiceClient> {
        self.all().find(|client| client.service == service)
    }

    /// A service that the caller needs; an error if it is not installed.
    pub fn get(&self, service: Service) -> Result<&ServiceClient, CallError> {
        self.find(service).ok_or(CallError::NotInstalled(service))
    }
}
