//! Writing a whole config, secrets included, to a file or to standard output.

use std::io::{self, Write};
use std::path::Path;

use tsujiban_core::id::{GroupId, SnapshotId};

use super::content::Content;
use crate::exit::{ExitCode, Verdict};
use crate::failure::Failure;
use crate::file::{FileError, NewFile};
use crate::output::{Answer, escape_line};
use crate::service::Service;

/// A config that was not written. An existing file stays unchanged.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("standard output cannot be written")]
    Output(#[from] io::Error),
    #[error(
        "the service sent {got} bytes of a config of {wanted}; nothing was written. Run the command again, and then: tsujiban snapshots verify"
    )]
    Incomplete { got: usize, wanted: u64 },
}

impl ExitCode for RestoreError {}

/// The path that stands for standard output.
const STANDARD_OUTPUT: &str = "-";

/// Writes a snapshot's config to `path`.
pub async fn restore(service: &Service, group: &GroupId, id: &SnapshotId, path: &Path, force: bool) -> Result<Answer, Failure> {
    if path == Path::new(STANDARD_OUTPUT) {
        let content = super::get(service, group, id, true).await?;
        print(&content, &mut io::stdout().lock())?;
        return Ok(Answer { text: String::new(), verdict: Verdict::Good });
    }
    // before the config is fetched: none is revealed when the file cannot be written
    let file = NewFile::begin(path, force).map_err(RestoreError::from)?;
    let content = super::get(service, group, id, true).await?;
    write(&content, file)?;
    let (size, device) = (content.config.len(), escape_line(&content.snapshot.device));
    let text =
        format!("Wrote {size} bytes of device {device} to {}. The file holds secrets and is readable by you alone.\n", path.display());
    Ok(Answer { text, verdict: Verdict::Good })
}

fn check_complete(content: &Content) -> Result<(), RestoreError> {
    let (got, wanted) = (content.config.len(), content.snapshot.bytes);
    if u64::try_from(got) == Ok(wanted) { Ok(()) } else { Err(RestoreError::Incomplete { got, wanted }) }
}

fn write(content: &Content, mut file: NewFile) -> Result<(), RestoreError> {
    check_complete(content)?;
    file.write(&content.config)?;
    Ok(file.finish()?)
}

/// The config as it is, byte for byte, and nothing else.
fn print(content: &Content, output: &mut impl Write) -> Result<(), RestoreError> {
    check_complete(content)?;
    output.write_all(&content.config)?;
    Ok(output.flush()?)
}

#[cfg(test)]
mod tests {
    use tsujiban_proto::backup::v1 as wire;

    use super::*;

    fn content(config: &[u8], bytes: u64) -> Content {
        Content { snapshot: wire::Snapshot { bytes, ..wire::Snapshot::default() }.into(), config: config.to_vec() }
    }

    #[test]
    fn a_cut_config_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("core.conf");
        let error = write(&content(b"half", 8), NewFile::begin(&path, true).unwrap()).unwrap_err();
        assert!(matches!(error, RestoreError::Incomplete { got: 4, wanted: 8 }), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        write(&content(b"whole", 5), NewFile::begin(&path, false).unwrap()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
    }

    #[test]
    fn standard_output_gets_the_config_and_nothing_else() {
        let mut output = Vec::new();
        print(&content(b"half", 8), &mut output).unwrap_err();
        assert!(output.is_empty());
        print(&content(b"hostname core\xff\n", 15), &mut output).unwrap();
        assert_eq!(output, b"hostname core\xff\n");
    }
}
