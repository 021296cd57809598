//! What a request names: its group and its target, read from the bytes of its first message by what the contracts say of its fields.
//!
//! Read before the handler runs, so that no handler can forget to check the group or to say what it touched. Only the marked fields are
//! looked at; nothing is decoded into a message, and a field that is not marked costs the reading of its length.

use std::collections::BTreeMap;

use prost_reflect::{ExtensionDescriptor, Kind, MessageDescriptor, Value};
use tsujiban_proto::access::v1::Subject as Marked;

/// How deep messages are looked into.
const DEPTH: usize = 4;
/// How long a target may be in the history, in characters. What is longer is cut.
const TARGET_CHARS: usize = 256;

/// Where the marked fields of a message are.
#[derive(Debug, Clone, Default)]
pub(super) struct Subjects {
    fields: BTreeMap<u32, Field>,
}

#[derive(Debug, Clone)]
enum Field {
    Group,
    Target,
    Message(Subjects),
}

/// What a message names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Subject {
    /// Every group that is named, in the order of the bytes. More than one only in a message that no client of ours makes: whoever
    /// names several has to be allowed in each, since a decoder takes the last.
    pub groups: Vec<String>,
    /// The targets, joined by `/`.
    pub target: String,
}

/// A message that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreadable;

impl Subjects {
    /// Finds the marked fields of a message. `option` is the extension that marks them.
    pub(super) fn of(message: &MessageDescriptor, option: &ExtensionDescriptor) -> Self {
        Self::find(message, option, DEPTH)
    }

    fn find(message: &MessageDescriptor, option: &ExtensionDescriptor, depth: usize) -> Self {
        let mut fields = BTreeMap::new();
        for field in message.fields() {
            let found = match field.kind() {
                Kind::String => match mark(&field.options(), option) {
                    Marked::Group => Field::Group,
                    Marked::Target => Field::Target,
                    Marked::Unspecified => continue,
                },
                Kind::Message(inner) if depth > 0 => match Self::find(&inner, option, depth - 1) {
                    inner if inner.fields.is_empty() => continue,
                    inner => Field::Message(inner),
                },
                _ => continue,
            };
            fields.insert(field.number(), found);
        }
        Self { fields }
    }

    /// Whether the message can name a group.
    pub(super) fn names_a_group(&self) -> bool {
        self.fields.values().any(|field| match field {
            Field::Group => true,
            Field::Target => false,
            Field::Message(inner) => inner.names_a_group(),
        })
    }

    /// What a message names.
    pub(super) fn read(&self, message: &[u8]) -> Result<Subject, Unreadable> {
        let (mut groups, mut targets) = (Vec::new(), BTreeMap::new());
        self.walk(message, &mut Vec::new(), &mut groups, &mut targets)?;
        // the order of their numbers, whatever the order of the bytes
        let target = targets.into_values().filter(|target| !target.is_empty()).collect::<Vec<_>>().join("/");
        Ok(Subject { groups, target: target.chars().take(TARGET_CHARS).collect() })
    }

    fn walk(
        &self,
        mut bytes: &[u8],
        path: &mut Vec<u32>,
        groups: &mut Vec<String>,
        targets: &mut BTreeMap<Vec<u32>, String>,
    ) -> Result<(), Unreadable> {
        while !bytes.is_empty() {
            let key = varint(&mut bytes)?;
            let number = u32::try_from(key >> 3).map_err(|_| Unreadable)?;
            let body = match key & 7 {
                0 => {
                    varint(&mut bytes)?;
                    continue;
                }
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
                // groups, which nobody uses
                _ => return Err(Unreadable),
            };
            let Some(field) = self.fields.get(&number) else { continue };
            path.push(number);
            match field {
                Field::Group => groups.push(text(body)?),
                Field::Target => drop(targets.insert(path.clone(), text(body)?)),
                Field::Message(inner) => inner.walk(body, path, groups, targets)?,
            }
            path.pop();
        }
        Ok(())
    }
}

