//! Counts what an export contains while it is streamed. Pure. Nothing is verified here: the verifier does that, with a key of its own.

use tsujiban_history::Origin;
use tsujiban_history::export::{Footer, Header, Line, Loss, MAX_LINE};

/// The form of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    JsonLines,
    Csv,
}

/// An export that cannot be complete.
#[derive(Debug, thiserror::Error)]
#[error("the export ends too early: {0}; run the command again")]
pub struct Incomplete(String);

/// An export that is being streamed.
#[derive(Debug)]
pub struct Reading {
    form: Form,
    header: Option<Header>,
    /// The current line, or the last one. It is cut at a length that no valid line exceeds.
    line: Vec<u8>,
    /// Whether `line` has ended.
    ended: bool,
    lines: u64,
    entries: u64,
    /// Entries that the export reports as damaged, and those of them that have no line.
    damaged: u64,
    lost: u64,
    bytes: u64,
}

/// An export that was streamed to its end.
#[derive(Debug, PartialEq, Eq)]
pub struct Read {
    pub entries: u64,
    /// How many entries are damaged in the service's storage, as the export reports.
    pub damaged: u64,
    pub bytes: u64,
    /// For JSON Lines: the log that the export names, and the signed checkpoint with which it ends.
    pub signed: Option<(Origin, String)>,
}

impl Reading {
    pub fn new(form: Form) -> Self {
        Self { form, header: None, line: Vec::new(), ended: false, lines: 0, entries: 0, damaged: 0, lost: 0, bytes: 0 }
    }

    /// Reads the next piece.
    pub fn push(&mut self, piece: &[u8]) {
        self.bytes = self.bytes.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            if self.ended {
                self.line.clear();
            }
            let (text, ended) = part.strip_suffix(b"\n").map_or((part, false), |text| (text, true));
            let room = MAX_LINE.saturating_sub(self.line.len());
            self.line.extend_from_slice(text.get(..room).unwrap_or(text));
            self.ended = ended;
            if ended {
                self.line_ended();
            }
        }
    }

    fn line_ended(&mut self) {
        let is_entry = match self.form {
            Form::Csv => self.lines > 0,
            Form::JsonLines => self.line.starts_with(b"{\"sequence\":"),
        };
        if self.lines == 0 && self.form == Form::JsonLines {
            self.header = Header::parse(&self.line);
        }
        self.lines += 1;
        self.entries += u64::from(is_entry);
        match self.form {
            Form::Csv => self.damaged += u64::from(is_damaged_row(&self.line)),
            Form::JsonLines => {
                if let Some(Line::Damage(damage)) = Line::parse(&self.line).filter(|_| self.line.starts_with(b"{\"damaged\":")) {
                    let lost = damage.unsigned.lost.iter();
                    self.damaged = lost.clone().fold(self.damaged, |count, _| count.saturating_add(1));
                    self.lost = lost.filter(|lost| lost.loss == Loss::Entry).fold(self.lost, |count, _| count.saturating_add(1));
                }
            }
        }
    }

    /// How many entries were read, how many the export announces, where that is known, and how many bytes were read.
    pub fn progress(&self) -> (u64, Option<u64>, u64) {
        (self.entries, self.header.as_ref().map(|header| header.end.saturating_sub(header.first)), self.bytes)
    }

    /// Ends the export after the last piece. Fails when it is not complete.
    pub fn finish(self) -> Result<Read, Incomplete> {
        if self.lines == 0 || !self.ended {
            return Err(Incomplete("its last line is cut".to_owned()));
        }
        let (entries, damaged, bytes) = (self.entries, self.damaged, self.bytes);
        if self.form == Form::Csv {
            return Ok(Read { entries, damaged, bytes, signed: None });
        }
        let no_header = || Incomplete("its first line is none of an export; client and server may differ in version".to_owned());
        let header = self.header.ok_or_else(no_header)?;
        let wanted = header.end.saturating_sub(header.first).saturating_sub(self.lost);
        if entries != wanted {
            return Err(Incomplete(format!("{entries} of {wanted} entries came")));
        }
        let origin = header.origin.parse().map_err(|_| no_header())?;
        match Line::parse(&self.line) {
            Some(Line::Footer(Footer { checkpoint, .. })) => Ok(Read { entries, damaged, bytes, signed: Some((origin, checkpoint)) }),
            _ => Err(Incomplete("its checkpoint is missing".to_owned())),
        }
    }
}

