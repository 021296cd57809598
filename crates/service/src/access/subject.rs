//! The groups and targets that a request names, and whether it reveals secrets. They are read from the bytes of its first message, by the
//! marks that the contracts put on fields.
//!
//! This happens before the handler runs, so that no handler can forget to check the group, or to record what it touches or reveals. Only
//! marked fields are read; no message is decoded, and of an unmarked field only the length is read.

use std::collections::BTreeMap;

use tsujiban_proto::fields::{Field, Fields};

/// How long a target may be in the history, in characters. What is longer is cut.
const TARGET_CHARS: usize = 256;

/// What a message names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Subject {
    /// Every named group, in the order of the bytes. No client of ours sends more than one. A caller who names several must be allowed in
    /// each, since a decoder keeps only the last.
    pub groups: Vec<String>,
    /// The targets, joined by `/`.
    pub target: String,
    /// Whether any value of a revealing field is true. A decoder keeps the last of several values, so that a handler may reveal less, never
    /// more.
    pub reveals: bool,
}

/// Bytes that are no valid message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreadable;

impl Subject {
    /// What a message with these marked fields names.
    pub(super) fn read(fields: &Fields, message: &[u8]) -> Result<Self, Unreadable> {
        let mut found = Found::default();
        found.walk(fields, message)?;
        // in the order of the field numbers, whatever the order of the bytes
        let target = found.targets.into_values().filter(|target| !target.is_empty()).collect::<Vec<_>>().join("/");
        Ok(Self { groups: found.groups, target: target.chars().take(TARGET_CHARS).collect(), reveals: found.reveals })
    }
}

/// What was found so far.
#[derive(Default)]
struct Found {
    /// The field numbers of the path to the message that is being read.
    path: Vec<u32>,
    groups: Vec<String>,
    targets: BTreeMap<Vec<u32>, String>,
    reveals: bool,
}

impl Found {
    fn walk(&mut self, fields: &Fields, mut bytes: &[u8]) -> Result<(), Unreadable> {
        while !bytes.is_empty() {
            let key = varint(&mut bytes)?;
            let number = u32::try_from(key >> 3).map_err(|_| Unreadable)?;
            let field = fields.get(number);
            let reveals = matches!(field, Some(Field::Reveals(_)));
            let body = match key & 7 {
                0 => {
                    let value = varint(&mut bytes)?;
                    self.reveals |= reveals && value != 0;
                    continue;
                }
                // a bool is always a varint
                _ if reveals => return Err(Unreadable),
                1 => {
                    take(&mut bytes, 8)?;
                    continue;
                }
                5 => {
                    take(&mut bytes, 4)?;
                    continue;
                }
                2 => {
                    let length = usize::try_from(varint(&mut bytes)?).map_err(|_| Unreadable)?;
                    take(&mut bytes, length)?
                }
                // protobuf groups, which no contract uses
                _ => return Err(Unreadable),
            };
            let Some(field) = field else { continue };
            self.path.push(number);
            match field {
                Field::Group => self.groups.push(text(body)?),
                Field::Target => drop(self.targets.insert(self.path.clone(), text(body)?)),
                Field::Message(inner) => self.walk(inner, body)?,
                Field::Reveals(_) => return Err(Unreadable),
            }
            self.path.pop();
        }
        Ok(())
    }
}

fn text(bytes: &[u8]) -> Result<String, Unreadable> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Unreadable)
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], Unreadable> {
    let (taken, rest) = bytes.split_at_checked(length).ok_or(Unreadable)?;
    *bytes = rest;
    Ok(taken)
}

