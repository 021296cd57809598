//! Every figure of a part that exists is named by a test somewhere in the workspace: `/// C23: ...` above it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tsujiban_core::commitments::TABLE;

#[test]
fn every_commitment_of_an_existing_part_is_named_by_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folders = ["crates", "operator", "services", "cli", "e2e"];
    let named: BTreeSet<String> = folders
        .iter()
        .flat_map(|folder| sources(&root.join(folder)))
        .flat_map(|file| named_in(&fs::read_to_string(file).unwrap()))
        .collect();
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

fn sources(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.flatten().map(|entry| entry.path());
    paths
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .collect()
}
