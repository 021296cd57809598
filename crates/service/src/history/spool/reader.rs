//! Reads a file of records, and continues after a damaged one.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Take};
use std::path::Path;

use super::frame::{self, Frame, Next};

/// How much of a file is read at once.
const PIECE: u64 = 256 * 1024;

/// Reads record by record.
pub(super) struct Reader {
    file: Take<File>,
    /// What was read and not used; it begins at `start`.
    buffer: Vec<u8>,
    used: usize,
    start: u64,
    damaged: u64,
    /// Where the last damage ended.
    damaged_to: Option<u64>,
}

impl Reader {
    /// Reads between two positions. The writer may still cut off the bytes behind `to`.
    pub(super) fn open(path: &Path, from: u64, to: u64) -> io::Result<Self> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(from))?;
        Ok(Self { file: file.take(to.saturating_sub(from)), buffer: Vec::new(), used: 0, start: from, damaged: 0, damaged_to: None })
    }

    /// Where the next record begins.
    pub(super) fn position(&self) -> u64 {
        self.start + length(self.used)
    }

    /// How many bytes were skipped because they are no record. An unfinished record at the end does not count.
    pub(super) const fn damaged(&self) -> u64 {
        self.damaged
    }

    /// Whether the file ends with damaged bytes.
    pub(super) fn is_damaged_at_end(&self) -> bool {
        self.damaged_to == Some(self.position())
    }

    /// The next record; `None` at the end of what can be read.
    pub(super) fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            match frame::read(self.rest()) {
                Next::Frame(frame, bytes) => {
                    self.used += bytes;
                    return Ok(Some(frame));
                }
                Next::Damaged => {
                    self.fill(u64::MAX)?;
                    let damaged = frame::find(self.rest()).unwrap_or(self.rest().len());
                    self.pass(damaged);
                }
                Next::Short if self.fill(PIECE)? => {}
                // either the last record is unfinished, or its length is damaged
                Next::Short => match frame::find(self.rest()) {
                    Some(damaged) => self.pass(damaged),
                    None => return Ok(None),
                },
            }
        }
    }

    fn rest(&self) -> &[u8] {
        self.buffer.get(self.used..).unwrap_or_default()
    }

    fn pass(&mut self, damaged: usize) {
        self.used += damaged;
        self.damaged += length(damaged);
        self.damaged_to = Some(self.position());
    }

    /// Reads more bytes into the buffer. `false`: the end was reached.
    fn fill(&mut self, bytes: u64) -> io::Result<bool> {
        self.start = self.position();
        self.buffer.drain(..self.used);
        self.used = 0;
        let before = self.buffer.len();
        self.file.by_ref().take(bytes).read_to_end(&mut self.buffer)?;
        Ok(self.buffer.len() > before)
    }
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