fn varint(bytes: &mut &[u8]) -> Result<u64, Unreadable> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(Unreadable)?;
        *bytes = rest;
        // the tenth byte has room for one bit; a decoder refuses more
        if shift == 63 && *byte > 1 {
            return Err(Unreadable);
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Unreadable)
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use tsujiban_proto::backup::v1::put_snapshot_request::Part;
    use tsujiban_proto::backup::v1::{DeviceRef, DiffSnapshotsRequest, GetSnapshotRequest, PutSnapshotHeader, PutSnapshotRequest};
    use tsujiban_proto::rules::Rules;

    use super::*;

    fn subject(message: &str, bytes: &[u8]) -> Result<Subject, Unreadable> {
        let rules = Rules::load().unwrap();
        let path = format!("/tsujiban.{message}");
        Subject::read(rules.fields_of(&path).unwrap(), bytes)
    }

    fn read(message: &str, bytes: &[u8]) -> Result<(Vec<String>, String), Unreadable> {
        subject(message, bytes).map(|subject| (subject.groups, subject.target))
    }

    fn put(group: &str) -> PutSnapshotRequest {
        let device = DeviceRef { group: group.into(), serial: "SN9".into(), name: "core".into(), uid: "u".into() };
        let header = PutSnapshotHeader { device: Some(device), driver: "Frr".into(), ..PutSnapshotHeader::default() };
        PutSnapshotRequest { part: Some(Part::Header(header)) }
    }

    #[test]
    fn group_and_target_are_found_however_deep_they_lie() {
        let bytes = put("acme").encode_to_vec();
        assert_eq!(read("backup.v1.BackupService/PutSnapshot", &bytes), Ok((vec!["acme".into()], "SN9".into())));
        let diff = DiffSnapshotsRequest { group: "acme".into(), old_id: "1".into(), new_id: "2".into(), reveal: true };
        let found = read("backup.v1.BackupService/DiffSnapshots", &diff.encode_to_vec());
        assert_eq!(found, Ok((vec!["acme".into()], "1/2".into())));
        assert_eq!(read("backup.v1.BackupService/ListAttempts", &[8, 1]), Ok((vec![], String::new())));
    }

    /// C7: a decoder merges messages and takes the last of several values; none of them may be another group's.
    #[test]
    fn every_group_that_is_named_is_seen() {
        let bytes = [put("acme").encode_to_vec(), put("other").encode_to_vec()].concat();
        assert_eq!(read("backup.v1.BackupService/PutSnapshot", &bytes).unwrap().0, ["acme", "other"]);
        let emptied = b"\x0a\x04acme\x0a\x00";
        assert_eq!(read("audit.v1.AuditService/ListEntries", emptied).unwrap().0, ["acme", ""], "a decoder reads the platform's own");
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let bytes = put("acme").encode_to_vec();
        let name = "backup.v1.BackupService/PutSnapshot";
        assert_eq!(read(name, &bytes[..bytes.len() - 1]), Err(Unreadable));
        assert_eq!(read(name, &[0xff; 11]), Err(Unreadable));
        assert_eq!(read(name, &[0x0b]), Err(Unreadable), "a group, in the sense of the encoding");
        assert_eq!(read("backup.v1.BackupService/ListSnapshots", &[0x0a, 1, 0xff]), Err(Unreadable), "no text");
    }

    /// C5, C22: whatever a decoder may take for a wish to reveal is seen as one.
    #[test]
    fn a_wish_to_reveal_is_seen_however_it_is_written() {
        const GET: &str = "backup.v1.BackupService/GetSnapshot";
        let plain = GetSnapshotRequest { group: "acme".into(), id: "1".into(), reveal: false }.encode_to_vec();
        let reveals = |tail: &[u8]| subject(GET, &[&plain, tail].concat()).map(|subject| subject.reveals);
        for (tail, wanted) in [
            (&[][..], Ok(false)),
            (&[0x18, 0], Ok(false)),
            (&[0x18, 1], Ok(true)),
            (&[0x18, 1, 0x18, 0], Ok(true)),
            (&[0x18, 0, 0x18, 1], Ok(true)),
            (&[0x18, 0x80, 0x80, 0], Ok(false)),
            (&[0x18, 0x81, 0], Ok(true)),
            (&[0x18, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1], Ok(true)),
            // the number of the field, too, can be written longer than it has to be
            (&[0x98, 0, 1], Ok(true)),
            (&[0x18, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2], Err(Unreadable)),
            (&[0x1a, 1, 1], Err(Unreadable)),
            (&[0x1d, 1, 0, 0, 0], Err(Unreadable)),
            (&[0x18], Err(Unreadable)),
            // another field that is true reveals nothing
            (&[0x20, 1], Ok(false)),
        ] {
            assert_eq!(reveals(tail), wanted, "{tail:?}");
            // a decoder reveals only where a wish was seen, and takes nothing that could not be read
            let decoded = GetSnapshotRequest::decode([&plain, tail].concat().as_slice());
            assert!(!decoded.as_ref().is_ok_and(|decoded| decoded.reveal) || wanted == Ok(true), "{tail:?}");
            assert!(wanted.is_ok() || decoded.is_err(), "{tail:?}");
        }
        assert_eq!(subject(GET, &[]), Ok(Subject::default()), "an empty message");
        let diff = DiffSnapshotsRequest { group: "acme".into(), old_id: "1".into(), new_id: "2".into(), reveal: true };
        assert!(subject("backup.v1.BackupService/DiffSnapshots", &diff.encode_to_vec()).unwrap().reveals);
    }
}
