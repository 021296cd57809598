//! What a device's shell has printed since the last command, and what its last line is.
//!
//! Only the last line can be a prompt. The text of a config may look like one anywhere else, and also at the end of what has
//! arrived so far; so the caller waits a moment before it believes what [`Screen::tail`] says.

/// The longest text that a device may print for one command.
pub const LIMIT: usize = 16 << 20;
const PROMPT_LIMIT: usize = 128;
/// What pagers print in their last line, in lower case.
const PAGERS: [&str; 5] = ["--more--", "<--- more --->", "press return", "press any key", "(end)"];

/// A text longer than [`LIMIT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {} MiB for one command", LIMIT >> 20)]
pub struct TooLong;

/// What stands in the last line.
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
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.text.len()
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Whether something was printed that no text has.
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

    /// Takes the last line as the device's prompt from now on, and forgets what stood before it.
    pub fn learn(&mut self) {
        self.prompt = Some(self.last_line().to_vec());
        self.text.clear();
        self.line = 0;
    }

    /// What was printed above the last line, without the echo of the command.
    pub fn take(&mut self, command: &str) -> Vec<u8> {
        let mut text = std::mem::take(&mut self.text);
        text.truncate(std::mem::take(&mut self.line));
        let first = text.iter().position(|b| *b == b'\n').map_or(0, |at| at + 1);
        if text.get(..first).is_some_and(|line| line.trim_ascii() == command.as_bytes()) {
            text.drain(..first);
        }
        text
    }

    /// The last line, as it stands after the carriage returns in it.
    fn last_line(&self) -> &[u8] {
        let line = self.text.get(self.line..).unwrap_or_default();
        line.rsplit(|b| *b == b'\r').find(|part| !part.is_empty()).unwrap_or_default()
    }
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

    #[test]
    fn a_text_without_end_is_bounded() {
        let mut screen = Screen::default();
        let chunk = vec![b'x'; 1 << 20];
        let pushed = std::iter::repeat_with(|| screen.push(&chunk)).take_while(Result::is_ok).count();
        assert_eq!(pushed, 16);
    }
}
