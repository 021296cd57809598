//! A network namespace of our own: simulated devices get addresses that real ones could have, and nobody else's traffic is near.

use std::net::Ipv4Addr;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sched::{CloneFlags, unshare};

/// Runs `work` on a thread that is alone in a new network namespace, in which every address of `net` is local. The programs and
/// threads that it starts are in there too. The namespace goes with the last of them.
pub fn alone<T: Send>(net: (Ipv4Addr, u8), work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("no network namespace of our own; run as root, with CAP_SYS_ADMIN")?;
            ip(&["link", "set", "lo", "up"])?;
            ip(&["route", "add", "local", &format!("{}/{}", net.0, net.1), "dev", "lo"])?;
            work()
        });
        inside.join().map_err(|_| anyhow!("the thread in the network namespace panicked"))?
    })
}

fn ip(words: &[&str]) -> Result<()> {
    let status = Command::new("ip").args(words).status().context("ip; install iproute2")?;
    ensure!(status.success(), "ip {} failed", words.join(" "));
    Ok(())
}
