//! One Japanese term for each English one: docs/terms.csv has them, with the variants that are never written.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests too

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const TERMS: &str = include_str!("../../../docs/terms.csv");
const GLOSSARY: &str = include_str!("../../../docs/glossary.md");

/// Files that name the forbidden variants because they are about them.
const ABOUT_TERMS: [&str; 2] = ["docs/terms.csv", "crates/core/tests/terms.rs"];

/// For how many lines above a Japanese text its English text is looked for.
const ABOVE: usize = 2;

/// A row of docs/terms.csv.
#[derive(Debug, PartialEq, Eq)]
struct Term {
    english: &'static str,
    japanese: &'static str,
    never: Vec<&'static str>,
}

#[test]
fn every_text_uses_the_japanese_terms_of_the_list() {
    let (root, terms) = (root(), terms());
    let texts: Vec<(PathBuf, String)> =
        files(&root).into_iter().filter_map(|file| Some((file.clone(), fs::read_to_string(file).ok()?))).collect();
    let japanese = texts.iter().filter(|(_, text)| text.contains('の')).count();
    assert!(japanese >= 5, "the search finds Japanese texts: {japanese}");
    let found: Vec<String> = texts
        .iter()
        .flat_map(|(file, text)| {
            let path = file.strip_prefix(&root).unwrap().display().to_string();
            variants(&terms, text).into_iter().map(move |(line, advice)| format!("{path}:{line}: {advice}"))
        })
        .collect();
    assert!(found.is_empty(), "these are not the terms of docs/terms.csv:\n{}", found.join("\n"));
}

#[test]
fn the_list_is_in_order_and_has_each_term_once() {
    let terms = terms();
    assert!(terms.len() > 20 && terms.is_sorted_by(|a, b| a.english < b.english), "sort docs/terms.csv by its English terms");
    let japanese: BTreeSet<&str> = terms.iter().map(|term| term.japanese).collect();
    assert_eq!(japanese.len(), terms.len(), "two English terms have the same Japanese one");
    let wrong: Vec<&Term> = terms.iter().filter(|term| term.japanese.is_empty() || term.never.contains(&term.japanese)).collect();
    assert_eq!(wrong, Vec::<&Term>::new());
}

#[test]
fn every_word_of_the_glossary_has_a_japanese_term() {
    let words = GLOSSARY.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    let words: Vec<&str> = words.skip(1).flat_map(|cell| cell.split(", ")).collect();
    assert!(words.contains(&"device"), "the glossary is read: {words:?}");
    let terms = terms();
    let missing: Vec<&str> = words.into_iter().filter(|word| terms.iter().all(|term| term.english != *word)).collect();
    assert!(missing.is_empty(), "give these a row in docs/terms.csv: {missing:?}");
}

#[test]
fn variants_are_found() {
    let terms = terms();
    let lines = |text: &str| -> Vec<usize> { variants(&terms, text).into_iter().map(|(line, _)| line).collect() };
    assert_eq!(lines("企業と機器を宣言する"), [1]);
    assert_eq!(lines("a device\n装置\nルータと機材"), [3, 3]);
    assert_eq!(lines("運用担当が記す"), [1], "a part of the term is not the term");
    assert_eq!(lines("運用担当者が記す。ルーターとクラスター"), [0; 0], "a part of the term is allowed in it");
    assert_eq!(lines("デバイスのホスト鍵"), [1], "a device is no client device");
    assert_eq!(lines("en: \"A new client device\",\nja: \"新しいデバイス\""), [0; 0]);
    let (_, advice) = variants(&terms, "機器").remove(0);
    assert_eq!(advice, "機器 is not the term for \"device\"; write 装置");
}

/// The variants in a text, each with its line, from 1, and what to write instead.
///
/// A variant that is the term for something else, as デバイス is for a client device, may stand where the English text beside it says so: in
/// the same line, or in one of the lines right above it.
fn variants(terms: &[Term], text: &str) -> Vec<(usize, String)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| !line.is_ascii()) {
        for term in terms {
            let rest = line.replace(term.japanese, "\u{0}");
            // a variant that holds another one is found once
            let mut seen: Vec<&str> = term.never.iter().copied().filter(|variant| rest.contains(variant)).collect();
            let all = seen.clone();
            seen.retain(|variant| !all.iter().any(|other| other != variant && other.contains(variant)));
            for variant in seen {
                let other = terms.iter().find(|other| other.japanese == variant).map(|other| other.english);
                let beside = lines.get(at.saturating_sub(ABOVE)..=at).unwrap_or_default();
                if other.is_some_and(|other| beside.iter().any(|line| line.contains(other))) {
                    continue;
                }
                let advice = format!("{variant} is not the term for \"{}\"; write {}", term.english, term.japanese);
                let advice = match other {
                    Some(other) => format!("{advice}, or say \"{other}\" in the English text right above it"),
                    None => advice,
                };
                found.push((at + 1, advice));
            }
        }
    }
    found
}

fn terms() -> Vec<Term> {
    let rows = TERMS.lines().skip(1).map(|line| line.split(',').collect::<Vec<_>>());
    rows.map(|cells| match cells.as_slice() {
        [english, japanese, never] => Term { english, japanese, never: never.split(';').filter(|variant| !variant.is_empty()).collect() },
        _ => panic!("a row of docs/terms.csv has three cells: {cells:?}"),
    })
    .collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Every file of the repository that may hold text for people. What is built and what is not text is left out.
fn files(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_left_out = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name == "target" || name.starts_with('.') || ABOUT_TERMS.iter().any(|about| path.ends_with(about)) || path.is_symlink()
    };
    paths.filter(|path| !is_left_out(path)).flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
