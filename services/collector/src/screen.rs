//! What a device's shell has printed since the last command, and what its last line is.
//!
//! Only the last line can be a prompt. Text of a config may look like one anywhere else, and also at the end of what has arrived so far; so
//! the caller waits for more output before it relies on [`Screen::tail`].

use std::ops::Range;

use zeroize::Zeroize;

/// The longest text that a device may print for one command.
pub const LIMIT: usize = 16 << 20;
const PROMPT_LIMIT: usize = 128;
/// What pagers print in their last line, in lower case.
const PAGERS: [&str; 5] = ["--more--", "<--- more --->", "press return", "press any key", "(end)"];

/// A text longer than [`LIMIT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {} MiB for one command", LIMIT >> 20)]
pub struct TooLong;

/// What the last line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// The prompt, or before one is known, what looks like one.
    Prompt,
    /// What looks like a prompt, but is not the known one.
    OtherPrompt,
    Pager,
    Text,
}

#[derive(Debug, Default)]
pub struct Screen {
    text: Vec<u8>,
    /// Where the last line begins.
    line: usize,
    prompt: Option<Vec<u8>>,
}

impl Screen {
    pub fn push(&mut self, data: &[u8]) -> Result<(), TooLong> {
        if self.text.len() + data.len() > LIMIT {
            return Err(TooLong);
        }
        if let Some(at) = data.iter().rposition(|b| *b == b'\n') {
            self.line = self.text.len() + at + 1;
        }
        self.text.extend_from_slice(data);
        if self.prompt.is_none() && looks_like_prompt(self.last_line()) {
            self.learn();
        }
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.text.len()
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Whether a control character was printed that no text has.
    pub fn is_binary(&self) -> bool {
        self.text.iter().any(|b| (*b < 0x20 && !b"\t\r\n\x07\x08\x1b".contains(b)) || *b == 0x7f)
    }

    pub fn tail(&self) -> Tail {
        let line = self.last_line();
        match &self.prompt {
            Some(prompt) if line == prompt => Tail::Prompt,
            Some(_) if looks_like_prompt(line) => Tail::OtherPrompt,
            None if looks_like_prompt(line) => Tail::Prompt,
            _ if is_pager(line) => Tail::Pager,
            _ => Tail::Text,
        }
    }

    /// Whether something was seen that looks like a prompt.
    pub fn has_prompt(&self) -> bool {
        self.prompt.is_some()
    }

    /// Uses the last line as the device's prompt from now on. [`push`](Self::push) does so for the first line that looks like a prompt.
    pub fn learn(&mut self) {
        self.prompt = Some(self.last_line().to_vec());
    }

    /// Forgets what was printed.
    pub fn clear(&mut self) {
        self.text.zeroize();
        self.line = 0;
    }

    /// What was printed above the last line, without the echo of the command.
    pub fn take(&mut self, command: &str) -> Vec<u8> {
        let mut text = std::mem::take(&mut self.text);
        text.truncate(std::mem::take(&mut self.line));
        text.drain(..echo_of(&text, command));
        text
    }

    /// What was printed above the last line.
    pub fn above(&self) -> &[u8] {
        self.text.get(..self.line).unwrap_or_default()
    }

    /// How often a line begins with the device's prompt, after commands that were all sent at once. Where a command printed nothing, the
    /// next prompt follows in the same line, and both count.
    pub fn prompts(&self) -> usize {
        self.prompt.as_deref().map_or(0, |prompt| self.places(prompt).count())
    }

    /// The same for the last line as the prompt, if it looks like one. The first line that looked like a prompt may have been a part of the
    /// banner; the last one is the prompt.
    pub fn prompts_like_the_last(&self) -> Option<usize> {
        let line = self.last_line();
        looks_like_prompt(line).then(|| self.places(line).count())
    }

    /// Takes what was printed for each command, without echoes. Each answer lies between two prompts that equal the last line.
    pub fn take_all<const N: usize>(&mut self, commands: [&str; N]) -> [Vec<u8>; N] {
        let places: Vec<Range<usize>> = self.places(self.last_line()).collect();
        let answers = std::array::from_fn(|i| {
            let between = places.get(i).zip(places.get(i + 1)).and_then(|(before, after)| self.text.get(before.end..after.start));
            let (answer, command) = (between.unwrap_or_default(), commands.get(i).copied().unwrap_or_default());
            answer.get(echo_of(answer, command)..).unwrap_or_default().to_vec()
        });
        self.clear();
        answers
    }

    /// What was printed for the last command: between the last two prompts that equal the last line.
    pub fn last_answer(&self) -> &[u8] {
        let mut places = self.places(self.last_line());
        let Some(mut before) = places.next() else { return &[] };
        let mut after = before.clone();
        for place in places {
            before = std::mem::replace(&mut after, place);
        }
        self.text.get(before.end..after.start).unwrap_or_default()
    }

    /// Where lines begin with the prompt.
    fn places<'a>(&'a self, prompt: &'a [u8]) -> impl Iterator<Item = Range<usize>> + 'a {
        let mut at = 0;
        std::iter::from_fn(move || {
            loop {
                let rest = self.text.get(at..).filter(|rest| !rest.is_empty())?;
                let returns = rest.iter().take_while(|b| **b == b'\r').count();
                if rest.get(returns..).is_some_and(|line| line.starts_with(prompt)) {
                    let start = at;
                    at += returns + prompt.len();
                    return Some(start..at);
                }
                at += rest.iter().position(|b| *b == b'\n')? + 1;
            }
        })
    }

    /// The last line as a terminal shows it after the carriage returns in it.
    fn last_line(&self) -> &[u8] {
        let line = self.text.get(self.line..).unwrap_or_default();
        line.rsplit(|b| *b == b'\r').find(|part| !part.is_empty()).unwrap_or_default()
    }
}

/// The length of the command's echo at the beginning of a text; 0 without one.
fn echo_of(text: &[u8], command: &str) -> usize {
    let first = text.iter().position(|b| *b == b'\n').map_or(0, |at| at + 1);
    if text.get(..first).is_some_and(|line| line.trim_ascii() == command.as_bytes()) { first } else { 0 }
}

/// `NAME#` or `NAME>`, with or without a space behind.
fn looks_like_prompt(line: &[u8]) -> bool {
    let name = line.strip_suffix(b" ").unwrap_or(line);
    let name = name.strip_suffix(b"#").or_else(|| name.strip_suffix(b">"));
    name.is_some_and(|name| !name.is_empty() && line.len() <= PROMPT_LIMIT && name.iter().all(u8::is_ascii_graphic))
}

fn is_pager(line: &[u8]) -> bool {
    if line.len() > PROMPT_LIMIT {
        return false;
    }
    let line = String::from_utf8_lossy(line).to_lowercase();
    PAGERS.iter().any(|pager| line.contains(pager))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(known: Option<&str>, text: &str) -> Screen {
        let mut screen = Screen::default();
        if let Some(prompt) = known {
            screen.push(prompt.as_bytes()).unwrap();
            screen.learn();
            screen.clear();
        }
        screen.push(text.as_bytes()).unwrap();
        screen
    }

    #[test]
    fn only_the_last_line_is_a_prompt() {
        assert_eq!(screen(None, "Welcome to r9# \r\nHello, this is FRRouting\r\n\r\nr1# ").tail(), Tail::Prompt);
        assert_eq!(screen(None, "Welcome to r1# ").tail(), Tail::Text);
        assert_eq!(screen(Some("r1# "), "r1# \r\nhost").tail(), Tail::Text);
        assert_eq!(screen(Some("r1# "), " description r1# ").tail(), Tail::Text);
        assert_eq!(screen(Some("r1# "), "end\r\nr1# ").tail(), Tail::Prompt);
        assert_eq!(screen(Some("r1# "), "end\r\nr2# ").tail(), Tail::OtherPrompt);
        assert_eq!(screen(Some("r1# "), "end\r\nr1(config)# ").tail(), Tail::OtherPrompt);
    }

    #[test]
    fn pagers_are_known() {
        for pager in [" --More-- ", "WARNING: terminal is not fully functional\n-  (press RETURN)", "Press RETURN to continue", "(END)"] {
            assert_eq!(screen(Some("r1# "), pager).tail(), Tail::Pager, "{pager}");
        }
    }

    #[test]
    fn a_text_is_taken_without_echo_and_prompt() {
        assert_eq!(screen(Some("r1# "), "show x\r\na\r\nb\r\nr1# ").take("show x"), b"a\r\nb\r\n");
        assert_eq!(screen(Some("r1# "), "a\nr1# ").take("show x"), b"a\n");
        assert_eq!(screen(Some("r1# "), "r1# ").take("show x"), b"");
    }

    const ALL: [&str; 3] = ["quiet", "show a", "show b"];

    #[test]
    fn answers_stand_between_prompts() {
        for (text, second, third) in [
            ("Welcome to r9# \r\nhello\r\nr1# r1# a\r\nr1# b\r\nend\r\nr1# ", "a\r\n", "b\r\nend\r\n"),
            ("r1# quiet\r\nr1# show a\r\na\r\nr1# show b\r\nb\r\nr1# ", "a\r\n", "b\r\n"), // it echoes
            ("r1# quiet\r\nshow a\r\nshow b\r\nr1# a\r\nr1# b\r\nr1# ", "a\r\n", "b\r\n"), // its terminal does, at once
            ("\rr1# \r\rr1# a\n\rr1# b\n\rr1# ", "a\n", "b\n"),
        ] {
            let mut screen = screen(None, text);
            assert_eq!(screen.prompts_like_the_last(), Some(4), "{text:?}");
            assert_eq!(String::from_utf8_lossy(screen.last_answer()).trim_start_matches("show b\r\n"), third, "{text:?}");
            let [_, a, b] = screen.take_all(ALL);
            assert_eq!((String::from_utf8(a).unwrap().as_str(), String::from_utf8(b).unwrap().as_str()), (second, third), "{text:?}");
            assert!(screen.is_empty());
        }
    }

    #[test]
    fn prompts_are_counted_where_lines_begin() {
        let count = |text| screen(None, text).prompts_like_the_last();
        assert_eq!(count("r1# r1# a r1# \r\n r1# b\r\nr1# "), Some(3));
        assert_eq!(count("r1# r1# a\r\n"), None);
        assert_eq!(count("r1# a\r\nr2# "), Some(1), "it has another name now");
        assert_eq!(count("r1# a\r\nr1# b\r\nr1# "), Some(3), "a text that looks like a prompt cannot be told from one");
        assert_eq!(screen(Some("r1# "), "r1# a\r\nr1# b\r\nhal").prompts(), 2);
    }

    #[test]
    fn a_text_without_end_is_bounded() {
        let mut screen = Screen::default();
        let chunk = vec![b'x'; 1 << 20];
        let pushed = std::iter::repeat_with(|| screen.push(&chunk)).take_while(Result::is_ok).count();
        assert_eq!(pushed, 16);
    }
}
