//! A group's records go into its tenant snapshot and come back.

use tonic::{Code, Status};
use tsujiban_proto::backup::v1::ReplaceHostKeyRequest;
use tsujiban_proto::lifecycle::v1::import_request::Part;
use tsujiban_proto::lifecycle::v1::{ExportRequest, ImportHeader, ImportRequest};
use tsujiban_service::testing::with_token;

use crate::stage::{HOST_KEY, OPERATOR, STAFF, Stage, config, device};

pub async fn export(stage: &Stage, group: &str, incarnation: &str) -> Vec<u8> {
    let request = ExportRequest { group: group.into(), incarnation: incarnation.into() };
    let mut stream = stage.lifecycle().export(with_token(OPERATOR, request)).await.unwrap().into_inner();
    let mut all = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        assert!(message.chunk.len() <= 64 * 1024);
        all.extend(message.chunk);
    }
    all
}

/// Sends an export in pieces of a size that fits no boundary of it.
pub async fn import(stage: &Stage, group: &str, incarnation: &str, export: &[u8]) -> Result<u64, Status> {
    let header = Part::Header(ImportHeader { group: group.into(), incarnation: incarnation.into() });
    let chunks = export.chunks(777).map(|chunk| Part::Chunk(chunk.to_vec()));
    let messages: Vec<_> = std::iter::once(header).chain(chunks).map(|part| ImportRequest { part: Some(part) }).collect();
    Ok(stage.lifecycle().import(with_token(OPERATOR, tokio_stream::iter(messages))).await?.into_inner().records)
}

async fn full() -> (Stage, String, Vec<u8>) {
    let stage = Stage::prepared().await;
    for n in 0..150 {
        stage.put("acme", &format!("SN{n}"), &config(&format!("r{n}"))).await.unwrap();
    }
    let incarnation = stage.prepare("acme").await.unwrap();
    let exported = export(&stage, "acme", &incarnation).await;
    (stage, incarnation, exported)
}

#[tokio::test]
async fn what_is_lost_comes_back_and_what_is_there_stays() {
    let (stage, incarnation, exported) = full().await;
    for typed in ["SN77", "router-sn77", "hunter2", "AAAAC3Nza"] {
        assert!(!exported.windows(typed.len()).any(|window| window == typed.as_bytes()), "{typed} is sealed");
    }
    assert_eq!(import(&stage, "acme", &incarnation, &exported).await.unwrap(), 0);
    let before = stage.list("acme", "").await.unwrap();
    for snapshot in before.iter().take(120) {
        stage.catalogue.forget_snapshot(&snapshot.id.parse().unwrap()).await.unwrap();
    }
    assert_eq!(stage.list("acme", "").await.unwrap().len(), 30);
    assert_eq!(import(&stage, "acme", &incarnation, &exported).await.unwrap(), 120);
    assert_eq!(stage.list("acme", "").await.unwrap(), before);
    let replace = ReplaceHostKeyRequest { device: Some(device("acme", "SN1")), expected: HOST_KEY.into(), ..Default::default() };
    stage.backup().replace_host_key(with_token(STAFF, replace)).await.unwrap();
}

/// C24, C25: an import does not bring back what was erased.
#[tokio::test]
async fn what_was_erased_stays_erased() {
    let (stage, incarnation, exported) = full().await;
    stage.erase(OPERATOR, "acme", &incarnation, "SN7").await.unwrap();
    assert_eq!(import(&stage, "acme", &incarnation, &exported).await.unwrap(), 0);
    assert_eq!(stage.list("acme", "SN7").await.unwrap_err().code(), Code::NotFound);
    stage.erase(OPERATOR, "acme", &incarnation, "").await.unwrap();
    assert_eq!(import(&stage, "acme", &incarnation, &exported).await.unwrap_err().code(), Code::NotFound);
}

/// C7: an export opens in its own group only; damage and cuts are noticed.
#[tokio::test]
async fn a_wrong_or_damaged_export_is_refused() {
    let (stage, incarnation, exported) = full().await;
    let other = stage.prepare("other").await.unwrap();
    assert_eq!(import(&stage, "other", &other, &exported).await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(import(&stage, "acme", &incarnation, &exported[..exported.len() - 40]).await.unwrap_err().code(), Code::InvalidArgument);
    let mut damaged = exported.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    assert_eq!(import(&stage, "acme", &incarnation, &damaged).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(import(&stage, "acme", &incarnation, b"nonsense").await.unwrap_err().code(), Code::InvalidArgument);
}
