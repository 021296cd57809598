//! Comparing and showing configs.

use similar::{ChangeTag, TextDiff};

use crate::driver::{Driver, Redaction};

/// Whether secrets are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    Hidden,
    Revealed,
}

/// The lines that decide whether a config changed, in the order in which a digest should take them in.
pub fn stable_lines(driver: Driver, text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|b| *b == b'\n').filter(move |line| !driver.is_volatile(line))
}

/// A config as it is shown to people. Bytes that are not UTF-8 are shown as U+FFFD; the stored config keeps them.
pub fn show(driver: Driver, text: &[u8], secrets: Secrets) -> String {
    let text = String::from_utf8_lossy(text);
    text.lines().map(|line| show_line(driver, line, secrets) + "\n").collect()
}

/// A unified diff with three lines of context. It is computed from the real lines, so that a changed secret shows as a
/// change, and each line is then shown with its secrets hidden.
pub fn diff(driver: Driver, old: (&str, &[u8]), new: (&str, &[u8]), secrets: Secrets) -> String {
    let (old_text, new_text) = (String::from_utf8_lossy(old.1), String::from_utf8_lossy(new.1));
    let diff = TextDiff::from_lines(old_text.as_ref(), new_text.as_ref());
    let mut shown = String::new();
    for hunk in diff.unified_diff().context_radius(3).iter_hunks() {
        if shown.is_empty() {
            shown = format!("--- {}\n+++ {}\n", old.0, new.0);
        }
        shown.push_str(&hunk.header().to_string());
        shown.push('\n');
        for change in hunk.iter_changes() {
            let sign = match change.tag() {
                ChangeTag::Equal => ' ',
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
            };
            shown.push(sign);
            shown.push_str(&show_line(driver, change.value().trim_end_matches('\n'), secrets));
            shown.push('\n');
        }
    }
    shown
}

fn show_line(driver: Driver, line: &str, secrets: Secrets) -> String {
    match (secrets, driver.redact(line)) {
        (Secrets::Hidden, Redaction::Hidden(line)) => line,
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_changed_secret_shows_as_a_change_and_stays_secret() {
        let (old, new) = (b"hostname r1\npassword old\nend\n", b"hostname r1\npassword new\nend\n");
        let shown = diff(Driver::Frr, ("a", old), ("b", new), Secrets::Hidden);
        assert_eq!(shown, "--- a\n+++ b\n@@ -1,3 +1,3 @@\n hostname r1\n-password <redacted>\n+password <redacted>\n end\n");
        assert!(diff(Driver::Frr, ("a", old), ("b", new), Secrets::Revealed).contains("+password new"));
    }

    #[test]
    fn no_difference_is_no_text() {
        assert_eq!(diff(Driver::Frr, ("a", b"x\n"), ("b", b"x\n"), Secrets::Hidden), "");
    }

    #[test]
    fn volatile_lines_do_not_count() {
        let text = b"! Last configuration change at 12:00\nhostname r1\nend\n";
        assert_eq!(stable_lines(Driver::Frr, text).collect::<Vec<_>>(), [&b"hostname r1\n"[..], b"end\n"]);
    }

    proptest! {
        #[test]
        fn what_follows_a_secret_word_never_shows(word in "(password|secret|passphrase|token|key-string)", secret in "[A-Za-z0-9]{12}", before in "[a-z ]{0,8}") {
            let line = format!("{before} {word} {secret}");
            prop_assert!(!show(Driver::Frr, line.as_bytes(), Secrets::Hidden).contains(&secret));
        }
    }
}