/// Whether a CSV row marks its entry as damaged: no operation has such a phase.
fn is_damaged_row(row: &[u8]) -> bool {
    row.split(|byte| *byte == b',').nth(2) == Some(b"DAMAGED".as_slice())
}

#[cfg(test)]
mod tests {
    use tsujiban_history::SigningKey;
    use tsujiban_history::export::{LostEntry, UnsignedDamage, csv_damaged, entry_line};

    use super::*;

    const LOG: &str = "audit.tsujiban.dev/trial/00112233445566778899aabbccddeeff";

    /// An export of two entries in lines.
    fn lines() -> Vec<Vec<u8>> {
        let key = SigningKey::from_seed(&[7; 32]).unwrap().verifier(LOG.parse().unwrap());
        let entry = |sequence| {
            let mut line = Vec::new();
            entry_line(&mut line, sequence, b"leaf", None);
            line
        };
        let header = Header::new(&LOG.parse().unwrap(), &key, 5, 2..4, Vec::new()).line();
        vec![header, entry(2), entry(3), Footer { right: Vec::new(), checkpoint: "signed".into() }.line()]
    }

    fn read(form: Form, text: &[u8], piece: usize) -> Result<Read, Incomplete> {
        let mut reading = Reading::new(form);
        text.chunks(piece).for_each(|piece| reading.push(piece));
        reading.finish()
    }

    #[test]
    fn an_export_is_whole_however_it_was_cut_into_pieces() {
        let text = lines().concat();
        let whole = Read {
            entries: 2,
            damaged: 0,
            bytes: u64::try_from(text.len()).unwrap(),
            signed: Some((LOG.parse().unwrap(), "signed".into())),
        };
        for piece in [1, 7, 100, text.len()] {
            assert_eq!(read(Form::JsonLines, &text, piece).unwrap(), whole, "{piece}");
        }
    }

    #[test]
    fn what_the_service_says_is_damaged_is_counted_and_not_missed() {
        let mut lines = lines();
        let hash = tsujiban_history::Hash::EMPTY;
        let lost = vec![LostEntry { sequence: 3, loss: Loss::Entry }];
        let damage = UnsignedDamage { damaged: 2, end: 4, size: 5, hash, leaves: vec![Some(hash), None], lost };
        lines[2] = damage.sign(&SigningKey::from_seed(&[7; 32]).unwrap(), &LOG.parse().unwrap()).line();
        let found = read(Form::JsonLines, &lines.concat(), 64).unwrap();
        assert_eq!((found.entries, found.damaged), (1, 1));
        let mut rows = "header\r\n".to_owned();
        csv_damaged(&mut rows, 3);
        let found = read(Form::Csv, rows.as_bytes(), 64).unwrap();
        assert_eq!((found.entries, found.damaged), (1, 1));
    }

    #[test]
    fn whatever_is_missing_is_noticed() {
        let lines = lines();
        for missing in 0..lines.len() {
            let mut some = lines.clone();
            some.remove(missing);
            assert!(read(Form::JsonLines, &some.concat(), 64).is_err(), "line {missing}");
        }
        let whole = lines.concat();
        for end in 0..whole.len() {
            assert!(read(Form::JsonLines, &whole[..end], 64).is_err(), "{end} bytes");
        }
    }

    #[test]
    fn a_line_that_does_not_end_is_not_kept_in_memory() {
        let mut reading = Reading::new(Form::JsonLines);
        (0..100).for_each(|_| reading.push(&[b'x'; 16 << 10]));
        assert_eq!(reading.line.len(), MAX_LINE);
        assert_eq!(reading.progress(), (0, None, 100 * (16 << 10)));
    }

    #[test]
    fn rows_of_a_spreadsheet_are_counted_without_their_header() {
        let text = "\u{feff}sequence,time\r\n0,x\r\n1,\"y\"\r\n".as_bytes();
        assert_eq!(read(Form::Csv, text, 4).unwrap(), Read { entries: 2, damaged: 0, bytes: 30, signed: None });
        assert!(read(Form::Csv, &text[..text.len() - 1], 4).is_err());
        assert!(read(Form::Csv, b"", 4).is_err());
    }
}
