//! Escapes text from devices, customers and servers before it is shown, so that no control character in it reaches a terminal.

/// For one line: escapes every control character, line breaks included.
pub fn escape_line(text: &str) -> String {
    escape(text, |_| false)
}

/// For several lines: escapes every control character but line breaks and tabs.
pub fn escape_text(text: &str) -> String {
    escape(text, |c| matches!(c, '\n' | '\t'))
}

/// Escapes control characters in JSON that JSON itself allows unescaped. They occur only within strings.
pub fn escape_json(json: &str) -> String {
    replace(json, |c| c == '\n', |c| c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect::<Vec<_>>().concat())
}

fn escape(text: &str, stays: impl Fn(char) -> bool) -> String {
    replace(text, stays, |c| c.escape_default().to_string())
}

fn replace(text: &str, stays: impl Fn(char) -> bool, write_out: impl Fn(char) -> String) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if stays(c) || !is_control(c) {
            safe.push(c);
        } else {
            safe.push_str(&write_out(c));
        }
    }
    safe
}

/// Control characters, and characters that change the direction of the text, break lines invisibly, or are invisible. Variation selectors
/// of kanji (U+E0100 and above) stay.
fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_no_orders() {
        assert_eq!(escape_line("a\x1b[2Jb\r\n\u{9b}c\u{7f}"), "a\\u{1b}[2Jb\\r\\n\\u{9b}c\\u{7f}");
        assert_eq!(escape_line("abc\u{202e}fed"), "abc\\u{202e}fed");
        assert_eq!(escape_line("a\u{ad}b\u{e0041}c\u{fffa}"), "a\\u{ad}b\\u{e0041}c\\u{fffa}");
        assert_eq!(escape_text("one\n\ttwo\x07"), "one\n\ttwo\\u{7}");
    }

    #[test]
    fn json_stays_json() {
        let json = serde_json::to_string_pretty(&["\x1b[2J\u{9b}\u{7f}\u{e0041}\n"]).unwrap();
        let safe = escape_json(&json);
        assert!(!safe.contains(|c: char| c != '\n' && is_control(c)), "{safe}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&safe).unwrap(), ["\x1b[2J\u{9b}\u{7f}\u{e0041}\n"]);
    }

    #[test]
    fn words_stay_as_they_are() {
        assert_eq!(escape_line("東京本社 café C:\\x"), "東京本社 café C:\\x");
        assert_eq!(escape_line("葛\u{e0100}飾区"), "葛\u{e0100}飾区");
    }
}
