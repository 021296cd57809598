//! What holds for the sources of the whole workspace.
#![allow(clippy::unwrap_used)] // helpers of tests are tests too

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tsujiban_core::commitments::TABLE;
use tsujiban_core::workload::Service;

/// Every figure of a part that exists is named by a test: `/// C23: ...` above it.
#[test]
fn every_commitment_of_an_existing_part_is_named_by_a_test() {
    let named: BTreeSet<String> = workspace().flat_map(|file| named_in(&fs::read_to_string(file).unwrap())).collect();
    assert!(named.contains("C23"), "the search finds what is there");
    for commitment in TABLE.iter().filter(|c| c.kept_by.exists()) {
        assert!(
            named.contains(commitment.id),
            "no test names {} ({}); put `/// {}: ...` above one",
            commitment.id,
            commitment.promise,
            commitment.id
        );
    }
}

/// What differs between services stands in their rows, so that a new one is a row.
#[test]
fn nothing_but_the_table_matches_on_services() {
    assert!(workspace().count() > 100, "the search finds what is there");
    let arms: Vec<String> = workspace()
        .filter(|file| !file.ends_with("core/src/workload.rs") && !file.ends_with("core/tests/workspace.rs"))
        .flat_map(|file| {
            let source = fs::read_to_string(&file).unwrap();
            let lines = source.lines().enumerate().filter(|(_, line)| is_arm(line));
            lines.map(|(at, line)| format!("{}:{}: {}", file.display(), at + 1, line.trim())).collect::<Vec<_>>()
        })
        .collect();
    assert!(arms.is_empty(), "give what differs a field in the rows of crates/core/src/workload.rs:\n{}", arms.join("\n"));
}

/// Whether a line is an arm of a `match` for one service, or for its name.
fn is_arm(line: &str) -> bool {
    let Some((pattern, _)) = line.split_once("=>") else { return false };
    Service::ALL.iter().any(|service| {
        let (row, variant) = (service.row(), format!("{service:?}"));
        pattern.contains(&format!("Service::{variant}")) || [row.name, row.host].iter().any(|name| pattern.contains(&format!("\"{name}\"")))
    })
}

#[test]
fn arms_are_found() {
    assert!(is_arm("        Service::Backup => 1,") && is_arm("    \"tsujiban-audit\" | \"x\" => 2,"));
    assert!(!is_arm("        let client = services.get(Service::Backup);") && !is_arm("        \"backups\" => 1,"));
}

/// What is stored, signed, sealed or on the wire keeps its name, whatever the code around it is called. A new name is added to the list, or to the
/// one in its service's folder; one that is there is never changed, since data and clients of before know it.
#[test]
fn stored_names_stay() {
    let sources: Vec<String> = workspace()
        .filter(|file| {
            file.components().any(|part| part.as_os_str() == "src")
                && !file.components().any(|part| ["e2e", "cli"].iter().any(|other| part.as_os_str() == *other))
        })
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    let lost: Vec<String> = stored_names()
        .into_iter()
        .filter(|name| {
            let table = name.split_once(": ").filter(|(service, _)| Service::of_name(service).is_some());
            match table {
                Some((service, table)) => !schema(service).contains(&format!("{table} (")),
                None => !sources.iter().any(|source| source.contains(&format!("\"{name}\""))),
            }
        })
        .collect();
    assert!(lost.is_empty(), "these names are stored or on the wire, and no source has them any more: {}", lost.join(", "));
}

/// The names of the whole workspace, and those that services list in their own folders.
fn stored_names() -> Vec<String> {
    let services = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../services");
    let own = files(&services, "txt").into_iter().filter(|file| file.ends_with("stored-names.txt"));
    let lists = own.map(|file| fs::read_to_string(file).unwrap()).chain([include_str!("stored-names.txt").to_owned()]);
    let names = lists.flat_map(|list| list.lines().map(str::to_owned).collect::<Vec<_>>());
    names.filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

/// The text of all migrations and additions of a service.
fn schema(service: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../services").join(service);
    let files = ["migrations", "schema"].into_iter().flat_map(|below| files(&folder.join(below), "sql"));
    files.flat_map(fs::read_to_string).collect()
}

/// The ids in the doc comments that stand right above a test.
fn named_in(source: &str) -> Vec<String> {
    let mut ids = Vec::new();
    let mut pending = Vec::new();
    for line in source.lines().map(str::trim) {
        if let Some(comment) = line.strip_prefix("/// ") {
            let head = comment.split(':').next().unwrap_or_default();
            pending.extend(head.split(", ").filter(|id| is_id(id)).map(str::to_owned));
        } else if line == "#[test]" || line.starts_with("#[tokio::test") {
            ids.append(&mut pending);
        } else {
            pending.clear();
        }
    }
    ids
}

fn is_id(text: &str) -> bool {
    text.strip_prefix('C').is_some_and(|number| number.parse::<u8>().is_ok_and(|n| (1..=28).contains(&n)))
}

/// Every source file.
fn workspace() -> impl Iterator<Item = PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    ["crates", "operator", "services", "cli", "e2e"].into_iter().flat_map(move |folder| files(&root.join(folder), "rs"))
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.flatten().map(|entry| entry.path());
    paths
        .flat_map(|path| if path.is_dir() { files(&path, extension) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .collect()
}