fn mark(options: &prost_reflect::DynamicMessage, option: &ExtensionDescriptor) -> Marked {
    match options.get_extension(option).as_ref() {
        Value::EnumNumber(number) => Marked::try_from(*number).unwrap_or(Marked::Unspecified),
        _ => Marked::Unspecified,
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
    use prost_reflect::DescriptorPool;
    use tsujiban_proto::DESCRIPTORS;
    use tsujiban_proto::backup::v1::put_snapshot_request::Part;
    use tsujiban_proto::backup::v1::{DeviceRef, DiffSnapshotsRequest, PutSnapshotHeader, PutSnapshotRequest};

    use super::*;

    fn subjects(message: &str) -> Subjects {
        let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
        let option = pool.get_extension_by_name("tsujiban.access.v1.subject").unwrap();
        Subjects::of(&pool.get_message_by_name(message).unwrap(), &option)
    }

    fn read(message: &str, bytes: &[u8]) -> Result<(Vec<String>, String), Unreadable> {
        subjects(message).read(bytes).map(|subject| (subject.groups, subject.target))
    }

    fn put(group: &str) -> PutSnapshotRequest {
        let device = DeviceRef { group: group.into(), serial: "SN9".into(), name: "core".into(), uid: "u".into() };
        let header = PutSnapshotHeader { device: Some(device), driver: "Frr".into(), ..PutSnapshotHeader::default() };
        PutSnapshotRequest { part: Some(Part::Header(header)) }
    }

    #[test]
    fn group_and_target_are_found_however_deep_they_lie() {
        let bytes = put("acme").encode_to_vec();
        assert_eq!(read("tsujiban.backup.v1.PutSnapshotRequest", &bytes), Ok((vec!["acme".into()], "SN9".into())));
        let diff = DiffSnapshotsRequest { group: "acme".into(), old_id: "1".into(), new_id: "2".into(), reveal: true };
        let found = read("tsujiban.backup.v1.DiffSnapshotsRequest", &diff.encode_to_vec());
        assert_eq!(found, Ok((vec!["acme".into()], "1/2".into())));
        assert_eq!(read("tsujiban.backup.v1.ListAttemptsRequest", &[8, 1]), Ok((vec![], String::new())));
    }

    /// C7: a decoder merges messages and takes the last of several values; none of them may be another group's.
    #[test]
    fn every_group_that_is_named_is_seen() {
        let bytes = [put("acme").encode_to_vec(), put("other").encode_to_vec()].concat();
        assert_eq!(read("tsujiban.backup.v1.PutSnapshotRequest", &bytes).unwrap().0, ["acme", "other"]);
        let emptied = b"\x0a\x04acme\x0a\x00";
        assert_eq!(read("tsujiban.audit.v1.ListEntriesRequest", emptied).unwrap().0, ["acme", ""], "a decoder reads the platform's own");
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let bytes = put("acme").encode_to_vec();
        let name = "tsujiban.backup.v1.PutSnapshotRequest";
        assert_eq!(read(name, &bytes[..bytes.len() - 1]), Err(Unreadable));
        assert_eq!(read(name, &[0xff; 11]), Err(Unreadable));
        assert_eq!(read(name, &[0x0b]), Err(Unreadable), "a group, in the sense of the encoding");
        assert_eq!(read("tsujiban.backup.v1.ListSnapshotsRequest", &[0x0a, 1, 0xff]), Err(Unreadable), "no text");
    }

    /// C7: a request's field that is called `group` and is not marked would not be checked before the handler runs.
    #[test]
    fn every_group_of_a_request_is_marked() {
        fn groups(message: &MessageDescriptor, depth: usize) -> usize {
            let of_field = |field: prost_reflect::FieldDescriptor| match field.kind() {
                Kind::String => usize::from(field.name() == "group"),
                Kind::Message(inner) if depth > 0 => groups(&inner, depth - 1),
                _ => 0,
            };
            message.fields().map(of_field).sum()
        }
        fn marked(subjects: &Subjects) -> usize {
            subjects
                .fields
                .values()
                .map(|field| match field {
                    Field::Group => 1,
                    Field::Target => 0,
                    Field::Message(inner) => marked(inner),
                })
                .sum()
        }
        let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
        let methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
        // for those who write the histories of all groups
        let of_all = ["tsujiban.audit.v1.AuditService.Append", "tsujiban.audit.v1.AuditService.Covered"];
        for method in methods.filter(|method| !of_all.contains(&method.full_name())) {
            let input = method.input();
            assert_eq!(marked(&subjects(input.full_name())), groups(&input, DEPTH), "{}", method.full_name());
        }
    }
}
