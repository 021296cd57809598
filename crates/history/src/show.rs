//! Escapes text from operations for people: control characters, invisible characters, and characters that change the direction of writing.
//! Bodies are stored as they were typed; all code that shows them calls these functions.

pub use tsujiban_core::escape::{escape_json, escape_line, escape_text};

/// The first `most` characters, on one line.
pub fn excerpt(text: &str, most: usize) -> String {
    let mut shown = escape_line(&text.chars().take(most).collect::<String>());
    if text.chars().nth(most).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_short_and_safe() {
        assert_eq!(excerpt("日本\x1b[2J", 3), "日本\\u{1b}…");
        assert_eq!(excerpt("日本", 2), "日本");
    }
}
