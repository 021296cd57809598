//! The fields of a request that the access layer reads: what a call touches, and whether it reveals secrets.

use std::collections::{BTreeMap, BTreeSet};

use prost_reflect::{Cardinality, DescriptorPool, ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor, Value};

use crate::access::v1::Subject;

/// How many levels of nested messages are searched for marked fields.
const DEPTH: usize = 4;

/// The marked fields of a message, by their numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields(BTreeMap<u32, Field>);

/// What a field of a message is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// The group whose data the call touches.
    Group,
    /// What the call touches.
    Target,
    /// Whether the call reveals secrets. Its name in the contract.
    Reveals(String),
    /// A message that has marked fields.
    Message(Fields),
}

/// A field that must not be marked as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadField {
    /// Its full name, or that of the message.
    pub name: String,
    pub fault: &'static str,
}

/// The options by which fields are marked.
pub(crate) struct Markers {
    subject: ExtensionDescriptor,
    reveals: ExtensionDescriptor,
}

impl Markers {
    /// `None` when the contracts do not define them.
    pub(crate) fn of(pool: &DescriptorPool) -> Option<Self> {
        let option = |name| pool.get_extension_by_name(name);
        Some(Self { subject: option("tsujiban.access.v1.subject")?, reveals: option("tsujiban.access.v1.reveals")? })
    }

    /// What a field is marked as; `None` for one that is not marked.
    fn read(&self, field: &FieldDescriptor) -> Result<Option<Field>, BadField> {
        let options = field.options();
        let subject = match options.get_extension(&self.subject).as_ref() {
            Value::EnumNumber(number) => Subject::try_from(*number).ok(),
            _ => None,
        };
        let reveals = options.get_extension(&self.reveals).as_ref() == &Value::Bool(true);
        let bad = |fault| Err(BadField { name: field.full_name().to_owned(), fault });
        let is_text = field.kind() == Kind::String;
        let is_single_bool = field.kind() == Kind::Bool && field.cardinality() != Cardinality::Repeated;
        match (subject, reveals) {
            (Some(Subject::Unspecified), false) => Ok(None),
            (None, _) => bad("names a subject that is not known"),
            (Some(Subject::Unspecified), true) if !is_single_bool => bad("reveals and is no single bool"),
            (Some(Subject::Unspecified), true) if field.default_value() != Value::Bool(false) => bad("reveals where it is left out"),
            (Some(Subject::Unspecified), true) => Ok(Some(Field::Reveals(field.name().to_owned()))),
            (Some(_), true) => bad("reveals and names a subject; a field does one of them"),
            (Some(Subject::Group | Subject::Target), false) if !is_text => bad("names a subject and is no text"),
            (Some(Subject::Group), false) => Ok(Some(Field::Group)),
            (Some(Subject::Target), false) => Ok(Some(Field::Target)),
        }
    }

