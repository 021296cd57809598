//! The files of an open SQLite database, and whether they are still the ones that were opened.
//!
//! A process that has a file open keeps it when the file is removed or replaced. It would go on writing to a file that cannot be opened any
//! more.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// A file of the database is not the one that was opened.
#[derive(Debug, thiserror::Error)]
#[error("{path} was removed or replaced while it was open, so nothing more is written")]
pub(crate) struct FileReplaced {
    pub path: PathBuf,
}

/// The database's file, its log and the log's index, as they were when they were opened.
#[derive(Debug)]
pub(crate) struct OpenedFiles(Vec<Opened>);

#[derive(Debug)]
struct Opened {
    path: PathBuf,
    identity: Identity,
}

/// The identity of a file in the file system, which a file that replaces it does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self { device: metadata.dev(), inode: metadata.ino() })
    }
}

impl OpenedFiles {
    /// Needs a connection that has read from the database: only then do its log and index exist. They exist as long as it is open.
    pub fn of(database: &Path) -> io::Result<Self> {
        let with = |suffix: &str| {
            let mut path = database.as_os_str().to_owned();
            path.push(suffix);
            PathBuf::from(path)
        };
        let opened = ["", "-wal", "-shm"].map(with).into_iter().map(|path| Ok(Opened { identity: Identity::of(&path)?, path }));
        opened.collect::<io::Result<_>>().map(Self)
    }

    /// Fails when one of the files is missing or was replaced.
    pub fn check(&self) -> Result<(), sqlx::Error> {
        for opened in &self.0 {
            let is_same = match Identity::of(&opened.path) {
                Ok(identity) => identity == opened.identity,
                Err(error) if error.kind() == io::ErrorKind::NotFound => false,
                Err(error) => return Err(sqlx::Error::Io(error)),
            };
            if !is_same {
                return Err(sqlx::Error::Io(io::Error::other(FileReplaced { path: opened.path.clone() })));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Class;

    #[test]
    fn a_file_that_was_removed_or_replaced_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.db");
        for suffix in ["", "-wal", "-shm"] {
            fs::write(dir.path().join(format!("a.db{suffix}")), "x").unwrap();
        }
        let opened = OpenedFiles::of(&file).unwrap();
        opened.check().unwrap();
        fs::write(&file, "changed in place").unwrap();
        opened.check().unwrap();

        let log = dir.path().join("a.db-wal");
        fs::rename(&log, dir.path().join("away")).unwrap();
        let failed = opened.check().unwrap_err();
        assert!(Class::of(&failed) == Class::Replaced && failed.to_string().contains("a.db-wal was removed or replaced"), "{failed}");
        fs::write(&log, "x").unwrap();
        assert_eq!(Class::of(&opened.check().unwrap_err()), Class::Replaced, "another file of the same name");
        fs::rename(dir.path().join("away"), &log).unwrap();
        opened.check().unwrap();
    }
}
