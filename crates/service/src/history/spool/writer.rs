//! The only thread that writes. Each write contains all records that were queued since the last one.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::frame::{self, CallId, Kind};
use super::segments::{self, Segment};
use super::{Durability, Shared, WriteFailed};

/// At most this many records and bytes go to the disk at once.
const BATCH_RECORDS: usize = 1024;
const BATCH_BYTES: usize = 1024 * 1024;
/// A larger segment is followed by a new one.
const SEGMENT_BYTES: u64 = 4 * 1024 * 1024;
/// How long the thread rests after a write failed.
const REST: Duration = Duration::from_millis(500);

pub(super) enum Command {
    Write(Item),
    /// All records have arrived: continue in a new segment, so that the old one can be deleted.
    Rotate,
}

/// A record to be written.
pub(super) struct Item {
    pub kind: Kind,
    pub call: CallId,
    pub plain: Vec<u8>,
    pub durability: Durability,
    pub reserved: u64,
    pub done: Option<oneshot::Sender<Result<(), WriteFailed>>>,
}

struct Writer {
    shared: Arc<Shared>,
    /// The segment that is being written; `None` before the first record and after a failure.
    file: Option<File>,
    next: u64,
    /// The records of calls that have begun. Each new segment begins with them, so that no older segment is needed for them.
    begun: HashMap<CallId, Vec<u8>>,
}

/// Starts the thread. It ends when all senders of commands are dropped.
pub(super) fn start(shared: Arc<Shared>, next: u64, begun: HashMap<CallId, Vec<u8>>) -> io::Result<mpsc::UnboundedSender<Command>> {
    let (commands, queue) = mpsc::unbounded_channel();
    let writer = Writer { shared, file: None, next, begun };
    thread::Builder::new().name("history-spool".to_owned()).spawn(move || writer.run(queue))?;
    Ok(commands)
}

impl Writer {
    fn run(mut self, mut queue: mpsc::UnboundedReceiver<Command>) {
        while let Some(first) = queue.blocking_recv() {
            let (mut items, mut rotate, mut bytes) = (Vec::new(), false, 0);
            let mut command = Some(first);
            while let Some(this) = command.take() {
                match this {
                    Command::Write(item) => {
                        bytes += item.plain.len();
                        items.push(item);
                    }
                    Command::Rotate => rotate = true,
                }
                if items.len() < BATCH_RECORDS && bytes < BATCH_BYTES {
                    command = queue.try_recv().ok();
                }
            }
            if !items.is_empty() {
                self.write_all(items);
            } else if rotate {
                self.file = None;
                // an empty batch opens the next segment
                self.write_all(Vec::new());
            }
        }
    }

    /// Writes the items, and retries until that succeeds. The first failure is reported to the callers that wait.
    fn write_all(&mut self, mut items: Vec<Item>) {
        while let Err(error) = self.write(&mut items) {
            tracing::error!(%error, records = items.len(), "the history's spool cannot be written");
            self.give_up();
            for done in items.iter_mut().filter_map(|item| item.done.take()) {
                // the caller may have stopped waiting
                let _ = done.send(Err(WriteFailed));
            }
            thread::sleep(REST);
        }
        self.shared.state().broken = false;
        for item in items {
            if let Some(done) = item.done {
                let _ = done.send(Ok(()));
            }
        }
        self.shared.show();
        self.shared.written.notify_one();
    }

    /// Leaves the segment as it was before the write that failed; the next one goes to a new segment.
    fn give_up(&mut self) {
        let mut state = self.shared.state();
        state.broken = true;
        if let (Some(file), Some(segment)) = (self.file.take(), state.segments.0.back()) {
            // what cannot be cut off is read as damage at the next start, and nothing more
            let _ = file.set_len(segment.bytes);
        }
    }

    fn write(&mut self, items: &mut [Item]) -> io::Result<()> {
        self.roll()?;
        let mut next = self.next;
        let mut out = Vec::new();
        for item in items.iter() {
            self.seal(&mut out, item.kind, next, &item.call, &item.plain)?;
            next += 1;
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_all(&out)?;
        if items.iter().any(|item| item.durability == Durability::Synchronised) {
            file.sync_data()?;
        }
        self.next = next;
        for item in items.iter_mut() {
            match item.kind {
                Kind::Begun => drop(self.begun.insert(item.call, std::mem::take(&mut item.plain))),
                Kind::Entry => drop(self.begun.remove(&item.call)),
                // kept entries are never in these files
                Kind::Kept => {}
            }
        }
        let mut state = self.shared.state();
        let reserved = items.iter().map(|item| item.reserved).sum();
        state.reserved = state.reserved.saturating_sub(reserved);
        if let Some(segment) = state.segments.0.back_mut() {
            segment.bytes += u64::try_from(out.len()).unwrap_or(u64::MAX);
            segment.last = next.checked_sub(1);
        }
        Ok(())
    }

    /// Opens a new segment when there is none, or the current one is large enough.
    fn roll(&mut self) -> io::Result<()> {
        let largest = SEGMENT_BYTES.min(self.shared.limit / 8);
        let is_large = self.shared.state().segments.0.back().is_some_and(|segment| segment.bytes >= largest);
        if self.file.is_some() && !is_large {
            return Ok(());
        }
        let path = segments::path(&self.shared.dir, self.next);
        let mut next = self.next;
        let mut out = Vec::new();
        for (call, plain) in &self.begun {
            self.seal(&mut out, Kind::Begun, next, call, plain)?;
            next += 1;
        }
        // a file that a failed try left has no record that a caller was told of
        let mut file = File::options().write(true).create(true).truncate(true).open(&path)?;
        file.write_all(&out)?;
        file.sync_all()?;
        File::open(&self.shared.dir)?.sync_all()?;
        let last = (next > self.next).then(|| next - 1);
        let mut state = self.shared.state();
        state.segments.0.retain(|segment| segment.path != path);
        state.segments.0.push_back(Segment { path, bytes: u64::try_from(out.len()).unwrap_or(u64::MAX), last });
        drop(state);
        self.file = Some(file);
        self.next = next;
        Ok(())
    }

    fn seal(&self, out: &mut Vec<u8>, kind: Kind, sequence: u64, call: &CallId, plain: &[u8]) -> io::Result<()> {
        let record = frame::record(kind, sequence, call);
        let key = &self.shared.key;
        let sealed = key.key.seal(frame::context(&record), plain, key.random()).map_err(io::Error::other)?;
        frame::write(out, &record, &sealed);
        Ok(())
    }
}
