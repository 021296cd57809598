//! Writing a whole config, secrets included, to a file.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use tsujiban_core::id::{GroupId, SnapshotId};

use super::content::Content;
use crate::failure::Failure;
use crate::output::{Answer, Verdict, escape_line};
use crate::service::Service;

/// A file that was not written. What was there before is still there.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("{} exists; name another file, or replace it with --force", path.display())]
    Exists { path: PathBuf },
    #[error("{} cannot be written; check that its folder exists and is yours", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error(
        "the service sent {got} bytes of a config of {wanted}; nothing was written. Run the command again, and then: tsujiban snapshots verify"
    )]
    Incomplete { got: usize, wanted: u64 },
}

/// Writes a snapshot's config to `path`.
pub async fn restore(service: &Service, group: &GroupId, id: &SnapshotId, path: &Path, force: bool) -> Result<Answer, Failure> {
    refuse_existing(path, force)?;
    let content = super::get(service, group, id, true).await?;
    write(&content, path, force)?;
    let (size, device) = (content.config.len(), escape_line(&content.snapshot.device));
    let text =
        format!("Wrote {size} bytes of device {device} to {}. The file holds secrets and is readable by you alone.\n", path.display());
    Ok(Answer { text, verdict: Verdict::Good })
}

/// Refuses before anything is fetched. The final word is [`write`]'s.
fn refuse_existing(path: &Path, force: bool) -> Result<(), RestoreError> {
    if !force && path.symlink_metadata().is_ok() {
        return Err(RestoreError::Exists { path: path.to_owned() });
    }
    Ok(())
}

/// Writes the config beside `path`, mode 0600, and moves it there when it is whole and on the disk.
fn write(content: &Content, path: &Path, force: bool) -> Result<(), RestoreError> {
    let (got, wanted) = (content.config.len(), content.snapshot.bytes);
    if u64::try_from(got) != Ok(wanted) {
        return Err(RestoreError::Incomplete { got, wanted });
    }
    let failed = |source| RestoreError::Write { path: path.to_owned(), source };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let mut file = NamedTempFile::new_in(folder).map_err(failed)?;
    file.write_all(&content.config).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    let moved = if force { file.persist(path) } else { file.persist_noclobber(path) };
    match moved {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Err(RestoreError::Exists { path: path.to_owned() }),
        Err(error) => Err(failed(error.error)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use tempfile::TempDir;
    use tsujiban_proto::backup::v1 as wire;

    use super::*;

    fn content(config: &[u8], bytes: u64) -> Content {
        Content { snapshot: wire::Snapshot { bytes, ..wire::Snapshot::default() }.into(), config: config.to_vec() }
    }

    fn files(folder: &TempDir) -> usize {
        fs::read_dir(folder.path()).unwrap().count()
    }

    #[test]
    fn the_file_is_exact_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("core.conf");
        write(&content(b"hostname core\n\xff", 15), &path, false).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"hostname core\n\xff");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(files(&folder), 1, "nothing is left beside it");
    }

    #[test]
    fn an_existing_file_stays_without_force() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("core.conf");
        fs::write(&path, "mine").unwrap();
        assert!(matches!(refuse_existing(&path, false), Err(RestoreError::Exists { .. })));
        assert!(matches!(write(&content(b"new", 3), &path, false), Err(RestoreError::Exists { .. })));
        assert_eq!((fs::read(&path).unwrap(), files(&folder)), (b"mine".to_vec(), 1));

        refuse_existing(&path, true).unwrap();
        write(&content(b"new", 3), &path, true).unwrap();
        assert_eq!((fs::read(&path).unwrap(), files(&folder)), (b"new".to_vec(), 1));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (link, target) = (folder.path().join("link"), folder.path().join("target"));
        symlink(&target, &link).unwrap();
        assert!(matches!(refuse_existing(&link, false), Err(RestoreError::Exists { .. })));
        write(&content(b"new", 3), &link, true).unwrap();
        assert!(!target.exists() && !link.is_symlink());
    }

    #[test]
    fn a_cut_config_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("core.conf");
        let error = write(&content(b"half", 8), &path, true).unwrap_err();
        assert!(matches!(error, RestoreError::Incomplete { got: 4, wanted: 8 }), "{error}");
        assert_eq!(files(&folder), 0);
    }

    #[test]
    fn a_folder_that_is_missing_is_named() {
        let error = write(&content(b"", 0), Path::new("/nonexistent/folder/file"), false).unwrap_err();
        assert!(error.to_string().starts_with("/nonexistent/folder/file cannot be written"), "{error}");
    }
}
