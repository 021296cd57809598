//! FRRouting. Syntax: the FRR user guide, command references of zebra, bgpd, ospfd, ospf6d, isisd, ripd, eigrpd, ldpd, nhrpd.

use super::{Defect, REDACTED, Redaction};

const BEGINNING: &str = "frr version";
const END: &str = "end";
const AROUND: [&[u8]; 2] = [b"Building configuration...", b"Current configuration:"];
const VOLATILE: [&str; 3] = ["! Last configuration change", "! NVRAM config last updated", "! Current time"];

pub(super) fn clean(sent: &[u8]) -> Vec<u8> {
    let lines = sent.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let kept: Vec<&[u8]> = lines.skip_while(|line| line.is_empty() || AROUND.contains(line)).collect();
    let mut text = kept.join(&b'\n');
    while text.last() == Some(&b'\n') {
        text.pop();
    }
    if !text.is_empty() {
        text.push(b'\n');
    }
    text
}

pub(super) fn check_whole(text: &[u8]) -> Result<(), Defect> {
    let mut lines = text.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    if !lines.by_ref().take_while(|line| !line.starts_with(b"hostname")).any(|line| line.starts_with(BEGINNING.as_bytes())) {
        return Err(Defect::NoBeginning { expected: BEGINNING });
    }
    if !text.ends_with(b"\nend\n") {
        return Err(Defect::NoEnd { expected: END });
    }
    Ok(())
}

pub(super) fn is_at_end(sent: &[u8]) -> bool {
    sent.ends_with(b"\nend\r\n") || sent.ends_with(b"\nend\n")
}

pub(super) fn is_volatile(line: &[u8]) -> bool {
    VOLATILE.iter().any(|start| line.starts_with(start.as_bytes()))
}

/// Commands whose last part is secret. `*` stands for one word, `?` for the optional words `8`, `7`, `0`, `clear` and `md5`
/// that say how the secret is written. Everything after the pattern is hidden.
const SECRET: &[&str] = &[
    "password ?",
    "enable password ?",
    "username * password ?",
    "neighbor * password",
    "ip ospf authentication-key",
    "ip ospf authentication-key *",
    "ip ospf message-digest-key * md5",
    "area * virtual-link * authentication-key",
    "area * virtual-link * message-digest-key * md5",
    "ipv6 ospf6 authentication key-id * hash-algo * key",
    "ip rip authentication string",
    "ip nhrp authentication",
    "isis password ?",
    "area-password ?",
    "domain-password ?",
    "key-string",
    "snmp-server community",
];

/// Commands that have a secret-like word and no secret.
const HARMLESS: &[&str] = &[
    "service password-encryption",
    "key chain *",
    "key *",
    "ip rip authentication mode",
    "ip rip authentication key-chain *",
    "ip ospf authentication",
    "ipv6 ospf6 authentication keychain *",
    "area * authentication",
    "cryptographic-algorithm *",
    "send-lifetime",
    "accept-lifetime",
    "bgp community",
    "bgp large-community-list",
    "bgp extcommunity-list",
    "match community",
    "match large-community",
    "match extcommunity",
    "set community",
    "set large-community",
    "set extcommunity",
    "neighbor * send-community",
    "no neighbor * send-community",
];

const SECRET_LIKE: [&str; 14] =
    ["password", "passwd", "passphrase", "secret", "key", "psk", "token", "community", "credential", "auth", "md5", "sha", "hash", "pin"];

const WRITTEN_AS: [&str; 5] = ["0", "7", "8", "clear", "md5"];

pub(super) fn redact(line: &str) -> Redaction {
    let indent = line.len() - line.trim_start().len();
    let words = words(line);
    if let Some(end) = SECRET.iter().filter_map(|pattern| matched(pattern, &words, true)).min() {
        return hide_from(line, end);
    }
    if HARMLESS.iter().any(|pattern| matched(pattern, &words, false).is_some_and(|end| plain_tail(line.get(end..)))) {
        return Redaction::Plain;
    }
    let comment = line.get(indent..).is_some_and(|l| l.starts_with('!'));
    match words.iter().find(|(_, word)| is_secret_like(word)) {
        Some((at, _)) if comment => hide_from(line, *at),
        Some((at, word)) => hide_from(line, at + word.len()),
        None => Redaction::Plain,
    }
}

/// The words of a line and where they start, in bytes.
fn words(line: &str) -> Vec<(usize, &str)> {
    let mut rest = line;
    let mut found = Vec::new();
    while let Some(start) = rest.find(|c: char| !c.is_whitespace()) {
        let tail = rest.get(start..).unwrap_or_default();
        let len = tail.find(char::is_whitespace).unwrap_or(tail.len());
        found.push((line.len() - tail.len(), tail.get(..len).unwrap_or_default()));
        rest = tail.get(len..).unwrap_or_default();
    }
    found
}

/// Where the matched part ends, in bytes, when the line starts with the pattern. With `more`, something must follow.
fn matched(pattern: &str, words: &[(usize, &str)], more: bool) -> Option<usize> {
    let mut words = words.iter().peekable();
    if words.peek().is_some_and(|(_, word)| *word == "no") {
        words.next();
    }
    let mut end = 0;
    for want in pattern.split(' ') {
        if want == "?" {
            if let Some((at, word)) = words.next_if(|(_, word)| WRITTEN_AS.contains(word)) {
                end = at + word.len();
            }
            continue;
        }
        let (at, word) = words.next()?;
        if want != "*" && want != *word {
            return None;
        }
        end = at + word.len();
    }
    (!more || words.peek().is_some()).then_some(end)
}

