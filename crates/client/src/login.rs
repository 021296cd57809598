//! The metadata of every call: the caller's token, the deadline and the trace context.

use std::path::PathBuf;
use std::time::Duration;

use tonic::Request;
use tonic::metadata::errors::InvalidMetadataValue;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use zeroize::Zeroizing;

use crate::error::ClientError;

/// Writes the trace context into the metadata of a call.
pub type Trace = fn(&mut MetadataMap);

/// The metadata of one call.
#[derive(Debug, Clone)]
pub struct Login {
    bearer: MetadataValue<Ascii>,
    deadline: Option<Duration>,
    trace: Option<Trace>,
}

impl Login {
    /// Sends a token, as [`bearer`] makes it. The call has no trace context, and the deadline of the connection.
    pub fn by(bearer: MetadataValue<Ascii>) -> Self {
        Self { bearer, deadline: None, trace: None }
    }

    /// A call with this message. Its trace context is that of the caller of this function.
    pub fn request<T>(self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.bearer);
        if let Some(trace) = self.trace {
            trace(request.metadata_mut());
        }
        if let Some(deadline) = self.deadline {
            request.set_timeout(deadline);
        }
        request
    }
}

/// The file with the caller's token. It is read anew for each call, since Kubernetes replaces the token before it expires.
#[derive(Debug, Clone)]
pub struct TokenFile {
    path: PathBuf,
    trace: Trace,
}

impl TokenFile {
    /// `trace` writes the trace context into each call.
    pub fn new(path: PathBuf, trace: Trace) -> Self {
        Self { path, trace }
    }

    /// The metadata of a call with this deadline.
    pub async fn login(&self, deadline: Duration) -> Result<Login, ClientError> {
        let path = || self.path.clone();
        let token = tokio::fs::read_to_string(&self.path).await.map_err(|source| ClientError::TokenFile { path: path(), source })?;
        let bearer = bearer(Zeroizing::new(token).trim()).map_err(|source| ClientError::NoToken { path: path(), source })?;
        Ok(Login { bearer, deadline: Some(deadline), trace: Some(self.trace) })
    }
}

/// A token as a metadata value, marked as sensitive so that it is not printed with the metadata.
pub fn bearer(token: &str) -> Result<MetadataValue<Ascii>, InvalidMetadataValue> {
    let text = Zeroizing::new(format!("Bearer {token}"));
    let mut value = MetadataValue::try_from(text.as_str())?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn traced(metadata: &mut MetadataMap) {
        metadata.insert("traceparent", MetadataValue::from_static("here"));
    }

    #[tokio::test]
    async fn each_call_shows_the_token_as_it_stands_in_its_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let tokens = TokenFile::new(file.path().to_owned(), traced);
        for token in ["first", "second"] {
            std::fs::write(file.path(), format!("{token}\n")).unwrap();
            let request = tokens.login(SECOND).await.unwrap().request(());
            let shown = request.metadata().get("authorization").unwrap();
            assert_eq!((shown.to_str().unwrap(), shown.is_sensitive()), (format!("Bearer {token}").as_str(), true));
            assert!(request.metadata().get("traceparent").is_some_and(|trace| trace == "here"));
            assert!(request.metadata().get("grpc-timeout").is_some());
        }
    }

    #[tokio::test]
    async fn a_token_that_is_not_there_is_named_by_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let tokens = TokenFile::new(path.clone(), traced);
        assert!(matches!(tokens.login(SECOND).await, Err(ClientError::TokenFile { .. })));
        std::fs::write(path, "two\nlines").unwrap();
        let error = tokens.login(SECOND).await.unwrap_err();
        assert!(matches!(error, ClientError::NoToken { .. }) && !format!("{error:?}").contains("lines"), "{error:?}");
    }
}
