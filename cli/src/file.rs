//! Files that appear under their names only when they are complete.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::exit::ExitCode;

/// A file that was not written. An existing file stays unchanged.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("{} exists; name another file, or replace it with --force", path.display())]
    Exists { path: PathBuf },
    #[error("{} cannot be written; check that its folder exists and is yours", path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl ExitCode for FileError {}

/// A file that is being written beside its place, readable by its owner alone. Dropped before [`NewFile::finish`] it leaves nothing.
#[derive(Debug)]
pub struct NewFile {
    file: NamedTempFile,
    path: PathBuf,
    force: bool,
}

impl NewFile {
    /// Refuses a file that exists, unless it is to be replaced. [`NewFile::finish`] checks this again.
    pub fn begin(path: &Path, force: bool) -> Result<Self, FileError> {
        if !force && path.symlink_metadata().is_ok() {
            return Err(FileError::Exists { path: path.to_owned() });
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        // after a crash, the name shows which file this was to become, and that it is not complete
        let prefix = format!(".{}.", path.file_name().unwrap_or_default().to_string_lossy());
        let file = tempfile::Builder::new().prefix(&prefix).suffix(".part").tempfile_in(folder);
        let file = file.map_err(|source| FileError::Write { path: path.to_owned(), source })?;
        Ok(Self { file, path: path.to_owned(), force })
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.file.write_all(bytes).map_err(|source| FileError::Write { path: self.path.clone(), source })
    }

    /// Moves it to its place when it is on the disk.
    pub fn finish(self) -> Result<(), FileError> {
        let Self { file, path, force } = self;
        if let Err(source) = file.as_file().sync_all() {
            return Err(FileError::Write { path, source });
        }
        let moved = if force { file.persist(&path) } else { file.persist_noclobber(&path) };
        match moved {
            Ok(_) => Ok(()),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Err(FileError::Exists { path }),
            Err(error) => Err(FileError::Write { path, source: error.error }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use tempfile::TempDir;

    use super::*;

    fn write(bytes: &[u8], path: &Path, force: bool) -> Result<(), FileError> {
        let mut file = NewFile::begin(path, force)?;
        file.write(bytes)?;
        file.finish()
    }

    fn files(folder: &TempDir) -> usize {
        fs::read_dir(folder.path()).unwrap().count()
    }

    #[test]
    fn the_file_is_exact_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("core.conf");
        write(b"hostname core\n\xff", &path, false).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"hostname core\n\xff");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(files(&folder), 1, "nothing is left beside it");
    }

    #[test]
    fn what_is_not_finished_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("acme.jsonl");
        let mut file = NewFile::begin(&path, false).unwrap();
        file.write(b"half").unwrap();
        let beside = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().file_name();
        let beside = beside.to_str().unwrap();
        assert!(beside.starts_with(".acme.jsonl.") && beside.contains(".part"), "{beside}");
        assert!(!path.exists());
        drop(file);
        assert_eq!(files(&folder), 0);
    }

    #[test]
    fn an_existing_file_stays_without_force() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("core.conf");
        let late = NewFile::begin(&path, false).unwrap();
        fs::write(&path, "mine").unwrap();
        assert!(matches!(NewFile::begin(&path, false), Err(FileError::Exists { .. })));
        assert!(matches!(late.finish(), Err(FileError::Exists { .. })));
        assert_eq!((fs::read(&path).unwrap(), files(&folder)), (b"mine".to_vec(), 1));

        write(b"new", &path, true).unwrap();
        assert_eq!((fs::read(&path).unwrap(), files(&folder)), (b"new".to_vec(), 1));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (link, target) = (folder.path().join("link"), folder.path().join("target"));
        symlink(&target, &link).unwrap();
        assert!(matches!(NewFile::begin(&link, false), Err(FileError::Exists { .. })));
        write(b"new", &link, true).unwrap();
        assert!(!target.exists() && !link.is_symlink());
    }

    #[test]
    fn a_folder_that_is_missing_is_named() {
        let error = NewFile::begin(Path::new("/nonexistent/folder/file"), false).unwrap_err();
        assert!(error.to_string().starts_with("/nonexistent/folder/file cannot be written"), "{error}");
    }
}
