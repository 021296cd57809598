//! A simulated router: an SSH server with a terminal that behaves as FRRouting's `vtysh` does behind OpenSSH. And all of them listening.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use russh::keys::PrivateKey;
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session, run_stream};
use russh::{Channel, ChannelId, MethodKind, MethodSet, Pty, SshId};
use tokio::net::TcpListener;

use super::delay::far_end;
use super::fleet::{Fleet, PASSWORD, PORT, Router, USER};

/// What a router's SSH server does: passwords alone, and no answer slower than it must be.
pub fn config(host_key: &PrivateKey) -> Config {
    Config {
        server_id: SshId::Standard("SSH-2.0-OpenSSH_9.2".into()),
        methods: MethodSet::from(&[MethodKind::Password][..]),
        // the clients of this test all know the password
        auth_rejection_time: Duration::ZERO,
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![host_key.clone()],
        ..Config::default()
    }
}

impl Fleet {
    /// Starts all routers. They end with the runtime.
    pub async fn listen(&self, latency: Duration) -> Result<()> {
        for router in &self.routers {
            let address = (IpAddr::V4(router.address), PORT);
            let listener = TcpListener::bind(address).await.with_context(|| format!("a router at {}", router.address))?;
            let config = Arc::new(config(&router.host_key));
            let router = router.clone();
            tokio::spawn(async move {
                while let Ok((near, _)) = listener.accept().await {
                    let (config, served) = (Arc::clone(&config), Served::new(router.clone()));
                    tokio::spawn(async move {
                        let Ok(far) = far_end(near, latency).await else { return };
                        if let Ok(session) = run_stream(config, far, served).await {
                            let _ = session.await; // how a client leaves is no matter
                        }
                    });
                }
            });
        }
        Ok(())
    }
}

/// A client's session with a router.
pub struct Served {
    router: Router,
    typed: Vec<u8>,
    echo: bool,
}

impl Served {
    pub fn new(router: Router) -> Self {
        Self { router, typed: Vec::new(), echo: true }
    }

    fn prompt(&self) -> String {
        format!("{}# ", self.router.name)
    }

    fn greeting(&self) -> String {
        format!("\r\nHello, this is FRRouting (version 8.4.4).\r\nCopyright 1996-2005 Kunihiro Ishiguro, et al.\r\n\r\n{}", self.prompt())
    }

    /// What the terminal shows after a line was typed. `None` ends the session.
    fn answer(&self, line: &str) -> Option<String> {
        let config = || format!("Building configuration...\n\nCurrent configuration:\n!\n{}", self.router.config());
        let text = match line {
            "exit" | "quit" => return None,
            "show running-config" | "write terminal" | "write term" => config(),
            "show version" => format!(
                "FRRouting 8.4.4 ({}) on Linux(6.1.0).\nCopyright 1996-2005 Kunihiro Ishiguro, et al.\nconfigured with:\n",
                self.router.name
            ),
            "" | "terminal length 0" | "no terminal paginate" => String::new(),
            other => format!("% Unknown command: {other}\n"),
        };
        Some(text.replace('\n', "\r\n") + &self.prompt())
    }
}

impl Handler for Served {
    type Error = russh::Error;

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, russh::Error> {
        Ok(if user == USER && password == PASSWORD { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(&mut self, _: Channel<Msg>, reply: ChannelOpenHandle, _: &mut Session) -> Result<(), russh::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.echo = !modes.contains(&(Pty::ECHO, 0));
        session.channel_success(channel)
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), russh::Error> {
        session.channel_success(channel)?;
        session.data(channel, self.greeting())
    }

    async fn data(&mut self, channel: ChannelId, data: &[u8], session: &mut Session) -> Result<(), russh::Error> {
        let mut shown = Vec::new();
        for byte in data {
            if !b"\r\n".contains(byte) {
                self.typed.push(*byte);
                shown.extend(self.echo.then_some(*byte));
                continue;
            }
            if self.echo {
                shown.extend(b"\r\n");
            }
            let line = std::mem::take(&mut self.typed);
            let Some(text) = self.answer(String::from_utf8_lossy(&line).trim()) else {
                session.data(channel, shown)?;
                session.exit_status_request(channel, 0)?;
                session.eof(channel)?;
                return session.close(channel);
            };
            shown.extend(text.as_bytes());
        }
        session.data(channel, shown)
    }
}
