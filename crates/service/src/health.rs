//! What probes ask: is the process alive, and can it take calls?

use std::sync::{Arc, Mutex, PoisonError};

use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

/// The name under which probes ask whether calls can be taken. The empty name asks whether the process is alive.
pub const READINESS: &str = "readiness";

/// The health of a server. It is ready when it accepts calls and the service behind it is able to answer them.
#[derive(Clone)]
pub struct Health {
    reporter: HealthReporter,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    accepting: bool,
    able: bool,
    writable: bool,
}

impl State {
    const fn is_ready(self) -> bool {
        self.accepting && self.able && self.writable
    }

    const fn readiness(self) -> ServingStatus {
        if self.is_ready() { ServingStatus::Serving } else { ServingStatus::NotServing }
    }
}

impl Health {
    /// Not ready until the server accepts calls.
    pub fn new() -> Self {
        Self { reporter: HealthReporter::new(), state: Arc::new(Mutex::new(State { accepting: false, able: true, writable: true })) }
    }

    /// Sets whether the service is able to answer. It is able until this is called.
    pub async fn set_able(&self, able: bool) {
        self.change(|state| state.able = able).await;
    }

    /// Sets whether the service is able to write. It is able until this is called.
    pub async fn set_writable(&self, writable: bool) {
        self.change(|state| state.writable = writable).await;
    }

    /// Whether calls can be taken.
    pub fn is_ready(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).is_ready()
    }

    pub(crate) async fn set_accepting(&self, accepting: bool) {
        self.change(|state| state.accepting = accepting).await;
    }

    async fn change(&self, change: impl FnOnce(&mut State)) {
        let readiness = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut state);
            state.readiness()
        };
        self.reporter.set_service_status(READINESS, readiness).await;
    }

    pub(crate) async fn service(&self) -> HealthServer<HealthService> {
        self.change(|_| {}).await;
        HealthServer::new(HealthService::from_health_reporter(self.reporter.clone()))
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}
