//! A simulated router: an SSH server in this process.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use russh::keys::{PrivateKey, PublicKey};
use russh::server::{Auth, ChannelOpenHandle, Config, Handle, Handler, Msg, Session, VerifiedPublicKey, run_stream};
use russh::{Channel, ChannelId, Preferred};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::sleep;

use crate::script::{Act, Script};

/// Who may log in.
#[derive(Debug, Clone)]
pub enum Login {
    Key(PublicKey),
    Password(String),
}

/// How many there are at the same time.
#[derive(Debug, Clone, Default)]
pub struct Gauge(Arc<(AtomicUsize, AtomicUsize)>);

/// One of them, until it is dropped.
pub struct Counted(Gauge);

impl Gauge {
    fn count(&self) -> Counted {
        let (now, most) = &*self.0;
        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        Counted(self.clone())
    }

    /// How many there ever were at once.
    pub fn most(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Debug, Clone)]
pub struct Router {
    pub name: String,
    pub host_keys: Vec<PrivateKey>,
    pub login: Login,
    pub script: Script,
    pub preferred: Preferred,
    /// How many logins were tried.
    pub logins: Arc<AtomicUsize>,
    pub connections: Gauge,
    pub sessions: Gauge,
    /// What came in one piece, and whether the router had shown its prompt by then.
    pub typings: Arc<Mutex<Vec<(String, bool)>>>,
}

impl Router {
    /// Serves on a free local port until the test ends.
    pub async fn listen(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = Arc::new(Config {
            keys: self.host_keys.clone(),
            preferred: self.preferred.clone(),
            auth_rejection_time: Duration::from_millis(10),
            ..Config::default()
        });
        let router = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (config, router) = (Arc::clone(&config), router.clone());
                let connected = router.connections.count();
                tokio::spawn(async move {
                    let _connected = connected;
                    if let Ok(session) = run_stream(
                        config,
                        stream,
                        Served { router, typed: Vec::new(), playing: None, greeted: Arc::default(), session: None },
                    )
                    .await
                    {
                        let _ = session.await;
                    }
                });
            }
        });
        address
    }
}

struct Served {
    router: Router,
    typed: Vec<u8>,
    /// Takes what the terminal shall do next.
    playing: Option<UnboundedSender<Vec<Act>>>,
    greeted: Arc<AtomicBool>,
    session: Option<Counted>,
}

impl Served {
    fn judge(&mut self, right: bool) -> Auth {
        self.session.get_or_insert_with(|| self.router.sessions.count());
        self.router.logins.fetch_add(1, Ordering::Relaxed);
        if right { Auth::Accept } else { Auth::reject() }
    }
}

impl Handler for Served {
    type Error = russh::Error;

    async fn auth_password(&mut self, _: &str, password: &str) -> Result<Auth, russh::Error> {
        Ok(self.judge(matches!(&self.router.login, Login::Password(right) if right == password)))
    }

    async fn auth_publickey(&mut self, _: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        let key = key.public_key.key_data();
        Ok(self.judge(matches!(&self.router.login, Login::Key(right) if right.key_data() == key)))
    }

    async fn channel_open_session(&mut self, _: Channel<Msg>, reply: ChannelOpenHandle, _: &mut Session) -> Result<(), russh::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), russh::Error> {
        session.channel_success(channel)?;
        let playing = self.playing.insert(play(session.handle(), channel, Arc::clone(&self.greeted)));
        playing.send(self.router.script.greeting(&self.router.name)).unwrap();
        Ok(())
    }

    async fn data(&mut self, _: ChannelId, data: &[u8], _: &mut Session) -> Result<(), russh::Error> {
        self.typed.extend_from_slice(data);
        let shown = self.greeted.load(Ordering::Relaxed);
        self.router.typings.lock().unwrap().push((String::from_utf8(data.to_vec()).unwrap(), shown));
        while let Some(at) = self.typed.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.typed.drain(..=at).collect();
            let line = String::from_utf8_lossy(&line);
            let _ = self.playing.as_ref().unwrap().send(self.router.script.answer(&self.router.name, line.trim()));
        }
        Ok(())
    }
}

/// A terminal: one thing after the other, whatever was typed ahead.
fn play(session: Handle, channel: ChannelId, greeted: Arc<AtomicBool>) -> UnboundedSender<Vec<Act>> {
    let (sender, mut next) = unbounded_channel::<Vec<Act>>();
    tokio::spawn(async move {
        while let Some(acts) = next.recv().await {
            for act in acts {
                match act {
                    Act::Say(text) => {
                        let _ = session.data(channel, text).await;
                    }
                    Act::Wait(time) => sleep(time).await,
                    Act::Forget => while next.try_recv().is_ok() {},
                    Act::Close => {
                        let _ = session.close(channel).await;
                    }
                    Act::Repeat(text) => while session.data(channel, text.clone()).await.is_ok() {},
                }
            }
            greeted.store(true, Ordering::Relaxed);
        }
    });
    sender
}
