//! Which addresses a device may have (C7, C13).
//!
//! A group declares its device networks. None of them may touch the cluster's own ranges, and no connection may go to an
//! address outside them, whatever a name resolves to.

use std::net::IpAddr;

use ipnet::IpNet;

/// Ranges in which no device stands, on any cluster: loopback, link-local with the metadata services, multicast, reserved.
const NEVER: [&str; 11] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/128",
    "::1/128",
    "fe80::/10",
    "fd00:ec2::254/128",
    "fd20:ce::254/128",
    "ff00::/8",
];

/// Why an address or network is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("{0} touches {1}, which belongs to the cluster or is never a device's")]
    Forbidden(String, IpNet),
    #[error("{0} is in none of the group's device networks")]
    Undeclared(IpAddr),
    #[error("port {0} is not one of the group's device ports")]
    Port(u16),
    #[error("{0:?} is not a network such as 192.0.2.0/24")]
    NotANetwork(String),
}

/// Ranges that no group may declare and no connection may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forbidden(Vec<IpNet>);

impl Forbidden {
    /// The ranges of this cluster (pods, services, nodes) besides those that are never a device's.
    pub fn new(cluster: impl IntoIterator<Item = IpNet>) -> Self {
        let never = NEVER.iter().filter_map(|net| net.parse().ok());
        Self(never.chain(cluster).collect())
    }

    pub fn ranges(&self) -> &[IpNet] {
        &self.0
    }

    /// The forbidden ranges that lie inside `net`, for a policy's `except`.
    pub fn inside(&self, net: &IpNet) -> Vec<IpNet> {
        self.0.iter().filter(|range| net.contains(*range)).copied().collect()
    }

    /// Refuses a network that overlaps a forbidden range.
    pub fn check_network(&self, net: &IpNet) -> Result<(), Refused> {
        match self.0.iter().find(|range| range.contains(net) || net.contains(*range)) {
            Some(range) => Err(Refused::Forbidden(net.to_string(), *range)),
            None => Ok(()),
        }
    }

    /// Refuses an address in a forbidden range, also one in the form of an IPv4-mapped IPv6 address.
    pub fn check_address(&self, ip: IpAddr) -> Result<(), Refused> {
        let ip = ip.to_canonical();
        match self.0.iter().find(|range| range.contains(&ip)) {
            Some(range) => Err(Refused::Forbidden(ip.to_string(), *range)),
            None => Ok(()),
        }
    }
}

/// Where one group's devices may be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceNetworks {
    pub forbidden: Forbidden,
    pub declared: Vec<IpNet>,
    pub ports: Vec<u16>,
}

impl DeviceNetworks {
    /// The address to dial, or why it must not be dialled.
    pub fn check(&self, ip: IpAddr, port: u16) -> Result<IpAddr, Refused> {
        let ip = ip.to_canonical();
        self.forbidden.check_address(ip)?;
        if !self.declared.iter().any(|net| net.contains(&ip)) {
            return Err(Refused::Undeclared(ip));
        }
        if !self.ports.contains(&port) {
            return Err(Refused::Port(port));
        }
        Ok(ip)
    }
}

/// Reads a network and drops host bits, so that `10.1.2.3/8` becomes `10.0.0.0/8`.
pub fn network(text: &str) -> Result<IpNet, Refused> {
    text.parse::<IpNet>().map(|net| net.trunc()).map_err(|_| Refused::NotANetwork(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> Forbidden {
        Forbidden::new(["10.244.0.0/16", "10.96.0.0/16"].map(|n| n.parse().unwrap()))
    }

    #[test]
    fn every_built_in_range_is_read() {
        assert_eq!(Forbidden::new([]).ranges().len(), NEVER.len());
    }

    #[test]
    fn a_network_around_or_inside_the_cluster_is_refused() {
        for bad in ["0.0.0.0/0", "10.0.0.0/8", "10.244.3.0/24", "127.0.0.1/32", "169.254.169.254/32", "::/0", "fe80::/64"] {
            assert!(cluster().check_network(&network(bad).unwrap()).is_err(), "{bad}");
        }
        assert!(cluster().check_network(&network("172.20.1.0/24").unwrap()).is_ok());
    }

    #[test]
    fn addresses() {
        let nets = DeviceNetworks { forbidden: cluster(), declared: vec!["172.20.1.0/24".parse().unwrap()], ports: vec![22] };
        let check = |ip: &str, port| nets.check(ip.parse().unwrap(), port);
        assert!(check("172.20.1.9", 22).is_ok());
        assert!(check("::ffff:172.20.1.9", 22).is_ok());
        assert_eq!(check("172.20.1.9", 23), Err(Refused::Port(23)));
        assert!(matches!(check("172.20.2.9", 22), Err(Refused::Undeclared(_))));
        assert!(matches!(check("::ffff:10.96.0.1", 22), Err(Refused::Forbidden(..))));
        assert!(matches!(check("::ffff:127.0.0.1", 22), Err(Refused::Forbidden(..))));
    }
}