fn plain_tail(tail: Option<&str>) -> bool {
    tail.is_some_and(|tail| !words(tail).iter().any(|(_, word)| is_secret_like(word)) || tail.trim() == "message-digest")
}

fn is_secret_like(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    word.split(|c: char| !c.is_ascii_alphanumeric()).any(|part| {
        SECRET_LIKE.iter().any(|like| part == *like || (like.len() > 4 && part.contains(like)) || part.strip_suffix('s') == Some(like))
    })
}

fn hide_from(line: &str, end: usize) -> Redaction {
    let kept = line.get(..end).unwrap_or_default().trim_end();
    if line.get(end..).is_none_or(|tail| tail.trim().is_empty()) {
        return Redaction::Plain; // the word stands at the end of the line: nothing follows that could be a secret
    }
    let space = if kept.is_empty() { "" } else { " " };
    Redaction::Hidden(format!("{kept}{space}{REDACTED}"))
}

#[cfg(test)]
mod tests {
    use super::super::Driver::Frr;
    use super::*;

    const WHOLE: &str = "Building configuration...\r\n\r\nCurrent configuration:\r\n!\r\nfrr version 8.4.4\r\nfrr defaults traditional\r\nhostname r1\r\n!\r\nend\r\n";

    fn shown(line: &str) -> String {
        match redact(line) {
            Redaction::Plain => line.to_owned(),
            Redaction::Hidden(line) => line,
        }
    }

    #[test]
    fn a_whole_config_is_cleaned_and_accepted() {
        let text = Frr.clean(WHOLE.as_bytes());
        assert!(text.starts_with(b"!\nfrr version 8.4.4\n"));
        assert_eq!(Frr.check_whole(&text), Ok(()));
        assert!(Frr.is_at_end(WHOLE.as_bytes()) && Frr.is_at_end(&text));
    }

    #[test]
    fn whatever_is_cut_is_not_whole() {
        for cut in 0..WHOLE.len() - "nd\r\n".len() {
            let text = Frr.clean(WHOLE.get(..cut).unwrap().as_bytes());
            assert!(Frr.check_whole(&text).is_err() && !Frr.is_at_end(WHOLE.get(..cut).unwrap().as_bytes()), "cut at {cut}");
        }
        assert_eq!(Frr.check_whole(b"!\nhostname r1\nend\n"), Err(Defect::NoBeginning { expected: BEGINNING }));
        assert_eq!(Frr.check_whole(b"frr version 8\nhost\x00name\nend\n"), Err(Defect::NotText));
        assert_eq!(Frr.check_whole(b"frr version 8\ndescription the end\n"), Err(Defect::NoEnd { expected: END }));
    }

    #[test]
    fn known_secrets_are_hidden() {
        for (line, shows) in [
            ("password 8 Xyz", "password 8 <redacted>"),
            ("password hunter2", "password <redacted>"),
            ("enable password 8 Xyz", "enable password 8 <redacted>"),
            ("enable password two words", "enable password <redacted>"),
            (" neighbor 192.0.2.1 password s3cret", " neighbor 192.0.2.1 password <redacted>"),
            (" no neighbor 192.0.2.1 password s3cret", " no neighbor 192.0.2.1 password <redacted>"),
            (" ip ospf message-digest-key 1 md5 abc", " ip ospf message-digest-key 1 md5 <redacted>"),
            (" ip ospf authentication-key abc", " ip ospf authentication-key <redacted>"),
            (" isis password md5 abc", " isis password md5 <redacted>"),
            (" area-password clear abc", " area-password clear <redacted>"),
            (" ip rip authentication string abc", " ip rip authentication string <redacted>"),
            ("  key-string abc", "  key-string <redacted>"),
            (
                " ipv6 ospf6 authentication key-id 1 hash-algo md5 key abc",
                " ipv6 ospf6 authentication key-id 1 hash-algo md5 key <redacted>",
            ),
            (
                " area 0 virtual-link 192.0.2.1 message-digest-key 1 md5 abc",
                " area 0 virtual-link 192.0.2.1 message-digest-key 1 md5 <redacted>",
            ),
            ("snmp-server community public ro", "snmp-server community <redacted>"),
        ] {
            assert_eq!(shown(line), shows);
        }
    }

    #[test]
    fn unknown_lines_with_a_secret_like_word_are_hidden() {
        for line in [
            " vendor-secret abc",
            "tacacs shared-secret 7 abc",
            " psk abc",
            "api-token abc",
            " description the password is abc",
            "! password: abc",
            "key 1 abc secret abc",
        ] {
            assert!(!shown(line).contains("abc") || line.starts_with("key 1"), "{line} -> {}", shown(line));
        }
        assert!(!shown("key 1 secret abc").contains("abc"));
    }

    #[test]
    fn ordinary_lines_are_shown() {
        for line in [
            "hostname tokyo-1",
            "interface eth0",
            " description to Osaka",
            "service password-encryption",
            "key chain lan",
            " key 1",
            " neighbor 192.0.2.1 send-community both",
            " ip ospf authentication message-digest",
            "end",
            "!",
        ] {
            assert_eq!(redact(line), Redaction::Plain, "{line}");
        }
    }
}
