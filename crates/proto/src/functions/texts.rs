//! What people call functions and operations: each text beside its translation.

use super::Language;
use crate::access::v1::Operation;

/// Function, English, Japanese; sorted.
const FUNCTIONS: [(&str, &str, &str); 6] = [
    ("attempts", "Outcomes of backups", "バックアップの結果"),
    ("catalogue", "Catalogue of snapshots", "スナップショットの目録"),
    ("groups", "Groups", "グループ"),
    ("history", "Operation history", "操作履歴"),
    ("hostkeys", "Host keys of devices", "装置のホスト鍵"),
    ("snapshots", "Snapshots of device configs", "装置コンフィグのスナップショット"),
];

/// Operation, English, Japanese.
const OPERATIONS: [(Operation, &str, &str); 5] = [
    (Operation::View, "View", "参照"),
    (Operation::Create, "Create", "作成"),
    (Operation::Operate, "Operate", "操作"),
    (Operation::Delete, "Delete", "削除"),
    (Operation::Administer, "Administer", "管理"),
];

pub(super) fn function(name: &str, language: Language) -> Option<&'static str> {
    FUNCTIONS.iter().find(|(known, ..)| *known == name).map(|(_, english, japanese)| pick(language, english, japanese))
}

pub(super) fn operation(operation: Operation, language: Language) -> Option<&'static str> {
    OPERATIONS.iter().find(|(known, ..)| *known == operation).map(|(_, english, japanese)| pick(language, english, japanese))
}

/// The functions that have texts.
#[cfg(test)]
pub(super) fn functions() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.iter().map(|(name, ..)| *name)
}

const fn pick(language: Language, english: &'static str, japanese: &'static str) -> &'static str {
    match language {
        Language::English => english,
        Language::Japanese => japanese,
    }
}
