//! Serves logs as C2SP tlog-tiles defines, over HTTP: `/<log id>/checkpoint`, `/<log id>/tile/...`. Read-only, and without customer data:
//! leaves are sequences, key ids and commitments. Clients cannot discover log ids.

use std::sync::Arc;

use ::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use ::http::{Method, Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::Full;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tsujiban_core::error::chain;
use tsujiban_history::LogId;
use tsujiban_history::tile::{Path, TileId, encode_tile};
use tsujiban_service::http::{self, Serving};

use crate::error::{Error, Result};
use crate::reading::Log;
use crate::service::Audit;

/// A tile or bundle never changes.
const FOR_EVER: &str = "public, max-age=31536000, immutable";
const NEVER: &str = "no-store";

/// The content at a path.
enum Found {
    Text(String),
    Bytes(Vec<u8>),
}

/// Serves until `shutdown` is cancelled. Each connection reads `tls` again, so that a renewed certificate is used.
pub async fn serve(audit: Arc<Audit>, listener: TcpListener, tls: TlsAcceptor, shutdown: CancellationToken) {
    let shown = move |request: Request<()>| {
        let audit = Arc::clone(&audit);
        async move { answer(&audit, request.method(), request.uri().path()).await }
    };
    http::serve(listener, Some(tls), Serving::files("tiles"), shutdown, shown).await;
}

/// The answer to a request. Ignores the request's body.
pub async fn answer(audit: &Audit, method: &Method, path: &str) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "there is only GET\n");
    }
    match find(audit, path).await {
        Ok(Some(Found::Text(checkpoint))) => response(StatusCode::OK, "text/plain; charset=utf-8", NEVER, checkpoint.into_bytes()),
        Ok(Some(Found::Bytes(tile))) => response(StatusCode::OK, "application/octet-stream", FOR_EVER, tile),
        Ok(None) => text(StatusCode::NOT_FOUND, "there is no such log, or it has no such tile\n"),
        Err(error @ Error::Damaged(_)) => {
            tracing::error!(error = chain(&error), "a tile is damaged");
            text(StatusCode::INTERNAL_SERVER_ERROR, "this part of the log is damaged where it is stored\n")
        }
        Err(error) => {
            tracing::error!(error = chain(&error), "a tile cannot be read");
            text(StatusCode::INTERNAL_SERVER_ERROR, "the log cannot be read; try again later\n")
        }
    }
}

async fn find(audit: &Audit, path: &str) -> Result<Option<Found>> {
    let Some((id, path)) = path.strip_prefix('/').and_then(|path| path.split_once('/')) else { return Ok(None) };
    let (Ok(id), Ok(path)) = (id.parse::<LogId>(), path.parse::<Path>()) else { return Ok(None) };
    let Some(log) = audit.log_by_id(&id).await? else { return Ok(None) };
    let log = audit.listed(&log).await?;
    match path {
        Path::Checkpoint => Ok(Some(Found::Text(audit.sign(log.id, log.head())?))),
        Path::Tile(tile) if within(&log, tile) => Ok(Some(Found::Bytes(encode_tile(&audit.tile(&log, tile).await?)))),
        Path::Entries { index, width } if within(&log, TileId { level: 0, index, width }) => {
            Ok(Some(Found::Bytes(audit.bundle(&log, index, width).await?)))
        }
        Path::Tile(_) | Path::Entries { .. } => Ok(None),
    }
}

/// Whether the log is large enough for a tile.
fn within(log: &Log, wanted: TileId) -> bool {
    TileId::of(wanted.level, wanted.index, log.size()).is_some_and(|there| there.width >= wanted.width)
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", NEVER, body.as_bytes().to_vec())
}

fn response(status: StatusCode, kind: &'static str, cache: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    response
}