    /// Whether a message, or one within it however deep, has a marked field.
    fn are_within(&self, message: &MessageDescriptor, seen: &mut BTreeSet<String>) -> Result<bool, BadField> {
        if !seen.insert(message.full_name().to_owned()) {
            return Ok(false);
        }
        for field in message.fields() {
            let found = match field.kind() {
                _ if self.read(&field)?.is_some() => true,
                Kind::Message(inner) => self.are_within(&inner, seen)?,
                _ => false,
            };
            if found {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The full names of all fields of all messages that reveal.
    pub(crate) fn revealing(&self, pool: &DescriptorPool) -> Result<BTreeSet<String>, BadField> {
        let mut names = BTreeSet::new();
        for field in pool.all_messages().flat_map(|message| message.fields().collect::<Vec<_>>()) {
            if let Some(Field::Reveals(_)) = self.read(&field)? {
                names.insert(field.full_name().to_owned());
            }
        }
        Ok(names)
    }
}

impl Fields {
    /// Finds the marked fields of a request. `revealing` gets the full names of those that reveal.
    pub(crate) fn of(message: &MessageDescriptor, markers: &Markers, revealing: &mut BTreeSet<String>) -> Result<Self, BadField> {
        Self::find(message, markers, DEPTH, revealing)
    }

    fn find(message: &MessageDescriptor, markers: &Markers, depth: usize, revealing: &mut BTreeSet<String>) -> Result<Self, BadField> {
        let mut fields = BTreeMap::new();
        for field in message.fields() {
            let found = match (markers.read(&field)?, field.kind()) {
                (Some(Field::Reveals(name)), _) => {
                    revealing.insert(field.full_name().to_owned());
                    Field::Reveals(name)
                }
                (Some(marked), _) => marked,
                (None, Kind::Message(inner)) if depth == 0 => {
                    if markers.are_within(&inner, &mut BTreeSet::new())? {
                        let fault = "has marked fields deeper in a request than the access layer looks";
                        return Err(BadField { name: inner.full_name().to_owned(), fault });
                    }
                    continue;
                }
                (None, Kind::Message(inner)) => match Self::find(&inner, markers, depth - 1, revealing)? {
                    Self(inner) if inner.is_empty() => continue,
                    inner => Field::Message(inner),
                },
                (None, _) => continue,
            };
            fields.insert(field.number(), found);
        }
        Ok(Self(fields))
    }

    /// What the field with this number is for; `None` for one that is not marked.
    pub fn get(&self, number: u32) -> Option<&Field> {
        self.0.get(&number)
    }

    /// Whether the message can name a group.
    pub fn name_a_group(&self) -> bool {
        self.any(&|field| *field == Field::Group)
    }

    /// Whether the message can name what is touched.
    pub fn name_a_target(&self) -> bool {
        self.any(&|field| *field == Field::Target)
    }

    /// The name of the first field that reveals secrets; `None` when the message cannot ask for that.
    pub fn revealing(&self) -> Option<&str> {
        self.0.values().find_map(|field| match field {
            Field::Reveals(name) => Some(name.as_str()),
            Field::Message(inner) => inner.revealing(),
            Field::Group | Field::Target => None,
        })
    }

    fn any(&self, wanted: &dyn Fn(&Field) -> bool) -> bool {
        self.0.values().any(|field| match field {
            Field::Message(inner) => inner.any(wanted),
            field => wanted(field),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DESCRIPTORS;

    fn fields(message: &MessageDescriptor) -> Fields {
        let markers = Markers::of(message.parent_pool()).unwrap();
        Fields::of(message, &markers, &mut BTreeSet::new()).unwrap()
    }

    /// How many fields of a message and of those within it are wanted.
    fn count(message: &MessageDescriptor, depth: usize, wanted: &dyn Fn(&FieldDescriptor) -> bool) -> usize {
        let of_field = |field: FieldDescriptor| match field.kind() {
            Kind::Message(inner) if depth > 0 => count(&inner, depth - 1, wanted),
            _ => usize::from(wanted(&field)),
        };
        message.fields().map(of_field).sum()
    }

    fn marked(fields: &Fields, wanted: &dyn Fn(&Field) -> bool) -> usize {
        let of_field = |field: &Field| match field {
            Field::Message(inner) => marked(inner, wanted),
            field => usize::from(wanted(field)),
        };
        fields.0.values().map(of_field).sum()
    }

    /// C7, C22: a field that is called `group` and is not marked would not be checked before the handler runs, and one that is called
    /// `reveal` would reveal without a record.
    #[test]
    fn every_group_and_every_reveal_of_a_request_is_marked() {
        let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
        let methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
        let mut revealing = Vec::new();
        // entries of many groups: the audit service's own, which is why these calls are not recorded
        let of_many = ["tsujiban.audit.v1.AuditService.Append", "tsujiban.audit.v1.AuditService.Covered"];
        for method in methods.filter(|method| !of_many.contains(&method.full_name())) {
            let (input, name) = (method.input(), method.full_name().to_owned());
            let fields = fields(&input);
            let groups = count(&input, DEPTH, &|field| field.kind() == Kind::String && field.name() == "group");
            assert_eq!(marked(&fields, &|field| *field == Field::Group), groups, "{name}");
            let reveals = count(&input, DEPTH, &|field| field.name().contains("reveal") || field.name().contains("secret"));
            assert_eq!(marked(&fields, &|field| matches!(field, Field::Reveals(_))), reveals, "{name}");
            if let Some(field) = fields.revealing() {
                revealing.push((method.name().to_owned(), field.to_owned()));
            }
        }
        assert_eq!(revealing, [("GetSnapshot".into(), "reveal".into()), ("DiffSnapshots".into(), "reveal".into())]);
    }
}
