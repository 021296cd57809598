//! The simulated routers, and what each of them holds.

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;
use russh::keys::PrivateKey;
use russh::keys::ssh_key::private::Ed25519Keypair;

/// All of it is the routers'.
pub const NET: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 77, 0, 0), 16);
pub const PORT: u16 = 22;
pub const USER: &str = "backup";
pub const PASSWORD: &str = "Login-to-simulated-routers";

/// A router that is simulated. Its config is decided by its number and the fleet's generation.
#[derive(Debug, Clone)]
pub struct Router {
    pub number: u16,
    pub name: String,
    pub address: Ipv4Addr,
    pub host_key: PrivateKey,
    generation: Arc<AtomicU32>,
}

impl Router {
    /// What `show running-config` answers below its heading, with line feeds.
    pub fn config(&self) -> String {
        config(&self.name, self.number, self.generation.load(Ordering::Relaxed)).unwrap_or_default()
    }

    /// The host key as OpenSSH writes it.
    pub fn public_key(&self) -> Result<String> {
        Ok(self.host_key.public_key().to_openssh()?)
    }
}

pub struct Fleet {
    pub routers: Vec<Router>,
    generation: Arc<AtomicU32>,
}

impl Fleet {
    pub fn new(routers: u16) -> Self {
        let generation = Arc::new(AtomicU32::new(1));
        let router = |number: u16| {
            let mut seed = [7; 32];
            if let Some(start) = seed.first_chunk_mut() {
                *start = number.to_be_bytes();
            }
            Router {
                number,
                name: format!("branch-{number:03}"),
                address: Ipv4Addr::from_bits(NET.0.to_bits() + u32::from(number)),
                host_key: PrivateKey::from(Ed25519Keypair::from_seed(&seed)),
                generation: Arc::clone(&generation),
            }
        };
        Self { routers: (1..=routers).map(router).collect(), generation }
    }

    /// Somebody changes each router's config, so that what is fetched from now on differs from what was fetched before.
    pub fn change(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
    }
}

/// The config of a router of a small branch: about 16 KiB.
fn config(name: &str, number: u16, generation: u32) -> Result<String, std::fmt::Error> {
    let mut text = format!("frr version 8.4.4\nfrr defaults traditional\nhostname {name}\nlog syslog informational\n");
    writeln!(text, "service integrated-vtysh-config\n!")?;
    let (high, low) = (number / 256, number % 256);
    for route in 0..160 {
        writeln!(text, "ip route 10.{}.{route}.0/24 172.20.{high}.{low}", 100 + high)?;
    }
    for interface in 0..64 {
        writeln!(text, "!\ninterface eth{interface}")?;
        writeln!(text, " description port {interface} of {name}, change {generation}\n ip address 172.21.{interface}.{low}/24\nexit")?;
    }
    writeln!(text, "!\nrouter bgp {}\n bgp router-id 172.20.{high}.{low}", 64_512 + u32::from(number % 1000))?;
    for neighbor in 1..=32 {
        writeln!(text, " neighbor 172.22.{neighbor}.1 remote-as {}", 65_000 + neighbor)?;
        writeln!(text, " neighbor 172.22.{neighbor}.1 description to branch {neighbor}")?;
    }
    writeln!(text, "exit\n!")?;
    for entry in 1..=100 {
        writeln!(text, "ip prefix-list branches seq {} permit 10.{}.{entry}.0/24", entry * 5, 100 + high)?;
    }
    writeln!(text, "!\nend")?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_router_holds_a_config_of_its_own_and_a_change_changes_all() {
        let fleet = Fleet::new(200);
        let configs = || fleet.routers.iter().map(Router::config).collect::<BTreeSet<_>>();
        let before = configs();
        assert_eq!(before.len(), 200);
        assert!(before.iter().all(|config| (12 << 10..20 << 10).contains(&config.len()) && config.ends_with("\n!\nend\n")));
        fleet.change();
        assert!(configs().is_disjoint(&before));
        let keys: BTreeSet<String> = fleet.routers.iter().map(|router| router.public_key().unwrap()).collect();
        assert_eq!(keys.len(), 200);
    }
}
