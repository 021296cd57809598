//! What people call functions and operations: each text beside its translation.

use tsujiban_core::workload::{Function, Service};

use super::Language;
use crate::access::v1::Operation;

/// Operation, English, Japanese.
const OPERATIONS: [(Operation, &str, &str); 5] = [
    (Operation::View, "View", "参照"),
    (Operation::Create, "Create", "作成"),
    (Operation::Operate, "Operate", "操作"),
    (Operation::Delete, "Delete", "削除"),
    (Operation::Administer, "Administer", "管理"),
];

pub(super) fn function(name: &str, language: Language) -> Option<&'static str> {
    functions().find(|function| function.name == name).map(|function| pick(language, function.english, function.japanese))
}

pub(super) fn operation(operation: Operation, language: Language) -> Option<&'static str> {
    OPERATIONS.iter().find(|(known, ..)| *known == operation).map(|(_, english, japanese)| pick(language, english, japanese))
}

/// The functions of all services.
pub(super) fn functions() -> impl Iterator<Item = &'static Function> {
    Service::ALL.iter().flat_map(|service| service.row().functions)
}

const fn pick(language: Language, english: &'static str, japanese: &'static str) -> &'static str {
    match language {
        Language::English => english,
        Language::Japanese => japanese,
    }
}
