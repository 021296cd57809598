//! A file that reserves space on the volume for the next start. On a full volume SQLite cannot open a database whose write-ahead log was
//! emptied, and a service that does not start can neither be read nor report what is wrong.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// For the log, its index, and what a service writes while it starts, in bytes.
pub(crate) const SIZE: usize = 1024 * 1024;

/// A file beside the database that is deleted when there is no other space.
#[derive(Debug, Clone)]
pub(crate) struct Reserve(PathBuf);

impl Reserve {
    pub fn beside(file: &Path) -> Self {
        let mut path = file.as_os_str().to_owned();
        path.push(".reserve");
        Self(path.into())
    }

    /// Creates the file unless it exists in full size. Without space for it, fails and leaves no file.
    pub fn keep(&self) -> io::Result<()> {
        if fs::metadata(&self.0).is_ok_and(|metadata| usize::try_from(metadata.len()) == Ok(SIZE)) {
            return Ok(());
        }
        let written = fs::File::create(&self.0).and_then(|mut file| {
            // not zeros, which some file systems do not store
            file.write_all(&vec![0x55; SIZE])?;
            file.sync_data()
        });
        if written.is_err() {
            self.give_up();
        }
        written
    }

    /// Deletes the file. Answers whether there was one.
    pub fn give_up(&self) -> bool {
        fs::remove_file(&self.0).is_ok()
    }
}
