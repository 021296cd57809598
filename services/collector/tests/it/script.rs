//! What a simulated router says in its shell.

use std::time::Duration;

/// One thing that a router does.
#[derive(Debug, Clone)]
pub enum Act {
    Say(Vec<u8>),
    Wait(Duration),
    /// Closes the session.
    Close,
    /// Says the same for ever.
    Repeat(Vec<u8>),
    /// Does nothing of what it was told up to now.
    Forget,
}

/// What a router does with its config.
#[derive(Debug, Clone)]
pub enum Script {
    /// Shows it whole.
    Whole(String),
    /// Stops after some lines until somebody presses a key.
    Pager(&'static str),
    /// Shows lines without end.
    Endless,
    /// Closes the session in the middle.
    Cut,
    /// Says nothing more in the middle.
    Stall,
    /// Shows bytes that are no text.
    Junk,
    /// Shows it whole, with these bytes in the middle and a pause behind them.
    Pause(String, Duration),
    /// Has another name afterwards.
    Renamed,
    /// Knows no such command.
    Unknown,
    /// Shows no prompt, but this, and answers nothing.
    NoPrompt(&'static str),
    /// Shows it whole, under a banner that holds what looks like its prompt.
    Banner(String),
    /// Shows it whole, and its prompt only after this pause.
    Late(String, Duration),
    /// Shows it whole, but forgets what was typed before its prompt, which comes after this pause.
    Forgetful(String, Duration),
}

pub fn config(name: &str) -> String {
    format!(
        "frr version 8.4.4\nfrr defaults traditional\nhostname {name}\npassword Zebra-0815\n!\ninterface eth0\n description uplink\nexit\n!\nend\n"
    )
}

impl Script {
    pub fn whole(name: &str) -> Self {
        Self::Whole(config(name))
    }

    /// The banner and the first prompt.
    pub fn greeting(&self, name: &str) -> Vec<Act> {
        match self {
            Self::NoPrompt(text) => vec![Act::Say(text.as_bytes().to_vec())],
            Self::Banner(_) => vec![Act::Say(format!("{name}# is watched\r\nlast login: {name}# \r\n{name}# ").into_bytes())],
            Self::Late(_, pause) => vec![Act::Wait(*pause), Act::Say(format!("{name}# ").into_bytes())],
            Self::Forgetful(_, pause) => vec![Act::Wait(*pause), Act::Forget, Act::Say(format!("{name}# ").into_bytes())],
            _ => vec![
                Act::Say(b"\r\n*** Authorised access only # ***\r\nHello, this is FRRouting (version 8.4.4).\r\n\r\n".to_vec()),
                Act::Say(format!("{name}# ").into_bytes()),
            ],
        }
    }

    /// What follows on a line that was typed.
    pub fn answer(&self, name: &str, line: &str) -> Vec<Act> {
        let prompt = Act::Say(format!("{name}# ").into_bytes());
        match line {
            _ if matches!(self, Self::NoPrompt(_)) => vec![],
            "terminal length 0" => vec![Act::Say(b"% Unknown command: terminal length 0\r\n".to_vec()), prompt],
            "show version" => vec![Act::Say(format!("FRRouting 8.4.4 ({name}) on Linux(6.1.0).\r\nCopyright\r\n").into_bytes()), prompt],
            "show running-config" => self.show(name, prompt),
            _ => vec![prompt],
        }
    }

    fn show(&self, name: &str, prompt: Act) -> Vec<Act> {
        let sent = |text: &str| {
            Act::Say(format!("Building configuration...\r\n\r\nCurrent configuration:\r\n!\r\n{}", text.replace('\n', "\r\n")).into_bytes())
        };
        let config = config(name);
        let (start, end) = config.split_once(" description").unwrap();
        match self {
            Self::Whole(config) | Self::Banner(config) | Self::Late(config, _) | Self::Forgetful(config, _) => vec![sent(config), prompt],
            Self::Pager(pager) => vec![sent(start), Act::Say(pager.as_bytes().to_vec())],
            Self::Endless => vec![sent(start), Act::Repeat(b" description once more\r\n".repeat(1000))],
            Self::Cut => vec![sent(start), Act::Close],
            Self::Stall => vec![sent(start)],
            Self::Junk => vec![Act::Say((0..=255).cycle().take(20_000).collect()), Act::Say(b"\r\n".to_vec()), prompt],
            Self::Pause(text, pause) => {
                vec![
                    sent(start),
                    Act::Say(text.clone().into_bytes()),
                    Act::Wait(*pause),
                    Act::Say(format!(" description{}", end.replace('\n', "\r\n")).into_bytes()),
                    prompt,
                ]
            }
            Self::Renamed => vec![sent(&config), Act::Say(b"other# ".to_vec())],
            Self::Unknown | Self::NoPrompt(_) => vec![Act::Say(b"% Unknown command: show running-config\r\n".to_vec()), prompt],
        }
    }
}
