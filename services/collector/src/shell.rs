//! A device's interactive shell: commands, each answered by text and the prompt.
//!
//! All commands are sent at once, so that a distant device costs one round trip and not one for each command. Nothing is sent before the
//! device shows what looks like a prompt, unless it is known to show one: it might ask for a code instead. Where its output does not
//! separate the answers, the commands are sent again, one at a time.

use std::sync::Arc;
use std::time::Duration;

use russh::client::{Handle, Handler, Msg};
use russh::{Channel, ChannelMsg, Pty};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tsujiban_core::outcome::Reason;

use crate::outcome::Step;
use crate::screen::{Screen, Tail, TooLong};

/// How long the device must be silent before the last line counts as the prompt.
const PROMPT_SETTLES: Duration = Duration::from_millis(100);
/// The same before a pager or a config without its end fails the attempt: a pause within a config must not be mistaken for either.
const FAILURE_SETTLES: Duration = Duration::from_secs(1);
/// How long a known device may show its prompt without answering before commands that were sent ahead of the prompt count as lost.
const TYPED_AHEAD_LOST: Duration = Duration::from_secs(5);
/// So wide that no line of a config is wrapped.
const COLUMNS: u32 = 511;
const ROWS: u32 = 24;

/// Output longer than this needs one of the permits for large output.
const LARGE: usize = 1 << 20;
/// How many large outputs of 16 MiB, with their copies, fit into the 256 MiB of a collector's pod beside all the small ones.
const LARGE_AT_ONCE: usize = 2;

/// The permits for large output, shared by all shells, so that a few devices that print without end do not use up the memory that the
/// others need.
#[derive(Debug, Clone)]
pub struct LargeOutputPermits(Arc<Semaphore>);

impl Default for LargeOutputPermits {
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

/// Why reading ended.
#[derive(Debug, Clone, Copy)]
enum Stop {
    Prompt,
    /// The answers cannot be separated: there are more prompts than commands, so some are text, or commands were lost.
    Ambiguous,
    /// Nothing more comes, and the last line is no prompt.
    Idle(Tail),
    Closed,
    Refused,
    TooLong(TooLong),
}

/// Whether the device is known to show its prompt at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptPolicy {
    New,
    /// The last attempt ended well.
    Known,
}

/// How long to wait for more output, and the result if none comes.
struct Wait(Duration, Stop);

pub struct Shell {
    channel: Channel<Msg>,
    screen: Screen,
    idle: Duration,
    places: LargeOutputPermits,
    place: Option<OwnedSemaphorePermit>,
    device: PromptPolicy,
}

impl Shell {
    /// Opens a shell. For a device that is not known, waits for the prompt, whatever banner precedes it.
    pub async fn open<H: Handler>(
        session: &Handle<H>,
        device: PromptPolicy,
        idle: Duration,
        places: &LargeOutputPermits,
    ) -> Result<Self, ShellError> {
        let open = async {
            let channel = session.channel_open_session().await?;
            // a device without terminals may ignore this and echo the commands: the screen removes echoes
            channel.request_pty(false, "dumb", COLUMNS, ROWS, 0, 0, &[(Pty::ECHO, 0)]).await?;
            channel.request_shell(true).await?;
            Ok(channel)
        };
        let channel = timeout(idle, open).await.map_err(|_| ShellError::NoPrompt(idle))?.map_err(ShellError::NoShell)?;
        let mut shell = Self { channel, screen: Screen::default(), idle, places: places.clone(), place: None, device };
        if device == PromptPolicy::Known {
            return Ok(shell);
        }
        let opened = shell.until(|screen| match screen.tail() {
            Tail::Prompt => Wait(Duration::ZERO, Stop::Prompt),
            tail => patience(tail, idle),
        });
        match opened.await {
            Stop::Prompt => Ok(shell),
            stop => Err(shell.not_opened(stop)),
        }
    }

