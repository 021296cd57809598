//! An operator in this process, that can be ended at any moment as a power cut does.

use std::sync::Arc;

use clap::Parser as _;
use kube::Client;
use tokio::task::JoinHandle;
use tsujiban_core::clock::SystemClock;
use tsujiban_operator::fence::Fence;
use tsujiban_operator::metrics::Metrics;
use tsujiban_operator::run::{World, lead};
use tsujiban_operator::settings::Settings;
use tsujiban_sealing::SystemRandom;

/// A leading operator. Dropping it ends it between two instructions: nothing is tidied up.
pub struct Operator {
    pub metrics: Arc<Metrics>,
    task: JoinHandle<()>,
}

impl Operator {
    /// Starts leading at once: no lease is asked for. `backup` is where the backup service answers.
    pub fn start(client: Client, backup: &str) -> Self {
        Self::start_with(client, backup, "")
    }

    /// The same with an operation history, where the audit service answers.
    pub fn start_with(client: Client, backup: &str, audit: &str) -> Self {
        let tokens = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/plane/tokens"); // the stand-in asks nobody who calls
        let audit = Some(audit).filter(|audit| !audit.is_empty()).map(|audit| format!(",audit={audit}")).unwrap_or_default();
        let services = format!("backup={backup}{audit}");
        let settings = Settings::parse_from([
            "tsujiban-operator",
            "--environment=trial",
            "--collector-image=tsujiban-collector:plane",
            "--forbidden-cidrs=10.244.0.0/16,10.96.0.0/16,10.255.255.0/24",
            &format!("--services={services}"),
            &format!("--token-dir={tokens}"),
            "--changes-are-stamped",
        ]);
        let metrics = Arc::new(Metrics::new().unwrap());
        let world = World {
            client,
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom::new()),
            metrics: Arc::clone(&metrics),
            kept: metrics.keeper().unwrap(),
            fence: Fence::open(),
        };
        let task = tokio::spawn(async move {
            let ended = lead(&settings, world).await;
            panic!("the operator ended: {ended:?}");
        });
        Self { metrics, task }
    }

    /// Ends it, and waits until nothing of it runs any more.
    pub async fn end(mut self) {
        self.task.abort();
        let _aborted = (&mut self.task).await;
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.task.abort();
    }
}
