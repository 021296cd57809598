//! Proofs and pages of a log with a million entries.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tsujiban_audit::reading::Log;
use tsujiban_history::merkle::{Hash, leaf_hash, verify_inclusion};
use tsujiban_history::{Leaf, TreeHead};
use tsujiban_proto::audit::v1::audit_service_client::AuditServiceClient;
use tsujiban_proto::audit::v1::{GetProofRequest, GetProofResponse, ListEntriesRequest};

use super::entries::{group, mix};
use super::service::Service;
use super::{HASHES, LIST, PROOF, as_f64, millis, p99};
use crate::figure::{Figure, Measured, Target};
use crate::progress::step;
use crate::server::{Server, from_staff};

const SIZE: u64 = 1_000_000;
/// How many hashes a proof in a balanced tree of that size has.
const DEPTH: f64 = 20.0;
const PROOFS: u64 = 2000;
const PAGES: u64 = 500;
/// The page that is listed when none is asked for by size.
const PAGE: u32 = 100;

/// `audit_proof`, `audit_proof_hashes` and `audit_list`.
pub async fn at_a_million(disk: &Path) -> Result<Vec<Measured>> {
    step(&format!("audit: a log is filled with {SIZE} entries"));
    let service = Service::open(disk).await?;
    let log = service.fill(SIZE).await?;
    ensure!(log.size() == SIZE, "the log has {} entries", log.size());
    let server = service.serve().await?;
    step(&format!("{PROOF}: {PROOFS} proofs, {LIST}: {PAGES} pages"));
    let proofs = prove(&server, &log).await?;
    let pages = list(&server).await?;
    let row = rows(&service, &log, PROOFS, 1).await?;
    let rows = rows(&service, &log, PAGES, PAGE).await?;

    let note = format!(
        "99th percentile of {PROOFS} GetProof calls over TLS, one after the other, for entries by chance of a log of {SIZE}, each verified; beside \
         the reading of one entry's row of the same database"
    );
    let proof = Figure::new(PROOF, millis(p99(proofs.took)), "ms", millis(p99(row)), note);
    let note = format!("the most hashes that one of those proofs had; beside the height of a balanced tree of {SIZE} entries");
    let hashes = Figure::new(HASHES, as_f64(u64::try_from(proofs.most)?), "hashes", DEPTH, note);
    let note = format!(
        "99th percentile of {PAGES} ListEntries calls over TLS for the first page ({PAGE} entries, opened) of a log of {SIZE}; beside the \
         reading of as many sealed rows of the same database"
    );
    let list = Figure::new(LIST, millis(p99(pages)), "ms", millis(p99(rows)), note);
    Ok(vec![
        Measured { figure: proof, target: Target::ValueAtMost(5.0) },
        Measured { figure: hashes, target: Target::ValueAtMost(25.0) },
        Measured { figure: list, target: Target::ValueAtMost(20.0) },
    ])
}

struct Proofs {
    took: Vec<Duration>,
    most: usize,
}

async fn prove(server: &Server, log: &Log) -> Result<Proofs> {
    let mut client = AuditServiceClient::new(server.connect().await?);
    let mut proofs = Proofs { took: Vec::new(), most: 0 };
    for n in 0..PROOFS {
        let sequence = mix(n) % log.size();
        let request = GetProofRequest { group: group(0), sequence, tree_size: log.size() };
        let begun = Instant::now();
        let proof = client.get_proof(from_staff(request)).await?.into_inner();
        proofs.took.push(begun.elapsed());
        proofs.most = proofs.most.max(proof.hashes.len());
        check(&proof, sequence, log.head())?;
    }
    Ok(proofs)
}

fn check(proof: &GetProofResponse, sequence: u64, head: TreeHead) -> Result<()> {
    ensure!(Leaf::parse(&proof.leaf)?.sequence == sequence, "it was proven for another entry than {sequence}");
    let hash = |bytes: &Vec<u8>| -> Result<Hash> { Ok(Hash::from_bytes(bytes.as_slice().try_into()?)) };
    let hashes = proof.hashes.iter().map(hash).collect::<Result<Vec<_>>>()?;
    Ok(verify_inclusion(sequence, leaf_hash(&proof.leaf), &hashes, head)?)
}

async fn list(server: &Server) -> Result<Vec<Duration>> {
    let mut client = AuditServiceClient::new(server.connect().await?);
    let mut took = Vec::new();
    for _ in 0..PAGES {
        let request = ListEntriesRequest { group: group(0), ..ListEntriesRequest::default() };
        let begun = Instant::now();
        let page = client.list_entries(from_staff(request)).await?.into_inner();
        took.push(begun.elapsed());
        ensure!(page.entries.len() == usize::try_from(PAGE)?, "a page has {} entries", page.entries.len());
    }
    Ok(took)
}

/// The newest rows, or one by chance.
async fn rows(service: &Service, log: &Log, times: u64, count: u32) -> Result<Vec<Duration>> {
    let mut took = Vec::new();
    for n in 0..times {
        let from = if count == 1 { mix(n) % log.size() } else { log.size() - u64::from(count) };
        let begun = Instant::now();
        let rows = service.audit.entries(log.number, from, count).await?;
        took.push(begun.elapsed());
        ensure!(rows.len() == usize::try_from(count)?, "{} rows were read", rows.len());
    }
    Ok(took)
}
