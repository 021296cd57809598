//! Where a call comes from.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

const FORWARDED: HeaderName = HeaderName::from_static("x-forwarded-for");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// How long a caller's request id may be.
const REQUEST_ID_CHARS: usize = 64;
/// How many hops are followed.
const HOPS: usize = 16;

/// The address of the caller. A hop in `x-forwarded-for` counts only while all proxies behind it are trusted: anybody can write the header.
pub(super) fn address(peer: Option<SocketAddr>, headers: &HeaderMap, proxies: &[IpNet]) -> Option<IpAddr> {
    let trusted = |address: &IpAddr| proxies.iter().any(|proxy| proxy.contains(address));
    let mut address = peer?.ip().to_canonical();
    let mut hops: Vec<&str> =
        headers.get_all(FORWARDED).iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(',')).collect();
    for _ in 0..HOPS {
        if !trusted(&address) {
            break;
        }
        match hops.pop().map(|hop| hop.trim().parse::<IpAddr>()) {
            Some(Ok(hop)) => address = hop.to_canonical(),
            _ => break,
        }
    }
    Some(address)
}

/// The caller's id of the request, if it is a harmless one.
pub(super) fn request_id(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get(REQUEST_ID)?.to_str().ok()?;
    let is_harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (!id.is_empty() && id.len() <= REQUEST_ID_CHARS && id.bytes().all(is_harmless)).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(peer: &str, forwarded: &[&'static str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED, value.parse().unwrap());
        }
        let proxies = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        address(Some(SocketAddr::new(peer.parse().unwrap(), 1)), &headers, &proxies).unwrap().to_string()
    }

    #[test]
    fn only_trusted_proxies_say_who_is_behind_them() {
        assert_eq!(of("192.0.2.1", &[]), "192.0.2.1");
        assert_eq!(of("192.0.2.1", &["198.51.100.1"]), "192.0.2.1", "anybody can write the header");
        assert_eq!(of("10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(of("::ffff:10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(of("10.0.0.1", &["203.0.113.7, 198.51.100.1, 10.1.1.1"]), "198.51.100.1", "the caller wrote the first");
        assert_eq!(of("10.0.0.1", &["203.0.113.7", "198.51.100.1"]), "198.51.100.1");
        assert_eq!(of("10.0.0.1", &["nonsense"]), "10.0.0.1");
        assert_eq!(of("fd00::1", &["2001:db8::1"]), "2001:db8::1");
        assert_eq!(of("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn a_request_id_is_harmless_or_none() {
        let id = |text: &str| {
            let headers = HeaderMap::from_iter([(REQUEST_ID, text.parse().unwrap())]);
            request_id(&headers).map(str::to_owned)
        };
        assert_eq!(id("0af7-651.9_x").as_deref(), Some("0af7-651.9_x"));
        for bad in ["", "a b", "a\"b", "<x>", &"a".repeat(65)] {
            assert_eq!(id(bad), None, "{bad}");
        }
    }
}
