//! Progress of long work, on standard error: one line that is rewritten on a terminal, a line now and then elsewhere.

use std::io::{self, IsTerminal, Stderr, Write};
use std::time::{Duration, Instant};

use crate::output::{escape_line, shortened};

/// The time between lines where a line cannot be rewritten.
const PAUSE: Duration = Duration::from_secs(5);
/// The least width of a terminal: a line that wraps could not be erased.
const COLUMNS: usize = 79;

/// Shows the progress of long work. When dropped, it leaves no half line behind.
#[derive(Debug)]
pub struct Progress<W: Write = Stderr> {
    out: W,
    terminal: bool,
    shown_at: Instant,
    line: String,
}

impl Progress {
    pub fn on_stderr() -> Self {
        Self::new(io::stderr(), io::stderr().is_terminal(), Instant::now())
    }
}

impl<W: Write> Progress<W> {
    fn new(out: W, terminal: bool, now: Instant) -> Self {
        Self { out, terminal, shown_at: now, line: String::new() }
    }

    /// Shows what is going on now.
    pub fn say(&mut self, text: &str) {
        self.say_at(text, Instant::now());
    }

    /// Prints a line that stays.
    pub fn note(&mut self, text: &str) {
        self.clear();
        // the line is lost when standard error is closed
        let _ = writeln!(self.out, "{}", escape_line(text));
    }

    fn say_at(&mut self, text: &str, now: Instant) {
        let text = if self.terminal { shortened(&escape_line(text), COLUMNS) } else { escape_line(text) };
        if self.line == text || (!self.terminal && now.duration_since(self.shown_at) < PAUSE) {
            return;
        }
        if self.terminal {
            let _ = write!(self.out, "\r\x1b[K{text}").and_then(|()| self.out.flush());
        } else {
            let _ = writeln!(self.out, "{text}");
        }
        (self.shown_at, self.line) = (now, text);
    }

    fn clear(&mut self) {
        if self.terminal && !self.line.is_empty() {
            let _ = write!(self.out, "\r\x1b[K").and_then(|()| self.out.flush());
        }
        self.line.clear();
    }
}

impl<W: Write> Drop for Progress<W> {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(terminal: bool, words: &[(u64, &str)]) -> String {
        let (mut out, start) = (Vec::new(), Instant::now());
        let mut progress = Progress::new(&mut out, terminal, start);
        for (second, text) in words {
            progress.say_at(text, start + Duration::from_secs(*second));
        }
        drop(progress);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_terminal_shows_one_line_that_goes_away() {
        assert_eq!(shown(true, &[(0, "one"), (0, "one"), (1, "two\n")]), "\r\x1b[Kone\r\x1b[Ktwo\\n\r\x1b[K");
    }

    #[test]
    fn a_line_does_not_wrap() {
        assert_eq!(shown(true, &[(0, &"東".repeat(60))]), format!("\r\x1b[K{}\r\x1b[K", "東".repeat(39)));
    }

    #[test]
    fn a_log_gets_a_line_every_few_seconds() {
        assert_eq!(shown(false, &[(0, "one"), (4, "two"), (5, "three"), (6, "four"), (20, "three"), (21, "five")]), "three\nfive\n");
        assert_eq!(shown(false, &[(5, "one"), (10, "two")]), "one\ntwo\n");
    }
}