    /// Runs all commands and answers what the device printed for each, without echoes and prompts. `at_end` says whether the answer to the
    /// last one is complete, so that no time is spent waiting for more.
    pub async fn run<const N: usize>(
        &mut self,
        commands: [&'static str; N],
        at_end: impl Fn(&[u8]) -> bool,
    ) -> Result<[Vec<u8>; N], ShellError> {
        self.enter(&commands).await.map_err(|stop| self.failed(stop, commands.first().copied().unwrap_or_default()))?;
        let (idle, device) = (self.idle, self.device);
        let answered = self.until(|screen| match screen.prompts_like_the_last() {
            Some(prompts) if prompts == N + 1 && at_end(screen.last_answer()) => Wait(Duration::ZERO, Stop::Prompt),
            Some(prompts) if prompts == N + 1 => Wait(FAILURE_SETTLES.min(idle), Stop::Prompt),
            Some(prompts) if prompts > N + 1 => Wait(PROMPT_SETTLES, Stop::Ambiguous),
            Some(_) if device == PromptPolicy::Known => Wait(TYPED_AHEAD_LOST.min(idle), Stop::Ambiguous),
            _ => patience(screen.tail(), idle),
        });
        match answered.await {
            Stop::Prompt => Ok(self.screen.take_all(commands)),
            Stop::Ambiguous => self.one_by_one(commands, at_end).await,
            stop => {
                let at = self.screen.prompts().clamp(1, N.max(1)) - 1;
                Err(self.failed(stop, commands.get(at).copied().unwrap_or_default()))
            }
        }
    }

    /// The same one by one: each command is sent after the prompt that follows the one before. So text is mistaken for a prompt only if the
    /// device pauses after it.
    async fn one_by_one<const N: usize>(
        &mut self,
        commands: [&'static str; N],
        at_end: impl Fn(&[u8]) -> bool,
    ) -> Result<[Vec<u8>; N], ShellError> {
        self.screen.learn();
        self.screen.clear();
        let mut answers = [const { Vec::new() }; N];
        let idle = self.idle;
        for (number, (command, answer)) in (1..).zip(commands.into_iter().zip(&mut answers)) {
            self.enter(&[command]).await.map_err(|stop| self.failed(stop, command))?;
            let answered = self.until(|screen| match screen.tail() {
                Tail::Prompt if number == N && !at_end(screen.above()) => Wait(FAILURE_SETTLES.min(idle), Stop::Prompt),
                Tail::Prompt => Wait(PROMPT_SETTLES, Stop::Prompt),
                tail => patience(tail, idle),
            });
            match answered.await {
                Stop::Prompt => *answer = self.screen.take(command),
                stop => return Err(self.failed(stop, command)),
            }
        }
        Ok(answers)
    }

    async fn enter(&mut self, commands: &[&str]) -> Result<(), Stop> {
        let lines: String = commands.iter().flat_map(|command| [command, "\n"]).collect();
        match timeout(self.idle, self.channel.data_bytes(lines.into_bytes())).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Stop::Closed),
            Err(_) => Err(Stop::Idle(Tail::Text)),
        }
    }

    fn not_opened(&self, stop: Stop) -> ShellError {
        match stop {
            Stop::Closed => ShellError::ClosedAtStart,
            Stop::Refused => ShellError::Refused,
            Stop::Idle(_) if self.screen.is_empty() => ShellError::NoPrompt(self.idle),
            _ => ShellError::NotAPrompt,
        }
    }

    fn failed(&self, stop: Stop, command: &'static str) -> ShellError {
        if !self.screen.has_prompt() {
            return self.not_opened(stop);
        }
        match stop {
            Stop::Idle(Tail::Pager) => ShellError::Paged { command },
            Stop::Idle(_) if self.screen.is_binary() => ShellError::Binary { command },
            Stop::Idle(Tail::OtherPrompt) => ShellError::PromptChanged { command },
            Stop::Idle(_) | Stop::Prompt | Stop::Ambiguous => ShellError::Silent { command, idle: self.idle },
            Stop::Closed => ShellError::Cut { command },
            Stop::Refused => ShellError::Refused,
            Stop::TooLong(source) => ShellError::Endless { command, source },
        }
    }

    /// Reads until `judge` answers a wait of zero, or nothing comes within the wait that it answers.
    async fn until(&mut self, judge: impl Fn(&Screen) -> Wait) -> Stop {
        loop {
            let Wait(time, then) = judge(&self.screen);
            if time.is_zero() {
                return then;
            }
            match timeout(time, self.channel.wait()).await {
                Ok(Some(ChannelMsg::Data { data })) => {
                    if let Err(error) = self.screen.push(&data) {
                        return Stop::TooLong(error);
                    }
                    if self.place.is_none() && self.screen.len() > LARGE {
                        // nothing is read meanwhile: SSH flow control stops the device, and its silence does not count
                        self.place = Arc::clone(&self.places.0).acquire_owned().await.ok();
                    }
                }
                Ok(None | Some(ChannelMsg::Eof | ChannelMsg::Close | ChannelMsg::ExitStatus { .. } | ChannelMsg::ExitSignal { .. })) => {
                    return Stop::Closed;
                }
                Ok(Some(ChannelMsg::Failure)) => return Stop::Refused,
                Ok(Some(_)) => {}
                Err(_) => return then,
            }
        }
    }
}

/// How long a device may be silent before its prompt has come; shorter at a pager.
fn patience(tail: Tail, idle: Duration) -> Wait {
    Wait(if tail == Tail::Pager { FAILURE_SETTLES.min(idle) } else { idle }, Stop::Idle(tail))
}
