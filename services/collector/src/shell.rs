//! A device's interactive shell: one command at a time, each answered by text and the prompt.

use std::sync::Arc;
use std::time::Duration;

use russh::client::{Handle, Handler, Msg};
use russh::{Channel, ChannelMsg, Pty};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tsujiban_core::outcome::Reason;

use crate::outcome::Step;
use crate::screen::{Screen, Tail, TooLong};

/// How long nothing more may come until the last line is believed to be the prompt.
const PROMPT_SETTLES: Duration = Duration::from_millis(100);
/// The same for a pager, which is the end of the session: a slow line of a config must not be taken for one.
const PAGER_SETTLES: Duration = Duration::from_secs(1);
/// So wide that no line of a config is wrapped.
const COLUMNS: u32 = 511;
const ROWS: u32 = 24;

/// A longer text takes a place among the large ones.
const LARGE: usize = 1 << 20;
/// So many large texts of 16 MiB, with their copies, fit into the 256 MiB of a collector's pod beside all the small ones.
const LARGE_AT_ONCE: usize = 2;

/// The places for large texts, shared by all shells, so that a few devices that print without end do not use up the memory
/// that the others need.
#[derive(Debug, Clone)]
pub struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LARGE_AT_ONCE)))
    }
}

/// Why a command has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    #[error("the device gives no shell; check the login's rights")]
    NoShell(#[source] russh::Error),
    #[error("the device refuses a shell; check the login's rights")]
    Refused,
    #[error("the device closed the session before it showed a prompt; check the login's rights")]
    ClosedAtStart,
    #[error("no prompt from the device within {} s", .0.as_secs_f32())]
    NoPrompt(Duration),
    #[error("what the device shows after the login is no prompt such as \"router# \"; check the driver and the login's shell")]
    NotAPrompt,
    #[error("the device stopped in the middle of its answer to \"{command}\" and said nothing for {} s", .idle.as_secs_f32())]
    Silent { command: &'static str, idle: Duration },
    #[error("the device's prompt changed during \"{command}\"; somebody may have renamed it, the next backup will tell")]
    PromptChanged { command: &'static str },
    #[error("the device stops page by page in its answer to \"{command}\" although it was told not to; turn paging off for the login")]
    Paged { command: &'static str },
    #[error("the device's answer to \"{command}\" is binary, not text; check the driver")]
    Binary { command: &'static str },
    #[error("the device's answer to \"{command}\" has no end; check the driver")]
    Endless { command: &'static str, source: TooLong },
    #[error("the session was cut in the middle of the answer to \"{command}\"; check the network")]
    Cut { command: &'static str },
}

impl Step for ShellError {
    fn reason(&self) -> Reason {
        match self {
            Self::NoPrompt(_) | Self::Silent { .. } => Reason::Timeout,
            Self::Cut { .. } => Reason::Truncated,
            _ => Reason::Protocol,
        }
    }
}

/// What ended the waiting for a prompt.
enum Stop {
    Prompt,
    /// Nothing more comes, and the last line is no prompt.
    Idle(Tail),
    Closed,
    Refused,
    TooLong(TooLong),
}

pub struct Shell {
    channel: Channel<Msg>,
    screen: Screen,
    idle: Duration,
    places: Places,
    place: Option<OwnedSemaphorePermit>,
}

impl Shell {
    /// Opens a shell and learns its prompt, whatever banner stands above it.
    pub async fn open<H: Handler>(session: &Handle<H>, idle: Duration, places: &Places) -> Result<Self, ShellError> {
        let open = async {
            let channel = session.channel_open_session().await?;
            // a device without terminals may ignore this: it then echoes, which the screen takes off
            channel.request_pty(false, "dumb", COLUMNS, ROWS, 0, 0, &[(Pty::ECHO, 0)]).await?;
            channel.request_shell(true).await?;
            Ok(channel)
        };
        let channel = timeout(idle, open).await.map_err(|_| ShellError::NoPrompt(idle))?.map_err(ShellError::NoShell)?;
        let mut shell = Self { channel, screen: Screen::default(), idle, places: places.clone(), place: None };
        match shell.until_prompt().await {
            Stop::Prompt => {
                shell.screen.learn();
                Ok(shell)
            }
            Stop::Idle(_) if shell.screen.is_empty() => Err(ShellError::NoPrompt(idle)),
            Stop::Idle(_) | Stop::TooLong(_) => Err(ShellError::NotAPrompt),
            Stop::Closed => Err(ShellError::ClosedAtStart),
            Stop::Refused => Err(ShellError::Refused),
        }
    }

    /// Runs a command and answers what the device printed, without echo and prompt.
    pub async fn run(&mut self, command: &'static str) -> Result<Vec<u8>, ShellError> {
        let idle = self.idle;
        let line = [command.as_bytes(), b"\n"].concat();
        match timeout(idle, self.channel.data_bytes(line)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(ShellError::Cut { command }),
            Err(_) => return Err(ShellError::Silent { command, idle }),
        }
        match self.until_prompt().await {
            Stop::Prompt => Ok(self.screen.take(command)),
            Stop::Idle(Tail::Pager) => Err(ShellError::Paged { command }),
            Stop::Idle(_) if self.screen.is_binary() => Err(ShellError::Binary { command }),
            Stop::Idle(Tail::OtherPrompt) => Err(ShellError::PromptChanged { command }),
            Stop::Idle(_) => Err(ShellError::Silent { command, idle }),
            Stop::Closed => Err(ShellError::Cut { command }),
            Stop::Refused => Err(ShellError::Refused),
            Stop::TooLong(source) => Err(ShellError::Endless { command, source }),
        }
    }

    async fn until_prompt(&mut self) -> Stop {
        loop {
            let tail = self.screen.tail();
            let wait = match tail {
                Tail::Prompt => PROMPT_SETTLES,
                Tail::Pager => PAGER_SETTLES.min(self.idle),
                Tail::OtherPrompt | Tail::Text => self.idle,
            };
            match timeout(wait, self.channel.wait()).await {
                Ok(Some(ChannelMsg::Data { data })) => {
                    if let Err(error) = self.screen.push(&data) {
                        return Stop::TooLong(error);
                    }
                    if self.place.is_none() && self.screen.len() > LARGE {
                        // the device is held back meanwhile, and its silence does not count
                        self.place = Arc::clone(&self.places.0).acquire_owned().await.ok();
                    }
                }
                Ok(None | Some(ChannelMsg::Eof | ChannelMsg::Close | ChannelMsg::ExitStatus { .. } | ChannelMsg::ExitSignal { .. })) => {
                    return Stop::Closed;
                }
                Ok(Some(ChannelMsg::Failure)) => return Stop::Refused,
                Ok(Some(_)) => {}
                Err(_) if tail == Tail::Prompt => return Stop::Prompt,
                Err(_) => return Stop::Idle(tail),
            }
        }
    }
}
