//! What one declaration sets off in several services is one trace, at a receiver outside the cluster.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tsujiban_e2e::inside::Inside;
use tsujiban_e2e::manifests::Group;
use tsujiban_e2e::stage::Stage;
use tsujiban_e2e::wait::until;
use tsujiban_traces::Span;

const PORT: u16 = 4317;
const WORKLOADS: [&str; 3] = ["deployment/tsujiban-operator", "statefulset/tsujiban-backup", "statefulset/tsujiban-audit"];

#[tokio::test(flavor = "multi_thread")]
async fn a_declaration_is_one_trace_through_all_services() -> Result<()> {
    let stage = Stage::find().await?;
    let _alone = Stage::alone().await;
    let receiver = Receiver::start(&stage)?;
    let (endpoint, network) =
        (format!("otlpEndpoint=http://{}:{PORT}", receiver.address), format!("network.otlp.cidrs={{{}/32}}", receiver.address));
    set(&stage, &[&endpoint, &network]).await?;
    let traced = traced(&stage, &receiver).await;
    set(&stage, &["otlpEndpoint=", "network.otlp.cidrs=null"]).await?;
    traced
}

async fn traced(stage: &Stage, receiver: &Receiver) -> Result<()> {
    let group = Group::create(stage, "traced", 94).await?;
    let wanted = BTreeSet::from(["tsujiban-operator", "tsujiban-backup", "tsujiban-audit"]);
    until("one trace goes through all services", Duration::from_mins(1), || async {
        let spans = receiver.spans();
        let prepared = spans.iter().filter(|span| span.service == "tsujiban-backup" && span.name.ends_with("/Prepare"));
        for prepare in prepared {
            let trace: Vec<&Span> = spans.iter().filter(|span| span.trace == prepare.trace).collect();
            let services: BTreeSet<&str> = trace.iter().map(|span| span.service.as_str()).collect();
            let has_parent = |span: &&Span| span.parent.is_empty() || trace.iter().any(|other| other.id == span.parent);
            if services.is_superset(&wanted) && trace.iter().all(has_parent) {
                return Ok(Some(()));
            }
        }
        let services: BTreeSet<&str> = spans.iter().map(|span| span.service.as_str()).collect();
        bail!("{} spans, of {services:?}; the last: {:?}", spans.len(), spans.last())
    })
    .await?;
    group.erase().await
}

/// Gives the release these values, and waits until what runs has them.
async fn set(stage: &Stage, values: &[&str]) -> Result<()> {
    stage.set(values).await?;
    for workload in WORKLOADS {
        stage.rolled_out(workload).await?;
    }
    Ok(())
}

/// A receiver at the node's address. It goes when this value goes.
struct Receiver {
    address: String,
    spans: Arc<Mutex<Vec<Span>>>,
    _program: Inside,
}

impl Receiver {
    fn start(stage: &Stage) -> Result<Self> {
        let cluster = std::fs::read_to_string(stage.state.join("cluster")).context("needs a cluster of our own; run `make test-e2e`")?;
        let subnet = cluster.split_whitespace().nth(1).context("the cluster has no subnet")?;
        let address = format!("{subnet}.1");
        let mut program = Inside::start(stage, "tsujiban-traces", &[&format!("{address}:{PORT}")], Stdio::piped())?;
        let lines = BufReader::new(program.output()?).lines();
        let spans: Arc<Mutex<Vec<Span>>> = Arc::default();
        let seen = Arc::clone(&spans);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                seen.lock().unwrap_or_else(PoisonError::into_inner).extend(serde_json::from_str::<Span>(&line));
            }
        });
        Ok(Self { address, spans, _program: program })
    }

    fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
