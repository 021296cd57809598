//! A mark file beside an SQLite database: how many entries were acknowledged. Writes to it are not synced, since the service works without
//! it; but a database that has fewer entries has lost its tail, for example because its write-ahead log was truncated.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use tsujiban_history::merkle::sha256;

/// The file with the mark. The lock on it also keeps a second process from the database.
#[derive(Debug)]
pub struct Mark(File);

const LENGTH: usize = 40;

impl Mark {
    /// Opens the file, or creates it. Fails when another process has locked it.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let file = File::options().create(true).truncate(false).read(true).write(true).open(folder.join("history.mark"))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => {
                Err(io::Error::new(io::ErrorKind::ResourceBusy, "another process writes this history; stop it first"))
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// How many entries were acknowledged. `None` if the mark is torn.
    pub fn read(&self) -> io::Result<Option<u64>> {
        let mut bytes = [0; LENGTH];
        match self.0.read_exact_at(&mut bytes, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let (count, check) = bytes.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
        Ok((sha256(count).as_bytes() == check).then(|| u64::from_be_bytes(*count)))
    }

    pub fn write(&self, entries: u64) -> io::Result<()> {
        let count = entries.to_be_bytes();
        let mut bytes = count.to_vec();
        bytes.extend(sha256(&count).as_bytes());
        self.0.write_all_at(&bytes, 0)
    }
}
