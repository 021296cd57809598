//! A config as it comes in: a header, chunks, and the trailer that says that it is whole.

use std::time::Duration;

use ring::digest::{SHA256, digest};
use tonic::{Status, Streaming};
use tsujiban_proto::backup::v1::put_snapshot_request::Part;
use tsujiban_proto::backup::v1::{PutSnapshotHeader, PutSnapshotRequest, PutSnapshotTrailer};
use tsujiban_proto::error::{Kind, ServiceError};
use tsujiban_service::answers::CHUNK;
use zeroize::Zeroizing;

use crate::object::MAX_CONFIG_BYTES;

/// How long the next message may take. The collector has the whole config before it begins.
const PATIENCE: Duration = Duration::from_mins(1);

/// The first message.
pub async fn header(stream: &mut Streaming<PutSnapshotRequest>) -> Result<PutSnapshotHeader, Status> {
    match next(stream).await? {
        Some(Part::Header(header)) => Ok(header),
        _ => Err(out_of_order().into()),
    }
}

/// The config, after its trailer has proven it whole.
pub async fn config(stream: &mut Streaming<PutSnapshotRequest>) -> Result<Zeroizing<Vec<u8>>, Status> {
    let mut config = Config::default();
    loop {
        match next(stream).await? {
            Some(Part::Chunk(chunk)) => config.push(&chunk)?,
            Some(Part::Trailer(trailer)) => {
                let config = config.end(&trailer)?;
                return match next(stream).await? {
                    None => Ok(config),
                    Some(_) => Err(out_of_order().into()),
                };
            }
            Some(Part::Header(_)) => return Err(out_of_order().into()),
            None => return Err(cut("the stream ended without its trailer").into()),
        }
    }
}

async fn next(stream: &mut Streaming<PutSnapshotRequest>) -> Result<Option<Part>, Status> {
    let message = tokio::time::timeout(PATIENCE, stream.message()).await.map_err(|_| {
        let message = format!("nothing came for {} s; send the config again", PATIENCE.as_secs());
        ServiceError::new(Kind::Timeout, "TOO_SLOW", message)
    })??;
    match message {
        None => Ok(None),
        Some(PutSnapshotRequest { part: Some(part) }) => Ok(Some(part)),
        Some(PutSnapshotRequest { part: None }) => Err(out_of_order().into()),
    }
}

#[derive(Default)]
struct Config(Zeroizing<Vec<u8>>);

impl Config {
    fn push(&mut self, chunk: &[u8]) -> Result<(), ServiceError> {
        if chunk.len() > CHUNK {
            let message = format!("a chunk has {} bytes; send at most {CHUNK}", chunk.len());
            return Err(ServiceError::new(Kind::Invalid, "CHUNK_TOO_LARGE", message));
        }
        let length = self.0.len() + chunk.len();
        if length > MAX_CONFIG_BYTES {
            let message =
                format!("the config has more than {MAX_CONFIG_BYTES} bytes, which no device of ours needs; look at what the device sends");
            return Err(ServiceError::new(Kind::Exhausted, "CONFIG_TOO_LARGE", message));
        }
        if length > self.0.capacity() {
            // grown by hand, since a vector that grows by itself leaves what it held in freed memory
            let mut grown = Zeroizing::new(Vec::with_capacity((length * 2).min(MAX_CONFIG_BYTES)));
            grown.extend_from_slice(&self.0);
            self.0 = grown;
        }
        self.0.extend_from_slice(chunk);
        Ok(())
    }

    fn end(self, trailer: &PutSnapshotTrailer) -> Result<Zeroizing<Vec<u8>>, ServiceError> {
        if u64::try_from(self.0.len()).ok() != Some(trailer.bytes) {
            return Err(cut(&format!("{} bytes came of {}", self.0.len(), trailer.bytes)));
        }
        if digest(&SHA256, &self.0).as_ref() != trailer.sha256 {
            return Err(cut("what came has another SHA-256 than what was sent"));
        }
        Ok(self.0)
    }
}

fn cut(what: &str) -> ServiceError {
    ServiceError::new(Kind::Invalid, "CUT", format!("the config did not arrive whole, so it is not stored: {what}; send it again"))
}

fn out_of_order() -> ServiceError {
    ServiceError::new(Kind::Invalid, "OUT_OF_ORDER", "send a header, then the config in chunks, then a trailer, and nothing else")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trailer(bytes: u64, of: &[u8]) -> PutSnapshotTrailer {
        PutSnapshotTrailer { bytes, sha256: digest(&SHA256, of).as_ref().to_vec() }
    }

    #[test]
    fn only_a_whole_config_is_taken() {
        let filled = || {
            let mut config = Config::default();
            config.push(b"abc").unwrap();
            config.push(b"def").unwrap();
            config
        };
        assert_eq!(&**filled().end(&trailer(6, b"abcdef")).unwrap(), b"abcdef");
        assert_eq!(filled().end(&trailer(7, b"abcdef")).unwrap_err().reason, "CUT");
        assert_eq!(filled().end(&trailer(6, b"abcdeX")).unwrap_err().reason, "CUT");
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let mut config = Config::default();
        assert_eq!(config.push(&vec![0; CHUNK + 1]).unwrap_err().kind, Kind::Invalid);
        let chunk = vec![b'x'; CHUNK];
        for _ in 0..MAX_CONFIG_BYTES / CHUNK {
            config.push(&chunk).unwrap();
        }
        assert_eq!(config.push(b"x").unwrap_err().kind, Kind::Exhausted);
    }
}
