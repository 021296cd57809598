//! A router that lets everybody in and then misbehaves: `strange-router ADDRESS:PORT BEHAVIOUR`.
//!
//! It has FRR's prompt and answers `show running-config` as the behaviour says. What real routers do is tested with real ones.

use std::net::SocketAddr;
use std::sync::Arc;
use std::{env, iter};

use anyhow::{Context, Result, bail};
use russh::keys::PrivateKey;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Server, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId};
use tokio::net::TcpListener;

const PROMPT: &str = "strange# ";
const HEAD: &str =
    "Building configuration...\r\n\r\nCurrent configuration:\r\n!\r\nfrr version 8.4.4\r\nfrr defaults traditional\r\nhostname strange\r\n";
const TAIL: &str = "!\r\nend\r\n";

#[derive(Clone, Copy)]
enum Behaviour {
    /// Asks for a key press after each page, for ever.
    EndlessPager,
    /// Ends the connection in the middle of the config.
    CutStream,
    /// Sends nothing any more.
    Silent,
    /// Sends a whole config of 5 MB.
    Large,
    /// Sends bytes that are no text.
    Junk,
    /// Sends all but the end of the config, and its prompt.
    NoEnd,
}

impl Behaviour {
    fn from_name(name: &str) -> Result<Self> {
        Ok(match name {
            "endless-pager" => Self::EndlessPager,
            "cut-stream" => Self::CutStream,
            "silent" => Self::Silent,
            "large" => Self::Large,
            "junk" => Self::Junk,
            "no-end" => Self::NoEnd,
            other => bail!("no behaviour {other:?}"),
        })
    }

    /// What follows `show running-config`, and whether the connection then ends.
    fn answer(self) -> (Vec<u8>, bool) {
        let line = |n: usize| format!("ip route 10.{}.{}.0/24 Null0\r\n", n / 256 % 256, n % 256);
        let lines = |count: usize| (0..count).map(line).collect::<Vec<_>>().concat();
        match self {
            Self::EndlessPager => (format!("{HEAD}{}--More-- ", lines(20)).into_bytes(), false),
            Self::CutStream => (format!("{HEAD}{}ip ro", lines(1000)).into_bytes(), true),
            Self::Silent => (Vec::new(), false),
            Self::Large => (format!("{HEAD}{}{TAIL}{PROMPT}", lines(5_000_000 / 29)).into_bytes(), false),
            Self::Junk => {
                let junk: Vec<u8> = (0..4096_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
                ([HEAD.as_bytes(), &junk, b"\r\n", TAIL.as_bytes(), PROMPT.as_bytes()].concat(), false)
            }
            Self::NoEnd => (format!("{HEAD}{}{PROMPT}", lines(987)).into_bytes(), false),
        }
    }
}

#[derive(Clone)]
struct Router {
    behaviour: Behaviour,
    typed: Vec<u8>,
    paging: bool,
}

impl Server for Router {
    type Handler = Self;
    fn new_client(&mut self, _: Option<SocketAddr>) -> Self {
        self.clone()
    }
}

impl Handler for Router {
    type Error = russh::Error;

    async fn auth_password(&mut self, _: &str, _: &str) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn auth_publickey(&mut self, _: &str, _: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(&mut self, _: Channel<Msg>, reply: ChannelOpenHandle, _: &mut Session) -> Result<(), Self::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        session.channel_success(channel)?;
        session.data(channel, PROMPT)
    }

    async fn data(&mut self, channel: ChannelId, data: &[u8], session: &mut Session) -> Result<(), Self::Error> {
        if self.paging {
            let page: String = iter::repeat_n("ip route 192.0.2.0/24 Null0\r\n", 20).collect();
            return session.data(channel, format!("\r{page}--More-- "));
        }
        self.typed.extend_from_slice(data);
        while let Some(end) = self.typed.iter().position(|b| *b == b'\n' || *b == b'\r') {
            let line: Vec<u8> = self.typed.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line).trim().to_owned();
            if line.starts_with("show running-config") {
                let (answer, ends) = self.behaviour.answer();
                self.paging = matches!(self.behaviour, Behaviour::EndlessPager);
                session.data(channel, answer)?;
                if ends {
                    session.eof(channel)?;
                    session.close(channel)?;
                }
            } else if line.starts_with("show version") {
                session.data(channel, format!("FRRouting 8.4.4 (strange).\r\n{PROMPT}"))?;
            } else if !line.is_empty() {
                session.data(channel, PROMPT)?;
            }
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let usage = "usage: strange-router ADDRESS:PORT BEHAVIOUR";
    let (address, behaviour) = (env::args().nth(1).context(usage)?, env::args().nth(2).context(usage)?);
    let mut router = Router { behaviour: Behaviour::from_name(&behaviour)?, typed: Vec::new(), paging: false };
    let key = PrivateKey::new(KeypairData::Ed25519(Ed25519Keypair::from_seed(&[7; 32])), "")?;
    println!("{}", key.public_key().to_openssh()?);
    let socket = TcpListener::bind(&address).await.with_context(|| format!("cannot listen on {address}"))?;
    let config = Arc::new(Config { keys: vec![key], ..Config::default() });
    Ok(router.run_on_socket(config, &socket).await?)
}
